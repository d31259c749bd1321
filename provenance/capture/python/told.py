"""What a program says of its checkpoints, digests and arguments, read strictly.

:mod:`provenance.capture.run` writes it, one record a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from provenance.capture.command import Places, record_command
from provenance.capture.run import MAX_ARGUMENTS, MAX_NAME_BYTES, MAX_SHOWN, MAX_STEP, MAX_TEXT
from provenance.capture.secrecy.redact import mark
from provenance.capture.secrecy.secrets import kind_of_name
from provenance.encoding import strict_json
from provenance.statement.training import Collected

MAX_TOLD, MAX_SETS = 16384, 16
"""Most checkpoints and most digests, sets of arguments and probes, that are kept of a run."""

_LEFT_OUT = mark("argument")
"""What the program itself writes in place of a secret."""

_ACCESS_KEY, _INDEX, _VALUES = "AKIA" + "0" * 16, re.compile(r"\.[0-9]+(?=\.|\Z)"), ("value", "1")

_TEXT = r"\A[^\ud800-\udfff]*\Z"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_BYTES, pattern=_TEXT)]
Integer = Annotated[int, msgspec.Meta(ge=-MAX_STEP, le=MAX_STEP)]
Rank = Annotated[int, msgspec.Meta(ge=0, lt=10**7)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_STEP)]
_Scalar = bool | Integer | float | Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | None


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint that the program said to have written."""

    checkpoint: Annotated[str, msgspec.Meta(max_length=4096, pattern=r"\A/[^\0\ud800-\udfff]*\Z")]
    step: Integer | None = None
    rank: Rank | None = None
    restart: Rank = 0


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The digest of something in the program; ``of`` names what a probe asks."""

    digest: Literal["initialWeights", "dataOrder", "probe"]
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    of: Name | None = None
    count: _Count = 0
    step: Integer | None = None
    rank: Rank | None = None
    restart: Rank = 0


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some of the *arguments*, a set by this name."""

    arguments: Name
    values: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=MAX_NAME_BYTES, pattern=_TEXT)], _Scalar],
        msgspec.Meta(max_length=MAX_ARGUMENTS),
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """What was told. ``arguments`` are by set and flat name, and not redacted."""

    digests: list[Digest] = field(default_factory=list)
    arguments: dict[str, dict[str, _Scalar]] = field(default_factory=dict)
    probes: set[str] = field(default_factory=set)

    def take(self, line: Digest | Arguments) -> bool:
        """Keep *line*, and tell whether there was room."""
        match line:
            case Digest(of=name) if len(self.digests) < MAX_TOLD and self._has_room(name):
                self.digests.append(line)
            case Arguments(arguments=name) if name in self.arguments or (
                len(self.arguments) < MAX_SETS
            ):
                known = self.arguments.setdefault(name, {})
                new = {n: v for n, v in line.values.items() if n not in known}
                if len(known) + len(new) > MAX_ARGUMENTS:
                    return False
                known.update(line.values)
            case _:
                return False
        return True

    def _has_room(self, probe: str | None) -> bool:
        if probe is not None and len(self.probes) < MAX_SETS:
            self.probes.add(probe)
        return probe is None or probe in self.probes

    def byproducts(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the lines of each byproduct of digests, by step and rank."""
        found: dict[str, list[Digest]] = {}
        for each in sorted(self.digests, key=lambda it: (it.step or 0, it.rank or 0)):
            name = f"{each.digest}/{each.of}" if each.of else each.digest
            found.setdefault(name, []).append(each)
        for name in sorted(found):
            rows = map(msgspec.to_builtins, found[name])
            told = ({k: v for k, v in row.items() if k not in ("digest", "of")} for row in rows)
            yield name, b"".join(strict_json.format(row) + b"\n" for row in told)

    def described(self, places: Places) -> Collected:
        """Return the collector of arguments, redacted as the words of a command are."""
        redacted = {name: _redacted(values, places) for name, values in self.arguments.items()}
        return Collected("ok", redacted)


def _redacted(values: Mapping[str, _Scalar], places: Places) -> dict[str, _Scalar]:
    """Return *values* redacted: the texts as one command, for a list may hold an option's value."""
    said = ("" if each is None or isinstance(each, bool) else str(each) for each in values.values())
    texts = list(said)
    beside = [_ACCESS_KEY] if _LEFT_OUT in texts else []  # what was left out may have been one
    words = record_command(("", *map(_whole, texts), *beside), places).arguments[1:]
    found: dict[str, _Scalar] = {}
    before = above = last = ""
    for (name, value), text, word in zip(values.items(), texts, words, strict=False):
        pair = (above, last)
        above, _, last = name.rpartition(".")
        kind = kind_of_name(_INDEX.sub("", name), text) if text else ""
        if text and pair in ((above, "name"), (above, "key"), (above, "0")) and last in _VALUES:
            kind = kind or kind_of_name(before, text)
        shown = record_command(("", _whole(name, MAX_SHOWN)), places).arguments[1]
        while shown in found:
            shown += "…"
        found[shown] = mark(kind) if kind else value if text in (word, _LEFT_OUT) else word
        before = text
    return found


def _whole(text: str, length: int = MAX_TEXT) -> str:
    """Return *text* without its last word if the program cut it: half a secret has no shape."""
    if len(text) < length:
        return text
    ends = " \n\t\"'`,;|&=(){}[]<>" if length == MAX_TEXT else "."
    return text[: max(map(text.rfind, ends)) + 1] + "…"
