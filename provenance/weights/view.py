"""One view of every weight file: names, types, shapes, and bytes in chunks.

A reader has checked the whole structure of its file when it is returned: every tensor's place and
size, and that nothing else is in the file. What the format can vary without changing a tensor
(orders, padding, compression) is the reader's ``container``: *facts*, each a short text under the
normaliser that drops it (:mod:`~provenance.weights.normalisers`). Two files with equal tensors,
metadata and facts have equal bytes, except where a reader's own documentation says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import msgspec
import numpy as np

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UsageError
from provenance.weights.dtypes import DTYPES, NUMPY, DType
from provenance.weights.source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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

_DIGEST_CHUNK: Final = 2**17
"""Elements that are digested at a time; at most 2 MiB."""

_ARRAY_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {np.dtype(code).name: name for name, code in NUMPY.items()} | {"bfloat16": "BF16"}
)

_CONTROL: Final = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
"""The characters of Unicode's category Cc."""


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """What is known of a tensor before its bytes are read.

    A file can have 100,000: a struct is made four times as fast as a frozen dataclass.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    elements: int
    nbytes: int

    def is_like(self, other: TensorInfo) -> bool:
        """Tell whether *other* has the same type and shape."""
        return (self.dtype, self.shape) == (other.dtype, other.shape)


class TensorFile(Protocol):
    """An open weight file."""

    @property
    def format(self) -> str:
        """The format's name."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by name, in the order of their bytes in the file."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says beside its tensors; part of the content."""

    @property
    def container(self) -> Mapping[str, str]:
        """The facts of the container that do not belong to the content, by normaliser."""

    @property
    def aliases(self) -> tuple[tuple[str, ...], ...]:
        """The names that stand for the very same stored bytes, type and shape: tied weights.

        Groups of two names or more, each sorted, in the order of their first names.
        """

    @property
    def direct(self) -> bool:
        """Whether a later part of a tensor can be had without reading what stands before it."""

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor *name* in C order, little-endian, *elements* at a time.

        Each chunk but the last has exactly *elements* elements, a multiple of ``CHUNK_UNIT``. A
        chunk is valid until the next is asked for. *start* and *stop* choose a part of the tensor,
        in elements; *start* is a multiple of ``CHUNK_UNIT``, and so is *stop*, or it is None or the
        number of elements. Iterators may run in several threads at once, each in one.

        Raises:
            MalformedError: the bytes do not decode.
            UnreadableError: the file cannot be read, or shrank.
        """

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the file was written to since it was opened."""

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


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
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def stated(facts: Mapping[Normaliser, object]) -> Mapping[str, str]:
    """Return *facts* as the ``container`` of a reader: texts as they are, all else by digest."""
    return MappingProxyType(
        {
            normaliser: fact if isinstance(fact, str) else fact_digest(fact)
            for normaliser, fact in facts.items()
        }
    )


def describe(name: str, dtype: str, shape: Sequence[object], *, where: str) -> TensorInfo:
    """Return the description of a tensor, with its size computed from *dtype* and *shape*.

    Raises:
        MalformedError: the type is unknown, a dimension is not a natural number, or the size is
            beyond ``MAX_BYTES`` or not a whole number of bytes.
    """
    known = DTYPES.get(dtype)
    if known is None:
        raise MalformedError(f"the element type {dtype!r} is not known", where=where)
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
        raise MalformedError("the shape is not a whole and possible number of bytes", where=where)
    return TensorInfo(name, known, tuple(sizes), elements, bits // 8)


def part_of(info: TensorInfo, start: int, stop: int | None) -> tuple[int, int]:
    """Return the bytes of *info* that a part in elements takes: its begin and its end.

    Raises:
        UsageError: the part does not begin and end where chunks may.
    """
    end = info.elements if stop is None else stop
    aligned = not start % CHUNK_UNIT and (end == info.elements or not end % CHUNK_UNIT)
    if not aligned or not 0 <= start <= end <= info.elements:
        raise UsageError(f"no part of a tensor: {start} to {end}", where=info.name)
    return info.dtype.nbytes(start), info.dtype.nbytes(end)


class PlacedFile(SourceFile):
    """A weight file that stores each tensor in one piece, byte for byte as it is yielded."""

    tensors: Mapping[str, TensorInfo]
    _offsets: Mapping[str, int]
    """Where each tensor begins."""

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`TensorFile.chunks`."""
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        place = self._offsets[name]
        return self._source.chunks(place + begin, place + end, info.dtype.nbytes(elements))


class ArraysFile:
    """Arrays in memory, by name: what a model answered to probes."""

    format = "arrays"
    metadata: Mapping[str, str] = MappingProxyType({})
    container: Mapping[str, str] = MappingProxyType({})
    aliases: tuple[tuple[str, ...], ...] = ()
    direct = True

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, where: str) -> None:
        """Hold *arrays*; errors call them *where*.

        Raises:
            MalformedError: an array's type has no name here.
        """
        check_count(len(arrays), where=where)
        self._raw: dict[str, memoryview] = {}
        tensors: dict[str, TensorInfo] = {}
        for name, array in arrays.items():
            dtype = _ARRAY_DTYPES.get(array.dtype.name)
            if dtype is None:
                raise MalformedError(f"the element type {array.dtype} is not known", where=where)
            check_name(name, where=where)
            tensors[name] = describe(name, dtype, array.shape, where=f"{where}: {name}")
            flat = np.ascontiguousarray(array).reshape(-1)
            if flat.dtype.byteorder == ">":
                flat = flat.astype(flat.dtype.newbyteorder("<"))
            self._raw[name] = flat.view(np.uint8).data
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`TensorFile.chunks`."""
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        step = info.dtype.nbytes(elements)
        for place in range(begin, end, step):
            yield self._raw[name][place : min(place + step, end)]

    def check_unchanged(self) -> None:
        """Do nothing: nobody else has them."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def tensor_digest(file: TensorFile, name: str) -> str:
    r"""Return the canonical digest of the tensor *name*, the same in every container.

    In lower-case hexadecimal, the SHA-256 over three parts in this order:

    1. ``provenance tensor v1`` and a line feed, in ASCII;
    2. ``{"dtype":D,"shape":[...]}`` in JCS (RFC 8785) and a line feed, where D is the name of the
       element type (:mod:`~provenance.weights.dtypes`);
    3. the elements in C order, little-endian, packed where narrower than a byte.

    No two (type, shape, bits) share the digested bytes: the second part ends at its first line
    feed, and fixes the length of the third. Worked example, the float32 scalar 1:
    ``provenance tensor v1\n{"dtype":"F32","shape":[]}\n\x00\x00\x80\x3f``.
    """
    info = file.tensors[name]
    head = strict_json.format({"dtype": info.dtype.name, "shape": list(info.shape)})
    digest = hashlib.sha256(b"provenance tensor v1\n" + head + b"\n")
    for chunk in file.chunks(name, _DIGEST_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def tensor_digests(file: TensorFile) -> dict[str, str]:
    """Return the canonical digest of every tensor, by name. See :func:`tensor_digest`."""
    return {name: tensor_digest(file, name) for name in file.tensors}


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
