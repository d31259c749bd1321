"""Two models side by side: which of their files are compared with one another.

Units are paired by name. What a loader takes in one model for what it takes in the other
(``model.safetensors`` for ``pytorch_model.bin``) is a pair as well: the outcome then lists the
normaliser ``weight-file-name``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import PurePosixPath

from provenance.errors import MalformedError, UnreadableError
from provenance.loaders.choice import Apart, Taken, differing, taken_by_name
from provenance.weights.model import Model, Unit
from provenance.weights.source import Source, same_part
from provenance.weights.view import TensorFile


@dataclass(frozen=True, slots=True)
class Pair:
    """Two units side by side; one is None where the other model has no counterpart."""

    left: Unit | None
    right: Unit | None
    named: bool = False
    """Whether each is the one file that the user named."""

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Return the name of both units, or their two names."""
        return tuple(dict.fromkeys(unit.name for unit in self._units))

    @property
    def name(self) -> str:
        """Return what the pair is called, which need not be unique."""
        return " | ".join(self.unit_names)

    @property
    def both(self) -> tuple[Unit, Unit] | None:
        """Return the two units, if there are two."""
        return None if self.left is None or self.right is None else (self.left, self.right)

    @property
    def weights(self) -> bool:
        """Whether either holds tensors."""
        return any(unit.weights for unit in self._units)

    @property
    def state(self) -> bool:
        """Whether it is a side file whatever its suffix: no rule selects it but by its name."""
        return not self.named and all(unit.state for unit in self._units)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names by which a file pattern can select the pair."""
        return tuple(dict.fromkeys(name for unit in self._units for name in (unit.name, unit.main)))

    @property
    def files(self) -> tuple[str, ...]:
        """Return the names of all files, sorted."""
        return tuple(sorted({name for unit in self._units for name in unit.files}))

    @property
    def files_of_both(self) -> tuple[str, ...]:
        """Return the names of the left unit's files, then of the right unit's."""
        return tuple(name for unit in self._units for name in unit.files)

    @property
    def _units(self) -> tuple[Unit, ...]:
        return tuple(unit for unit in (self.left, self.right) if unit is not None)


@dataclass(frozen=True)
class SideBySide:
    """Two models to be compared."""

    left: Model
    right: Model
    known: dict[tuple[str, ...], bool] = field(default_factory=dict, kw_only=True)
    """Whether files that were read are equal: those of the left side, then of the right."""

    @property
    def not_compared(self) -> tuple[str, ...]:
        """Return what lies in either folder and is no part of the model."""
        return tuple(sorted({*self.left.not_compared, *self.right.not_compared}))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Return the units of both, by name, and those that a loader takes for one another.

        A unit can be in several, as loaders prefer one name or another.
        """
        mine, theirs = self.left.units, self.right.units
        if self._named and len(mine) == len(theirs) == 1:
            (left,), (right,) = mine.values(), theirs.values()
            return (Pair(left, right, named=True),)
        both = {(name, name) for name in mine.keys() & theirs.keys()}
        for _, one, other in self._differing:
            if one.known and other.known:
                both.add((one.name, other.name))
        lefts, rights = {left for left, _ in both}, {right for _, right in both}
        pairs = [Pair(mine[left], theirs[right]) for left, right in both]
        pairs += [Pair(unit, None) for name, unit in mine.items() if name not in lefts]
        pairs += [Pair(None, unit) for name, unit in theirs.items() if name not in rights]
        return tuple(sorted(pairs, key=lambda pair: pair.unit_names))

    @cached_property
    def _differing(self) -> list[tuple[str, Taken, Taken]]:
        return [] if self._named else differing(self.left.sets, self.right.sets)

    def loaded(self, pair: Pair) -> bool:
        """Tell whether a loader takes either side of *pair* for what it looks for by name."""
        sides = zip((self.left, self.right), pair.both or (), strict=True)
        return any(unit.name in taken_by_name(model.sets) for model, unit in sides)

    @property
    def _named(self) -> bool:
        return self.left.alone and self.right.alone

    @cached_property
    def apart(self) -> tuple[Apart, ...]:
        """Return what loaders take on either side without its being compared with each other.

        What a loader takes on one side only, and because it fits a pattern, is left to its name.
        """
        compared = {tuple(unit.name for unit in pair.both) for pair in self.pairs if pair.both}
        alone = {pair.name for pair in self.pairs if pair.both is None}
        loaders: dict[tuple[str, str], list[str]] = defaultdict(list)
        for loader, *taken in self._differing:
            left, right = (each.name for each in taken)
            fitting = left and right and alone.isdisjoint((left, right))
            if (left, right) not in compared and (fitting or any(each.known for each in taken)):
                loaders[left, right].append(loader)
        return tuple(
            Apart(loaders=tuple(dict.fromkeys(names)), left=left or None, right=right or None)
            for (left, right), names in loaders.items()
        )

    def equal(self, pair: Pair) -> bool:
        """Tell whether the files of both units, in the order of names, are the same bytes."""
        if pair.both is None or len(pair.both[0].files) != len(pair.both[1].files):
            return False
        if pair.files_of_both not in self.known:
            names = list(zip(*(unit.files for unit in pair.both), strict=True))
            self.known[pair.files_of_both] = all(
                self.left.files[one] == self.right.files[other] for one, other in names
            ) and all(self.equal_files(one, other) for one, other in names)
        return self.known[pair.files_of_both]

    def equal_files(self, one: str, other: str) -> bool:
        """Tell whether the file *one* of the left model is *other* of the right, byte for byte."""
        if (one, other) not in self.known:
            self.known[one, other] = self._equal_files(one, other)
        return self.known[one, other]

    def _equal_files(self, one: str, other: str) -> bool:
        left, right = self.left, self.right
        if left.files[one] != right.files[other] or (left is right and one == other):
            return left.files[one] == right.files[other]
        if left.sha256 is not None and right.sha256 is not None:
            return left.sha256[one] == right.sha256[other]
        with (
            Source(left.path(one), name=f"{one} (left)") as mine,
            Source(right.path(other), name=f"{other} (right)") as theirs,
        ):
            equal = same_part(mine, theirs, 0, mine.size)
            mine.check_unchanged()
            theirs.check_unchanged()
        return equal

    def same(self, pair: Pair) -> bool:
        """Tell whether both units are there, with the same files, byte for byte."""
        if pair.both is None or pair.both[0].files != pair.both[1].files:
            return False
        return self.equal(pair)

    def renamed(self, pair: Pair) -> bool:
        """Tell whether the units have two names and the same bytes."""
        return len(pair.unit_names) > 1 and self.equal(pair)

    def unit(self, name: str | None) -> Unit | None:
        """Return the unit *name* if both models have it, with the same bytes."""
        found = self._by_name.get(name, ()) if name is not None else ()
        return next((pair.left for pair in found if self.same(pair)), None)

    @cached_property
    def _by_name(self) -> dict[str, list[Pair]]:
        found: dict[str, list[Pair]] = {}
        for pair in self.pairs:
            for name in pair.names:
                found.setdefault(name, []).append(pair)
        return found

    @cached_property
    def ranks(self) -> Callable[[Pair], tuple[dict[str, int], dict[str, int]] | str]:
        """Tell the rank of each tensor of a pair on each side, or why they cannot be read."""
        return cache(self._ranks)

    def _ranks(self, pair: Pair) -> tuple[dict[str, int], dict[str, int]] | str:
        found = []
        for model, unit in ((self.left, pair.left), (self.right, pair.right)):
            if unit is None or not unit.weights:
                found.append(dict[str, int]())
                continue
            try:
                with model.open(unit, unit.name, later=True) as file:
                    found.append({name: len(it.shape) for name, it in file.tensors.items()})
            except (MalformedError, UnreadableError) as error:
                return str(error)
        return found[0], found[1]

    def tied(self, pair: Pair) -> bool:
        """Tell whether the configurations of both models tie the weights of *pair*."""
        return all(it.ties(PurePosixPath(unit.main).parent) for it, unit, _ in self.each(pair))

    def each(self, pair: Pair) -> list[tuple[Model, Unit, str]]:
        """Return both models with their units of *pair*, and what errors call the sides."""
        return [*zip((self.left, self.right), pair.both or (), ("left", "right"), strict=True)]

    @contextmanager
    def opened(self, pair: Pair) -> Iterator[tuple[TensorFile, TensorFile]]:
        """Open both units of *pair*; when left without an error, check that neither changed."""
        if pair.both is None:
            raise UnreadableError("only one model has it", where=pair.name)
        with (
            self.left.open(pair.both[0], f"{pair.name} (left)") as left,
            self.right.open(pair.both[1], f"{pair.name} (right)") as right,
        ):
            yield left, right
            left.check_unchanged()
            right.check_unchanged()
