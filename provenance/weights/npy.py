"""Arrays of numpy: npy, one array, and npz, a ZIP archive of them.

Format: NEP 1 and ``numpy.lib.format``, versions 1.0, 2.0 and 3.0. The header is matched, never
evaluated: a dictionary with the keys ``descr``, ``fortran_order`` and ``shape``, each once, and
white space. Refused: objects (pickle), structured and void types, strings, dates, extended
precision, bytes after the array.

The tensor of an npy file is called ``array``, one of an npz file as its member without ``.npy``;
other members are refused. Two npz files with equal tensors and facts may differ in their deflate
streams, of the same length.

An array in Fortran order has to be transposed in memory: beyond ``MAX_TRANSPOSED`` it is refused as
unreadable.

Limits: header 10,000 bytes (numpy's default), 64 dimensions; those of
:mod:`~provenance.weights.zip_archive`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import NUMPY
from provenance.weights.normalisers import Normaliser
from provenance.weights.view import SourceFile, TensorInfo, cut, describe, little_endian, stated
from provenance.weights.zip_archive import NO_CRC, STORED, Member, MemberReader, members

if TYPE_CHECKING:
    from provenance.weights.source import Source

MAX_HEADER: Final = 10_000
"""Longest header, in bytes: ``numpy.lib.format._MAX_HEADER_SIZE``."""

MAX_TRANSPOSED: Final = 2**29
"""Largest array in Fortran order, in bytes; transposing it takes twice that in memory."""

ARRAY: Final = "array"
"""The name of the one tensor of an npy file, which has none of its own."""

_SUFFIX: Final = ".npy"
_PREFIX_BYTES: Final = 12
"""Longest part before the header: magic, version, length."""

_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {code[1:]: name for name, code in NUMPY.items()}
)
_ITEM: Final = re.compile(
    r"\s*(?P<q>['\"])(?:descr(?P=q)\s*:\s*(?P<descr>'[^'\\]*'|\"[^\"\\]*\")"
    r"|fortran_order(?P=q)\s*:\s*(?P<fortran_order>True|False)"
    r"|shape(?P=q)\s*:\s*(?P<shape>\(\s*(?:[0-9]+L?\s*(?:,\s*(?:[0-9]+L?\s*|(?=\))))*)?\)))"
    r"\s*(?:,|\Z)"
)


class _Header(NamedTuple):
    """The header of an array, read."""

    info: TensorInfo
    start: int
    """Where the array's bytes begin, from the start of the magic."""
    fortran: bool
    big_endian: bool
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
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: header.info for name, (_, header) in self._arrays.items()}
        )
        headers = [self._arrays[name][1] for name in sorted(self._arrays)]
        self.container = stated(
            {
                Normaliser.SPELLING: [header.spelling for header in headers],
                Normaliser.LAYOUT: [header.fortran for header in headers],
                Normaliser.BYTE_ORDER: [header.big_endian for header in headers],
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
        return header

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        member, header = self._arrays[name]
        reader = MemberReader(self._source, member)
        reader.skip(header.start)
        if header.fortran:
            return _turned(reader, header, begin, end, step)
        reader.skip(begin)
        return _straight(reader, header, begin, end, step)


class NpzFile(NpyFile):
    """An open npz file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "npz"
    direct = False  # a member's CRC-32 covers all of it

    def __init__(self, source: Source) -> None:
        """Read and check the archive *source*."""
        super().__init__(source)
        by_name = [self._arrays[name][0] for name in sorted(self._arrays)]
        archive = stated(
            {
                Normaliser.ORDER: list(self._arrays),
                Normaliser.COMPRESSION: [(m.method, m.compressed) for m in by_name],
                Normaliser.ARCHIVE_FIELDS: [m.ignored for m in by_name],
            }
        )
        self.container = MappingProxyType({**self.container, **archive})

    def _found(self) -> dict[str, Member]:
        found = {member.name: member for member in members(self._source)}
        for name in found:
            if not name.endswith(_SUFFIX) or name == _SUFFIX:
                raise MalformedError(f"the member {name!r} is not *.npy", where=self._source.name)
            if (short := name.removesuffix(_SUFFIX)) in found:  # numpy looks that up first
                raise MalformedError(f"two arrays named {short!r}", where=self._source.name)
        return {name.removesuffix(_SUFFIX): member for name, member in found.items()}


def _parse(data: bytes, name: str, where: str) -> _Header:
    """Return the header that *data*, the beginning of an array, holds."""
    text, start, version = _text(data, where)
    fields = _fields(text, where)
    descr, shape = fields["descr"][1:-1], fields["shape"]
    order, code = descr[:1], descr[1:]
    if order not in ("<", ">", "|", "=") or code not in _DTYPES:
        raise MalformedError(f"the element type {descr!r} is not a plain number", where=where)
    if order == "=" or (order == "|") != code.endswith("1"):
        raise MalformedError(f"the element type {descr!r} does not fix its byte order", where=where)
    dimensions = re.findall(r"[0-9]+", shape)
    if "," not in shape != "()":
        raise MalformedError("shape is not a tuple of numbers", where=where)
    if any(len(digits) > 16 for digits in dimensions):  # noqa: PLR2004 - 2^53 has 16 digits
        raise MalformedError("the shape is too large", where=where)
    info = describe(name, _DTYPES[code], list(map(int, dimensions)), where=where)
    # Both orders lay out the same bytes unless two dimensions exceed one.
    fortran = fields["fortran_order"] == "True" and sum(d > 1 for d in info.shape) > 1
    return _Header(info, start, fortran, order == ">", f"{version} {text}")


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


def _straight(
    reader: MemberReader, header: _Header, begin: int, end: int, step: int
) -> Iterator[memoryview]:
    """Yield a part of an array in C order; *reader* is at *begin*."""
    buffer = memoryview(bytearray(min(step, end - begin)))
    for done in range(begin, end, step):
        chunk = buffer[: min(step, end - done)]
        reader.fill(chunk)
        if done + len(chunk) == header.info.nbytes:
            reader.finish()
        yield little_endian(chunk, header.info.dtype) if header.big_endian else chunk
    if not header.info.nbytes:
        reader.finish()


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
    reader.finish()
    if header.big_endian:
        whole = little_endian(whole, info.dtype)
    item = np.dtype((np.void, info.dtype.bits // 8))
    array = np.frombuffer(whole, item).reshape(info.shape, order="F")
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    yield from cut(data, begin, end, step)
