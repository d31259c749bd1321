"""A model as the comparison sees it: files with sizes, grouped into what is compared as one.

A *unit* is a file, or the files that hold one set of weights: an index and its shards, or an ONNX
model with its external data.

Where digests are stated, each file that is read is checked against its own. Without them, as when
two models are only looked at, nothing is hashed: whether two files are equal is found by comparing
their bytes. Either way a file must stay the one that was first looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from provenance.encoding import strict_json
from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.files.digest import hash_file
from provenance.files.manifest import Seen, sizes_of
from provenance.files.names import RESERVED
from provenance.files.reading import Identity, identity, read_file
from provenance.loaders.table import folded, table
from provenance.weights.names import (
    ONNX,
    WeightSet,
    brings_others,
    carries_tensors,
    suffix_of,
    weight_sets,
    whole_name,
)
from provenance.weights.opening import companions, open_tensors
from provenance.weights.sharded import ShardedFile
from provenance.weights.source import Source
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
