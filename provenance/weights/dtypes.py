"""Element types: their names, widths and values.

Names are those of safetensors where it has one. Others: ``I1`` to ``U4`` (integers narrower than a
byte), ``F8_E3M4``, ``F8_E4M3_IEEE`` and ``F8_E4M3B11FNUZ`` (the rest of ml_dtypes), ``C32`` and
``BC32`` (two F16, two BF16), ``C128``, ``RAW`` (a byte of an opaque element), and the block types
of GGUF under ggml's names.

Types of the kinds ``float`` and ``complex`` have distances. Those of the kind ``exact`` are only
equal or not: integers, booleans, and the codes and scales of quantised formats, which include
floats of four and six bits and E8M0 (OCP Microscaling 1.0, section 5).
Sources of the narrow formats: OCP 8-bit Floating Point 1.0 (E4M3, E5M2), OCP Microscaling 1.0
(E8M0, E2M1, E2M3, E3M2), arXiv:2206.02915 (FNUZ), the README of ml_dtypes
(E3M4, E4M3, E4M3B11FNUZ).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from provenance.weights.gguf.types import BLOCKS

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a block of a quantised type: its bytes from *start* to *stop*."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DType:
    """An element type, or a type of blocks of elements that share scales."""

    name: str
    bits: int
    """Width of a block (of an element, where blocks hold one). Elements of fewer than 8 bits are
    packed without padding, the first in the lowest bits."""
    kind: Literal["float", "complex", "exact"]
    block: int = 1
    """Elements in a block."""
    parts: tuple[Part, ...] = ()
    """The parts of a block, in the order of its bytes; none for single elements."""

    @property
    def components(self) -> int:
        """Return how many floats an element is made of."""
        return 2 if self.kind == "complex" else 1

    def nbytes(self, elements: int) -> int:
        """Return the bytes of *elements*, which fill whole blocks and whole bytes."""
        return elements // self.block * self.bits // 8


_WIDTHS: Final[Mapping[Literal["float", "complex", "exact"], Mapping[str, int]]] = {
    "exact": {
        "BOOL": 8, "I1": 1, "U1": 1, "I2": 2, "U2": 2, "I4": 4, "U4": 4, "U8": 8, "I8": 8,
        "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "F4": 4, "F6_E2M3": 6,
        "F6_E3M2": 6, "F8_E8M0": 8, "RAW": 8,
    },
    "float": {
        "F8_E3M4": 8, "F8_E4M3": 8, "F8_E4M3_IEEE": 8, "F8_E4M3B11FNUZ": 8, "F8_E4M3FNUZ": 8,
        "F8_E5M2": 8, "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64,
    },
    "complex": {"C32": 32, "BC32": 32, "C64": 64, "C128": 128},
}  # fmt: skip
"""The types of single elements, by kind: name and width in bits."""


def _all() -> Iterator[DType]:
    """Yield the types of single elements, then the quantised types of ggml, which are exact."""
    for kind, widths in _WIDTHS.items():
        for name, bits in widths.items():
            yield DType(name, bits, kind)
    for block in BLOCKS:
        ends = list(accumulate(block.fields.values()))
        places = zip(block.fields.items(), ends, strict=True)
        parts = tuple(Part(name, end - size, end) for (name, size), end in places)
        yield DType(block.name, 8 * ends[-1], "exact", block.elements, parts)


DTYPES: Final[Mapping[str, DType]] = {dtype.name: dtype for dtype in _all()}
"""Every element type by its name."""

_EIGHT_BITS: Final[Mapping[str, Any]] = (
    {"F8_E3M4": ml_dtypes.float8_e3m4, "F8_E4M3_IEEE": ml_dtypes.float8_e4m3}
    | {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz}
    | {"F8_E5M2": ml_dtypes.float8_e5m2, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz}
    | {"F8_E4M3B11FNUZ": ml_dtypes.float8_e4m3b11fnuz}
)

_NATIVE: Final[Mapping[str, str]] = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "C32": "<f2",
    "C64": "<f4",
    "C128": "<f8",
}


NUMPY: Final[Mapping[str, str]] = (
    {"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4"}
    | {"I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
    | {"C64": "<c8", "C128": "<c16"}
)
"""The types that numpy has of its own, little-endian, in its words."""


@lru_cache(maxsize=len(_EIGHT_BITS))
def _table(name: str) -> NDArray[np.float64]:
    """Return the value of each of the 256 codes of an eight-bit float."""
    codes = np.arange(256, dtype=np.uint8)
    table: NDArray[np.float64] = codes.view(_EIGHT_BITS[name]).astype(np.float64)
    table.flags.writeable = False
    return table


def codes(raw: Buffer, dtype: DType) -> NDArray[np.unsignedinteger[Any]]:
    """Return the bit patterns in *raw* as unsigned integers, one for each float component.

    An element narrower than a byte is a row of bits (``uint8`` 0 and 1, lowest first), a block a
    row of its bytes.
    """
    if dtype.block > 1:
        return np.frombuffer(raw, np.uint8).reshape(-1, dtype.bits // 8)
    if dtype.bits < 8:  # noqa: PLR2004 - a byte
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
        return bits.reshape(-1, dtype.bits)
    return np.frombuffer(raw, f"<u{dtype.bits // dtype.components // 8}")


def widen(
    raw: Buffer, dtype: DType, out: NDArray[np.float64], scratch: NDArray[np.float64]
) -> None:
    """Write the values in *raw* to *out*, exactly: float64 holds every value of these types.

    A complex element is two values, real and imaginary. *out* and *scratch*, which is overwritten,
    have one place for each value.
    """
    if dtype.name in ("BF16", "BC32"):
        wide = scratch.view(np.uint32)[: out.size]
        wide[...] = np.frombuffer(raw, "<u2")
        wide <<= np.uint32(16)
        out[...] = wide.view(np.float32)
    elif dtype.name in _EIGHT_BITS:
        np.take(_table(dtype.name), np.frombuffer(raw, np.uint8), out=out, mode="clip")
    else:
        out[...] = np.frombuffer(raw, _NATIVE[dtype.name])
