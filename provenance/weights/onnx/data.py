"""The numbers of one ONNX tensor: in which field they are, and their canonical bytes.

Format: ``TensorProto`` of ``onnx.proto``. ``raw_data``, ``float_data`` and ``double_data`` hold the
canonical bytes, and so does a file beside the model. Numbers in ``int32_data``, ``int64_data`` and
``uint64_data`` must fit the type and have the shortest encoding; they are decoded in blocks.

Packed elements that end inside a byte are not a tensor of the view, which has whole bytes.
"""
# ruff: noqa: ANN401 - generated code has no types

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.dtypes import DTYPES, DType
from provenance.weights.onnx.protobuf import Payload, payloads
from provenance.weights.source import Source
from provenance.weights.view import MAX_BYTES, MAX_RANK, TensorInfo, describe, regrouped

MAX_LOOSE: Final = 2**16
"""Largest packed tensor that ends inside a byte, in bytes. Zero points of one element are; weights
have even dimensions."""

_DTYPES: Final[Mapping[int, str]] = (
    {1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16"}
    | {11: "F64", 12: "U32", 13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3"}
    | {18: "F8_E4M3FNUZ", 19: "F8_E5M2", 20: "F8_E5M2FNUZ", 21: "U4", 22: "I4", 23: "F4"}
    | {24: "F8_E8M0", 25: "U2", 26: "I2", 27: "F6_E2M3", 28: "F6_E3M2"}
)
"""``TensorProto.DataType``."""

_FIELDS: Final[Mapping[str, str]] = {
    "F32": "float_data",
    "C64": "float_data",
    "F64": "double_data",
    "C128": "double_data",
} | {"I64": "int64_data", "U32": "uint64_data", "U64": "uint64_data"}
"""The typed field of each type, where it is not ``int32_data``."""

_WINDOW: Final = 2**18
_LONGEST: Final = 10  # bytes of a variable-length integer of 64 bits


class Place(NamedTuple):
    """Where the numbers of a tensor are."""

    source: Source
    field: str
    payload: Payload


def describe_numbers(name: str, tensor: Any, *, where: str) -> tuple[TensorInfo, DType | None]:
    """Return the description of *tensor*, a ``TensorProto``, and None.

    Where its elements end inside a byte the description is that of its bytes, and the element type
    is returned with it.
    """
    if tensor.HasField("segment") or tensor.string_data:
        raise MalformedError("in segments, or with texts", where=where)
    if tensor.data_type not in _DTYPES:
        raise MalformedError(f"the element type {tensor.data_type} is not known", where=where)
    dtype, shape = DTYPES[_DTYPES[tensor.data_type]], list(tensor.dims)
    possible = len(shape) <= MAX_RANK and all(0 <= side <= MAX_BYTES for side in shape)
    bits = prod(shape) * dtype.bits if possible else 0
    if not bits % 8:
        return describe(name, dtype.name, shape, where=where), None
    if bits > 8 * MAX_LOOSE:
        what = f"ends inside a byte and is larger than {MAX_LOOSE} bytes"
        raise UnreadableError(what, where=where)
    return describe(name, "U8", [-(-bits // 8)], where=where), dtype


def loose_text(place: Place, info: TensorInfo, tensor: Any, dtype: DType, where: str) -> str:
    """Return the text by which *tensor* of *dtype*, which ends inside a byte, is content."""
    raw = b"".join(map(bytes, chunks(place, info, (0, info.nbytes), MAX_LOOSE, where)))
    shape = list(tensor.dims)
    if raw[-1] >> prod(shape) * dtype.bits % 8:
        raise MalformedError("bits behind the last element", where=where)
    return f"{dtype.name} {shape} {raw.hex()}"


def place_inside(source: Source, tensor: Any, dtype: DType, *, where: str) -> Place:
    """Return the place of numbers that are in the model *source* itself."""
    places = payloads(tensor)
    found = {field: place for field, place in places.items() if place.length} or places
    if len(found) > 1:
        raise MalformedError("its numbers are in two fields", where=where)
    for field, place in found.items():
        if field not in ("raw_data", _FIELDS.get(dtype.name, "int32_data")):
            raise MalformedError(f"{field} of the element type {dtype.name}", where=where)
        if field == "int32_data" and dtype.name.startswith("F6_"):
            raise UnreadableError("six-bit elements that are not in raw_data", where=where)
        return Place(source, field, place)
    return Place(source, "none", Payload(0, 0))


def check_numbers(place: Place, info: TensorInfo, *, where: str) -> None:
    """Check that *place* has as many numbers as *info* asks for, each in its range."""
    size = place.payload.length
    if is_packed(place.field):
        size = sum(part.nbytes for part in _numbers(place, info, where))
    if size != info.nbytes:
        what = f"its numbers take {size} bytes, its type and shape {info.nbytes}"
        raise MalformedError(what, where=where)


def is_packed(field: str) -> bool:
    """Tell whether *field* holds integers of variable length; others hold the canonical bytes."""
    return field in ("int32_data", "int64_data", "uint64_data")


def _numbers(place: Place, info: TensorInfo, where: str) -> Iterator[NDArray[np.uint8]]:
    """Yield the canonical bytes of numbers of variable length, some at a time."""
    name, width = info.dtype.name, max(info.dtype.bits, 8)
    for part in integers(place.source, place.payload):
        if name in ("I8", "I16", "I32"):
            values = part.view(np.int64)
            wrong = (values < -(2 ** (width - 1))) | (values >= 2 ** (width - 1))
        else:
            wrong = part > np.uint64(1 if name == "BOOL" else 2**width - 1)
        if wrong.any():
            raise MalformedError(f"a number that is not of the type {name}", where=where)
        yield part.astype(f"<u{width // 8}").view(np.uint8)


def chunks(
    place: Place, info: TensorInfo, part: tuple[int, int], step: int, where: str
) -> Iterator[memoryview]:
    """Return the bytes *part* (begin and end) of a tensor, *step* at a time."""
    begin, end = part
    if is_packed(place.field):
        return regrouped((piece.data for piece in _numbers(place, info, where)), part, step)
    start = place.payload.start
    return place.source.chunks(start + begin, start + end, step)


def integers(source: Source, payload: Payload) -> Iterator[NDArray[np.uint64]]:
    """Yield the variable-length integers in *payload*, unsigned, some at a time."""
    rest = b""
    for start in range(payload.start, payload.start + payload.length, _WINDOW):
        size = min(_WINDOW, payload.start + payload.length - start)
        data = np.frombuffer(rest + source.read(start, size), np.uint8)
        ends = np.flatnonzero(data < 0x80)  # noqa: PLR2004 - the bit that says more follows
        stop = int(ends[-1]) + 1 if len(ends) else 0
        rest = data[stop:].tobytes()
        begins = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
        lengths = ends - begins + 1
        wrong = (lengths > 1) & (data[ends] == 0) | (lengths == _LONGEST) & (data[ends] > 1)
        if len(rest) >= _LONGEST or lengths.max(initial=0) > _LONGEST or wrong.any():
            raise MalformedError("a number is not in its shortest encoding", where=source.name)
        yield _decoded(data, begins, lengths)
    if rest:
        raise MalformedError("the last integer is cut off", where=source.name)


def _decoded(
    data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint64]:
    values = np.zeros(len(begins), np.uint64)
    for index in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > index)
        bits = (data[begins[longer] + index] & 0x7F).astype(np.uint64)
        values[longer] |= bits << np.uint64(7 * index)
    return values
