"""The keys and values of a GGUF file, each value as one line of text.

Format: ``gguf_metadata_kv_t`` of docs/gguf.md. ``docs/spec/equality.md`` section 7 has the texts.

All is limited, because llama.cpp trusted a file's counts and overflowed its buffers
(CVE-2024-21802, -21825, -21836, -23496, -23605).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Final

from provenance.errors import MalformedError
from provenance.weights.source import Source

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
