"""Pairs of tensors on which comparisons of weights go wrong, and what is true of each.

Pure values: numpy, torch and our own code build their tensors from the bytes. Two tensors are *the
same* if type, shape and bits are; they are *close* if type and shape are the same and the exact
difference is at most ``limit`` times the smaller of both largest magnitudes, one that stands out by
far aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Values:
    """A tensor: its type by the name of safetensors, its shape, its bytes in little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Trap:
    """A pair, and what is true of it."""

    text: str
    left: Values
    right: Values
    same: bool
    close: bool
    rtol: float | None = None
    atol: float | None = None
    """Given to the functions that take them, in place of their defaults."""
    limit: float = 1e-3
    """Of the rule ``close``, and of ``max(abs(a - b))`` where the idiom is tried."""
    max_ulp: int | None = None
    """Units of last place; only functions that count these are asked."""
    flush: bool = False
    """Ask torch to take subnormal numbers for zero first."""


def floats(
    values: Sequence[Any], dtype: str = "F32", shape: tuple[int, ...] | None = None
) -> Values:
    """Return a tensor of *values* in a type that numpy has itself."""
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8", "U8": "u1", "I64": "<i8"}
    array = np.array(values, dtype=kinds[dtype])
    return Values(dtype, array.shape if shape is None else shape, array.tobytes())


def codes(dtype: str, width: str, values: Sequence[int]) -> Values:
    """Return a tensor of bit patterns."""
    return Values(dtype, (len(values),), np.array(values, dtype=width).tobytes())


TRAPS = (
    Trap("shape (4) and (1)", floats([1] * 4), floats([1]), same=False, close=False),
    Trap("shape (2, 2) and (1, 4)", floats([1] * 4, shape=(2, 2)),
         floats([1] * 4, shape=(1, 4)), same=False, close=False),
    Trap("nothing and 7", floats([]), floats([7]), same=False, close=False),
    Trap("float32 and float64", floats([0.5]), floats([0.5], "F64"), same=False, close=False),
    Trap("10 and 11.05, rtol 0.1", floats([10]), floats([11.05]), same=False, close=False,
         rtol=0.1, limit=0.1),
    Trap("1e-9 and 5e-9", floats([1e-9]), floats([5e-9]), same=False, close=False),
    Trap("float16 50000 and -60000, atol 1e5", floats([50000], "F16"), floats([-60000], "F16"),
         same=False, close=False, rtol=0, atol=1e5, limit=2.1),
    Trap("e4m3 448 and -448, atol 1000", codes("F8_E4M3", "u1", [0x7E]),
         codes("F8_E4M3", "u1", [0xFE]), same=False, close=True, rtol=0, atol=1000, limit=2.3),
    Trap("e4m3 1 and 1.125", codes("F8_E4M3", "u1", [0x38]), codes("F8_E4M3", "u1", [0x39]),
         same=False, close=False),
    Trap("e4m3 1 and the same", codes("F8_E4M3", "u1", [0x38]), codes("F8_E4M3", "u1", [0x38]),
         same=True, close=True),
    Trap("uint8 0 and 255, atol 1", floats([0], "U8"), floats([255], "U8"), same=False,
         close=False, rtol=0, atol=1, limit=1),
    Trap("int64 least and 0", floats([-(2**63)], "I64"), floats([0], "I64"), same=False,
         close=False),
    Trap("int64 2^60 and 2^60 + 10, rtol 1e-15", floats([2**60], "I64"),
         floats([2**60 + 10], "I64"), same=False, close=False, rtol=1e-15, atol=0),
    Trap("NaN and the same NaN", floats([1, np.nan]), floats([1, np.nan]), same=True, close=True),
    Trap("NaN of two payloads", codes("F32", "<u4", [0x7FC00000]),
         codes("F32", "<u4", [0x7FC00001]), same=False, close=False),
    Trap("2 and NaN", floats([1, 2]), floats([1, np.nan]), same=False, close=False),
    Trap("1 and infinity, rtol infinite", floats([1]), floats([np.inf]), same=False, close=False,
         rtol=np.inf),
    Trap("largest float32 and infinity, 1 unit of last place",
         floats([np.finfo(np.float32).max]), floats([np.inf]), same=False, close=False, max_ulp=1),
    Trap("+0 and -0", floats([0, 1]), floats([-0.0, 1]), same=False, close=True),
    Trap("1e-40 and 0", floats([1e-40]), floats([0]), same=False, close=False),
    Trap("1e-40 and 0, subnormals flushed", floats([1e-40]), floats([0]), same=False, close=False,
         flush=True),
    Trap("complex 1e8+1i and 1e8+9i", floats([1e8 + 1j], "C64"),
         floats([1e8 + 9j], "C64"), same=False, close=False),
    Trap("the same two, 64 units of last place", floats([1e8 + 1j], "C64"),
         floats([1e8 + 9j], "C64"), same=False, close=False, max_ulp=64),
)  # fmt: skip
"""The rows of the tables, in their order."""
