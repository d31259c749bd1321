"""Which weights each loader takes in a folder, of those that it takes in place of one another.

What a loader opens only where it is named to it (``order`` 0: variants, GGUF, ONNX) is no choice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import msgspec

from provenance.loaders.globs import Globs
from provenance.loaders.table import Opened, folded, table


class Taken(NamedTuple):
    """The set of weights that a loader takes, if any."""

    name: str = ""
    known: bool = False
    """Whether it looks for just this name, and not for any that fits a pattern."""


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """What loaders take in two models, or nothing: it is not compared with each other."""

    loaders: tuple[str, ...]
    left: str | None
    right: str | None


_Sets = Mapping[str, str]
"""Names of sets of weights, by the file that is opened."""
_Place = tuple[str, bool, str | None]
"""A folder; whether names are found whatever their case; the folder that was asked for it."""


@cache
def _chains() -> Mapping[str, Sequence[Opened]]:
    """Return which files a loader takes in place of one another: the first that is there.

    It is called by its version, too, and by what it takes them for, where that is not the model.
    """
    found: dict[str, list[Opened]] = defaultdict(list)
    for loader in table().loader:
        for each in sorted(loader.opens, key=lambda each: each.order):
            if each.order:
                part = f" ({each.part})" if each.part else ""
                found[f"{loader.name} {loader.version}{part}"].append(each)
    return found


def differing(left: _Sets, right: _Sets) -> list[tuple[str, Taken, Taken]]:
    """Return the loaders that take weights of other names in two models, and which on each side."""
    if left == right:
        return []
    mine, theirs = _by_place(left), _by_place(right)
    found: set[tuple[str, Taken, Taken]] = set()
    for place in mine.keys() | theirs.keys():
        plain = (*place[:2], None)
        one, other = ({**side.get(plain, {}), **side.get(place, {})} for side in (mine, theirs))
        pairs = ((each, one.get(each, Taken()), other.get(each, Taken())) for each in one | other)
        found.update(pair for pair in pairs if pair[1].name != pair[2].name)
    return sorted(found)


def taken_by_name(sets: _Sets) -> frozenset[str]:
    """Return the weights of *sets* that a loader takes, and looks for by their name."""
    every = (it for taken in _by_place(sets).values() for it in taken.values())
    return frozenset(it.name for it in every if it.known)


def _by_place(sets: _Sets) -> dict[_Place, dict[str, Taken]]:
    """Return what every loader takes, by its name, at each place."""
    chains = _chains()
    asked = {it: files for it, files in chains.items() if any(each.above for each in files)}
    found: dict[_Place, dict[str, Taken]] = {}
    for any_case in (False, True):
        folders = _by_folder(sets, any_case=any_case)
        for folder, inside in folders.items():
            found[folder, any_case, None] = _takes(chains, *inside, {})
            for top in {"", folder.rpartition("/")[0]} & folders.keys() - {folder}:
                found[folder, any_case, top] = _takes(asked, *inside, folders[top][0])
    return found


def _by_folder(sets: _Sets, *, any_case: bool) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Return, by folder, what is in *sets* by the files to open and by the wholes of shards.

    *any_case*: as a file system has it that does not tell capitals apart.
    """
    spelled = folded if any_case else str
    folders: dict[str, tuple[dict[str, str], dict[str, str]]] = defaultdict(lambda: ({}, {}))
    for main in sorted(sets, key=lambda name: (name == folded(name), name)):
        folder, _, last = spelled(main).rpartition("/")
        names, wholes = folders[folder]
        names[last] = sets[main]
        if sets[main] != main:
            wholes[spelled(sets[main]).rpartition("/")[2]] = sets[main]
    return folders


def _takes(
    chains: Mapping[str, Sequence[Opened]], names: _Sets, wholes: _Sets, above: _Sets
) -> dict[str, Taken]:
    """Return what *chains* take of *names*; *above* are those of the folder that was asked.

    Shards that a loader has no index for, and fails on, it takes for the *wholes* that they are.
    """
    found: dict[str, Taken] = {}
    for loader, files in chains.items():
        fitting = (it for inside in (names, wholes) for it in _fitting(files, inside, above))
        if (taken := next(fitting, None)) is not None:
            found[loader] = taken
    return found


def _fitting(files: Sequence[Opened], inside: _Sets, above: _Sets) -> Iterator[Taken]:
    for each in files:
        for names in (above, inside) if each.above else (inside,):
            if "*" not in each.file:
                if each.file in names:
                    yield Taken(names[each.file], known=not each.aside)
            elif fitting := sorted(filter(_glob(each.file).matching, names)):
                yield Taken(names[fitting[0]]) if each.first or len(fitting) == 1 else Taken()


@cache
def _glob(pattern: str) -> Globs:
    return Globs([pattern], paths=False)
