"""Sharded weights: an index, and beside it the shards that hold the tensors.

Format: the ``*.index.json`` of Hugging Face's transformers and huggingface_hub, an object with
``weight_map`` (a tensor's name to its shard's) and optionally ``metadata``. Each shard is read by
the reader of its own format. Checked beyond that:

- each shard holds exactly the tensors that the index places in it, and there is no other shard;
- a shard is in the index's folder and is not named as the whole (which loaders take for all weights
  before they look for an index).

An index that does not fit, such as one of another model, makes doubtful what the shards hold that
are there. All shards have one format, their metadata agree, and a tensor is in one of them.

The metadata are the shards' and, as ``index.KEY``, what the index states, each value as JSON.
``total_size`` where it is the sum of the tensors' bytes (huggingface_hub counts tensors that share
storage once, other writers each time), and ``total_parameters`` where it is the number of elements,
follow from the tensors and are left out. A shard not named like
``model-00001-of-00005.safetensors`` could be loaded by itself: ``shards`` lists such names. The
container fact ``sharding`` is the SHA-256 of the index; where the shards do not all state the same
keys, the digest of it and of these. A fact of the shards' format is their common value, or the
digest of all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import RLock
from typing import Any, Final

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UnreadableError, cut
from provenance.files import names
from provenance.files.reading import identity, unreadable
from provenance.loaders.table import folded
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.view import (
    Placed,
    SourceFile,
    TensorFile,
    TensorInfo,
    check_count,
    fact_digest,
)

Opener = Callable[[Path, str, str | None], TensorFile]
"""Opens the file at a path: what errors call it, and the SHA-256 that it should have."""

MAX_INDEX: Final = 64 * 2**20
"""Longest index, in bytes. One of 100,000 tensors has about 15 MB."""

MAX_SHARDS: Final = 10_000
"""Most shards. The largest published models have some hundred."""

MAX_OPEN: Final = 64
"""Most shards that are kept open, beside those that are being read: three models side by side stay
within the 256 descriptors that macOS allows a process."""

_SUFFIX: Final = ".index.json"
_KEYS: Final = frozenset({"metadata", "weight_map"})
_MAX_DEPTH: Final = 16


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """An index, read."""

    shards: Mapping[str, frozenset[str]]
    """The tensors of each shard, by name, sorted."""
    metadata: Mapping[str, Any]
    """What the index states, JSON values by key."""
    sha256: str
    irregular: tuple[str, ...]
    """The shards that are not called as writers call them, sorted."""
    misfits: tuple[str, ...]
    """What is wrong with names that it gives as shards'; these are not in ``shards``."""


def read_index(source: Source, whole: str) -> ShardIndex:
    """Return the index in *source*, of the weights that are known as *whole*."""
    if source.size > MAX_INDEX:
        raise MalformedError(f"the index is longer than {MAX_INDEX} bytes", where=source.name)
    source.head = data = source.read(0, source.size)
    document = strict_json.parse(data, where=source.name, max_depth=_MAX_DEPTH)
    if not isinstance(document, dict) or not {"weight_map"} <= document.keys() <= _KEYS:
        raise MalformedError("an index has weight_map and metadata", where=source.name)
    metadata, weight_map = document.get("metadata", {}), document["weight_map"]
    if not isinstance(metadata, dict) or not isinstance(weight_map, dict) or not weight_map:
        what = "metadata and weight_map are objects, the latter not empty"
        raise MalformedError(what, where=source.name)
    check_count(len(weight_map), where=source.name)
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise MalformedError("a shard's name is not a string", where=source.name)
        shards.setdefault(shard, set()).add(tensor)
    if len(shards) > MAX_SHARDS:
        raise MalformedError(f"more than {MAX_SHARDS} shards", where=source.name)
    misfits = {shard: _misfit(shard, whole) for shard in sorted(shards)}
    held = {shard: frozenset(shards[shard]) for shard, what in misfits.items() if what is None}
    stem, suffix = re.escape(PurePosixPath(whole).stem), re.escape(PurePosixPath(whole).suffix)
    regular = re.compile(f"{stem}-[0-9]{{1,6}}-of-[0-9]{{1,6}}{suffix}")
    irregular = tuple(shard for shard in held if not regular.fullmatch(shard))
    digest = hashlib.sha256(data).hexdigest()
    found = tuple(f"the shard {shard!r} {what}" for shard, what in misfits.items() if what)
    return ShardIndex(held, metadata, digest, irregular, found)


def _misfit(shard: str, whole: str) -> str | None:
    """Return what is wrong with the name of a *shard* of what is known as *whole*."""
    try:
        names.check_name(shard)
    except MalformedError as error:
        return error.what
    if "/" in shard:
        return "is not in its folder"
    # One name to some file systems.
    return "is named as the whole" if folded(shard) == folded(whole) else None


class ShardedFile(SourceFile):
    """Open weights in shards. See :class:`~provenance.weights.view.TensorFile`.

    A bounded number of shards is open. A shard is hashed when it is first opened, and later must be
    the same file.
    """

    misfit: str | None = None
    """The doubt that the index does not fit the shards."""

    def __init__(
        self, source: Source, index: Path, opener: Opener, sha256: Mapping[str, str | None] | None
    ) -> None:
        """Read the index in *source*, which is the file *index*, and check its shards.

        *opener* opens a shard. *sha256*, in hexadecimal, is what the index and the shards should
        have (None: that is not checked), by their names in the folder: all of them, and no other
        file.
        """
        super().__init__(source)
        read = read_index(source, index.name.removesuffix(_SUFFIX))
        there = sorted(read.shards if sha256 is None else sha256.keys() - {index.name})
        if not there:
            raise UnreadableError("none of its shards is there", where=source.name)
        self._folder, self._opener, self._sha256 = index.parent, opener, sha256
        self._lock = RLock()
        self._open: OrderedDict[str, TensorFile] = OrderedDict()
        """The shards that are open, the one used last at the end."""
        self._users: Counter[str] = Counter()
        self._states: dict[str, tuple[int, ...]] = {}
        try:
            found = {name: self._look_into(name) for name in there}
            shards = list(found.values())
            said = _shard_metadata(found, source.name)
            self._places = _places(found, source.name)
            tensors = {name: info for file in shards for name, info in file.tensors.items()}
            self.aliases = tuple(sorted(group for file in shards for group in file.aliases))
            stated = _index_metadata(read, tensors, self.aliases, said, where=source.name)
        except BaseException:
            self.close()
            raise
        self.format = shards[0].format
        self.direct = all(file.direct for file in shards)
        self.tensors = tensors
        self.metadata = {**said, **stated}
        self.frameworks = frozenset[str | None]().union(*(file.frameworks for file in shards))
        self.container = _facts(read, shards)
        self._sha256_of_index = read.sha256
        self.doubts = tuple(doubt for file in shards for doubt in file.doubts)
        if misfits := list(_misfits(read, found)):
            self.misfit = f"{source.name}: the index does not fit: {', '.join(cut(misfits, 1))}"
            self.doubts = (self.misfit, *self.doubts)

    def set_aside_misfit(self) -> None:
        """Require that an index which does not fit, and which no loader looks for, be equal.

        Settings and callers can name it all the same.
        """
        if self.misfit is not None:
            self.doubts = tuple(doubt for doubt in self.doubts if doubt != self.misfit)
            self.metadata = {**self.metadata, "index": self._sha256_of_index}

    def _look_into(self, name: str) -> TensorFile:
        """Return the shard *name*; it may be closed again."""
        with self._using(name) as file:
            return file

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        with self._using(self._places[name]) as file:
            yield from file.pieces(name, begin, end, step)

    def parts(self) -> Iterator[Placed]:
        """Yield the index, and each shard."""
        yield Placed("", self._source, {})
        for name in sorted(self._states):
            with self._using(name) as file:
                yield from (part._replace(name=name) for part in file.parts())

    @contextmanager
    def _using(self, name: str) -> Iterator[TensorFile]:
        """Keep the shard *name* open; raise UnreadableError if it is no longer the same file."""
        with self._lock:
            if name not in self._open:
                self._open[name] = self._opened(name)
            self._open.move_to_end(name)
            self._users[name] += 1
            self._close_oldest()
            file = self._open[name]
        try:
            yield file
        finally:
            with self._lock:
                self._users[name] -= 1
                self._close_oldest()

    def _close_oldest(self) -> None:
        for name in list(self._open):
            if len(self._open) <= MAX_OPEN:
                break
            # The garbage collector may end another use meanwhile, which closes some as well.
            if not self._users[name] and (file := self._open.pop(name, None)) is not None:
                file.close()

    def _opened(self, name: str) -> TensorFile:
        """Open the shard *name*, which must be the same file as before."""
        before = self._states.get(name)
        state = before or self._state(name)
        sha256 = self._sha256[name] if self._sha256 is not None and not before else None
        self._check_state(name, state)
        file = self._opener(self._folder / name, self._shown(name), sha256)
        try:
            self._check_state(name, state)
        except BaseException:
            file.close()
            raise
        self._states[name] = state
        return file

    def _check_state(self, name: str, state: tuple[int, ...]) -> None:
        if self._state(name) != state:
            raise UnreadableError("changed while it was read", where=self._shown(name))

    def _state(self, name: str) -> tuple[int, ...]:
        try:
            return identity((self._folder / name).stat())
        except OSError as error:
            raise unreadable(error, self._shown(name)) from error

    def _shown(self, name: str) -> str:
        return f"{self._source.name}: {name}"

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the index or a shard was written to since it was opened."""
        super().check_unchanged()
        with self._lock:
            for name, state in self._states.items():
                self._check_state(name, state)
            for file in self._open.values():
                file.check_unchanged()

    def close(self) -> None:
        """Close the index and the shards, none of which is in use."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()
        super().close()


def _places(shards: Mapping[str, TensorFile], where: str) -> dict[str, str]:
    places: dict[str, str] = {}
    for shard, file in shards.items():
        for name in file.tensors:
            if (other := places.setdefault(name, shard)) != shard:
                raise MalformedError(f"{other} and {shard} both hold {name!r}", where=where)
    return places


def _misfits(index: ShardIndex, shards: Mapping[str, TensorFile]) -> Iterator[str]:
    """Yield in what *index* does not fit the *shards* that are there."""
    yield from index.misfits
    for name in sorted(index.shards.keys() | shards.keys()):
        if name not in shards:
            yield f"the shard {name!r} is missing"
        elif name not in index.shards:
            yield f"it does not name {name!r}"
        else:
            held, own = index.shards[name], shards[name].tensors.keys()
            yield from (f"{name!r} does not hold {it!r}" for it in sorted(held - own))
            yield from (f"it does not place {it!r} in {name!r}" for it in sorted(own - held))


def _shard_metadata(shards: Mapping[str, TensorFile], where: str) -> dict[str, str]:
    """Return the metadata of *shards*, which must be of one format and agree."""
    first = next(iter(shards))
    said: dict[str, str] = {}
    for name, file in shards.items():
        if file.format != shards[first].format:
            raise MalformedError(f"{first} and {name} have different formats", where=where)
        for key, text in file.metadata.items():
            if said.setdefault(key, text) != text:
                what = f"{name} states another {key!r} than a shard before it"
                raise MalformedError(what, where=where)
    return said


def _index_metadata(
    index: ShardIndex,
    tensors: Mapping[str, TensorInfo],
    aliases: tuple[tuple[str, ...], ...],
    said: Mapping[str, str],
    *,
    where: str,
) -> dict[str, str]:
    """Return what *index* states beside what the shards *said* and what *tensors* imply."""
    again = [tensors[name] for group in aliases for name in group[1:]]
    size = sum(info.nbytes for info in tensors.values())
    elements = sum(info.elements for info in tensors.values())
    derived = {
        "total_size": (size, size - sum(info.nbytes for info in again)),
        "total_parameters": (elements, elements - sum(info.elements for info in again)),
    }
    left = {
        f"index.{key}": value
        for key, value in index.metadata.items()
        # some writers put 14483464192.0
        if not (type(value) in (int, float) and value in derived.get(key, ()))
    }
    if index.irregular:
        left["shards"] = list(index.irregular)
    if taken := sorted(left.keys() & said.keys()):
        raise MalformedError(f"index and shards both state {taken[0]!r}", where=where)
    return {key: strict_json.format(value).decode() for key, value in left.items()}


def _facts(index: ShardIndex, shards: list[TensorFile]) -> dict[str, str]:
    """Return the fact of sharding, and those of the shards' containers, each as one."""
    keys = [sorted(file.metadata) for file in shards]
    alike = all(mine == keys[0] for mine in keys)
    facts = {str(Normaliser.SHARDING): index.sha256 if alike else fact_digest([index.sha256, keys])}
    for fact in {fact: None for file in shards for fact in file.container}:
        values = [file.container.get(fact) for file in shards]
        first = values[0] if len(set(values)) == 1 else None
        facts[fact] = first if first is not None else fact_digest(values)
    return facts
