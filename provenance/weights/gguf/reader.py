"""GGUF: typed keys and values, the tensors' descriptions, their bytes.

Format: docs/gguf.md of ggml-org/ggml, versions 2 and 3, little-endian; element types as in
:mod:`~provenance.weights.gguf.types`. Shapes are given in C order, as in numpy and torch: the file
has the innermost dimension first.

The keys and values are the file's metadata, each as one line of text (``docs/spec/equality.md``
section 7), except ``general.alignment``, which only places tensors. All is limited, because
llama.cpp trusted a file's counts and overflowed its buffers (CVE-2024-21802, -21825, -21836,
-23496, -23605). Stricter than llama.cpp and the package ``gguf``
where these leave room for two readings:

- tensors cover the data from its start to the end of the file, each aligned, in any order; padding
  is zero, and optional after the last, which some writers do not pad;
- names and texts are UTF-8, keys ASCII; booleans are 0 or 1;
- a tensor has one to four dimensions, all non-zero, and its rows are whole blocks.

The container facts are version, order of keys, order of tensors, alignment, and whether the end is
padded. Together with tensors and metadata they determine the file's bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Final

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.gguf.types import GGML_TYPES
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.view import (
    PlacedFile,
    TensorInfo,
    check_count,
    check_name,
    describe,
    stated,
)

MAX_HEADER: Final = 100_000_000
"""Most bytes before the tensors; as for safetensors. The largest vocabularies take 20 MB."""

MAX_KEY: Final = 65_535
"""Longest key, in bytes (docs/gguf.md)."""

MAX_STRING: Final = 2**24
"""Longest string, in bytes. Chat templates have up to some 100 KB."""

MAX_ITEMS: Final = 2**22
"""Most strings and arrays in the arrays of a file, which are walked one by one. The largest
vocabularies have 262,144 tokens and 514,906 merges."""

MAX_DEPTH: Final = 4
"""Deepest array, in levels. No writer nests them; the format allows it."""

MAX_SHOWN: Final = 1024
"""Longest string that is given in full, in bytes."""

_LENGTH: Final = struct.Struct("<Q")

_WINDOW: Final = 2**14
"""Bytes read at a time."""

U32: Final = 4
"""The number of the type u32."""

_BOOL, _STRING, _ARRAY = 7, 8, 9

_NESTED: Final = 4
"""How many strings an array in an array counts as: it takes as long to read."""

_NUMBERS: Final[Mapping[int, tuple[str, struct.Struct]]] = {
    number: (name, struct.Struct(f"<{code}"))
    for number, name, code in (
        (0, "u8", "B"), (1, "i8", "b"), (2, "u16", "H"), (3, "i16", "h"), (U32, "u32", "I"),
        (5, "i32", "i"), (6, "f32", "f"), (_BOOL, "bool", "?"), (10, "u64", "Q"),
        (11, "i64", "q"), (12, "f64", "d"),
    )
}  # fmt: skip
"""The types of one size in ``gguf_metadata_value_type``: name and encoding."""


class Header:
    """What precedes the tensors, read in order; MalformedError where the file or the limit ends."""

    def __init__(self, source: Source) -> None:
        """Read from *source*."""
        self.where = source.name
        self.position = 0
        self._source = source
        self._data = bytearray()
        self._end = min(source.size, MAX_HEADER)
        self._items = 0

    def _reach(self, end: int) -> None:
        """Have the bytes up to *end* at hand."""
        if end > self._end:
            what = "cut off" if self._end < MAX_HEADER else f"longer than {MAX_HEADER} bytes"
            raise MalformedError(f"the part before the tensors is {what}", where=self.where)
        while len(self._data) < end:
            known = len(self._data)
            self._data += self._source.read(known, min(_WINDOW, self._end - known))

    def since(self, begin: int) -> bytes:
        """Return the bytes from *begin* to where the reading stands."""
        return bytes(self._data[begin : self.position])

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes, and step over them."""
        begin = self.position
        self._reach(begin + count)
        self.position += count
        return self.since(begin)

    def natural(self, size: int) -> int:
        """Return the unsigned integer in the next *size* bytes."""
        return int.from_bytes(self.take(size), "little")

    def text(self, limit: int, what: str) -> str:
        """Return the next string, at most *limit* bytes of UTF-8; errors call it *what*."""
        begin = self.position + _LENGTH.size
        self._reach(begin)
        (length,) = _LENGTH.unpack_from(self._data, self.position)
        if length > limit:
            raise MalformedError(f"{what} is longer than {limit} bytes", where=self.where)
        self._reach(begin + length)
        self.position = begin + length
        try:
            return self._data[begin : self.position].decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"{what} is not UTF-8", where=self.where) from error

    def count(self, number: int) -> None:
        """Count *number* more strings or arrays in arrays, before they are read."""
        self._items += number
        if self._items > MAX_ITEMS:
            what = f"the arrays hold more than {MAX_ITEMS} strings and arrays"
            raise MalformedError(what, where=self.where)


def read_key(header: Header) -> str:
    """Return the next key, refusing what is not printable ASCII without spaces."""
    key = header.text(MAX_KEY, "a key")
    # docs/gguf.md asks for lower_snake_case, but architectures called gpt-oss are in use.
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise MalformedError(f"{key!r} is not a key", where=header.where)
    return key


def read_value(header: Header, *, where: str) -> str:
    """Return the next type and value as text; errors in the value name *where*."""
    kind = header.natural(4)
    if kind == _ARRAY:
        item, number = header.natural(4), header.natural(8)
        begin = header.position
        _step_over(header, item, number, 1, where)
        name = {_ARRAY: "arr", _STRING: "str"}.get(item) or _NUMBERS[item][0]
        return f"arr[{name}] {number} values, {_digest(header.since(begin))}"
    if kind == _STRING:
        text = header.text(MAX_STRING, "a string")
        raw = text.encode()
        shown = json.dumps(text, ensure_ascii=False) if len(raw) <= MAX_SHOWN else _digest(raw)
        return f"str {shown}"
    raw = _take(header, kind, 1, where)
    name, encoding = _NUMBERS[kind]
    (value,) = encoding.unpack(raw)
    if value != value:  # noqa: PLR0124 - NaN
        return f"{name} nan:{raw[::-1].hex()}"
    return f"{name} {json.dumps(value) if kind == _BOOL else repr(value)}"


def _step_over(header: Header, kind: int, number: int, depth: int, where: str) -> None:
    """Check and step over the *number* values of an array, all of type *kind*."""
    if kind == _ARRAY:
        if depth == MAX_DEPTH:
            raise MalformedError(f"arrays are nested deeper than {MAX_DEPTH}", where=where)
        header.count(_NESTED * number)
        for _ in range(number):
            _step_over(header, header.natural(4), header.natural(8), depth + 1, where)
    elif kind == _STRING:
        header.count(number)
        for _ in range(number):
            header.text(MAX_STRING, "a string")
    else:
        _take(header, kind, number, where)


def _take(header: Header, kind: int, number: int, where: str) -> bytes:
    """Return the next *number* values of the type *kind*, which has one size."""
    if kind not in _NUMBERS:
        raise MalformedError(f"unknown type of value {kind}", where=where)
    raw = header.take(number * _NUMBERS[kind][1].size)
    if kind == _BOOL and raw.strip(b"\0\1"):
        raise MalformedError("a boolean is neither 0 nor 1", where=where)
    return raw


def _digest(raw: bytes) -> str:
    return f"{len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}"


MAX_KEYS: Final = 65_536
"""Most keys. Language models have about 40."""

MAX_NAME: Final = 64
"""Longest name of a tensor, in bytes (docs/gguf.md)."""

MAX_DIMENSIONS: Final = 4
"""Most dimensions of a tensor: ``GGML_MAX_DIMS``."""

MIN_ALIGNMENT: Final = 8
MAX_ALIGNMENT: Final = 65_536
"""In bytes: docs/gguf.md asks for a multiple of 8, llama.cpp for a power of two; the largest page
of the processors that models are mapped on."""

DEFAULT_ALIGNMENT: Final = 32
"""The alignment where no key states it, in bytes (docs/gguf.md)."""

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = "general.alignment"

_Placed = tuple[TensorInfo, int]
"""A tensor, and where its bytes begin, from the beginning of the data."""


class GgufFile(PlacedFile):
    """An open GGUF file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "gguf"

    def __init__(self, source: Source) -> None:
        """Read and check everything of *source* but the tensors' bytes."""
        super().__init__(source)
        header = Header(source)
        version = _version(header)
        tensors, keys = header.natural(8), header.natural(8)
        check_count(tensors, where=source.name)
        if keys > MAX_KEYS:
            raise MalformedError(f"more than {MAX_KEYS} keys", where=source.name)
        metadata, alignment, stated_at = _keys(header, keys)
        placed = _tensors(header, tensors)
        source.head = header.since(0)
        in_order = sorted(placed, key=lambda tensor: tensor[1])
        start = _aligned(header.position, alignment) if placed else header.position
        padded = _check_places(source, header.position, start, in_order, alignment)
        self._offsets = {info.name: start + offset for info, offset in placed}
        self.tensors = {info.name: info for info, _ in in_order}
        self.metadata = metadata
        orders = [[info.name for info, _ in order] for order in (placed, in_order)]
        where = "by default" if stated_at is None else f"stated after {stated_at} keys"
        end = "padded" if padded else "unpadded"
        self.container = stated(
            {
                Normaliser.VERSION: str(version),
                Normaliser.ORDER: [list(metadata), *orders],
                Normaliser.LAYOUT: f"{alignment} {where}, {end}",
            }
        )


def _version(header: Header) -> int:
    if header.take(4) != _MAGIC:
        raise MalformedError("does not begin as GGUF does", where=header.where)
    raw = header.take(4)
    version = int.from_bytes(raw, "little")
    if int.from_bytes(raw, "big") in _VERSIONS:
        hint = "convert it with gguf-convert-endian"
        raise UnreadableError("is big-endian GGUF", where=header.where, hint=hint)
    if version == 1:
        raise UnreadableError("is GGUF version 1, which llama.cpp dropped", where=header.where)
    if version not in _VERSIONS:
        raise MalformedError(f"there is no GGUF version {version}", where=header.where)
    return version


def _keys(header: Header, number: int) -> tuple[dict[str, str], int, int | None]:
    """Return the metadata, the alignment, and how many keys precede it (None: it is not stated)."""
    metadata: dict[str, str] = {}
    alignment, stated_at = DEFAULT_ALIGNMENT, None
    for place in range(number):
        key = read_key(header)
        where = f"{header.where}: {key}"
        if key in metadata or (key == _ALIGNMENT and stated_at is not None):
            raise MalformedError("duplicate key", where=where)
        if key != _ALIGNMENT:
            metadata[key] = read_value(header, where=where)
            continue
        if header.natural(4) != U32:
            raise MalformedError("is not of type u32", where=where)
        stated_at, alignment = place, header.natural(4)
        if not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            what = f"{alignment} is not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}"
            raise MalformedError(what, where=where)
    return metadata, alignment, stated_at


def _tensors(header: Header, number: int) -> list[_Placed]:
    placed: dict[str, _Placed] = {}
    for _ in range(number):
        info, offset = _tensor(header)
        if info.name in placed:
            raise MalformedError("duplicate tensor name", where=f"{header.where}: {info.name}")
        placed[info.name] = info, offset
    return list(placed.values())


def _tensor(header: Header) -> _Placed:
    name = check_name(header.text(MAX_NAME, "the name of a tensor"), where=header.where)
    where = f"{header.where}: {name}"
    rank = header.natural(4)
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise MalformedError(f"has {rank} dimensions, not 1 to {MAX_DIMENSIONS}", where=where)
    inner_first = [header.natural(8) for _ in range(rank)]
    number = header.natural(4)
    dtype = GGML_TYPES.get(number)
    if dtype is None:
        raise MalformedError(f"the element type {number} is not known", where=where)
    if 0 in inner_first:
        raise MalformedError("has a dimension of size 0", where=where)
    info = describe(name, dtype, inner_first[::-1], where=where)
    if inner_first[0] % info.dtype.block:
        what = f"its rows of {inner_first[0]} elements are not whole blocks of {info.dtype.block}"
        raise MalformedError(what, where=where)
    return info, header.natural(8)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _check_places(
    source: Source, position: int, start: int, tensors: list[_Placed], alignment: int
) -> bool:
    """Check that *tensors*, in order, fill *source* from *start* on; return whether it is padded.

    *position* is where the descriptions end.
    """
    last, end = position, 0  # where data ends: in the file, and from *start*
    for info, offset in tensors:
        expected = _aligned(end, alignment)
        if offset != expected:
            what = "overlaps the one before" if offset < end else "is not where the one before ends"
            raise MalformedError(f"the tensor {what}", where=f"{source.name}: {info.name}")
        end = offset + info.nbytes
        if start + end > source.size:
            raise MalformedError("the tensor is cut off", where=f"{source.name}: {info.name}")
        _check_zeros(source, last, start + offset)
        last = start + end
    rest = source.size - last
    padding = _aligned(last, alignment) - last
    if rest not in (0, padding):
        raise MalformedError(
            f"{rest} bytes follow the last tensor, its padding has {padding}", where=source.name
        )
    _check_zeros(source, last, source.size)
    return rest == padding


def _check_zeros(source: Source, begin: int, end: int) -> None:
    if begin < end and source.read(begin, end - begin).strip(b"\0"):
        raise MalformedError(f"the padding at byte {begin} is not zero", where=source.name)
