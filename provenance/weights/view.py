"""One view of every weight file: names, types, shapes, and bytes in chunks.

A reader has checked the whole structure of its file when it is returned: every tensor's place and
size, and that nothing else is in the file. What the format can vary without changing a tensor
(orders, padding, compression) is the reader's ``container``: *facts*, each a short text under the
normaliser that drops it (:mod:`~provenance.weights.normalisers`). Two files with equal tensors,
metadata and facts have equal bytes, except where a reader's own documentation says otherwise.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec
import numpy as np

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UsageError
from provenance.weights.dtypes import DTYPES, NUMPY, DType
from provenance.weights.source import Source, same_part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from provenance.weights.normalisers import Normaliser

MAX_RANK: Final = 64
"""Most dimensions of a tensor; numpy's own limit."""

MAX_TENSORS: Final = 100_000
"""Most tensors in one file. The largest published models have as many in all of their shards; a
header of 23 MB could otherwise ask for a minute of comparing a million empty ones."""

MAX_BYTES: Final = 2**53 - 1
"""Largest tensor and largest dimension, in bytes or elements: what JSON keeps exactly."""

CHUNK_UNIT: Final = 256
"""Chunks hold a multiple of this many elements, so that packed elements end on a byte and blocks
are whole (ggml's largest block has 256 elements)."""

DIGEST_CHUNK: Final = 2**17
"""Elements that are digested at a time; at most 2 MiB."""

_ARRAY_DTYPES: Final[Mapping[str, str]] = {
    np.dtype(code).name: name for name, code in NUMPY.items()
} | {"bfloat16": "BF16"}

_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
"""The characters of Unicode's category Cc."""


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """What is known of a tensor before its bytes are read.

    A struct, since a file can have 100,000: it is made four times as fast as a frozen dataclass.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    elements: int
    nbytes: int

    def is_like(self, other: TensorInfo) -> bool:
        """Tell whether *other* has the same type and shape."""
        return (self.dtype, self.shape) == (other.dtype, other.shape)


def check_name(name: str, *, where: str) -> str:
    """Return the tensor's *name*, refusing control characters (safetensors issue 748: NUL)."""
    if _CONTROL.search(name):
        raise MalformedError(f"the tensor name {name!r} holds a control character", where=where)
    return name


def check_count(number: int, *, where: str) -> None:
    """Refuse a file of more than ``MAX_TENSORS`` tensors."""
    if number > MAX_TENSORS:
        raise MalformedError(f"more than {MAX_TENSORS} tensors", where=where)


def fact_digest(value: object) -> str:
    """Return the digest by which a container fact too long to be shown is compared."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def stated(facts: Mapping[Normaliser, object]) -> Mapping[str, str]:
    """Return *facts* as the ``container`` of a reader: texts as they are, all else by digest."""
    return {k: fact if isinstance(fact, str) else fact_digest(fact) for k, fact in facts.items()}


def describe(name: str, dtype: str | DType, shape: Sequence[object], *, where: str) -> TensorInfo:
    """Return the description of a tensor, checked, and with its size."""
    known = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if known is None:
        raise MalformedError(f"unknown element type {dtype!r}", where=where)
    if len(shape) > MAX_RANK:
        raise MalformedError(f"more than {MAX_RANK} dimensions", where=where)
    elements = 1
    sizes: list[int] = []
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= MAX_BYTES:
            raise MalformedError(f"{dimension!r} is not a dimension", where=where)
        sizes.append(dimension)
    for dimension in sizes:
        elements *= dimension
        if elements > MAX_BYTES and 0 not in sizes:
            raise MalformedError("the shape is too large", where=where)
    if elements % known.block:
        raise MalformedError("the shape is not a whole number of blocks", where=where)
    bits = elements // known.block * known.bits
    if bits % 8 or bits // 8 > MAX_BYTES:
        raise MalformedError("the shape is too large, or not a whole number of bytes", where=where)
    return TensorInfo(name, known, tuple(sizes), elements, bits // 8)


class Placed(NamedTuple):
    """A file of weights that keeps tensors as they are returned."""

    name: str
    """Beside the file that was opened; empty for that one."""
    source: Source
    places: Mapping[str, tuple[int, int]]
    """Where each tensor begins and ends, in order."""


class TensorFile(ABC):
    """An open weight file. Close it, or use it as a context manager."""

    format: str
    tensors: Mapping[str, TensorInfo]
    """Every tensor by name, in the order of their bytes in the file."""
    metadata: Mapping[str, str] = {}
    """What the file says beside its tensors; part of the content."""
    frameworks: frozenset[str | None] = frozenset({""})
    """What safetensors say under ``format``; "" without metadata, None in metadata without it."""
    container: Mapping[str, str] = {}
    """The facts of the container that do not belong to the content, by normaliser."""
    aliases: tuple[tuple[str, ...], ...] = ()
    """Names of the very same stored bytes, type and shape: tied weights. Groups of two or more
    names, all sorted."""
    doubts: tuple[str, ...] = ()
    """Why loaders may find something else in it: what it holds is shown, and not judged."""
    direct: bool = True
    """Whether a later part of a tensor can be read without reading what is before it."""

    def path_of(self, key: str) -> tuple[str | int, ...]:
        """Return where the value is that ``metadata`` has under *key* (``loaders.keys``)."""
        return (key,)

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Return the tensor *name* in C order, little-endian, *elements* at a time.

        *elements* is a multiple of ``CHUNK_UNIT``; the last chunk may have fewer. A chunk is valid
        until the next is asked for. *start* and *stop* choose a part, in elements: multiples of
        ``CHUNK_UNIT``, or the tensor's end. Several threads may each read an iterator of their own.

        Raises UsageError where a part may not begin or end there, and while it is read
        MalformedError (the bytes do not decode) and UnreadableError (the file shrank).
        """
        info = self.tensors[name]
        end = info.elements if stop is None else stop
        aligned = not start % CHUNK_UNIT and (end == info.elements or not end % CHUNK_UNIT)
        if not aligned or not 0 <= start <= end <= info.elements:
            raise UsageError(f"no part of a tensor: {start} to {end}", where=name)
        nbytes = info.dtype.nbytes
        return self.pieces(name, nbytes(start), nbytes(end), nbytes(elements))

    @abstractmethod
    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the bytes from *begin* to *end* of a tensor, *step* at a time: see `chunks`."""

    def parts(self) -> Iterator[Placed]:
        """Yield each file with its tensors' places; nothing where any is stored otherwise.

        A file is open until the next is asked for.
        """
        yield from ()

    def check_unchanged(self) -> None:  # noqa: B027 - arrays in memory have nothing to check
        """Raise UnreadableError if the file was written to since it was opened."""

    def close(self) -> None:  # noqa: B027 - nor to close
        """Close the file; closing it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SourceFile(TensorFile):
    """A weight file that is read from a source, which it closes."""

    _offsets: Mapping[str, int] = {}
    """Where each tensor begins, of those that lie in the file as they are returned."""

    def __init__(self, source: Source) -> None:
        """Read from *source*."""
        self._source = source

    def parts(self) -> Iterator[Placed]:
        """Yield the file, if every tensor lies in it as it is returned."""
        if self._offsets.keys() == self.tensors.keys():
            found = ((name, info.nbytes) for name, info in self.tensors.items())
            at = self._offsets
            places = {name: (at[name], at[name] + nbytes) for name, nbytes in found}
            yield Placed("", self._source, places)

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the file was written to since it was opened."""
        self._source.check_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class PlacedFile(SourceFile):
    """A weight file that stores each tensor in one piece, byte for byte as it is returned."""

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes as they lie in the file."""
        place = self._offsets[name]
        return self._source.chunks(place + begin, place + end, step)


class ArraysFile(TensorFile):
    """Arrays in memory, by name: what a model answered to probes."""

    format = "arrays"

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, where: str) -> None:
        """Hold *arrays*; errors call them *where*."""
        check_count(len(arrays), where=where)
        self._raw: dict[str, memoryview] = {}
        tensors: dict[str, TensorInfo] = {}
        for name, array in arrays.items():
            dtype = _ARRAY_DTYPES.get(array.dtype.name)
            if dtype is None:
                raise MalformedError(f"unknown element type {array.dtype}", where=where)
            check_name(name, where=where)
            tensors[name] = describe(name, dtype, array.shape, where=f"{where}: {name}")
            flat = np.ascontiguousarray(array).reshape(-1)
            if flat.dtype.byteorder == ">":
                flat = flat.astype(flat.dtype.newbyteorder("<"))
            self._raw[name] = flat.view(np.uint8).data
        self.tensors = tensors

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the array's bytes."""
        return cut(self._raw[name], begin, end, step)


def same_beside(left: TensorFile, right: TensorFile) -> bool:
    """Tell whether all bytes beside the tensors are the same, and the tensors at the same places.

    If so, equal tensors make equal files. False where a format does not tell.
    """
    found = False
    for one, other in zip_longest(left.parts(), right.parts()):
        if one is None or other is None or one.source.size != other.source.size:
            return False
        if one.places != other.places:
            return False
        found, done = True, 0
        for begin, end in (*one.places.values(), (one.source.size, 0)):
            if not same_part(one.source, other.source, done, begin):
                return False
            done = end
    return found


def cut(data: memoryview, begin: int, end: int, step: int) -> Iterator[memoryview]:
    """Yield the bytes of *data* from *begin* to *end*, *step* at a time."""
    for place in range(begin, end, step):
        yield data[place : min(place + step, end)]


def little_endian(chunk: memoryview, dtype: DType) -> memoryview:
    """Return the big-endian numbers in *chunk* in little-endian order."""
    word = dtype.bits // dtype.components // 8
    return np.frombuffer(chunk, f"u{word}").byteswap().view(np.uint8).data if word > 1 else chunk


def tensor_digest(file: TensorFile, name: str) -> str:
    """Return the canonical digest of the tensor *name*, which no container changes.

    The SHA-256 of ``provenance tensor v1`` and a line feed, of type and shape in JCS and a line
    feed, and of the elements as :meth:`TensorFile.chunks` returns them: docs/spec/equality.md,
    section 6, which has an example.
    """
    info = file.tensors[name]
    digest = begin_digest(info.dtype.name, info.shape)
    for chunk in file.chunks(name, DIGEST_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def begin_digest(dtype: str, shape: Sequence[int]) -> hashlib._Hash:
    """Return the canonical digest of a tensor before its elements."""
    head = strict_json.format({"dtype": dtype, "shape": list(shape)})
    return hashlib.sha256(b"provenance tensor v1\n" + head + b"\n")


def regrouped(
    pieces: Iterable[memoryview], part: tuple[int, int], step: int
) -> Iterator[memoryview]:
    """Yield the bytes *part* (begin and end) of what *pieces* hold together, *step* at a time."""
    begin, left = part[0], part[1] - part[0]
    held = bytearray()
    for piece in pieces:
        held += piece[begin:]
        begin = max(begin - len(piece), 0)
        while left and len(held) >= (size := min(step, left)):
            yield memoryview(held[:size])
            del held[:size]
            left -= size
        if not left:
            return
