"""Arrays of numpy: npy, one array, and npz, a ZIP archive of them.

Format: NEP 1 and ``numpy.lib.format``, versions 1.0, 2.0 and 3.0. The header is matched, never
evaluated: a dictionary with the keys ``descr``, ``fortran_order`` and ``shape``, each once, and
white space. Refused: objects (pickle), records in records, extended precision, bytes after the
array.

Numbers are tensors. So are opaque elements (``V``) and records, of the exact type ``RAW``: byte by
byte, along a last dimension of their own; the fields of records are in the name of the type. numpy
saves bfloat16 as ``<V2`` and nearly every other type of ml_dtypes as ``<V1``, and does not say
which. Texts of fixed width and times are no tensors but metadata, as type, shape and values in
JSON; if they are long (``MAX_SPELLED``) or no Unicode, as the SHA-256 of the little-endian bytes.

The tensor of an npy file is called ``array``, one of an npz file as its member without ``.npy``;
other members are refused. Two npz files with equal tensors and facts may differ in their deflate
streams, of the same length.

An array in Fortran order has to be transposed in memory: beyond ``MAX_TRANSPOSED`` it is refused as
unreadable.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Final, NamedTuple

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import DTYPES, NUMPY, DType
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.view import SourceFile, TensorInfo, cut, describe, little_endian, stated
from provenance.weights.zip_archive import NO_CRC, STORED, Member, MemberReader, members

MAX_HEADER: Final = 10_000
"""Longest header, in bytes: ``numpy.lib.format._MAX_HEADER_SIZE``."""

MAX_TRANSPOSED: Final = 2**29
"""Largest array in Fortran order, in bytes; transposing it takes twice that in memory."""

MAX_SPELLED: Final = 2**22
"""Most bytes of texts and times in a file that are spelled as values."""

ARRAY: Final = "array"
"""The name of the one tensor of an npy file, which has none of its own."""

_SUFFIX: Final = ".npy"
_STEP: Final = 2**18
_PREFIX_BYTES: Final = 12
"""Longest part before the header: magic, version, length."""

_TYPES: Final = tuple(
    (re.compile(pattern), dtype, orders)
    for pattern, dtype, orders in (
        *((code[1:], name, "|" if code[0] == "|" else "<>") for name, code in NUMPY.items()),
        (r"V([1-9][0-9]{0,9})", "RAW", "|<"),
        (r"U([1-9][0-9]{0,9})", "U32", "<>"),
        (r"S([1-9][0-9]{0,9})", "U8", "|"),
        (r"[mM]8(?:\[[0-9]{0,9}(?:[YMWDhms]|[munpfa]s)\])?", "I64", "<>"),
    )
)
"""Codes of element types, the numbers that they are made of, and the orders these may have."""

_QUOTED: Final = r"(?:'([^'\\\0-\x1f]*)'|\"([^\"\\\0-\x1f]*)\")"
_FIELD: Final = rf"\(\s*{_QUOTED}\s*,\s*{_QUOTED}\s*(?:,\s*\(([0-9,\s]{{1,99}})\)\s*)?\)"
_ITEM: Final = re.compile(
    r"\s*(?P<q>['\"])(?:descr(?P=q)\s*:\s*"
    rf"(?P<descr>{_QUOTED}|\[\s*{_FIELD}(?:\s*,\s*{_FIELD})*\s*\])"
    r"|fortran_order(?P=q)\s*:\s*(?P<fortran_order>True|False)"
    r"|shape(?P=q)\s*:\s*(?P<shape>\(\s*(?:[0-9]+L?\s*(?:,\s*(?:[0-9]+L?\s*|(?=\))))*)?\)))"
    r"\s*(?:,|\Z)"
)


class _Element(NamedTuple):
    dtype: DType
    """Of the numbers that an element is made of."""
    width: tuple[int, ...] = ()
    """How many these are, if they have a dimension of their own."""
    big_endian: bool = False
    value: str = ""
    """The type, where the elements are texts or times."""


class _Header(NamedTuple):
    info: TensorInfo
    element: _Element
    shape: tuple[int, ...]
    start: int
    """Where the array's bytes begin, from the start of the magic."""
    fortran: bool
    spelling: str
    """Version and text, as the file has them."""


class NpyFile(SourceFile):
    """An open npy file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "npy"

    def __init__(self, source: Source) -> None:
        """Read and check the header of every array of *source*."""
        super().__init__(source)
        self._arrays = {
            name: (member, self._header(name, member)) for name, member in self._found().items()
        }
        infos = {name: header.info for name, (_, header) in self._arrays.items()}
        values = [name for name, (_, header) in self._arrays.items() if header.element.value]
        long = sum(infos[name].nbytes for name in values) > MAX_SPELLED
        self.metadata = {name: self._value(name, long=long) for name in values}
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for name, info in infos.items() if name not in self.metadata
        }
        headers = [self._arrays[name][1] for name in sorted(self._arrays)]
        if self.direct and not any(it.fortran or it.element.big_endian for it in headers):
            self._offsets = {name: self._arrays[name][1].start for name in self.tensors}
        self.container = stated(
            {
                Normaliser.SPELLING: [header.spelling for header in headers],
                Normaliser.LAYOUT: [header.fortran for header in headers],
                Normaliser.BYTE_ORDER: [header.element.big_endian for header in headers],
            }
        )

    def _found(self) -> dict[str, Member]:
        size = self._source.size
        return {ARRAY: Member(ARRAY, STORED, size, size, NO_CRC, 0)}

    def _header(self, name: str, member: Member) -> _Header:
        data = bytearray(min(member.size, _PREFIX_BYTES + MAX_HEADER))
        MemberReader(self._source, member).fill(memoryview(data))
        where = f"{self._source.name}: {name}"
        header = _parse(bytes(data), name, where)
        if header.start + header.info.nbytes != member.size:
            given = member.size - header.start
            what = f"the array takes {header.info.nbytes} bytes, but {given} follow the header"
            raise MalformedError(what, where=where)
        if self.direct:
            self._source.head = bytes(data[: header.start])
        return header

    def _value(self, name: str, *, long: bool) -> str:
        """Return the texts or times *name*: their values, or of *long* ones the digest."""
        header = self._arrays[name][1]
        value, said = header.element.value, f"{header.element.value} {list(header.shape)}"
        pieces = self.pieces(name, 0, header.info.nbytes, _STEP)
        hasher, data = hashlib.sha256(), bytearray()
        for piece in pieces:
            hasher.update(piece)
            data += b"" if long else piece
        if not long and value[1] in "mM":
            return f"{said} {np.frombuffer(data, '<i8').tolist()}"
        try:
            text = data.decode("utf-32-le" if value[1] == "U" else "latin-1")
        except UnicodeDecodeError:
            long = True
        if long:
            return f"{said} sha256 {hasher.hexdigest()}"
        (width,) = header.element.width
        texts = [text[at : at + width].rstrip("\0") for at in range(0, len(text), width)]
        return f"{said} {json.dumps(texts, ensure_ascii=False)}"

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        member, header = self._arrays[name]
        reader = MemberReader(self._source, member)
        reader.skip(header.start)
        if header.fortran:
            return _turned(reader, header, begin, end, step)
        reader.skip(begin)
        chunks = reader.chunks(end - begin, step)
        big = header.element.big_endian
        return (little_endian(chunk, header.info.dtype) for chunk in chunks) if big else chunks


class NpzFile(NpyFile):
    """An open npz file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "npz"
    direct = False  # a member's CRC-32 covers all of it

    def __init__(self, source: Source) -> None:
        """Read and check the archive *source*."""
        super().__init__(source)
        by_name = [self._members[name] for name in sorted(self._members)]
        archive = stated(
            {
                Normaliser.ORDER: list(self._members),
                Normaliser.COMPRESSION: [m.method and (m.method, m.compressed) for m in by_name],
                Normaliser.ARCHIVE_FIELDS: [m.ignored for m in by_name],
            }
        )
        self.container = {**self.container, **archive}

    def _found(self) -> dict[str, Member]:
        self._members = arrays_in(self._source)
        return self._members


def arrays_in(source: Source) -> dict[str, Member]:
    """Return the arrays of an npz archive, by name, in the order of their bytes."""
    found = {member.name: member for member in members(source)}
    for name in found:
        if not name.endswith(_SUFFIX) or name == _SUFFIX:
            raise MalformedError(f"the member {name!r} is not *.npy", where=source.name)
        if (short := name.removesuffix(_SUFFIX)) in found:  # numpy looks that up first
            raise MalformedError(f"two arrays named {short!r}", where=source.name)
    return {name.removesuffix(_SUFFIX): member for name, member in found.items()}


def _parse(data: bytes, name: str, where: str) -> _Header:
    text, start, version = _text(data, where)
    fields = _fields(text, where)
    element, shape = _element(fields["descr"], where), fields["shape"]
    dimensions = re.findall(r"[0-9]+", shape)
    if "," not in shape != "()":
        raise MalformedError("shape is not a tuple of numbers", where=where)
    if any(len(digits) > 16 for digits in dimensions):  # noqa: PLR2004 - 2^53 has 16 digits
        raise MalformedError("the shape is too large", where=where)
    sizes = tuple(map(int, dimensions))
    info = describe(name, element.dtype, [*sizes, *element.width], where=where)
    # Both orders lay out the same bytes unless two dimensions exceed one.
    fortran = fields["fortran_order"] == "True" and info.nbytes and sum(d > 1 for d in sizes) > 1
    return _Header(info, element, sizes, start, bool(fortran), f"{version} {text}")


def _element(descr: str, where: str) -> _Element:
    """Return the type that *descr* spells: a quoted code, or a list of fields."""
    if not descr.startswith("["):
        return _plain(descr[1:-1], where)
    size, fields = 0, re.findall(_FIELD, descr)
    for *_, code, other, dimensions in fields:
        element = _plain(code or other, where)
        repeated = prod(map(int, re.findall("[0-9]+", dimensions)))
        size += element.dtype.bits // 8 * prod(element.width) * repeated
    names = [one or other for one, other, *_ in fields if one or other]  # padding has none
    if len(names) > len(set(names)):
        raise MalformedError("a record with two fields of one name", where=where)
    return _Element(replace(DTYPES["RAW"], name=f"RAW {descr}"), (size,))


def _plain(code: str, where: str) -> _Element:
    """Return the type of numbers, texts, times or opaque elements that *code* spells."""
    order, kind = code[:1], code[1:]
    matches = ((pattern.fullmatch(kind), dtype, orders) for pattern, dtype, orders in _TYPES)
    found, dtype, orders = next((it for it in matches if it[0] is not None), (None, "", ""))
    if found is None:
        raise MalformedError(f"the element type {code!r} is not read", where=where)
    if order not in orders:
        raise MalformedError(f"the element type {code!r} does not fix its byte order", where=where)
    value = f"{order.replace('>', '<')}{kind}" if kind[0] in "USMm" else ""
    return _Element(DTYPES[dtype], tuple(map(int, found.groups())), order == ">", value)


def _text(data: bytes, where: str) -> tuple[str, int, int]:
    """Return the header's text, where it ends, and the format's major version."""
    if data[:6] != b"\x93NUMPY" or data[7:8] != b"\0" or data[6] not in (1, 2, 3):
        raise MalformedError("not an npy array of version 1.0, 2.0 or 3.0", where=where)
    version = data[6]
    begin = 10 if version == 1 else _PREFIX_BYTES
    end = begin + int.from_bytes(data[8:begin], "little")
    if end - begin > MAX_HEADER:
        raise MalformedError(f"the npy header is longer than {MAX_HEADER} bytes", where=where)
    if len(data) < end:
        raise MalformedError("the npy header is cut off", where=where)
    try:
        return data[begin:end].decode("utf-8" if version == 3 else "latin-1"), end, version  # noqa: PLR2004
    except UnicodeDecodeError as error:
        raise MalformedError("the npy header is not UTF-8", where=where) from error


def _fields(text: str, where: str) -> dict[str, str]:
    """Return the three values of the dictionary that *text* spells, unparsed."""
    body = text.strip()
    if not (body.startswith("{") and body.endswith("}") and text.endswith("\n")):
        raise MalformedError("the npy header is not a dictionary and a line break", where=where)
    body = body[1:-1]
    fields: dict[str, str] = {}
    position = 0
    while item := _ITEM.match(body, position):
        key = item.lastgroup or ""
        if key in fields:
            raise MalformedError(f"duplicate key {key!r}", where=where)
        fields[key] = item[key]
        position = item.end()
    if body[position:].strip() or len(fields) != 3:  # noqa: PLR2004 - the three keys
        raise MalformedError("the npy header is not that of an array of numbers", where=where)
    return fields


def _turned(
    reader: MemberReader, header: _Header, begin: int, end: int, step: int
) -> Iterator[memoryview]:
    """Yield a part, in C order, of an array in Fortran order; *reader* is at the array's begin."""
    info = header.info
    if info.nbytes > MAX_TRANSPOSED:
        what = f"in Fortran order and larger than {MAX_TRANSPOSED} bytes"
        raise UnreadableError(what, where=reader.where, hint="save it in C order")
    whole = memoryview(bytearray(info.nbytes))
    reader.fill(whole)
    if header.element.big_endian:
        whole = little_endian(whole, info.dtype)
    item = np.dtype((np.void, info.nbytes // prod(header.shape)))
    array = np.frombuffer(whole, item).reshape(header.shape, order="F")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    yield from cut(data, begin, end, step)
