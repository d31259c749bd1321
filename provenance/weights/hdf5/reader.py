"""HDF5 files of weights, as Keras (``.h5``, ``.weights.h5``) and h5py write them.

Format: HDF5 File Format Specification 3.0. The file is read by libhdf5, through the package
``h5py`` (extra ``hdf5``), in a process of its own (:mod:`~provenance.weights.hdf5.probe`), so a
file that crashes it is merely malformed. That process reads from the descriptor opened here. It
describes the file; then contiguous datasets are read here, others from it, a few rows at a time.

A tensor is a dataset, named by its path without the first ``/``. Opaque elements are of the type
``RAW``, byte by byte along a last dimension, or bfloat16 where Keras says so in an attribute.
Attributes and datasets of texts are content: ``docs/spec/equality.md`` section 7 has their keys.
Several hard links to one dataset are tied weights.

Refused: soft and external links, a second link to a group, ``@`` in an attribute's name, numbers in
other files or unallocated without a fill value, virtual datasets, named types, elements that are
references, structures or opaque with a tag, texts in chunks, filters other than deflate, shuffle
and fletcher32 (so no plug-in), bytes outside what the superblock describes, overlapping datasets,
chunks that a search of their index does not find, chunks at the edge to which libhdf5 does not
apply their filters.

All else (trees, heaps, times, free space) is the fact ``layout``, a digest of all bytes but the
datasets' own.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Final

import msgspec

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.isolated import Isolated, Limits
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.view import (
    SourceFile,
    TensorInfo,
    check_count,
    check_name,
    describe,
    little_endian,
    regrouped,
    stated,
)

MAX_BAND: Final = 2**28
"""Largest row of chunks, in bytes; it is held in memory while it is read. h5py chooses chunks of at
most 1 MiB, so that such a row is a small part of a large dataset."""

MAX_FILLED: Final = 2**28
"""Most bytes of a dataset that are in no storage: a few bytes can declare a petabyte."""

MEMORY: Final = 2**32
"""For libhdf5, in bytes of address space: 100,000 datasets take 300 MB."""

SECONDS: Final = 20
_A_SECOND: Final = 2**22
"""Processor time of an answer: so many seconds, and one more for so many bytes of the file. 100,000
datasets take some seconds, and a second inflates some 100 MB."""

_PROBE: Final = Path(__file__).with_name("probe.py")
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_STEP: Final = 2**20


class Dataset(msgspec.Struct, frozen=True):
    """What the probe says of a dataset."""

    names: list[str]
    dtype: str
    big: bool
    """Whether it is big-endian."""
    shape: list[int]
    itemsize: int
    missing: int
    """Bytes that are in no storage, at most."""
    first: int = -1
    """Where its first byte is in the file."""
    size: int | None = None
    """How many bytes it is there in one piece; None: the probe reads it."""
    rows: int = 1
    """How many rows are read together: as many as a chunk has."""


Description = tuple[list[str], list[Dataset], dict[str, str], str, str]
"""What the probe says of a file: groups, datasets, attributes; the digests of all bytes but those
of numbers, and of all chunks to which a filter was applied."""


class Hdf5File(SourceFile):
    """An open HDF5 file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "hdf5"

    def __init__(self, source: Source, span: tuple[int, int] | None = None) -> None:
        """Read and check the structure of *source*, or of its part *span* (begin and length)."""
        super().__init__(source)
        self._begin, size = span or (0, source.size)
        _check_superblock(source, self._begin, size)
        self._probe = Isolated(
            _PROBE,
            [str(source.descriptor), str(self._begin), str(size)],
            limits=Limits(SECONDS + size // _A_SECOND, MEMORY),
            where=source.name,
            needs=("h5py", "hdf5"),
            descriptor=source.descriptor,
        )
        try:
            self._describe(self._probe.answer(), size)
        except BaseException:
            self._probe.close()
            raise

    def _describe(self, answer: bytearray, size: int) -> None:
        where = self._source.name
        try:
            said: Description = msgspec.json.decode(answer, type=Description)
        except msgspec.DecodeError as error:
            raise MalformedError("its description cannot be read", where=where) from error
        groups, self._datasets, attributes, layout, compression = said
        self._indices: dict[str, int] = {}
        infos: dict[str, TensorInfo] = {}
        for index, dataset in enumerate(self._datasets):
            for name in dataset.names:
                inside = f"{where}: {check_name(name, where=where)}"
                infos[name] = describe(name, dataset.dtype, dataset.shape, where=inside)
                self._indices[name] = index
                _check_storage(dataset, infos[name], size, inside)
        check_count(len(infos), where=where)
        tied = [tuple(sorted(dataset.names)) for dataset in self._datasets]
        self.aliases = tuple(sorted(names for names in tied if len(names) > 1))
        self.tensors: Mapping[str, TensorInfo] = dict(
            sorted(infos.items(), key=lambda pair: (self._dataset(pair[0]).first, pair[0]))
        )
        held: set[str] = set()
        for name in infos:
            way = name
            while (way := way.rpartition("/")[0]) and way not in held:
                held.add(way)
        if empty := sorted(set(groups) - held):
            attributes["groups"] = json.dumps(empty, ensure_ascii=False)
        self.metadata = attributes
        self.container = stated(
            {
                Normaliser.BYTE_ORDER: [self._dataset(name).big for name in sorted(infos)],
                Normaliser.COMPRESSION: compression,
                Normaliser.LAYOUT: layout,
            }
        )
        if all(dataset.size is not None for dataset in self._datasets):
            self._probe.close()

    def _dataset(self, name: str) -> Dataset:
        return self._datasets[self._indices[name]]

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        info, dataset = self.tensors[name], self._dataset(name)
        if dataset.size is not None:
            place = self._begin + dataset.first
            pieces = self._source.chunks(place + begin, place + end, step)
        else:
            pieces = self._streamed(info, dataset, (begin, end), step)
        return (little_endian(piece, info.dtype) for piece in pieces) if dataset.big else pieces

    def _streamed(
        self, info: TensorInfo, dataset: Dataset, part: tuple[int, int], step: int
    ) -> Iterator[memoryview]:
        """Return the bytes *part* of a tensor, *step* at a time, read by the probe."""
        if not info.nbytes:
            return iter(())
        rows = info.shape[0] if info.shape else 1
        row = info.nbytes // rows
        together = dataset.rows * max(_STEP // (dataset.rows * row), 1)
        first = part[0] // (together * row) * together
        bands = (
            self._rows(info.name, at, min(together, rows - at), row)
            for at in range(first, rows, together)
        )
        return regrouped(bands, (part[0] - first * row, part[1] - first * row), step)

    def _rows(self, name: str, first: int, count: int, row: int) -> memoryview:
        data = self._probe.answer(struct.pack("<3Q", self._indices[name], first, count))
        if len(data) != count * row:
            where = f"{self._source.name}: {name}"
            raise MalformedError(f"read {len(data)} bytes of {count * row}", where=where)
        return memoryview(data)

    def close(self) -> None:
        """Close the file and end the process of libhdf5."""
        self._probe.close()
        super().close()


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


def _check_storage(dataset: Dataset, info: TensorInfo, size: int, where: str) -> None:
    """Check that *dataset*, in a file of *size* bytes, has the sizes that *info* asks for."""
    if dataset.itemsize != info.dtype.bits // 8:
        raise MalformedError("its elements are of another size", where=where)
    if dataset.size is not None and (
        dataset.size != info.nbytes or not 0 <= dataset.first <= size - info.nbytes
    ):
        raise MalformedError(
            f"takes {dataset.size} bytes, its type and shape {info.nbytes}", where=where
        )
    if dataset.missing > MAX_FILLED:
        raise UnreadableError(f"more than {MAX_FILLED} bytes that are not in the file", where=where)
    rows = min(dataset.rows, *info.shape[:1]) if info.shape else 1
    if rows < 1 <= info.elements or rows * prod(info.shape[1:]) * dataset.itemsize > MAX_BAND:
        raise UnreadableError(f"needs more than {MAX_BAND} bytes at once", where=where)
