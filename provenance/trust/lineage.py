"""What a model was made from, claim by claim (docs/spec/verification.md, "Where it began").

A claim states its base model by the digest of its files, with their names. The claim before it is
one, by a given key, about exactly these files, or about a model of which they are a folder or one
file: a checkpoint. Only claims are read; the files of a base model are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec

from provenance.files.manifest import FileEntry, Manifest
from provenance.statement.training import Input, describe_input
from provenance.trust.opening import Claim
from provenance.trust.outcome import failure_of


class Ancestor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A base model, with the claim about it: who signed it, its level, and what speaks against it.

    Without a ``signer`` no trusted claim is about it, as ``problem`` says. ``part`` is the folder
    or file of that claim's model which it is.
    """

    name: str
    root_digest: str
    signer: str = ""
    level: str = ""
    part: str = ""
    problem: str = ""


def trace(claim: Claim, claims: Sequence[Claim]) -> tuple[Ancestor, ...]:
    """Return what the model of *claim* was made from, the nearest first, as far as *claims* say."""
    # A training may leave the files that it began with: its own claim is not about its base.
    known = _Known([each for each in claims if each.training != claim.training])
    found: list[Ancestor] = []
    seen: set[str] = set()
    while (base := claim.training.recipe.base_model) is not None:
        ancestor = Ancestor(base.name, base.digest["sha256"])
        before, part = known.about(base) or (None, "")
        if before is None or base.manifest in seen:
            problem = "no trusted claim about it is here" if before is None else "an ancestor twice"
            return (*found, msgspec.structs.replace(ancestor, problem=problem))
        seen.add(base.manifest)
        said = {"signer": before.opened.signer, "level": before.training.level, "part": part}
        problem = failure_of(before.training) or ""
        found.append(msgspec.structs.replace(ancestor, **said, problem=problem))
        claim = before
    return tuple(found)


class _Known:
    """The claims about each set of files; those whose training did not fail come first."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = sorted(claims, key=lambda claim: failure_of(claim.training) is not None)

    def about(self, base: Input) -> tuple[Claim, str] | None:
        """Return the claim about *base*, and which part of its model that is, if there is one."""
        found = self._models.get(base.manifest) or self._parts.get(base.manifest)
        return found[:2] if found and found[2] == base.digest["sha256"] else None

    @cached_property
    def _models(self) -> Mapping[str, tuple[Claim, str, str]]:
        return self._index((claim, "", claim.training.manifest) for claim in self._claims)

    @cached_property
    def _parts(self) -> Mapping[str, tuple[Claim, str, str]]:
        return self._index(
            (claim, name, part)
            for claim in self._claims
            for name, part in _parts_of(claim.training.manifest)
        )

    @staticmethod
    def _index(
        described: Iterable[tuple[Claim, str, Manifest]],
    ) -> dict[str, tuple[Claim, str, str]]:
        found: dict[str, tuple[Claim, str, str]] = {}
        for claim, part, manifest in described:
            digest = describe_input("", manifest)[0].manifest
            found.setdefault(digest, (claim, part, manifest.root_digest))
        return found


def _parts_of(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the folders of *manifest*, and each file by itself, with their names."""
    folders: dict[str, list[FileEntry]] = {}
    for entry in manifest.entries:
        above, _, last = entry.name.rpartition("/")
        yield entry.name, Manifest((msgspec.structs.replace(entry, name=last),))
        while above:
            within = entry.name[len(above) + 1 :]
            folders.setdefault(above, []).append(msgspec.structs.replace(entry, name=within))
            above = above.rpartition("/")[0]
    for name, entries in folders.items():
        yield name, Manifest(tuple(entries))
