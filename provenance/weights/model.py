"""A model as the comparison sees it: files with sizes, grouped into what is compared as one.

A *unit* is a file, or the files that hold one set of weights: an index and its shards, or an ONNX
model with its external data. Two models are paired unit by unit, by name. What a loader takes in
one model for what it takes in the other (``model.safetensors`` for ``pytorch_model.bin``) is a pair
as well: the outcome then lists the normaliser ``weight-file-name``.

Where digests are stated, each file that is read is checked against its own. Without them, as when
two models are only looked at, nothing is hashed: whether two files are equal is found by comparing
their bytes. Either way a file must stay the one that was first looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from provenance.encoding import strict_json
from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.files.digest import hash_file
from provenance.files.manifest import Seen, sizes_of
from provenance.files.names import RESERVED
from provenance.files.reading import Identity, identity, read_file
from provenance.loaders.choice import Apart, Taken, differing, taken_by_name
from provenance.loaders.table import folded, table
from provenance.weights.names import (
    ONNX,
    brings_others,
    carries_tensors,
    suffix_of,
    weight_sets,
    whole_name,
)
from provenance.weights.opening import companions, open_tensors
from provenance.weights.sharded import ShardedFile
from provenance.weights.source import Source, same_part

if TYPE_CHECKING:
    from provenance.weights.names import WeightSet
    from provenance.weights.view import TensorFile


MAX_SETTINGS_BYTES: Final = 64 * 2**20
"""Largest settings in which names of files are looked for."""

_MAX_CONFIG: Final = 2**20
_TIED: Final = re.compile(rb'(?<!\\)"tie_word_embeddings":(\w*)')


@dataclass(frozen=True, slots=True)
class Unit:
    """What is compared as one."""

    name: str
    """Of the file, or of the whole that the files make up; parts joined by ``/``."""
    main: str
    """The file that is opened: the file itself, the index, the ONNX model."""
    files: tuple[str, ...] = field(hash=False)
    """The names of all of its files, sorted."""

    @property
    def weights(self) -> bool:
        """Whether it holds tensors."""
        return carries_tensors(self.main)

    @property
    def state(self) -> bool:
        """Whether it is the state of a training, whatever it holds."""
        return table().is_state(self.main)


@dataclass(frozen=True)
class Model:
    """A model: its folder, and the sizes of its files by name (parts joined by ``/``)."""

    root: Path
    files: Mapping[str, int]
    sha256: Mapping[str, str] | None = None
    """The digest that each file must have, in hexadecimal, where digests are stated."""
    recorded: bytes | None = None
    """The metrics that its training statement recorded, JSON lines, where that is at hand."""
    not_compared: tuple[str, ...] = ()
    """What lies in its folder and is no part of it: claims, and what other tools keep."""
    alone: bool = False
    """Whether it is one file, which somebody named to be compared with another."""
    _states: dict[str, Identity] = field(default_factory=dict)
    """The files that were looked at, as they were then."""
    confirmed: dict[str, Seen] = field(default_factory=dict)
    """The files that were read whole, with the digests stated."""

    @cached_property
    def units(self) -> Mapping[str, Unit]:
        """Return the units by name.

        A file with external data of another unit is not a unit itself, unless it could be weights
        or two units claim it: then it is compared by itself as well.
        """
        sets = weight_sets(self.files)
        data = {found.name: self._data_of(found) for found in sets}
        claims = Counter(name for names in data.values() for name in names)
        taken = {name for name, number in claims.items() if number == 1}
        units: dict[str, Unit] = {}
        for found in sets:
            main = found.index if found.index is not None else found.files[0]
            names = tuple(sorted({main, *found.files, *data[found.name]}))
            units[found.name] = Unit(found.name, main, names)
            taken |= {main, *found.files}
        rest = self.files.keys() - taken
        return units | {name: Unit(name, name, (name,)) for name in rest}

    @property
    def sets(self) -> dict[str, str]:
        """Return the names of all weights, by the file that is opened.

        States of a training too: timm takes the first `*.pth`, whatever it is.
        """
        return {unit.main: unit.name for unit in self.units.values() if unit.weights}

    def _data_of(self, found: WeightSet) -> list[str]:
        """Return the files of this model that hold the external data of *found*, a set in ONNX."""
        if found.index is not None or suffix_of(found.files[0]) != ONNX:
            return []
        folder = PurePosixPath(found.files[0]).parent
        try:
            names = companions(self.path(found.files[0]))
        except (MalformedError, UnreadableError):
            return []  # reported when the tensors are read
        whole = ((folder / name).as_posix() for name in names)
        return [name for name in whole if name in self.files]

    @cached_property
    def named(self) -> frozenset[str] | None:
        """The files in which weights say that their tensors are, and those that settings name.

        All without regard to case; None where some do not say it in a way that is read here.
        """
        if (mentioned := self._mentioned()) is None:
            return None
        lowered = map(folded, self.files)
        found = {name for name in lowered if PurePosixPath(name).name in mentioned}
        for unit in self.units.values():
            if table().consults_index(unit.main) and whole_name(unit.main) is None:
                return None  # one that loaders read, and nothing here
            try:
                names = companions(self.path(unit.main), by_name=True)
            except (MalformedError, UnreadableError):
                return None
            folder = PurePosixPath(unit.main).parent
            found.update(folded((folder / name).as_posix()) for name in names)
        return frozenset(found)

    def _mentioned(self) -> set[str] | None:
        """Return the last parts of all texts in settings, case aside; None where they are not read.

        A tokenizer's settings can name any file as its vocabulary.
        """
        found: set[str] = set()
        for name in self.files:
            if not folded(name).endswith(".json"):
                continue  # asked first: the table takes longer
            roles = {each.role for each in table().opened_by(name).values()}
            if "settings" not in roles and not ("tokenizer" in roles and "config" in folded(name)):
                continue
            try:  # as leniently as loaders do: what they read must not pass for nothing
                waiting = [json.loads(self.read(name, MAX_SETTINGS_BYTES))]
            except (ValueError, RecursionError, UnreadableError):
                return None
            while waiting:
                value = waiting.pop()
                if isinstance(value, str):
                    found.add(folded(value.rpartition("/")[2]))
                elif isinstance(value, dict | list):
                    waiting += value.values() if isinstance(value, dict) else value
        return found

    def path(self, name: str) -> Path:
        """Return where the file *name* is, which must be in the folder and as it was."""
        plain = PurePosixPath(name)
        if plain.is_absolute() or ".." in plain.parts or "\0" in name:
            raise MalformedError("the name leaves the model's folder", where=name)
        path = self.root / plain
        try:
            status = path.stat()
        except OSError as error:
            raise UnreadableError("cannot be read", where=name) from error
        if status.st_size != self.files[name]:
            raise UnreadableError("has another size than before", where=name)
        if self._states.setdefault(name, state := identity(status)) != state:
            raise ContentError("is no longer the file that was looked at", where=name)
        return path

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the file *name* in hexadecimal: as stated, or computed now."""
        if self.sha256 is not None:
            return self.sha256[name]
        try:
            return hash_file(self.path(name), follow=True)[0]
        except UnreadableError as error:  # whose `where` is a path of this machine
            raise UnreadableError(error.what, where=name, hint=error.hint) from error

    def open(self, unit: Unit, shown: str, *, later: bool = False) -> TensorFile:
        """Return the weights of *unit*, open, with the digests stated; errors call it *shown*.

        *later*: whoever reads them confirms the digests.
        """
        folder = PurePosixPath(unit.main).parent
        paths = {name: self.path(name) for name in unit.files}
        stated = None if later or self.confirmed.keys() >= {*unit.files} else self.sha256
        digests = {
            PurePosixPath(name).relative_to(folder).as_posix(): None
            if stated is None
            else stated[name]
            for name in unit.files
        }
        file = open_tensors(paths[unit.main], name=shown, sha256=digests)
        if stated is not None:
            self.confirm({name: stated[name] for name in unit.files})
        if isinstance(file, ShardedFile) and not self._consults(unit.main):
            file.set_aside_misfit()
        return file

    def confirm(self, found: Mapping[str, str]) -> None:
        """Note that files, by name, were read whole and have the digests *found*."""
        for name, sha256 in found.items():
            if self.sha256 is not None and sha256 != self.sha256[name]:
                raise ContentError("is no longer the file that was hashed", where=name)
            self.confirmed[name] = Seen(self.files[name], sha256, self._states[name])

    def check_unchanged(self, now: Mapping[str, Seen]) -> None:
        """Raise ContentError if a file that was read is not the one that there is *now*."""
        for name, state in self._states.items():
            if name not in now or now[name].identity != state:
                raise ContentError("changed while it was read", where=f"{self.root}/{name}")

    def _consults(self, index: str) -> bool:
        """Tell whether a loader may go by the *index*: not where it is known to look elsewhere."""
        known = table().consults_index(index)
        return not known or table().consults_index(index, self.files)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the bytes of the file *name*, at most *max_bytes*, with the digest stated."""
        try:
            data = read_file(self.path(name), max_bytes)
        except UnreadableError as error:  # whose `where` is a path of this machine
            raise UnreadableError(error.what, where=name, hint=error.hint) from error
        if self.sha256 is not None:
            self.confirm({name: hashlib.sha256(data).hexdigest()})
        return data

    def ties(self, folder: PurePosixPath) -> bool:
        """Tell whether the configuration in *folder* says that the output is the embedding."""
        name = (folder / "config.json").as_posix()
        try:
            config = strict_json.parse(self.read(name, _MAX_CONFIG)) if name in self.files else None
        except (MalformedError, UnreadableError):
            return False
        if not isinstance(config, dict) or config.get("tie_word_embeddings") is not True:
            return False
        return {*_TIED.findall(strict_json.format(config))} == {b"true"}  # of its parts, too


def model_of_folder(folder: Path, *, link_roots: Sequence[Path] = ()) -> Model:
    """Return the model in *folder*, of which nothing is read yet."""
    sizes = sizes_of(folder, ignore=RESERVED, link_roots=link_roots)
    if not sizes:
        raise UnreadableError("holds no files", where=str(folder))
    return Model(folder, sizes)


def model_of_file(path: Path) -> Model:
    """Return the file at *path*, and those beside it that belong to it, as a model."""
    if brings_others(path.name):
        what = "is one of several files that are loaded together"
        raise UnreadableError(what, where=str(path), hint="compare the folders")
    files = {}
    for name in (path.name, *companions(path)):
        with Source(path.parent / name) as source:
            files[name] = source.size
    return Model(path.parent, files, alone=True)


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
