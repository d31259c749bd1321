"""One view of every weight file: names, types, shapes, and bytes in chunks.

A reader has checked the whole structure of its file when it is returned: every tensor's place and
size, and that nothing else is in the file. What the format can vary without changing a tensor
(orders, padding, compression) is the reader's ``container``: one short text for each such *fact*,
under the name of the normaliser that drops it. Two files with equal tensors, equal metadata and
equal facts have equal bytes, except where a reader's own documentation says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from provenance.errors import MalformedError
from provenance.tensors.dtypes import DTYPES, DType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

MAX_RANK: Final = 64
"""Most dimensions of a tensor; numpy's own limit."""

MAX_TENSORS: Final = 100_000
"""Most tensors in one file. The largest published models have as many in all of their shards; a
header of 23 MB could otherwise ask for a minute of comparing a million empty ones."""

MAX_BYTES: Final = 2**53 - 1
"""Largest tensor and largest dimension, in bytes or elements: what JSON keeps exactly."""

CHUNK_UNIT: Final = 8
"""Chunks hold a multiple of this many elements, so that packed elements end on a byte."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before its bytes are read."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    elements: int
    nbytes: int


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

    def chunks(self, name: str, elements: int) -> Iterator[memoryview]:
        """Yield the tensor *name* in C order, little-endian, *elements* at a time.

        Each chunk but the last has exactly *elements* elements, a multiple of ``CHUNK_UNIT``. A
        chunk is valid until the next is asked for.

        Raises:
            MalformedError: the bytes do not decode.
            UnreadableError: the file cannot be read, or shrank.
        """

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the file was written to since it was opened."""

    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_name(name: str, *, where: str) -> str:
    """Return the tensor's *name*, refusing control characters (safetensors issue 748: NUL)."""
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise MalformedError(f"the tensor name {name!r} holds a control character", where=where)
    return name


def check_count(number: int, *, where: str) -> None:
    """Refuse a file of more than ``MAX_TENSORS`` tensors."""
    if number > MAX_TENSORS:
        raise MalformedError(f"more than {MAX_TENSORS} tensors", where=where)


def fact_digest(value: object) -> str:
    """Return the digest by which a container fact too long to be shown is compared."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


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
    bits = elements * known.bits
    if bits % 8 or bits // 8 > MAX_BYTES:
        raise MalformedError("the shape is not a whole and possible number of bytes", where=where)
    return TensorInfo(name, known, tuple(sizes), elements, bits // 8)
