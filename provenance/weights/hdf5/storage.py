"""The bytes of one HDF5 dataset, from the places that the probe found, without libhdf5.

Format: HDF5 File Format Specification 3.0, sections IV.A.2.i (layouts) and IV.A.2.l (filters).
Filters: deflate, shuffle, fletcher32. A dataset in chunks is read a band at a time: all chunks of
one place along the first dimension. Storage that was never allocated reads as the fill value. What
a chunk decodes to has the SHA-256 of what libhdf5 reads there: the file has one reading.

Limits: a band 256 MiB, a chunk 256 MiB, what is filled without storage 256 MiB a dataset.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from provenance.errors import MalformedError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from provenance.weights.source import Source
    from provenance.weights.view import TensorInfo

MAX_BAND: Final = 2**28
"""Largest band of chunks, in bytes; it is held in memory while it is read. h5py chooses chunks of
at most 1 MiB, so that a band is a small part of a large dataset."""

MAX_FILLED: Final = 2**28
"""Most bytes of a dataset that are in no storage: a few bytes can declare a petabyte."""

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_CHECKSUM: Final = 4  # bytes of a fletcher32


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes in the file: a dataset's, or a chunk's."""

    start: int
    size: int
    skipped: int = 0
    """Bits of the filters that were not applied to a chunk."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How the numbers of a dataset are stored."""

    big_endian: bool
    fill: bytes
    """One element, for what has no storage."""
    whole: Stored | bytes | None = None
    """The dataset in one piece: in the file, in its description, or without storage."""
    chunk: tuple[int, ...] | None = None
    """The shape of a chunk; None: in one piece."""
    filters: tuple[tuple[int, int], ...] = ()
    """Numbers of the filters, and the size of the elements that it shuffles."""
    chunks: tuple[tuple[int, Stored], ...] = ()
    """The chunks in storage, each with its place in C order of the grid."""
    sha256: tuple[str, ...] = ()
    """Of every place of the grid: what lies within the dataset, as libhdf5 reads it."""

    @property
    def places(self) -> list[Stored]:
        """Return every part of the file that holds the dataset's numbers."""
        return [
            *([self.whole] if isinstance(self.whole, Stored) else []),
            *(stored for _, stored in self.chunks),
        ]


def check_storage(storage: Storage, info: TensorInfo, *, where: str) -> None:
    """Check that *storage* has the sizes that *info* asks for.

    Raises:
        MalformedError: it has not.
        UnreadableError: it is beyond a limit.
    """
    missing = 0
    if storage.chunk is None:
        if storage.whole is None:
            missing = info.nbytes
        else:
            whole = storage.whole
            size = whole.size if isinstance(whole, Stored) else len(whole)
            if size != info.nbytes:
                raise MalformedError(
                    f"takes {size} bytes, its type and shape {info.nbytes}", where=where
                )
    else:
        missing = _check_chunks(storage, storage.chunk, info, where)
    if missing > MAX_FILLED:
        raise UnreadableError(f"more than {MAX_FILLED} bytes that are not in the file", where=where)


def _check_chunks(storage: Storage, chunk: tuple[int, ...], info: TensorInfo, where: str) -> int:
    """Return how many bytes are in no chunk."""
    if len(chunk) != len(info.shape) or 0 in chunk:
        raise MalformedError("its chunks have another number of dimensions", where=where)
    item = len(storage.fill)
    size = prod(chunk) * item
    if _band(chunk, info) > MAX_BAND or size > MAX_BAND:
        raise UnreadableError(f"needs more than {MAX_BAND} bytes at once", where=where)
    seen = [index for index, _ in storage.chunks]
    if -1 in seen or len(set(seen)) != len(seen):
        raise MalformedError("a chunk stands twice, or outside", where=where)
    for _, stored in storage.chunks:
        unfiltered = not _applied(storage, stored)
        if stored.size > MAX_BAND + _CHECKSUM or (unfiltered and stored.size != size):
            raise MalformedError("a chunk of another size", where=where)
    grid = prod(-(-side // width) for side, width in zip(info.shape, chunk, strict=True))
    missing = 0 if len(seen) == grid else info.nbytes
    if missing <= MAX_FILLED and len(storage.sha256) != grid:
        raise MalformedError("its chunks are not all described", where=where)
    return missing


def _band(chunk: tuple[int, ...], info: TensorInfo) -> int:
    rows = min(chunk[0], info.shape[0])
    return rows * prod(info.shape[1:]) * (info.dtype.bits // 8)


def stored_chunks(
    source: Source, storage: Storage, info: TensorInfo, part: tuple[int, int], step: int, where: str
) -> Iterator[memoryview]:
    """Yield the bytes *part* of the dataset, *step* at a time, in canonical form.

    Raises:
        MalformedError: a chunk does not decode.
        UnreadableError: the file cannot be read.
    """
    begin, end = part
    whole = storage.whole
    if storage.chunk is None and isinstance(whole, Stored):
        for piece in source.chunks(whole.start + begin, whole.start + end, step):
            yield _little(piece, storage, info)
        return
    if storage.chunk is None and isinstance(whole, bytes):
        for place in range(begin, end, step):
            yield _little(memoryview(whole)[place : min(place + step, end)], storage, info)
        return
    if storage.chunk is None:
        for place in range(begin, end, step):
            raw = storage.fill * ((min(step, end - place)) // len(storage.fill))
            yield _little(memoryview(raw), storage, info)
        return
    yield from _regrouped(source, storage, info, (begin, end), step, where)


def _regrouped(
    source: Source, storage: Storage, info: TensorInfo, part: tuple[int, int], step: int, where: str
) -> Iterator[memoryview]:
    """Yield bands as pieces of *step* bytes."""
    begin, end = part
    assert storage.chunk is not None  # noqa: S101 - the caller looked
    band = storage.chunk[0] * prod(info.shape[1:]) * (info.dtype.bits // 8)
    stored = dict(storage.chunks)
    held = bytearray()
    while begin < end:
        number = begin // band
        data = memoryview(_read_band(source, storage, info, (number, stored), where))
        skip = begin - number * band
        more = data[skip : skip + end - begin]
        begin += len(more)
        held += more
        while len(held) >= step or (held and begin == end):
            yield _little(memoryview(bytes(held[:step])), storage, info)
            del held[:step]


def _read_band(
    source: Source,
    storage: Storage,
    info: TensorInfo,
    band: tuple[int, dict[int, Stored]],
    where: str,
) -> bytes:
    """Return a band (its number, and the chunks in storage) in C order, bytes as in the file."""
    number, stored = band
    chunk = storage.chunk or ()
    item = np.dtype((np.void, len(storage.fill)))
    rows = min(chunk[0], info.shape[0] - number * chunk[0])
    out: NDArray[np.void] = np.empty((rows, *info.shape[1:]), item)
    grid = [-(-side // width) for side, width in zip(info.shape[1:], chunk[1:], strict=True)]
    across = prod(grid)
    for index, corner in enumerate(np.ndindex(*grid)):
        place = tuple(
            slice(at * width, min((at + 1) * width, side))
            for at, width, side in zip(corner, chunk[1:], info.shape[1:], strict=True)
        )
        at = number * across + index
        inside = (slice(0, rows), *(slice(0, part.stop - part.start) for part in place))
        if (found := stored.get(at)) is None:
            size = (rows, *(part.stop - part.start for part in place))
            piece = np.full(size, np.frombuffer(storage.fill, item)[0], item)
        else:
            raw = _unfiltered(source, storage, found, prod(chunk) * len(storage.fill), where)
            piece = np.frombuffer(raw, item).reshape(chunk)[inside]
        if hashlib.sha256(piece.tobytes()).hexdigest() != storage.sha256[at]:
            raise MalformedError("libhdf5 reads other numbers from its chunks", where=where)
        out[(slice(None), *place)] = piece
    return out.tobytes()


def _applied(storage: Storage, stored: Stored) -> list[tuple[int, int]]:
    """Return the filters that were applied to a chunk, in their order."""
    return [pair for at, pair in enumerate(storage.filters) if not stored.skipped >> at & 1]


def _unfiltered(source: Source, storage: Storage, stored: Stored, size: int, where: str) -> bytes:
    """Return the *size* bytes of a chunk."""
    data = source.read(stored.start, stored.size)
    for number, value in reversed(_applied(storage, stored)):
        if number == _DEFLATE:
            data = _inflated(data, size + _CHECKSUM * len(storage.filters), where)
        elif number == _SHUFFLE:
            data = _unshuffled(data, value)
        else:
            data = _checked(data, where)
    if len(data) != size:
        raise MalformedError(f"a chunk of {len(data)} bytes, not {size}", where=where)
    return data


def _inflated(data: bytes, most: int, where: str) -> bytes:
    inflate = zlib.decompressobj()
    try:
        out = inflate.decompress(data, most)
    except zlib.error as error:
        raise MalformedError(f"a chunk cannot be decompressed: {error}", where=where) from error
    if not inflate.eof or inflate.unused_data:
        raise MalformedError("a chunk is not of its size", where=where)
    return out


def _unshuffled(data: bytes, item: int) -> bytes:
    """Return *data* whose elements' first bytes stand first, then their second ones, and so on."""
    if item < 2:  # noqa: PLR2004 - nothing to shuffle
        return data
    whole = len(data) // item * item
    planes = np.frombuffer(data, np.uint8, whole).reshape(item, -1)
    return planes.T.tobytes() + data[whole:]


def _checked(data: bytes, where: str) -> bytes:
    """Return *data* without its Fletcher checksum, which is checked."""
    if len(data) < _CHECKSUM:
        raise MalformedError("a chunk is cut off", where=where)
    body, said = data[:-_CHECKSUM], int.from_bytes(data[-_CHECKSUM:], "little")
    low, high = fletcher32(body)
    # Both sums are numbers modulo 65,535, of which nought has two spellings.
    if (said & 0xFFFF) % 65535 != low or (said >> 16) % 65535 != high:
        raise MalformedError("the checksum of a chunk is wrong", where=where)
    return body


def fletcher32(data: bytes) -> tuple[int, int]:
    """Return the two sums of the checksum (``H5_checksum_fletcher32``), modulo 65,535."""
    words = np.frombuffer(data + b"\0" * (len(data) % 2), ">u2")
    low = high = 0
    for start in range(0, len(words), 2**16):  # no sum leaves 64 bits
        part = words[start : start + 2**16].astype(np.uint64)
        weights = np.arange(len(part), 0, -1, dtype=np.uint64)
        high = (high + low * len(part) + int((part * weights).sum())) % 65535
        low = (low + int(part.sum())) % 65535
    return low, high


def _little(piece: memoryview, storage: Storage, info: TensorInfo) -> memoryview:
    """Return *piece* in little-endian order."""
    if not storage.big_endian:
        return piece
    words = np.frombuffer(piece, f"u{info.dtype.bits // info.dtype.components // 8}")
    return words.byteswap().view(np.uint8).data
