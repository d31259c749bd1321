"""Protocol Buffers, checked strictly and in place: the wire format of ONNX models.

Format: "Encoding" in the Protocol Buffers documentation. Parsers merge, override and keep unknown
fields; here a message has one reading only. Refused: fields that the schema lacks, a second value
of a field that is not repeated, two members of one ``oneof``, another wire type, groups, integers
that do not fit their type, text that is not UTF-8. Other encodings of the same value (longer
varints, fields out of order, repeated numbers packed or not) are read, and :attr:`Parsed.plain`
tells whether the file has the usual one.

The package ``onnx`` has the schema, and parses what has passed these checks. The numbers of tensors
are left in the file; ``raw_data`` of each tensor holds their places instead (:func:`payloads`).
"""
# ruff: noqa: ANN401 - generated code has no types

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from provenance.errors import MalformedError, UnavailableError
from provenance.weights.source import Source

MAX_FILE: Final = 2**31 - 1
"""Longest file, in bytes: the format's limit for a message."""

MAX_DEPTH: Final = 100
"""Most messages inside each other: the limit of the C++, Java and Python parsers."""

MAX_FIELDS: Final = 1_000_000
"""Most values in one file. An exported graph of 20,000 nodes has some 500,000."""

MAX_STRUCTURE: Final = 2**28
"""Most bytes of text and the like that are held in memory: graphs hold traces of their source."""

_WINDOW: Final = 2**15
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST: Final = 10  # bytes of a variable-length integer of 64 bits
_INT32: Final = (5, 14)  # int32 and enumerations, as types of ``FieldDescriptorProto``
_STRING: Final = 9
_WIRE: Final[Mapping[int, int]] = (
    {1: _FIXED64, 2: _FIXED32, 3: _VARINT, 4: _VARINT} | dict.fromkeys(_INT32, _VARINT)
    | dict.fromkeys((_STRING, 11, 12), _LENGTH)
)  # fmt: skip
"""The wire type of each type that ONNX uses."""

_TENSOR: Final = "TensorProto"
_RAW_DATA: Final = 9
_DATA: Final[Mapping[int, str]] = (
    {4: "float_data", 5: "int32_data", 7: "int64_data", 9: "raw_data"}
    | {10: "double_data", 11: "uint64_data"}
)  # fmt: skip
"""Where a ``TensorProto`` may hold its numbers, by the number of the field."""


class Payload(NamedTuple):
    """The bytes of a field that are left in the file."""

    start: int
    length: int


class Parsed(NamedTuple):
    """A file, read."""

    model: Any
    """A ``ModelProto``."""
    payloads: list[Payload]
    """What was left in the file, in its order."""
    plain: bool
    """Whether the file is encoded as libraries do: fields by number, shortest integers, repeated
    numbers packed just where the schema says so."""


def parse(source: Source) -> Parsed:
    """Return the model in *source*; UnavailableError where the package ``onnx`` is missing."""
    try:
        kind = import_module("onnx.onnx_ml_pb2").ModelProto
    except ImportError as error:
        hint = "pip install 'training-provenance[onnx]'"
        raise UnavailableError("reading ONNX needs onnx", where=source.name, hint=hint) from error
    if source.size > MAX_FILE:
        raise MalformedError(f"longer than {MAX_FILE} bytes", where=source.name)
    skimmer = _Skimmer(source)
    skeleton = skimmer.message(kind.DESCRIPTOR, (0, source.size), 1)
    try:
        model = kind.FromString(skeleton)
    except import_module("google.protobuf.message").DecodeError as error:
        raise MalformedError("packed numbers that are cut off", where=source.name) from error
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:
        raise MalformedError("a value that is not in its enumeration", where=source.name)
    plain = skimmer.plain and model.SerializeToString(deterministic=True) == skeleton
    return Parsed(model, skimmer.payloads, plain)


def payloads(tensor: Any) -> dict[str, Payload]:
    """Return where the numbers of *tensor* are in the file, by the field that holds them."""
    return {_DATA[n]: Payload(*place) for n, *place in struct.iter_unpack("<3Q", tensor.raw_data)}


class _Field(NamedTuple):
    name: str
    type: int
    wire: int
    repeated: bool
    left: bool
    """Whether its bytes are left in the file."""
    message: Any
    """The descriptor of the message that a value is; None: another type."""
    choice: str
    """What may occur once: the field, or the ``oneof`` that it belongs to."""


@cache
def _schema(kind: Any) -> dict[int, _Field]:
    described = import_module("google.protobuf.descriptor_pb2").DescriptorProto()
    kind.CopyToProto(described)
    repeated = {field.number for field in described.field if field.label == field.LABEL_REPEATED}
    found = {}
    for field in kind.fields:
        left = kind.name == _TENSOR and field.number in _DATA
        found[field.number] = _Field(
            f"{kind.name}.{field.name}",
            field.type,
            _LENGTH if left else _WIRE[field.type],
            field.number in repeated and not left,
            left,
            field.message_type,
            f"oneof {field.containing_oneof.name}" if field.containing_oneof else field.name,
        )
    return found


class _Skimmer:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._window = b""
        self._window_start = 0
        self._fields = 0
        self._held = 0
        self.payloads: list[Payload] = []
        self.plain = True

    def _error(self, what: str, place: int) -> MalformedError:
        return MalformedError(f"{what}, at byte {place}", where=self._source.name)

    def message(self, kind: Any, span: tuple[int, int], depth: int) -> bytes:
        """Check the message *kind* at *span*; return it without the numbers of tensors."""
        position, end = span
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} messages inside each other", position)
        schema = _schema(kind)
        parts: list[bytes] = []
        seen: set[str] = set()
        places, before_places, last = b"", 0, 0
        while position < end:
            begin = position
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            field = schema.get(number)
            if field is None:
                raise self._error(f"{kind.name} has no known field {number}", begin)
            if not field.repeated and field.choice in seen:
                raise self._error(f"{field.name} is duplicated, or its oneof is", begin)
            seen.add(field.choice)
            self.plain &= number >= last
            last = number
            start, position = self._value(field, wire, position, end)
            if field.left:
                self.payloads.append(Payload(start, position - start))
                places += struct.pack("<3Q", number, *self.payloads[-1])
            elif field.message is not None:
                inner = self.message(field.message, (start, position), depth + 1)
                parts.append(_spelled(tag) + _spelled(len(inner)) + inner)
            else:
                parts.append(self._held_bytes(field, wire, (begin, start, position)))
            if number <= _RAW_DATA:
                before_places = len(parts)
        if places:
            head = _spelled(_RAW_DATA << 3 | _LENGTH) + _spelled(len(places))
            parts.insert(before_places, head + places)
        return b"".join(parts)

    def _value(self, field: _Field, wire: int, position: int, end: int) -> tuple[int, int]:
        """Return where the value of *field* begins, behind its length, and where it ends."""
        if wire != field.wire and not (wire == _LENGTH and field.repeated):
            raise self._error(f"{field.name} has the wire type {wire}", position)
        self._count(1, 0)
        start = position
        if wire == _LENGTH:
            length, start = self._varint(position, end)
            stop = start + length
        elif wire == _VARINT:
            value, stop = self._varint(position, end)
            if field.type in _INT32 and 2**31 <= value < 2**64 - 2**31:
                raise self._error(f"{field.name} is no integer of 32 bits", position)
        else:
            stop = position + (8 if wire == _FIXED64 else 4)
        if stop > end:
            raise self._error(f"{field.name} is longer than what holds it", position)
        return start, stop

    def _held_bytes(self, field: _Field, wire: int, span: tuple[int, int, int]) -> bytes:
        """Return the field at *span*: its begin, that of its value, and its end."""
        begin, start, stop = span
        self._count(0, stop - begin)
        data = self._read(begin, stop - begin)
        if wire == _LENGTH != field.wire:  # packed: as many numbers as bytes, at most
            self._count(stop - start, 0)
        if field.type == _STRING:
            try:
                data[start - begin :].decode()
            except UnicodeDecodeError as error:
                raise self._error(f"{field.name} is not UTF-8", start) from error
        return data

    def _count(self, fields: int, held: int) -> None:
        self._fields += fields
        self._held += held
        if self._fields > MAX_FIELDS or self._held > MAX_STRUCTURE:
            raise MalformedError(
                f"more than {MAX_FIELDS} fields, or {MAX_STRUCTURE} bytes, beside the tensors",
                where=self._source.name,
            )

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
        for index, byte in enumerate(self._read(position, min(_LONGEST, end - position))):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:  # noqa: PLR2004 - the bit that says more follows
                if value >= 2**64:
                    break
                self.plain &= byte > 0 or not index
                return value, position + index + 1
        raise self._error("an integer is cut off or too long", position)


def _spelled(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - the bit that says more follows
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
