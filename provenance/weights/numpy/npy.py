"""npy: numpy's format for one array, as a file or as a member of an npz.

Format: NEP 1 and ``numpy.lib.format``, versions 1.0, 2.0 and 3.0. The header is read by its own
small grammar, never evaluated: a dictionary with the keys ``descr``, ``fortran_order`` and
``shape``, each once, and white space. Refused: objects (pickle), structured and void types,
strings, dates, extended precision, bytes after the array.

What is yielded is canonical: C order and little-endian. An array in Fortran order can be turned
only with all its bytes at hand, so one beyond ``MAX_TRANSPOSED`` is refused as unreadable.

Limits: header 10,000 bytes (numpy's default), 64 dimensions.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import NUMPY
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import SourceFile
from provenance.weights.view import TensorInfo, describe, part_of, stated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from provenance.weights.source import Source

MAX_HEADER: Final = 10_000
"""Longest header, in bytes: ``numpy.lib.format._MAX_HEADER_SIZE``."""

MAX_TRANSPOSED: Final = 2**29
"""Largest array in Fortran order, in bytes; it is held in memory twice while it is turned."""

PREFIX_BYTES: Final = 12
"""Longest part before the header: magic, version, length."""

ARRAY: Final = "array"
"""The name of the one tensor of an npy file, which has none of its own."""

_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {code[1:]: name for name, code in NUMPY.items()}
)

_ITEM: Final = re.compile(
    r"\s*(?P<q>['\"])(?P<key>descr|fortran_order|shape)(?P=q)\s*:\s*"
    r"(?P<value>'[^'\\]*'|\"[^\"\\]*\"|True|False|\([0-9,\sL]*\))\s*"
)
_SHAPE: Final = re.compile(r"\(\s*(?:[0-9]+L?\s*(?:,\s*[0-9]+L?\s*)*,?\s*)?\)")


class NpyHeader(NamedTuple):
    """The header of an array, read."""

    info: TensorInfo
    start: int
    """Where the array's bytes begin, from the start of the magic."""
    fortran: bool
    big_endian: bool
    spelling: str
    """Version and text, as the file has them."""


class Reader(Protocol):
    """The bytes of one array, header and all, from the start; read once, in order."""

    def fill(self, buffer: memoryview) -> None:
        """Fill *buffer* with the next bytes; raise where there are too few."""

    def finish(self) -> None:
        """Check that nothing is left, and what the container knows of the whole."""


def facts_of(headers: Iterable[NpyHeader]) -> dict[Normaliser, object]:
    """Return the facts that the *headers* of a file state."""
    headers = list(headers)
    return {
        Normaliser.SPELLING: [header.spelling for header in headers],
        Normaliser.LAYOUT: [header.fortran for header in headers],
        Normaliser.BYTE_ORDER: [header.big_endian for header in headers],
    }


def parse_header(data: bytes, name: str, *, where: str) -> NpyHeader:
    """Return the header that *data*, the beginning of an array, holds.

    Raises:
        MalformedError: it is not a header, or of a type that is refused.
    """
    text, start, version = _text(data, where)
    fields = _fields(text, where)
    descr = fields["descr"][1:-1]
    order, code = descr[:1], descr[1:]
    if order not in ("<", ">", "|", "=") or code not in _DTYPES:
        raise MalformedError(f"the element type {descr!r} is not a plain number", where=where)
    if order == "=" or (order == "|") != code.endswith("1"):
        raise MalformedError(f"the element type {descr!r} does not fix its byte order", where=where)
    dimensions = re.findall(r"[0-9]+", fields["shape"])
    if not _SHAPE.fullmatch(fields["shape"]) or "," not in fields["shape"] != "()":
        raise MalformedError("shape is not a tuple of numbers", where=where)
    if any(len(digits) > 16 for digits in dimensions):  # noqa: PLR2004 - 2^53 has 16 digits
        raise MalformedError("the shape is too large", where=where)
    info = describe(name, _DTYPES[code], list(map(int, dimensions)), where=where)
    # Both orders lay out the same bytes unless two dimensions exceed one.
    fortran = fields["fortran_order"] == "True" and sum(d > 1 for d in info.shape) > 1
    return NpyHeader(info, start, fortran, order == ">", f"{version} {text}")


def _text(data: bytes, where: str) -> tuple[str, int, int]:
    """Return the header's text, where it ends, and the format's major version."""
    if data[:6] != b"\x93NUMPY" or data[7:8] != b"\0" or data[6] not in (1, 2, 3):
        raise MalformedError("not an npy array of version 1.0, 2.0 or 3.0", where=where)
    version = data[6]
    begin = 10 if version == 1 else PREFIX_BYTES
    length = int.from_bytes(data[8:begin], "little")
    if length > MAX_HEADER:
        raise MalformedError(f"the npy header is longer than {MAX_HEADER} bytes", where=where)
    raw = data[begin : begin + length]
    if len(data) < begin + length:
        raise MalformedError("the npy header is cut off", where=where)
    try:
        return raw.decode("utf-8" if version == 3 else "latin-1"), begin + length, version  # noqa: PLR2004
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
    while position < len(body) and (item := _ITEM.match(body, position)) is not None:
        if item["key"] in fields:
            raise MalformedError(f"the key {item['key']!r} stands twice", where=where)
        fields[item["key"]] = item["value"]
        position = item.end()
        if body[position : position + 1] != ",":
            break
        position += 1
    if body[position:].strip() or len(fields) != 3:  # noqa: PLR2004 - the three keys
        raise MalformedError(
            "the npy header does not describe an array of plain numbers", where=where
        )
    if not (fields["descr"][0] in "'\"" and fields["shape"][0] == "("):
        raise MalformedError("the npy header has a value of the wrong type", where=where)
    if fields["fortran_order"] not in ("True", "False"):
        raise MalformedError("fortran_order is neither True nor False", where=where)
    return fields


def canonical_chunks(
    reader: Reader,
    header: NpyHeader,
    step: int,
    part: tuple[int, int],
    *,
    where: str,
) -> Iterator[memoryview]:
    """Yield the array that *reader* stands before, in C order, little-endian, *step* bytes a time.

    *part* is where in the canonical bytes to begin and to end.
    """
    if header.fortran:
        data = _turned(reader, header, where)
        for done in range(*part, step):
            yield data[done : min(done + step, part[1])]
        return
    nbytes = header.info.nbytes
    buffer = memoryview(bytearray(min(step, nbytes)))
    for done in range(0, part[0], max(step, 1)):  # a stream: what stands before is read too
        reader.fill(buffer[: min(step, part[0] - done)])
    for done in range(*part, step):
        chunk = buffer[: min(step, part[1] - done)]
        reader.fill(chunk)
        if done + len(chunk) == nbytes:
            reader.finish()
        yield _little_endian(chunk, header)
    if not nbytes:
        reader.finish()


def _little_endian(chunk: memoryview, header: NpyHeader) -> memoryview:
    dtype = header.info.dtype
    if not header.big_endian:
        return chunk
    words = np.frombuffer(chunk, f"u{dtype.bits // dtype.components // 8}")
    return words.byteswap().view(np.uint8).data


def _turned(reader: Reader, header: NpyHeader, where: str) -> memoryview:
    """Return the whole array, which is in Fortran order, in C order and little-endian."""
    info = header.info
    if info.nbytes > MAX_TRANSPOSED:
        raise UnreadableError(
            f"in Fortran order and larger than {MAX_TRANSPOSED} bytes",
            where=where,
            hint="save it in C order",
        )
    whole = memoryview(bytearray(info.nbytes))
    reader.fill(whole)
    reader.finish()
    item = np.dtype((np.void, info.dtype.bits // 8))
    turned = np.ascontiguousarray(
        np.frombuffer(_little_endian(whole, header), item).reshape(info.shape, order="F")
    )
    return turned.reshape(-1).view(np.uint8).data


class _Plain:
    """The bytes of a source from a position on."""

    def __init__(self, source: Source, position: int) -> None:
        self._source = source
        self._position = position

    def fill(self, buffer: memoryview) -> None:
        self._source.read_into(self._position, buffer)
        self._position += len(buffer)

    def finish(self) -> None:
        """Do nothing: the size was checked when the file was opened."""


class NpyFile(SourceFile):
    """An open npy file: one tensor, called ``array``."""

    format = "npy"

    def __init__(self, source: Source) -> None:
        """Read and check the header of *source*.

        Raises:
            MalformedError: the file is not one plain array.
            UnreadableError: the file cannot be read.
        """
        super().__init__(source)
        data = source.read(0, min(source.size, PREFIX_BYTES + MAX_HEADER))
        self._header = header = parse_header(data, ARRAY, where=source.name)
        if header.start + header.info.nbytes != source.size:
            raise MalformedError(
                f"the array takes {header.info.nbytes} bytes, "
                f"the file has {source.size - header.start}",
                where=source.name,
            )
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType({ARRAY: header.info})
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self.container = stated(facts_of([header]))

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.chunks`."""
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        place = self._header.start
        if not self._header.fortran:  # what stands before the part needs not be read
            place, begin, end = place + begin, 0, end - begin
        return canonical_chunks(
            _Plain(self._source, place),
            self._header,
            info.dtype.nbytes(elements),
            (begin, end),
            where=f"{self._source.name}: {info.name}",
        )
