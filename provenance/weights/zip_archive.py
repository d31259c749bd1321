"""ZIP archives as containers of weights: PKWARE APPNOTE 6.3.10, read strictly.

Members fill the file from its first byte to the central directory without gap or overlap, local
headers repeat the directory, names are unique. Refused: encryption, methods other than stored and
deflated, multi-part archives, comments, directories, and names that lead elsewhere (absolute,
``..``, backslashes).

Python's ``zipfile`` accepts all of these, and how it searches for the directory depends on its
version. Readers look for ZIP64 end records whether or not the end record asks for them, so what
looks like their locator must be it. The only extra fields accepted, each once, are those that can
neither rename a member nor hold another archive: ZIP64, with exactly the numbers that the record
leaves to it, and two of Unix times and owners.

Members are decompressed as they are read, in constant memory; declared size and CRC-32 are checked.
A member that declares more than deflate can hold (1032 : 1) is refused first.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from provenance.errors import MalformedError
from provenance.files.names import is_plain
from provenance.weights.source import Source
from provenance.weights.view import check_count, check_name

MAX_DIRECTORY: Final = 100_000_000
"""Longest central directory, in bytes."""

MAX_TEXT: Final = 2**26
"""Longest description of a model, in bytes: those of published models have some megabytes."""

STORED: Final = 0
DEFLATED: Final = 8
NO_CRC: Final = -1

_DEFLATE_RATIO: Final = 1032
"""Most bytes that one byte of deflate can spell (zlib's technical details)."""

_READ: Final = 2**18
_FLAG_DESCRIPTOR: Final = 1 << 3
_FLAG_UTF8: Final = 1 << 11
_ALLOWED_FLAGS: Final = _FLAG_DESCRIPTOR | _FLAG_UTF8 | 0b110  # 1 and 2: effort of deflate
_EXTRA_ZIP64: Final = 0x0001
_EXTRA_PADDING: Final = 0x4246
_IGNORED_EXTRA: Final = {0x5455: 13, 0x7875: 15}
"""Kinds of extra fields with Unix times and owners, and their greatest lengths in bytes. Others can
rename a member (0x7075), and a long one can hide a second archive."""

_MAX_NEEDED: Final = 63
"""The newest version of the format that a member may need: 6.3 (section 4.4.3.2)."""

_U16: Final = 0xFFFF
_U32: Final = 0xFFFFFFFF

# Section 4.3: local header, record of the directory, and the end records in their order.
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_END: Final = struct.Struct("<4s4H2IH")
_NO_ZIP64: Final = "a ZIP64 extra field is missing, or of another length"
_MAX_LOCAL: Final = _LOCAL.size + 2 * _U16


class Member(NamedTuple):
    """A member, its place checked."""

    name: str
    method: int
    compressed: int
    size: int
    crc: int
    """NO_CRC for a plain file that is read like a member."""
    start: int
    """Of the compressed bytes; in the directory, of the local header."""
    flags: int = 0
    ignored: tuple[object, ...] = ()
    """Times, versions, attributes and extra fields, which readers ignore."""


def members(source: Source, *, miniz: bool = False) -> tuple[Member, ...]:
    """Return the members of the archive, in the order of their bytes.

    *miniz* allows what torch's writer adds: an extra field of letters Z in local headers, which
    aligns the data; ZIP64 end records where none are needed; and a ZIP64 extra field in local
    headers that leave their sizes to the data descriptor.
    """
    count, start, length = _end(source, miniz=miniz)
    check_count(count, where=source.name)
    records = _records(source.read(start, length), source.name)
    offsets = [*(record.start for record in records), start]
    if len(records) != count:
        what = "the central directory has another number of records"
        raise MalformedError(what, where=source.name)
    if offsets[0] or offsets != sorted(offsets):
        what = "the members do not fill the file up to the directory"
        raise MalformedError(what, where=source.name)
    ends = zip(records, offsets[1:], strict=True)
    return tuple(_member(source, record, end, miniz=miniz) for record, end in ends)


def _end(source: Source, *, miniz: bool) -> tuple[int, int, int]:
    """Return how many records the central directory has, its place and its length (4.3.16)."""
    where = source.name
    if source.size < _END.size:
        raise MalformedError("too short to be a ZIP archive", where=where)
    wide_size = _END64.size + _LOCATOR.size
    room = min(source.size, wide_size + _END.size)
    place = source.size - _END.size
    tail = source.read(source.size - room, room).rjust(wide_size + _END.size, b"\0")
    mark, *said, comment = _END.unpack(tail[wide_size:])
    if mark != b"PK\5\6" or comment:
        raise MalformedError("does not end as a ZIP archive without comment", where=where)
    limits = (_U16, _U16, _U16, _U16, _U32, _U32)
    asked = any(number == limit for number, limit in zip(said, limits, strict=True))
    near = tail.startswith(b"PK\6\7", _END64.size)
    if asked or (near and miniz):
        place -= wide_size
        locator = _LOCATOR.unpack(tail[_END64.size : wide_size])
        mark, length, _, _, *wide = _END64.unpack(tail[: _END64.size])
        if locator != (b"PK\6\7", 0, place, 1) or (mark, length) != (b"PK\6\6", _END64.size - 12):
            raise MalformedError("the ZIP64 end records are missing or wrong", where=where)
        if any(n not in (w, most) for n, w, most in zip(said, wide, limits, strict=True)):
            raise MalformedError("the two end records contradict each other", where=where)
        said = wide
    elif near:
        raise MalformedError("a ZIP64 locator that the end record does not ask for", where=where)
    disk, first, here, count, length, start = said
    if disk or first or here != count:
        raise MalformedError("a multi-part archive", where=where)
    if length > MAX_DIRECTORY or start + length != place:
        raise MalformedError("the central directory is misplaced or too long", where=where)
    return count, start, length


def _records(data: bytes, where: str) -> list[Member]:
    """Return the records of the central directory *data* (4.3.12), by their offsets."""
    found: dict[str, Member] = {}
    place = 0
    while place < len(data):
        head = data[place : place + _CENTRAL.size].ljust(_CENTRAL.size, b"\0")
        (
            mark, made_by, needed, flags, method, time, date, crc, compressed, size,
            name_length, extra_length, comment, disk, internal, external, offset,
        ) = _CENTRAL.unpack(head)  # fmt: skip
        begin = place + _CENTRAL.size
        middle = begin + name_length
        place = middle + extra_length
        if mark != b"PK\1\2" or disk or comment or place > len(data):
            raise MalformedError("a record of the central directory is wrong", where=where)
        name = _name(data[begin:middle], flags, where)
        if name in found:
            raise MalformedError(f"duplicate member {name!r}", where=where)
        extra = data[middle:place]
        size, compressed, offset = _widened((size, compressed, offset), extra, where)
        if problem := _problem(flags, needed, method, size, compressed):
            raise MalformedError(problem, where=f"{where}: {name}")
        ignored = (made_by, needed, time, date, internal, external, extra.hex())
        found[name] = Member(name, method, compressed, size, crc, offset, flags, ignored)
    return sorted(found.values(), key=lambda record: record.start)


def _name(raw: bytes, flags: int, where: str) -> str:
    try:
        name = raw.decode("utf-8" if flags & _FLAG_UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("a member's name is not in UTF-8", where=where) from error
    if not is_plain(check_name(name, where=where)):
        raise MalformedError(f"the member name {name!r} is not plain", where=where)
    return name


def _problem(flags: int, needed: int, method: int, size: int, compressed: int) -> str | None:
    if flags & ~_ALLOWED_FLAGS or needed > _MAX_NEEDED:
        return "encrypted, or with features that are not read"
    if method == STORED:
        return None if size == compressed else "stored, but of two sizes"
    if method != DEFLATED:
        return f"the compression method {method} is not read"
    too_large = size > compressed * _DEFLATE_RATIO
    return "declares more bytes than deflate can hold" if too_large else None


def _widened(
    said: tuple[int, ...], extra: bytes, where: str, *, padding: bool = False
) -> tuple[int, ...]:
    """Return *said* with numbers that did not fit replaced by those of the ZIP64 field (4.5.3)."""
    wide = _zip64(extra, where, padding=padding)
    if len(wide) != said.count(_U32):
        raise MalformedError(_NO_ZIP64, where=where)
    numbers = iter(wide)
    return tuple(next(numbers) if number == _U32 else number for number in said)


def _zip64(extra: bytes, where: str, *, padding: bool) -> tuple[int, ...]:
    """Return the numbers of the ZIP64 field, if any, of the extra fields, which are all checked."""
    found: dict[int, bytes] = {}
    while extra:
        kind, length = struct.unpack("<HH", extra[:4].ljust(4, b"\xff"))
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        if len(data) < length:
            raise MalformedError("an extra field is cut off", where=where)
        wide = kind == _EXTRA_ZIP64 and length and not length % 8
        inert = padding and kind == _EXTRA_PADDING and data == b"Z" * length
        if not wide and not inert and length > _IGNORED_EXTRA.get(kind, -1):
            what = f"an extra field of kind {kind:#06x} and {length} bytes"
            raise MalformedError(what, where=where)
        if kind in found:
            raise MalformedError(f"two extra fields of kind {kind:#06x}", where=where)
        found[kind] = data
    numbers = found.get(_EXTRA_ZIP64, b"")
    return struct.unpack(f"<{len(numbers) // 8}Q", numbers)


def _member(source: Source, record: Member, end: int, *, miniz: bool) -> Member:
    """Return the member that ends at *end*, its local header (4.3.7) and descriptor checked."""
    where = f"{source.name}: {record.name}"
    room = end - record.start - record.compressed
    if room < _LOCAL.size:
        raise MalformedError("the local header is cut off", where=where)
    head = source.read(record.start, min(room, _MAX_LOCAL))
    (
        mark, needed, flags, method, time, date, crc, compressed, size, name_length, extra_length,
    ) = _LOCAL.unpack_from(head)  # fmt: skip
    middle = _LOCAL.size + name_length
    length = middle + extra_length
    gap = room - length
    if gap < 0:
        raise MalformedError("the member overlaps the next", where=where)
    extra = head[middle:length]
    if miniz and flags & _FLAG_DESCRIPTOR and not (size or compressed):
        # miniz writes the field before it knows the compressed size, and the offset after both.
        early = (record.size, 0) if record.size >= _U32 else ()
        late = (record.start,) if record.start >= _U32 else ()
        if _zip64(extra, where, padding=True) != (*early, *late):
            raise MalformedError(_NO_ZIP64, where=where)
    else:
        size, compressed = _widened((size, compressed), extra, where, padding=miniz)
    expected = (record.crc, record.compressed, record.size)
    described = flags & _FLAG_DESCRIPTOR and not (crc or compressed or size)
    if described:
        layouts = ("<IQQ", "<III") if max(expected) <= _U32 else ("<IQQ",)  # section 4.3.9
        forms = [struct.pack(layout, *expected) for layout in layouts]
        if source.read(end - gap, min(gap, 25)) not in [*forms, *(b"PK\7\10" + f for f in forms)]:
            raise MalformedError("the data descriptor is wrong", where=where)
    said = (mark, flags, method, head[_LOCAL.size : middle])
    same = said == (b"PK\3\4", record.flags, record.method, record.name.encode())
    if not same or not (described or (not gap and (crc, compressed, size) == expected)):
        raise MalformedError("the local header is not what the directory says", where=where)
    ignored = (*record.ignored, needed, time, date, extra.hex(), gap)
    return record._replace(start=record.start + length, ignored=ignored)


class MemberReader:
    """The bytes of one member, decompressed; read once, in order."""

    def __init__(self, source: Source, member: Member) -> None:
        """Begin at the first byte of *member*."""
        self._source = source
        self._member = member
        self.where = f"{source.name}: {member.name}"
        self._position = member.start
        self._end = member.start + member.compressed
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
        self._crc = 0
        self._left = member.size

    def fill(self, buffer: memoryview) -> None:
        """Fill *buffer* with the next bytes; with the last, the CRC-32 is checked, and the end."""
        if len(buffer) > self._left:
            raise MalformedError("the member is too short", where=self.where)
        if self._inflate is None:
            self._source.read_into(self._position, buffer)
            self._position += len(buffer)
        else:
            done = 0
            while done < len(buffer):
                piece = self._inflated(self._inflate, len(buffer) - done)
                if not piece:
                    raise MalformedError("the member is too short", where=self.where)
                buffer[done : done + len(piece)] = piece
                done += len(piece)
        self._left -= len(buffer)
        if self._member.crc != NO_CRC:
            self._crc = zlib.crc32(buffer, self._crc)
        if not self._left:
            self._finish()

    def chunks(self, count: int, step: int) -> Iterator[memoryview]:
        """Yield the next *count* bytes, *step* at a time, in one buffer used again."""
        buffer = memoryview(bytearray(min(step, count)))
        for done in range(0, max(count, 1), step):  # of an empty member the end is checked too
            chunk = buffer[: min(step, count - done)]
            self.fill(chunk)
            if count:
                yield chunk

    def skip(self, count: int) -> None:
        """Skip the next *count* bytes, which are read if a CRC-32 covers them."""
        if self._member.crc == NO_CRC:
            self._position += count
            self._left -= count
        else:
            for _ in self.chunks(count, _READ):
                pass

    def _inflated(self, inflate: zlib._Decompress, most: int) -> bytes:
        """Return up to *most* decompressed bytes, none at the end of the stream or the member."""
        piece = b""
        while not piece and not inflate.eof:
            data = inflate.unconsumed_tail
            if not data:
                data = self._source.read(self._position, min(_READ, self._end - self._position))
                self._position += len(data)
            try:
                piece = inflate.decompress(data, most)
            except zlib.error as error:
                what = f"cannot be decompressed: {error}"
                raise MalformedError(what, where=self.where) from error
            if not data:
                break
        return piece

    def _finish(self) -> None:
        """Check that the compressed stream ends with the member, and the CRC-32."""
        if self._inflate is not None:
            if self._inflated(self._inflate, 1) or not self._inflate.eof:
                raise MalformedError("the member is not of its declared size", where=self.where)
            if self._inflate.unused_data or self._position < self._end:
                raise MalformedError("bytes after the compressed stream", where=self.where)
        if self._member.crc not in (NO_CRC, self._crc):
            raise MalformedError("the CRC-32 is wrong", where=self.where)


def read_member(source: Source, member: Member, most: int) -> bytes:
    """Return the bytes of *member*, at most so many, its CRC-32 checked."""
    if member.size > most:
        raise MalformedError(f"longer than {most} bytes", where=f"{source.name}: {member.name}")
    data = bytearray(member.size)
    MemberReader(source, member).fill(memoryview(data))
    return bytes(data)


def member_text(source: Source, member: Member) -> str:
    """Return the text of *member*, its CRC-32 checked."""
    try:
        return read_member(source, member, MAX_TEXT).decode()
    except UnicodeDecodeError as error:
        raise MalformedError("is not UTF-8", where=f"{source.name}: {member.name}") from error


def member_digest(source: Source, member: Member) -> str:
    """Return the SHA-256 of *member*, its CRC-32 checked."""
    hasher = hashlib.sha256()
    for chunk in MemberReader(source, member).chunks(member.size, _READ):
        hasher.update(chunk)
    return hasher.hexdigest()
