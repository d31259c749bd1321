"""A declaration proposed from two rebuilds of one's own: what differed, as exceptions.

Nothing unsafe is proposed, and no reason: why a value may differ is for a person to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec

from provenance.equality.declaration import BUILT_IN, builtin
from provenance.equality.exceptions import SUFFIXES, Except, fault
from provenance.errors import MalformedError, PolicyError, UnreadableError, one_line
from provenance.judge.comparators import apply
from provenance.judge.exceptions import by_key, fits
from provenance.judge.measured import MeasuredWeights
from provenance.judge.selection import files_differ
from provenance.loaders.keys import spelled
from provenance.measure.contents import Contents
from provenance.measure.side_files import side_differences
from provenance.weights.beside import Difference, Value
from provenance.weights.pairs import Pair

_HOW: tuple[Literal["set", "base-model"] | None, ...] = (None, "set", "base-model")


class Suggestion(msgspec.Struct, frozen=True):
    """What a declaration can take so that two models agree.

    Either the built-in declaration that covers all, ``equality``, or ``exceptions`` with empty
    reasons; ``refused`` are the differences that only an unsafe exception could be about.
    """

    equality: str | None
    exceptions: tuple[Except, ...] = ()
    refused: tuple[str, ...] = ()


def suggest(weights: MeasuredWeights) -> Suggestion:
    """Return what could be declared of the two models of *weights*, whose weights must be equal.

    Raises PolicyError where weights differ or cannot be read, or where there are none.
    """
    _check_weights(weights)
    sides = weights.sides
    for name in BUILT_IN:
        if apply(builtin(name), weights).conclusion == "match":
            return Suggestion(name)
    keys: dict[Except, dict[str, None]] = {}
    refused: list[str] = []
    beside = frozenset(sides.left.files.keys() | sides.right.files.keys())
    for pair in weights.changed:
        for member, difference in _differences(pair, weights):
            for each, found in _proposed(pair.name, member, difference, beside):
                if each is not None:
                    named = [] if found.path is None else [spelled(found.path)]
                    keys.setdefault(each, {}).update(dict.fromkeys(named))
                    continue
                left, right = found.shown
                what = ": ".join(filter(None, (pair.name, member, found.key)))
                refused.append(f"{what}: {left or 'nothing'} against {right or 'nothing'}")
    exceptions = tuple(each for base, named in keys.items() for each in _with_keys(base, [*named]))
    return Suggestion(None, exceptions, tuple(dict.fromkeys(refused)))


def _check_weights(weights: MeasuredWeights) -> None:
    for pair in weights.changed:
        if pair.weights and not pair.state and pair.both:
            read = weights.of(pair, None)
            if not isinstance(read, Contents):
                raise PolicyError("the weights cannot be compared", where=pair.name, hint=read)
    if not weights.same():
        hint = "an exception is about what is beside tensors; a rule like 'close' is about them"
        raise PolicyError("the two models do not have equal weights", hint=hint)


def _with_keys(base: Except, keys: list[str]) -> Iterator[Except]:
    for start in range(0, len(keys), 64):
        yield msgspec.structs.replace(base, keys=tuple(keys[start : start + 64]))
    if not keys:
        yield base


def _differences(pair: Pair, weights: MeasuredWeights) -> Iterable[tuple[str | None, Difference]]:
    """Return what differs in *pair*, each with the member of an archive that it is in."""
    if pair.weights and not pair.state:
        contents = weights.of(pair, None)
        found = contents.metadata if isinstance(contents, Contents) else ()
        members = {each.key for each in found if PurePosixPath(each.key).suffix in SUFFIXES}
        return by_key(members, (), found)
    try:
        if pair.both is not None:
            return ((None, each) for each in side_differences(pair, weights.sides))
    except (MalformedError, UnreadableError):
        pass
    (against,) = files_differ(pair, weights.sides)
    left, right = (
        None if it is None else Value("file", it) for it in (against.left, against.right)
    )
    return [(None, Difference("", None, left, right))]


def _proposed(
    file: str, member: str | None, found: Difference, beside: Collection[str]
) -> Iterator[tuple[Except | None, Difference]]:
    """Yield the exception, without its keys, that admits *found* or a part of it; None: none."""
    optional = found.left is None or found.right is None
    name = re.sub(r"[\[*?]", r"[\g<0>]", file)
    keys = None if found.path is None else (spelled(found.path),)
    for as_ in _HOW:
        each = Except(file=name, reason="-", keys=keys, member=member, optional=optional, as_=as_)
        reached = each.reaches(file, found.path, beside)
        if reached and fits(each, found, same_base=True) and fault(each) is None:
            yield msgspec.structs.replace(each, reason="", keys=None), found
            return
    for part in found.inside:
        yield from _proposed(file, member, part, beside)
    if not found.inside:
        yield None, found


def to_toml(
    suggestion: Suggestion,
    name: str = "mine",
    alternatives: Sequence[Sequence[Mapping[str, Any]]] = (({"equality": "tensors"},),),
) -> str:
    """Return *suggestion* as a declaration in TOML, with the rules of *alternatives*."""
    head: dict[str, object] = {"format": 1, "name": name, "version": 1}
    if suggestion.equality not in (None, "bytes", "tensors"):
        head["exceptions"] = [suggestion.equality]
    lines = _stated(head)
    for rules in alternatives:
        lines.append("[[any]]")
        lines += [line for rule in rules for line in ("[[any.all]]", *_stated(rule))]
    for each in suggestion.exceptions:
        value = msgspec.to_builtins(each)
        stated = {key: value[key] for key in sorted(value) if value[key] not in (None, False)}
        lines += ["[[except]]", *_stated(stated)]
    lines += [f"# not proposed: {one_line(each)}" for each in suggestion.refused]
    return "\n".join(lines).rstrip("\n") + "\n"


def _stated(values: Mapping[str, object]) -> list[str]:
    """Return *values* in TOML, and an empty line."""
    return [*(f"{key} = {json.dumps(it, ensure_ascii=False)}" for key, it in values.items()), ""]
