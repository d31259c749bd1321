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

MAX_DEPTH = 16
"""Folders deeper than this in a model are taken for no checkpoint."""

_Index = Mapping[str, Sequence[tuple[Claim, str, str]]]


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
    known = _Known([each for each in claims if each.training != claim.training])
    found: list[Ancestor] = []
    seen: set[str] = set()
    while (base := claim.training.recipe.base_model) is not None:
        ancestor = Ancestor(base.name, base.digest["sha256"])
        about = known.about(base)
        if not about or base.manifest in seen:
            problem = "an ancestor twice" if about else "no trusted claim about it is here"
            return (*found, msgspec.structs.replace(ancestor, problem=problem))
        before, part = about[0]
        seen.add(base.manifest)
        said = {"signer": before.opened.signer, "level": before.training.level, "part": part}
        others = len({_origin(claim) for claim, _ in about}) > 1
        problem = failure_of(before.training) or "trusted claims differ in its origin" * others
        found.append(msgspec.structs.replace(ancestor, **said, problem=problem))
        claim = before
    return tuple(found)


class _Known:
    """The claims about each set of files; those whose training did not fail come first."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self._claims = sorted(claims, key=lambda claim: failure_of(claim.training) is not None)

    def about(self, base: Input) -> list[tuple[Claim, str]]:
        """Return the claims about *base*, and which part of their models that is.

        A training may leave the files that it began with: its claim is not about them.
        """
        return _about(base, self._models) or _about(base, self._parts)

    @cached_property
    def _models(self) -> _Index:
        return _index((claim, "", claim.training.manifest) for claim in self._claims)

    @cached_property
    def _parts(self) -> _Index:
        return _index(
            (claim, name, part)
            for claim in self._claims
            for name, part in _parts_of(claim.training.manifest)
        )


def _index(described: Iterable[tuple[Claim, str, Manifest]]) -> _Index:
    found: dict[str, list[tuple[Claim, str, str]]] = {}
    for claim, part, manifest in described:
        digest = describe_input("", manifest)[0].manifest
        found.setdefault(digest, []).append((claim, part, manifest.root_digest))
    return found


def _about(base: Input, index: _Index) -> list[tuple[Claim, str]]:
    return [
        (claim, part)
        for claim, part, root_digest in index.get(base.manifest, ())
        if root_digest == base.digest["sha256"] and _origin(claim) != base.manifest
    ]


def _origin(claim: Claim) -> str:
    base = claim.training.recipe.base_model
    return base.manifest if base else ""


def _parts_of(manifest: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Yield the folders of *manifest*, and each file by itself, with their names."""
    folders: dict[str, list[FileEntry]] = {}
    for entry in manifest.entries:
        *above, last = entry.name.split("/")
        yield entry.name, Manifest((msgspec.structs.replace(entry, name=last),))
        for depth in range(1, min(len(above), MAX_DEPTH) + 1):
            folder = "/".join(above[:depth])
            within = entry.name[len(folder) + 1 :]
            folders.setdefault(folder, []).append(msgspec.structs.replace(entry, name=within))
    for name, entries in folders.items():
        yield name, Manifest(tuple(entries))
