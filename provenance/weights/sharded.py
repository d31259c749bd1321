"""Sharded weights: an index, and beside it the shards that hold the tensors.

Format: the ``*.index.json`` of Hugging Face's transformers and huggingface_hub, an object with
``weight_map`` (a tensor's name to its shard's) and, where it is there, ``metadata``. Each shard is
read by the reader of its own format. Checked beyond that:

- each tensor is in the shard that the index names, and a shard holds no other: so none is missing
  and none is in two;
- a shard's name is a plain name, found in the folder of the index, and not that of the whole, which
  loaders take for all weights before they look for an index; all shards have one format, and what
  several say beside their tensors is the same;
- ``total_size``, where stated, is the sum of the tensors' bytes. huggingface_hub counts tensors
  that share their storage once, other writers each time: both are right.

What is said beside the tensors is the shards' metadata and, as ``index.KEY``, what the index
states, each value as JSON. ``total_size``, and ``total_parameters`` where it is the number of
elements, follow from the tensors and are left out. A shard that is not called as in
``model-00001-of-00005.safetensors`` could be what a loader takes by itself: ``shards`` lists such
names. The container fact ``sharding`` is the SHA-256 of the index; where the shards do not all
state the same keys, the digest of it and of these. A fact of the shards' own format is their common
value, or where they differ the digest of all.

Limits: index 64 MiB, 10,000 shards, 100,000 tensors in all.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UnreadableError
from provenance.files import names
from provenance.weights.normalisers import Normaliser
from provenance.weights.shard_pool import Shards
from provenance.weights.source import Source, SourceFile
from provenance.weights.view import TensorInfo, check_count, fact_digest, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from provenance.weights.shard_pool import Opener

MAX_INDEX: Final = 64 * 2**20
"""Longest index, in bytes. One of 100,000 tensors has about 15 MB."""

MAX_SHARDS: Final = 10_000
"""Most shards. The largest published models have some hundred."""

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


def read_index(source: Source, whole: str) -> ShardIndex:
    """Return the index in *source*, of the weights that are known as *whole*.

    Raises:
        MalformedError: it is not an index, or names a shard outside its folder, or the whole.
        UnreadableError: it cannot be read.
    """
    if source.size > MAX_INDEX:
        raise MalformedError(f"the index is longer than {MAX_INDEX} bytes", where=source.name)
    data = source.read(0, source.size)
    document = strict_json.parse(data, where=source.name, max_depth=_MAX_DEPTH)
    if not isinstance(document, dict) or not {"weight_map"} <= document.keys() <= _KEYS:
        raise MalformedError("an index has weight_map and metadata", where=source.name)
    metadata, weight_map = document.get("metadata", {}), document["weight_map"]
    if not isinstance(metadata, dict) or not isinstance(weight_map, dict) or not weight_map:
        raise MalformedError(
            "metadata and weight_map are objects, the latter not empty", where=source.name
        )
    check_count(len(weight_map), where=source.name)
    shards: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise MalformedError("a shard's name is not a string", where=source.name)
        shards.setdefault(shard, set()).add(tensor)
    if len(shards) > MAX_SHARDS:
        raise MalformedError(f"more than {MAX_SHARDS} shards", where=source.name)
    for shard in shards:
        _check_shard(shard, whole, source.name)
    held = {shard: frozenset(shards[shard]) for shard in sorted(shards)}
    stem, suffix = re.escape(PurePosixPath(whole).stem), re.escape(PurePosixPath(whole).suffix)
    regular = re.compile(f"{stem}-[0-9]{{1,6}}-of-[0-9]{{1,6}}{suffix}")
    irregular = tuple(shard for shard in held if not regular.fullmatch(shard))
    digest = hashlib.sha256(data).hexdigest()
    return ShardIndex(MappingProxyType(held), MappingProxyType(metadata), digest, irregular)


def _check_shard(shard: str, whole: str, where: str) -> None:
    names.check_name(shard, where=where)
    if "/" in shard:
        raise MalformedError(f"the shard {shard!r} is not in its folder", where=where)
    if shard.casefold() == whole.casefold():  # which to some file systems is one name
        raise MalformedError(f"the shard {shard!r} is called as the whole", where=where)


def open_sharded(
    index: Path, opener: Opener, *, name: str, sha256: Mapping[str, str] | None = None
) -> ShardedFile:
    """Open the weights whose index is the file *index*; errors call it *name*.

    *opener* opens a shard. *sha256*, in hexadecimal, is what the index and the shards should have,
    by their names in the folder: all of them, and no other file.

    Raises:
        ContentError: a file has another SHA-256.
        MalformedError: a file is not what its format allows, or the index does not fit the shards.
        UnreadableError: a file is missing or cannot be read.
    """
    source = Source(index, name=name, sha256=sha256[index.name] if sha256 is not None else None)
    try:
        found = read_index(source, index.name.removesuffix(_SUFFIX))
        if sha256 is not None:
            _check_files(found, sha256.keys() - {index.name}, name)
        return ShardedFile(source, found, Shards(index.parent, opener, name, sha256))
    except BaseException:
        source.close()
        raise


def _check_files(index: ShardIndex, files: set[str], where: str) -> None:
    """Check that *files* are the shards: one that no reader looks into could be anything."""
    if missing := sorted(index.shards.keys() - files):
        raise UnreadableError(f"the shard {missing[0]} is missing", where=where)
    if further := sorted(files - index.shards.keys()):
        raise MalformedError(f"the index does not name {further[0]}", where=where)


@dataclass(frozen=True, slots=True)
class _Shard:
    """What a shard's reader found."""

    name: str
    format: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    container: Mapping[str, str]
    aliases: tuple[tuple[str, ...], ...]
    direct: bool


class ShardedFile(SourceFile):
    """Open weights in shards. See :class:`~provenance.weights.view.TensorFile`."""

    def __init__(self, source: Source, index: ShardIndex, shards: Shards) -> None:
        """Check every shard of *index*, which stands in *source*; closes *shards* on an error.

        Raises:
            ContentError: a shard has another SHA-256.
            MalformedError: a shard is not what its format allows, or does not fit the index.
            UnreadableError: a shard is missing or cannot be read.
        """
        super().__init__(source)
        self._shards = shards
        try:
            found = [self._look_into(name, held) for name, held in index.shards.items()]
            said = _said(found, source.name)
            tensors = {name: info for shard in found for name, info in shard.tensors.items()}
            self.aliases = tuple(sorted(group for shard in found for group in shard.aliases))
            stated = _stated(index, tensors, self.aliases, source.name)
            _check_apart(stated, said, source.name)
        except BaseException:
            shards.close()
            raise
        self.format = found[0].format
        self.direct = all(shard.direct for shard in found)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType({**said, **stated})
        self.container: Mapping[str, str] = MappingProxyType(
            {Normaliser.SHARDING: _sharding(index, found), **_facts(found)}
        )
        self._places = {name: shard.name for shard in found for name in shard.tensors}

    def _look_into(self, name: str, held: frozenset[str]) -> _Shard:
        """Return what the shard *name* holds, which are the tensors *held*."""
        with self._shards.use(name) as file:
            if missing := sorted(held - file.tensors.keys()):
                raise MalformedError(
                    f"does not hold {missing[0]!r}", where=self._shards.shown(name)
                )
            if further := sorted(file.tensors.keys() - held):
                raise MalformedError(
                    f"holds {further[0]!r}, which the index does not place in it",
                    where=self._shards.shown(name),
                )
            facts = (file.tensors, file.metadata, file.container, file.aliases, file.direct)
            return _Shard(name, file.format, *facts)

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.chunks`."""
        shard = self._places[name]
        part_of(self.tensors[name], start, stop)
        return self._chunks(shard, name, elements, (start, stop))

    def _chunks(
        self, shard: str, name: str, elements: int, part: tuple[int, int | None]
    ) -> Iterator[memoryview]:
        with self._shards.use(shard) as file:
            yield from file.chunks(name, elements, *part)

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the index or a shard was written to since it was opened."""
        super().check_unchanged()
        self._shards.check_unchanged()

    def close(self) -> None:
        """Close the index and the shards."""
        self._shards.close()
        super().close()


def _said(shards: list[_Shard], where: str) -> dict[str, str]:
    """Return what *shards*, which are of one format, say beside their tensors."""
    first = shards[0]
    said: dict[str, str] = {}
    for shard in shards:
        if shard.format != first.format:
            raise MalformedError(f"{first.name} and {shard.name} are of two formats", where=where)
        for key, text in shard.metadata.items():
            if said.setdefault(key, text) != text:
                raise MalformedError(
                    f"{shard.name} says another {key!r} than a shard before it", where=where
                )
    return said


def _sharding(index: ShardIndex, shards: list[_Shard]) -> str:
    keys = [sorted(shard.metadata) for shard in shards]
    alike = all(mine == keys[0] for mine in keys)
    return index.sha256 if alike else fact_digest([index.sha256, keys])


def _check_apart(stated: Mapping[str, str], metadata: Mapping[str, str], where: str) -> None:
    if taken := sorted(stated.keys() & metadata.keys()):
        raise MalformedError(f"index and shards both state {taken[0]!r}", where=where)


def _stated(
    index: ShardIndex,
    tensors: Mapping[str, TensorInfo],
    aliases: tuple[tuple[str, ...], ...],
    where: str,
) -> dict[str, str]:
    """Return what *index* states beside what follows from *tensors*, which is checked."""
    again = [tensors[name] for group in aliases for name in group[1:]]
    size = sum(info.nbytes for info in tensors.values())
    sizes = (size, size - sum(info.nbytes for info in again))
    elements = sum(info.elements for info in tensors.values())
    counts = (elements, elements - sum(info.elements for info in again))
    derived = {"total_size"}
    if not _is_one_of(index.metadata.get("total_size", size), sizes):
        raise MalformedError(
            f"total_size is {index.metadata['total_size']!r}, the tensors have {size} bytes",
            where=where,
        )
    if _is_one_of(index.metadata.get("total_parameters"), counts):
        derived.add("total_parameters")
    shards = {"shards": strict_json.format(list(index.irregular)).decode()}
    return (shards if index.irregular else {}) | {
        f"index.{key}": strict_json.format(value).decode()
        for key, value in index.metadata.items()
        if key not in derived
    }


def _is_one_of(value: object, numbers: tuple[int, ...]) -> bool:
    """Tell whether *value* is one of *numbers*; some writers put 14483464192.0."""
    return type(value) in (int, float) and value in numbers


def _facts(shards: list[_Shard]) -> dict[str, str]:
    """Return the facts of the shards' containers, each as one."""
    facts: dict[str, str] = {}
    for fact in dict.fromkeys(fact for shard in shards for fact in shard.container):
        values = [shard.container.get(fact) for shard in shards]
        common = values[0] if len(set(values)) == 1 else None
        facts[fact] = common if common is not None else fact_digest(values)
    return facts
