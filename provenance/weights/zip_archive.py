"""ZIP archives as containers of weights: PKWARE APPNOTE 6.3.10, read strictly.

One reading only: members tile the file from its first byte to the central directory without gap or
overlap, nothing stands before, between or after, local headers say what the directory says, no
name stands twice. Refused: encryption, methods other than stored and deflated, archives in parts,
comments, directories, links out (absolute names, ``..``, backslashes).

Readers look for the ZIP64 end records at their place before the end record whether that asks for
them or not; so what looks like their locator must be it. Of extra fields only those are read that
can neither rename a member nor hold another archive, each kind once: the ZIP64 one, with just the
numbers that the record leaves to it, and two of Unix times and owners. What one writer adds to that
is a :class:`Dialect`, which its reader asks for.

Members are decompressed as they are read, in constant memory; the declared size is enforced and
the CRC-32 checked. A member that declares more than deflate can hold (1032 : 1) is refused before.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from provenance.errors import MalformedError
from provenance.files.names import is_plain
from provenance.weights.view import check_count, check_name
from provenance.weights.zip_records import (
    CENTRAL,
    END,
    END64,
    EXTRA,
    LOCAL,
    LOCATOR,
    LOCATOR_MARK,
    Central,
    Local,
)

if TYPE_CHECKING:
    from provenance.weights.source import Source

MAX_DIRECTORY: Final = 100_000_000
"""Longest central directory, in bytes."""

STORED: Final = 0
DEFLATED: Final = 8

_DEFLATE_RATIO: Final = 1032
"""Most bytes that one byte of deflate can spell (zlib's technical details)."""

_READ: Final = 2**18
_FLAG_DESCRIPTOR: Final = 1 << 3
_FLAG_UTF8: Final = 1 << 11
_ALLOWED_FLAGS: Final = _FLAG_DESCRIPTOR | _FLAG_UTF8 | 0b110  # 1 and 2: effort of deflate
_EXTRA_ZIP64: Final = 0x0001
_UNHEEDED_EXTRA: Final = MappingProxyType({0x5455: 13, 0x7875: 15})
"""Times and owners as Unix tools write them: the kinds of fields, and their longest forms in bytes.
Others can rename a member for a reader (0x7075), and a long one can hide a second archive."""

_MAX_NEEDED: Final = 63
"""The newest version of the format that a member may need: 6.3 (section 4.4.3.2)."""

_U16: Final = 0xFFFF
_U32: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """A member, its place checked."""

    name: str
    method: int
    compressed: int
    size: int
    crc: int
    offset: int
    """Of the local header."""
    start: int
    """Of the compressed bytes."""
    fields: str
    """Times, versions, flags, attributes and extra fields: what readers pay no heed to."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a writer of archives puts into them beyond what :func:`members` reads anyway."""

    padding: int | None = None
    """The kind of an extra field of local headers that holds only the letter Z, to align bytes."""
    miniz: bool = False
    """Whether ZIP64 end records may stand where none is needed, and local headers that leave their
    sizes to the data descriptor have a ZIP64 extra field nonetheless: as miniz writes them."""


STRICT: Final = Dialect()


def members(source: Source, dialect: Dialect = STRICT) -> tuple[Member, ...]:
    """Return the members of the archive, in the order of their bytes.

    Raises:
        MalformedError: the file is not a strict archive.
        UnreadableError: the file cannot be read.
    """
    count, start, length = _end(source, dialect)
    check_count(count, where=source.name)
    found = _directory(source, source.read(start, length), count)
    found.sort(key=lambda pair: pair[0].offset)
    checked: list[Member] = []
    position = 0
    for index, (record, name, extra) in enumerate(found):
        if record.offset != position:
            raise MalformedError("bytes between the members, or two overlap", where=source.name)
        position = found[index + 1][0].offset if index + 1 < len(found) else start
        checked.append(_local(source, record, name, extra, position, dialect))
    if position != start:
        raise MalformedError("bytes before the central directory", where=source.name)
    return tuple(checked)


def _end(source: Source, dialect: Dialect) -> tuple[int, int, int]:
    """Return how many records the central directory has, its place and its length (4.3.16)."""
    where = source.name
    if source.size < END.size:
        raise MalformedError("too short to be a ZIP archive", where=where)
    place = source.size - END.size
    signature, *said, comment = END.unpack(source.read(place, END.size))
    if signature != b"PK\5\6" or comment:
        raise MalformedError("does not end as a ZIP archive without comment", where=where)
    disk, first, here, count, length, start = said
    near = place >= LOCATOR.size and source.read(place - LOCATOR.size, 4) == LOCATOR_MARK
    asked = _U16 in said[:4] or _U32 in said[4:]
    if asked or (near and dialect.miniz):
        disk, first, here, count, length, start = wide = _end64(source, place)
        place -= LOCATOR.size + END64.size
        limits = (_U16, _U16, _U16, _U16, _U32, _U32)
        if any(n not in (w, most) for n, w, most in zip(said, wide, limits, strict=True)):
            raise MalformedError("the two end records contradict each other", where=where)
    elif near:
        raise MalformedError("a ZIP64 locator that the end record does not ask for", where=where)
    if disk or first or here != count:
        raise MalformedError("an archive in parts", where=where)
    if length > MAX_DIRECTORY or start + length != place:
        raise MalformedError("the central directory is misplaced or too long", where=where)
    return count, start, length


def _end64(source: Source, end: int) -> tuple[int, int, int, int, int, int]:
    """Return what the ZIP64 end record before *end* says in the end record's place (4.3.14)."""
    where = source.name
    locator = end - LOCATOR.size
    place = locator - END64.size
    if place < 0:
        raise MalformedError("the ZIP64 records are missing", where=where)
    mark, disk64, where64, disks = LOCATOR.unpack(source.read(locator, LOCATOR.size))
    if (mark, disk64, where64, disks) != (LOCATOR_MARK, 0, place, 1):
        raise MalformedError("the ZIP64 locator is wrong", where=where)
    record = END64.unpack(source.read(place, END64.size))
    if record[:2] != (b"PK\6\6", END64.size - 12):
        raise MalformedError("the ZIP64 end record is wrong", where=where)
    _, _, _, _, disk, first, here, count, length, start = record
    return disk, first, here, count, length, start


def _directory(source: Source, data: bytes, count: int) -> list[tuple[Central, str, bytes]]:
    """Return each record of the central directory, its name and its extra field."""
    where = source.name
    found: list[tuple[Central, str, bytes]] = []
    names: set[str] = set()
    position = 0
    while position < len(data):
        if len(data) - position < CENTRAL.size:
            raise MalformedError("the central directory is cut off", where=where)
        record = Central(*CENTRAL.unpack_from(data, position))
        position += CENTRAL.size
        after = position + record.name_length + record.extra_length
        if record.signature != b"PK\1\2" or record.disk or record.comment_length:
            raise MalformedError("a record of the central directory is wrong", where=where)
        if after > len(data):
            raise MalformedError("the central directory is cut off", where=where)
        name = _name(data[position : position + record.name_length], record.flags, where)
        if name in names:
            raise MalformedError(f"the member {name!r} stands twice", where=where)
        names.add(name)
        extra = data[position + record.name_length : after]
        found.append((_check(_resolve(record, extra, where), f"{where}: {name}"), name, extra))
        position = after
    if len(found) != count:
        raise MalformedError("the central directory has another number of records", where=where)
    return found


def _name(raw: bytes, flags: int, where: str) -> str:
    try:
        name = raw.decode("utf-8" if flags & _FLAG_UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("a member's name is not in UTF-8", where=where) from error
    check_name(name, where=where)
    if not is_plain(name):
        raise MalformedError(f"the member name {name!r} is not plain", where=where)
    return name


def _resolve(record: Central, extra: bytes, where: str) -> Central:
    """Return *record* with the sizes and offset of its ZIP64 extra field (section 4.5.3)."""
    said = (record.size, record.compressed, record.offset)
    size, compressed, offset = _widened(said, extra, where)
    return record._replace(size=size, compressed=compressed, offset=offset)


def _widened(
    said: tuple[int, ...], extra: bytes, where: str, padding: int | None = None
) -> tuple[int, ...]:
    """Return *said* with each number that did not fit taken from the ZIP64 extra field.

    That field must hold just these numbers, and be missing where there are none.
    """
    wide = _zip64(extra, padding, where)
    if len(wide) != said.count(_U32):
        raise MalformedError("a ZIP64 extra field is missing, or of another length", where=where)
    rest = iter(wide)
    return tuple(next(rest) if number == _U32 else number for number in said)


def _zip64(extra: bytes, padding: int | None, where: str) -> tuple[int, ...]:
    """Return the numbers of the ZIP64 extra field, none without one; check all fields' kinds."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        if len(extra) - position < EXTRA.size:
            raise MalformedError("an extra field is cut off", where=where)
        kind, length = EXTRA.unpack_from(extra, position)
        position += EXTRA.size
        if position + length > len(extra):
            raise MalformedError("an extra field is cut off", where=where)
        data = extra[position : position + length]
        wide = kind == _EXTRA_ZIP64 and length and not length % 8
        inert = kind == padding and data == b"Z" * length
        if not wide and not inert and length > _UNHEEDED_EXTRA.get(kind, -1):
            raise MalformedError(
                f"an extra field of kind {kind:#06x} and {length} bytes", where=where
            )
        if kind in found:
            raise MalformedError(f"two extra fields of kind {kind:#06x}", where=where)
        found[kind] = data
        position += length
    numbers = found.get(_EXTRA_ZIP64, b"")
    return struct.unpack(f"<{len(numbers) // 8}Q", numbers)


def _check(record: Central, where: str) -> Central:
    """Check what does not need the local header."""
    if record.flags & ~_ALLOWED_FLAGS or record.needed > _MAX_NEEDED:
        raise MalformedError("encrypted, or with features that are not read", where=where)
    if record.method == STORED:
        if record.size != record.compressed:
            raise MalformedError("stored, but of two sizes", where=where)
    elif record.method != DEFLATED:
        raise MalformedError(f"the compression method {record.method} is not read", where=where)
    elif record.size > record.compressed * _DEFLATE_RATIO:
        raise MalformedError("declares more bytes than deflate can hold", where=where)
    return record


def _local(
    source: Source, record: Central, name: str, extra: bytes, end: int, dialect: Dialect
) -> Member:
    """Return the member, its local header and data descriptor checked against *record*."""
    where = f"{source.name}: {name}"
    room = end - record.offset
    if room < LOCAL.size:
        raise MalformedError("the local header is cut off", where=where)
    local = Local(*LOCAL.unpack(source.read(record.offset, LOCAL.size)))
    tail = local.name_length + local.extra_length
    start = record.offset + LOCAL.size + tail
    gap = end - start - record.compressed
    if gap < 0:
        raise MalformedError("the member overlaps the next", where=where)
    raw = source.read(record.offset + LOCAL.size, tail)
    local_extra = raw[local.name_length :]
    said = (local.crc, *_sizes(local, record, local_extra, dialect, where))
    expected = (record.crc, record.size, record.compressed)
    descriptor = gap
    if record.flags & _FLAG_DESCRIPTOR and said == (0, 0, 0):
        said = expected
        _check_descriptor(source.read(end - gap, gap) if gap <= 24 else b"", expected, where)  # noqa: PLR2004
        gap = 0
    same = (local.signature, local.flags, local.method) == (b"PK\3\4", record.flags, record.method)
    same_name = _name(raw[: local.name_length], local.flags, where) == name
    if gap or not same or not same_name or said != expected:
        raise MalformedError("the local header is not what the directory says", where=where)
    ignored = (record[1:4], record[5:7], record[14:16], local[1], local[4:6], extra, local_extra,
               descriptor)  # fmt: skip
    return Member(
        name, record.method, record.compressed, record.size, record.crc, record.offset, start,
        repr(ignored),
    )  # fmt: skip


def _sizes(
    local: Local, record: Central, extra: bytes, dialect: Dialect, where: str
) -> tuple[int, ...]:
    """Return the two sizes that the local header says, with those of its ZIP64 extra field."""
    said = (local.size, local.compressed)
    if not (dialect.miniz and record.flags & _FLAG_DESCRIPTOR and said == (0, 0)):
        return _widened(said, extra, where, dialect.padding)
    # miniz writes the field before it knows the compressed size, and the offset after both sizes.
    size = (record.size, 0) if record.size >= _U32 else ()
    offset = (record.offset,) if record.offset >= _U32 else ()
    if _zip64(extra, dialect.padding, where) != (*size, *offset):
        raise MalformedError("a ZIP64 extra field is missing, or of another length", where=where)
    return said


def _check_descriptor(data: bytes, expected: tuple[int, int, int], where: str) -> None:
    """Check a data descriptor (section 4.3.9), with or without signature, of either width."""
    crc, size, compressed = expected
    narrow = max(size, compressed) <= _U32
    forms = [struct.pack("<IQQ", crc, compressed, size)]
    if narrow:
        forms.append(struct.pack("<III", crc, compressed, size))
    if data not in [*forms, *(b"PK\7\10" + form for form in forms)]:
        raise MalformedError("the data descriptor is wrong", where=where)


class MemberReader:
    """The bytes of one member, decompressed, from its start; read once, in order."""

    def __init__(self, source: Source, member: Member) -> None:
        """Stand before the first byte of *member*."""
        self._source = source
        self._member = member
        self._where = f"{source.name}: {member.name}"
        self._position = member.start
        self._end = member.start + member.compressed
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
        self._crc = 0
        self._left = member.size

    def fill(self, buffer: memoryview) -> None:
        """Fill *buffer* with the next bytes.

        Raises:
            MalformedError: the member is shorter, or is not deflate.
            UnreadableError: the file cannot be read.
        """
        if len(buffer) > self._left:
            raise MalformedError("the member is too short", where=self._where)
        inflate = self._inflate
        if inflate is None:
            self._source.read_into(self._position, buffer)
            self._position += len(buffer)
        else:
            done = 0
            while done < len(buffer):
                piece, fed = self._step(inflate, len(buffer) - done)
                if not piece and (inflate.eof or not fed):
                    raise MalformedError("the member is too short", where=self._where)
                buffer[done : done + len(piece)] = piece
                done += len(piece)
        self._left -= len(buffer)
        self._crc = zlib.crc32(buffer, self._crc)

    def _step(self, inflate: zlib._Decompress, most: int) -> tuple[bytes, bool]:
        """Return up to *most* decompressed bytes, and whether there was anything to decompress."""
        data = inflate.unconsumed_tail
        if not data and self._position < self._end:
            data = self._source.read(self._position, min(_READ, self._end - self._position))
            self._position += len(data)
        try:
            return inflate.decompress(data, most), bool(data)
        except zlib.error as error:
            raise MalformedError(f"cannot be decompressed: {error}", where=self._where) from error

    def finish(self) -> None:
        """Check that the member ends here, and its CRC-32.

        Raises:
            MalformedError: bytes are left, or the CRC-32 is another.
        """
        if self._left:
            raise MalformedError(f"{self._left} bytes after the array", where=self._where)
        if self._inflate is not None:
            self._end_of_deflate(self._inflate)
        if self._crc != self._member.crc:
            raise MalformedError("the CRC-32 is wrong", where=self._where)

    def _end_of_deflate(self, inflate: zlib._Decompress) -> None:
        """Check that the compressed stream ends with its last byte of output."""
        while not inflate.eof:
            piece, fed = self._step(inflate, 1)
            if piece or not (fed or inflate.eof):
                raise MalformedError("the member is not of its declared size", where=self._where)
        if inflate.unused_data or self._position < self._end:
            raise MalformedError("bytes after the compressed stream", where=self._where)
