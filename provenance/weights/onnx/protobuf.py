"""Protocol Buffers, read strictly and in place: the wire format of ONNX models.

Format: "Encoding" in the Protocol Buffers documentation. Parsers merge, override and keep unknown
fields; here a message has one reading only. Refused: a field that the schema does not have, a field
of one value that stands twice, two members of one ``oneof``, another wire type, groups, integers
that do not fit their type, text that is not UTF-8. What one message can be spelled as without
changing its value (longer variable-length integers, fields out of order, repeated numbers packed or
not) is read, and :attr:`Parsed.plain` tells whether the file has the plain spelling.

The schema is that of the generated code, so that it is the format's own. The bytes of chosen fields
are left in the file and read later by place; everything else is held in memory.

Limits: 2 GiB - 1 a file (the format's own), 100 messages deep (the default of every parser),
256 MiB and 1,000,000 fields beside the bytes that are left in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from provenance.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provenance.weights.source import Source

MAX_FILE: Final = 2**31 - 1
"""Longest file, in bytes: the format's limit for a message."""

MAX_DEPTH: Final = 100
"""Most messages inside each other: the limit of the C++, Java and Python parsers."""

MAX_FIELDS: Final = 1_000_000
"""Most values in one file. An exported graph of 20,000 nodes has some 500,000; an empty message
takes two bytes in a file and a hundred times that in memory."""

MAX_STRUCTURE: Final = 2**28
"""Most bytes of text and the like that are held in memory: graphs hold traces of their source."""

_WINDOW: Final = 2**18
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST: Final = 10  # bytes of a variable-length integer of 64 bits
_WIRE: Final[Mapping[str, int]] = MappingProxyType(
    {"varint": _VARINT, "int32": _VARINT, "fixed32": _FIXED32, "fixed64": _FIXED64}
    | dict.fromkeys(("bytes", "string", "message"), _LENGTH)
)
_KINDS: Final[Mapping[int, str]] = MappingProxyType(
    {1: "fixed64", 2: "fixed32", 3: "varint", 4: "varint", 5: "int32", 9: "string"}
    | {11: "message", 12: "bytes", 14: "int32"}
)
"""Types of ``FieldDescriptorProto`` that ONNX uses; enumerations are 32-bit integers."""


class Field(NamedTuple):
    """A field of a message's schema."""

    number: int
    name: str
    kind: str
    repeated: bool
    packed: bool
    message: str
    """The name of the message that a value is; empty: another kind."""
    oneof: int
    """Which ``oneof`` of its message it belongs to; -1: none."""


Schemas = dict[str, dict[int, Field]]
"""The fields of every message by number, by the message's name."""


class Payload(NamedTuple):
    """The bytes of a field that are left in the file."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its name in the schema, and the values of each field that it has."""

    kind: str
    fields: dict[str, list[Any]]
    """Integers as unsigned numbers of 64 bits, floats as their bytes, text, bytes, messages, and
    :class:`Payload`."""

    def all(self, name: str) -> list[Any]:
        """Return the values of a repeated field."""
        return self.fields.get(name, [])

    def one(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as the schema says
        """Return the value of a field, or *default*."""
        values = self.fields.get(name)
        return values[0] if values else default


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file, read."""

    message: Message
    payloads: tuple[Payload, ...]
    """What was left in the file, in its order."""
    plain: bool
    """Whether the file spells its value as every library does: fields by number, shortest
    integers, repeated numbers packed just where the schema says so."""


def schemas_of(file: Any) -> Schemas:  # noqa: ANN401 - generated code has no types
    """Return the schemas in *file*, a ``FileDescriptorProto``."""
    found: Schemas = {}
    pending = [(message.name, message) for message in file.message_type]
    prefix = f".{file.package}."
    while pending:
        name, message = pending.pop()
        pending += [(f"{name}.{inner.name}", inner) for inner in message.nested_type]
        fields = {}
        for field in message.field:
            kind = _KINDS[field.type]
            repeated = field.label == 3  # noqa: PLR2004 - LABEL_REPEATED
            fields[field.number] = Field(
                number=field.number,
                name=field.name,
                kind=kind,
                repeated=repeated,
                packed=repeated and field.options.packed,
                message=field.type_name.removeprefix(prefix) if kind == "message" else "",
                oneof=field.oneof_index if field.HasField("oneof_index") else -1,
            )
        found[name] = fields
    return found


def parse(source: Source, kind: str, schemas: Schemas, left: frozenset[str]) -> Parsed:
    """Return the message *kind* that the file is; *left* names fields to leave there.

    A name in *left* is that of the message, a dot, and that of the field.

    Raises:
        MalformedError: the file is not such a message, or beyond a limit.
        UnreadableError: it cannot be read.
    """
    if source.size > MAX_FILE:
        raise MalformedError(f"longer than {MAX_FILE} bytes", where=source.name)
    parser = _Parser(source, schemas, left)
    message = parser.message(kind, 0, source.size, 1)
    return Parsed(message, tuple(parser.payloads), parser.plain)


class _Parser:
    """One pass over a file."""

    def __init__(self, source: Source, schemas: Schemas, left: frozenset[str]) -> None:
        self._source = source
        self._schemas = schemas
        self._left = left
        self._window = b""
        self._window_start = 0
        self._fields = 0
        self._held = 0
        self.payloads: list[Payload] = []
        self.plain = True

    def _error(self, what: str, place: int) -> MalformedError:
        return MalformedError(f"{what}, at byte {place}", where=self._source.name)

    def message(self, kind: str, begin: int, end: int, depth: int) -> Message:
        """Return the message *kind* between *begin* and *end*."""
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} messages inside each other", begin)
        schema = self._schemas[kind]
        fields: dict[str, list[Any]] = {}
        chosen: set[int] = set()
        position, last = begin, 0
        while position < end:
            place = position
            tag, position = self._varint(position, end)
            field = schema.get(tag >> 3)
            if field is None:
                raise self._error(f"{kind} has no field {tag >> 3} that is known here", place)
            values = fields.setdefault(field.name, [])
            if values and not field.repeated:
                raise self._error(f"{kind}.{field.name} stands twice", place)
            if field.oneof >= 0:
                if field.oneof in chosen:
                    raise self._error(f"{kind} has two values where one may be", place)
                chosen.add(field.oneof)
            if field.number < last:
                self.plain = False
            last = field.number
            position = self._values(kind, field, tag & 7, (position, end), (values, depth))
        return Message(kind, fields)

    def _values(
        self, kind: str, field: Field, wire: int, span: tuple[int, int], into: tuple[list[Any], int]
    ) -> int:
        """Read one value of *field*, or a packed run of them; return where it ends."""
        position, end = span
        values, depth = into
        if wire != _LENGTH:
            if wire != _WIRE[field.kind] or self._is_left(kind, field):
                raise self._error(f"{kind}.{field.name} has the wire type {wire}", position)
            if field.packed:
                self.plain = False
            value, position = self._scalar(field, position, end)
            values.append(value)
            return position
        length, position = self._varint(position, end)
        stop = position + length
        if stop > end:
            raise self._error(f"{kind}.{field.name} is longer than what holds it", position)
        if self._is_left(kind, field):
            if values:
                raise self._error(f"{kind}.{field.name} stands twice", position)
            self._count()
            self.payloads.append(Payload(position, length))
            values.append(self.payloads[-1])
        elif _WIRE[field.kind] != _LENGTH:
            self._packed(kind, field, (position, stop), values)
        else:
            self._count()
            values.append(self._bytes(field, position, stop, depth))
        return stop

    def _is_left(self, kind: str, field: Field) -> bool:
        return f"{kind}.{field.name}" in self._left

    def _packed(self, kind: str, field: Field, span: tuple[int, int], values: list[Any]) -> None:
        position, stop = span
        if not field.repeated:
            raise self._error(f"{kind}.{field.name} has the wire type {_LENGTH}", position)
        self._count()  # also of an empty run, which takes time and adds no value
        if values or not field.packed or position == stop:
            self.plain = False
        while position < stop:
            value, position = self._scalar(field, position, stop)
            values.append(value)

    def _count(self, held: int = 0) -> None:
        self._fields += 1
        self._held += held
        if self._fields > MAX_FIELDS or self._held > MAX_STRUCTURE:
            raise MalformedError(
                f"more than {MAX_FIELDS} fields, or {MAX_STRUCTURE} bytes, beside the tensors",
                where=self._source.name,
            )

    def _scalar(self, field: Field, position: int, end: int) -> tuple[int | bytes, int]:
        self._count(8)
        wire = _WIRE[field.kind]
        if wire == _VARINT:
            value, after = self._varint(position, end)
            if field.kind == "int32" and not (value < 2**31 or value >= 2**64 - 2**31):
                raise self._error(f"{field.name} is no integer of 32 bits", position)
            return value, after
        after = position + (4 if wire == _FIXED32 else 8)
        if after > end:
            raise self._error(f"{field.name} is cut off", position)
        return self._source.read(position, after - position), after

    def _bytes(self, field: Field, begin: int, end: int, depth: int) -> Message | bytes | str:
        if field.message:
            return self.message(field.message, begin, end, depth + 1)
        self._count(end - begin)
        raw = self._read(begin, end - begin)
        if field.kind == "bytes":
            return raw
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._error(f"{field.name} is not UTF-8", begin) from error

    def _read(self, position: int, length: int) -> bytes:
        """Return bytes, through a window: most fields are a few bytes after the one before."""
        if length > _WINDOW:
            return self._source.read(position, length)
        start = position - self._window_start
        if start < 0 or start + length > len(self._window):
            self._window = self._source.read(position, min(_WINDOW, self._source.size - position))
            self._window_start, start = position, 0
        return self._window[start : start + length]

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Return the variable-length integer at *position*, and where it ends."""
        value = 0
        raw = self._read(position, min(_LONGEST, end - position))
        for index, byte in enumerate(raw):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
                if value >= 2**64:
                    break
                if byte == 0 and index:
                    self.plain = False
                return value, position + index + 1
        raise self._error("an integer is cut off or too long", position)


# --- The canonical form ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """How messages are brought to canonical form; each name is ``Message.field``."""

    schemas: Schemas
    unordered: frozenset[str]
    """Repeated fields that are sets or maps: their values are sorted by their encodings."""
    dropped: frozenset[str]


def encode(message: Message, rules: Rules, orders: list[tuple[str, list[int]]]) -> bytes:
    """Return the canonical form of *message*.

    Fields by their numbers, integers as short as can be, repeated numbers packed where the schema
    says so, and *rules* applied. Each list that *rules* sorts leaves in *orders* its name and
    which of its values stood where.
    """
    parts: list[bytes] = []
    for number, field in sorted(rules.schemas[message.kind].items()):
        name = f"{message.kind}.{field.name}"
        values = message.fields.get(field.name)
        if not values or name in rules.dropped:
            continue
        encoded = [_encoded(value, rules, orders) for value in values]
        if name in rules.unordered:
            order = sorted(range(len(encoded)), key=encoded.__getitem__)
            orders.append((name, order))
            encoded = [encoded[index] for index in order]
        wire = _WIRE[field.kind]
        if field.packed:
            encoded, wire = [b"".join(encoded)], _LENGTH
        tag = _spelled(number << 3 | wire)
        for value in encoded:
            parts += [tag, _spelled(len(value)), value] if wire == _LENGTH else [tag, value]
    return b"".join(parts)


def _encoded(value: object, rules: Rules, orders: list[tuple[str, list[int]]]) -> bytes:
    if isinstance(value, Message):
        return encode(value, rules, orders)
    if isinstance(value, int):
        return _spelled(value)
    if isinstance(value, str):
        return value.encode()
    assert isinstance(value, bytes)  # noqa: S101 - payloads are in dropped fields
    return value


def _spelled(number: int) -> bytes:
    """Return *number* as a variable-length integer."""
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the bit that says more follows
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
