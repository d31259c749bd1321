"""HDF5 files of weights, as Keras (``.h5``, ``.weights.h5``) and h5py write them.

Format: HDF5 File Format Specification 3.0. The structure is read by libhdf5, through the package
``h5py`` (extra ``hdf5``), in a process of its own (:mod:`~provenance.weights.hdf5.probe`), so that
a file that crashes it is malformed and no more. That process reads from the very descriptor that
was opened here; the bytes of datasets are read here, by place
(:mod:`~provenance.weights.hdf5.storage`).

A tensor is a dataset, named by its path without the first ``/``. Attributes are content: each is
an entry ``path@name`` of the metadata, as ``text`` (``bytes``: of fixed length) and JSON, or type,
shape and bytes in hexadecimal; ``groups`` lists the groups without tensors. Several hard links to
one dataset are tied weights.

Refused: soft and external links, a second link to a group, ``@`` in an attribute's name, numbers in
other files or nowhere, virtual datasets, named types, texts, references, structures and opaque
types as elements (but bfloat16 as Keras writes it), filters other than deflate, shuffle and
fletcher32 (so no plug-in), bytes before or behind what the superblock describes, numbers of two
datasets that overlap, chunks in which libhdf5 reads something else.

Everything else in the file (trees, heaps, times, free space) is compared as the fact
``hdf5-structure``, a digest of all bytes but the datasets' own.

Limits: 100,000 objects, 250,000 chunks, 64 MiB of attributes; 20 seconds of processor time, and one
for every 4 MiB, and 4 GiB for the process that reads the structure; those of hdf5_storage.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.hdf5.storage import Storage, Stored, check_storage, stored_chunks
from provenance.weights.isolated import Limits, answer_of
from provenance.weights.source import SourceFile
from provenance.weights.view import (
    TensorInfo,
    check_count,
    check_name,
    describe,
    fact_digest,
    part_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from provenance.weights.source import Source

MEMORY: Final = 2**32
"""For reading the structure, in bytes of address space: 100,000 datasets take 300 MB."""

SECONDS: Final = 20
_A_SECOND: Final = 2**22
"""Processor time for reading the structure and the chunks: so many seconds, and one more for so
many bytes of the file. 100,000 datasets take some seconds, and a second inflates some 100 MB."""

_PROBE: Final = Path(__file__).with_name("probe.py")
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_STEP: Final = 2**20


class Hdf5File(SourceFile):
    """An open HDF5 file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "hdf5"

    def __init__(self, source: Source, span: tuple[int, int] | None = None) -> None:
        """Read and check the structure of *source*, or of its part *span* (begin and length).

        Raises:
            MalformedError: it is not HDF5 of plain datasets.
            UnreadableError: it cannot be read, or the package ``h5py`` is missing.
        """
        super().__init__(source)
        begin, size = span or (0, source.size)
        _check_superblock(source, begin, size)
        said = _probed(source, begin, size)
        self._storage: dict[str, Storage] = {}
        infos: dict[str, TensorInfo] = {}
        check_count(len(said["datasets"]), where=source.name)
        for name, entry in said["datasets"].items():
            where = f"{source.name}: {check_name(name, where=source.name)}"
            infos[name] = info = describe(name, entry["dtype"], entry["shape"], where=where)
            self._storage[name] = storage = _storage(entry, info, where)
            check_storage(storage, info, where=where)
        places = _places(self._storage, (begin, begin + size), source.name)
        self.aliases = self._tie(said["aliases"], infos)
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            dict(sorted(infos.items(), key=lambda pair: self._first(pair[0])))
        )
        self.metadata: Mapping[str, str] = MappingProxyType(
            {**said["attributes"], **_empty_groups(said["groups"], infos)}
        )
        self.container = _container(source, self._storage, places, (begin, begin + size))

    def _tie(
        self, groups: list[list[str]], infos: dict[str, TensorInfo]
    ) -> tuple[tuple[str, ...], ...]:
        """Give every name of a dataset its tensor; return the names of each such dataset."""
        for first, *others in groups:
            for name in others:
                info = infos[first]
                infos[check_name(name, where=self._source.name)] = TensorInfo(
                    name, info.dtype, info.shape, info.elements, info.nbytes
                )
                self._storage[name] = self._storage[first]
        check_count(len(infos), where=self._source.name)
        return tuple(sorted(tuple(sorted(names)) for names in groups))

    def _first(self, name: str) -> tuple[int, str]:
        return min((place.start for place in self._storage[name].places), default=-1), name

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.chunks`."""
        info = self.tensors[name]
        part = part_of(info, start, stop)
        step = info.dtype.nbytes(elements)
        where = f"{self._source.name}: {name}"
        return stored_chunks(self._source, self._storage[name], info, part, step, where)


def _check_superblock(source: Source, begin: int, size: int) -> None:
    """Check that the file is described from its first byte to its last (section II.A)."""
    head = source.read(begin, min(size, 64))
    if not head.startswith(_SIGNATURE) or len(head) < 64:  # noqa: PLR2004 - a superblock
        raise MalformedError("does not begin as HDF5", where=source.name)
    version = head[8]
    sizes, base = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}.get(version, (0, 0))
    if not sizes or head[sizes : sizes + 2] != b"\x08\x08":
        raise MalformedError("a superblock of a form that is not read", where=source.name)
    start, _, end = struct.unpack_from("<3Q", head, base)
    if (start, end) != (0, size):
        raise MalformedError(
            f"describes {end} bytes from {start} on, the file has {size}", where=source.name
        )


def _probed(source: Source, begin: int, size: int) -> dict[str, Any]:
    """Return what the probe says of the file."""
    answer = json.loads(
        answer_of(
            _PROBE,
            [str(source.descriptor), str(begin), str(size)],
            limits=Limits(SECONDS + size // _A_SECOND, MEMORY),
            where=source.name,
            descriptors=(source.descriptor,),
        )
    )
    if "missing" in answer:
        raise UnreadableError(
            "reading HDF5 needs the package h5py",
            where=source.name,
            hint="pip install training-provenance[hdf5]",
        )
    if "refused" in answer:
        place, what = answer["refused"]
        raise MalformedError(what, where=f"{source.name}: {place}" if place else source.name)
    found: dict[str, Any] = answer
    return found


def _storage(entry: dict[str, Any], info: TensorInfo, where: str) -> Storage:
    """Return the storage that the probe describes."""
    item = info.dtype.bits // 8
    fill = bytes.fromhex(entry.get("fill", "")) or bytes(item)
    if entry["itemsize"] != item or len(fill) != item:
        raise MalformedError("its elements are of another size", where=where)
    if "chunk" in entry:
        return Storage(
            big_endian=entry["big"],
            fill=fill,
            chunk=tuple(entry["chunk"]),
            filters=tuple((number, value) for number, value in entry["filters"]),
            chunks=tuple(
                (index, Stored(start, length, skipped))
                for index, start, length, skipped in sorted(entry["chunks"])
            ),
            sha256=tuple(entry["sha256"]),
        )
    whole: Stored | bytes | None = None
    if "data" in entry:
        whole = bytes.fromhex(entry["data"])
    elif entry["place"] is not None:
        whole = Stored(*entry["place"])
    return Storage(big_endian=entry["big"], fill=fill, whole=whole)


def _places(storages: Mapping[str, Storage], span: tuple[int, int], where: str) -> list[Stored]:
    """Return all parts of the file that hold numbers, in their order; none overlaps another."""
    found = sorted(
        (place for storage in storages.values() for place in storage.places if place.size),
        key=lambda place: place.start,
    )
    end = span[0]
    for place in found:
        if place.start < end:
            raise MalformedError("the numbers of two datasets overlap", where=where)
        end = place.start + place.size
    if end > span[1]:
        raise MalformedError("numbers beyond the end of the file", where=where)
    return found


def _empty_groups(groups: list[str], infos: Mapping[str, TensorInfo]) -> dict[str, str]:
    """Return the groups that hold no tensor, as metadata; the others follow from the names."""
    empty = [group for group in groups if not any(name.startswith(f"{group}/") for name in infos)]
    return {"groups": json.dumps(sorted(empty), ensure_ascii=False)} if empty else {}


def _container(
    source: Source, storages: Mapping[str, Storage], places: list[Stored], span: tuple[int, int]
) -> Mapping[str, str]:
    """Return the facts that the content does not fix. See the normalisers of their names."""
    in_order = sorted(storages.items())
    structure, compressed = hashlib.sha256(), hashlib.sha256()
    position = span[0]
    for place in [*places, Stored(span[1], 0)]:
        for chunk in source.chunks(position, place.start, _STEP):
            structure.update(chunk)
        position = place.start + place.size
    filtered = [
        stored for _, storage in in_order if storage.filters for _, stored in storage.chunks
    ]
    for stored in filtered:
        for chunk in source.chunks(stored.start, stored.start + stored.size, _STEP):
            compressed.update(chunk)
    return MappingProxyType(
        {
            "hdf5-byte-order": fact_digest([storage.big_endian for _, storage in in_order]),
            "hdf5-storage": fact_digest(
                [
                    [
                        name,
                        storage.chunk,
                        storage.filters,
                        [[place.start - span[0], place.size] for place in storage.places],
                    ]
                    for name, storage in in_order
                ]
            ),
            "hdf5-compressed-bytes": compressed.hexdigest() if filtered else "none",
            "hdf5-structure": structure.hexdigest(),
        }
    )
