"""Norms of vectors of floats, summed by blocks, with a stated error bound.

The order of every addition is fixed (docs/spec/equality.md, "Error"), so a norm depends only on
where blocks begin: not on threads, the size of reads, the processor, or whether ``_kernel.c`` or
numpy adds (ADR 0011). A block that holds NaN, infinity, or values outside
``_LEAST`` to ``_LARGEST`` is measured by :func:`scaled`, which shifts it by a power of two first.

``RELATIVE_ERROR`` bounds the relative error of every norm and ratio, with room to spare. A value
has one rounding (it is a difference) of at most 2^-53 and its square another; a lane of a block has
``BLOCK / LANES`` = 2^8 squares, and the lanes are halved 8 times. So the sum has a relative error
of at most ``(4 + 2^8 + 8) * 2^-53`` and a little, under 2^-44; a root has half of that.
"""

from __future__ import annotations

import ctypes
import math
import sys
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenance.errors import UsageError
from provenance.measure.pieces import BLOCK, READ
from provenance.weights.dtypes import Buffer, DType, codes, widen

Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

RELATIVE_ERROR: Final = 2.0**-36
"""Bound of the relative error of a norm or of a ratio of two."""

LANES: Final = 2**8
"""Sums that a block is added to side by side: a power of two that divides ``BLOCK``. It is part of
what a distance means. Fewer give numpy rows too short to be worth a call; with more, the kernel's
ten rows of them (20 KB) would leave a processor's first cache."""

MAX_RATIO: Final = 2.0**10
"""Largest ratio of two norms for which the cosine of their vectors is given."""

_LEAST: Final = 2.0**-400
_LARGEST: Final = 2.0**400
"""Where the largest value of a block is between these, the sum of its squares stays in range, and
squares too small to be normal numbers are less than 2^-200 of it."""

_KERNELS: Final[Mapping[str, str]] = MappingProxyType(
    {"BF16": "bf16", "F16": "f16", "F32": "f32", "F64": "f64",
     "BC32": "bf16", "C32": "f16", "C64": "f32", "C128": "f64"}
)  # fmt: skip
"""The suffix of the compiled functions, by type."""


def enlarged(value: float) -> float:
    """Return *value*, a norm or a ratio, with the bound of its error added."""
    return value * (1 + RELATIVE_ERROR)


def at_most(value: float, limit: float) -> bool:
    """Tell whether *value* is certainly within *limit*: its error bound is added first."""
    return enlarged(value) <= limit


class Norm(NamedTuple):
    """L2 and L-infinity of a vector; the L2 norm is ``root * 2^exponent``."""

    largest: float
    root: float
    """From 0.5 to 1; 0 for a vector of zeros, infinite where a value is."""
    exponent: int

    @property
    def l2(self) -> float:
        """Return the L2 norm, infinite beyond float64."""
        return _shifted(self.root, self.exponent)

    def l2_ratio(self, base: Norm) -> float:
        """Return this L2 norm as a part of *base*'s, infinite beyond float64."""
        return _shifted(self.root / base.root, self.exponent - base.exponent)


def total(parts: Iterable[float]) -> float:
    """Return the sum of *parts*, rounded once; infinite beyond float64."""
    try:
        return math.fsum(parts)
    except OverflowError:
        return math.inf


def widened(raw: Buffer, dtype: DType) -> Floats:
    """Return the values in *raw* as float64, two for each complex element."""
    values, spare = np.empty((2, len(raw) * 8 * dtype.components // dtype.bits))
    widen(raw, dtype, values, spare)
    return values


def _shifted(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


class Part(NamedTuple):
    """What a block adds: the sum of its squares is ``total * 2^(2 exponent)``."""

    largest: float
    total: float
    exponent: int = 0


class SquareSum:
    """The norms of a vector, growing by blocks."""

    __slots__ = ("_totals", "largest")

    def __init__(self) -> None:
        """Begin with no block."""
        self.largest = 0.0
        self._totals: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))

    def add(self, part: Part) -> None:
        """Add a block."""
        self.largest = max(self.largest, part.largest)
        if part.total:
            self._totals[part.exponent].append(part.total)

    def merge(self, other: SquareSum) -> None:
        """Add the blocks of *other*."""
        self.largest = max(self.largest, other.largest)
        for exponent, totals in other._totals.items():
            self._totals[exponent].extend(totals)

    def norm(self) -> Norm:
        """Return the norms of all blocks."""
        if self.largest == math.inf:
            return Norm(math.inf, math.inf, 0)
        if not self._totals:
            return Norm(self.largest, 0.0, 0)
        # What is too small to be added beside the largest exponent is zero beside its sum, too.
        top = max(self._totals)
        total = math.fsum(
            math.ldexp(total, 2 * (exponent - top))
            for exponent, totals in self._totals.items()
            for total in totals
        )
        root, exponent = math.frexp(math.sqrt(total))
        return Norm(self.largest, root, exponent + top)


def cosine(left: Norm, right: Norm, difference: Norm) -> float | None:
    """Return the cosine of the angle of two vectors from their norms and their difference's.

    None where a vector is zero, a norm infinite, or one norm more than ``MAX_RATIO`` times the
    other; otherwise its absolute error is under ``2^-33`` times the norms' ratio.
    """
    larger, smaller = sorted((left, right), key=lambda n: (n.exponent, n.root), reverse=True)
    if not left.root or not right.root or math.inf in (left.root, right.root, difference.root):
        return None
    ratio = smaller.l2_ratio(larger)
    if ratio * MAX_RATIO < 1:
        return None
    apart = difference.l2_ratio(larger)
    # The law of cosines, written so that what is subtracted from 1 is small where the angle is.
    found = 1 - (apart - (1 - ratio)) * (apart + (1 - ratio)) / (2 * ratio)
    return max(-1.0, min(1.0, found))


class Blocks(NamedTuple):
    """What the blocks of a chunk add, by vector and block; see :meth:`Squares.blocks`."""

    largest: Floats
    totals: Floats
    zeros: bool
    """Whether zeros of two signs may stand in one place."""

    def unusual(self) -> NDArray[np.intp]:
        """Return the blocks that :func:`scaled` has to measure; of these nothing else is valid."""
        in_range = (self.largest >= _LEAST) & (self.largest <= _LARGEST) | (self.largest == 0)
        usual: Bits = (in_range & np.isfinite(self.totals)).all(axis=0)
        return np.flatnonzero(~usual)


class Squares:
    """Squares of chunks, by ``_kernel.c`` or by numpy. Threads may share it."""

    def __init__(self, *, compiled: bool) -> None:
        """Use *compiled* code, where there is any."""
        self._library = _library() if compiled else None
        self._spare: list[Floats] = []

    def blocks(self, chunks: Sequence[memoryview], dtype: DType, *, norms: bool) -> Blocks:
        """Return what *chunks*, of one length, add: left, right, and initial if there is.

        Vectors are the difference; with *norms* left and right, too; and with an initial chunk
        both updates.
        """
        bits = [codes(chunk, dtype) for chunk in chunks]
        if any(each.size != bits[0].size for each in bits):
            raise UsageError("chunks that are compared have one length")
        number = 1 if not norms else 2 * len(chunks) - 1
        if self._library is None or dtype.name not in _KERNELS:
            rows = self._spare.pop() if self._spare else np.empty((7, READ))
            found = _by_numpy(rows[:, : bits[0].size], chunks, dtype, number)
            self._spare.append(rows)
            return found
        shape = 2 * len(chunks) - 1, -(-bits[0].size // BLOCK)
        largest, totals = np.empty((2, *shape))
        kind = "squares" if len(chunks) == 2 else "updates"  # noqa: PLR2004 - left and right
        zeros = self._library[f"{kind}_{_KERNELS[dtype.name]}"](
            *_pointers(*bits, *bits[:1][: 3 - len(bits)]),
            ctypes.c_int64(bits[0].size),
            ctypes.c_int64(BLOCK),
            *_pointers(largest, totals),
        )
        return Blocks(largest[:number], totals[:number], bool(zeros))

    def apart(self, left: Codes, right: Codes, dtype: DType) -> int:
        """Return the most representable values that stand between two elements."""
        if self._library is None or dtype.name not in _KERNELS:
            one, two = _ordered(left), _ordered(right)
            return int(np.max(np.maximum(one, two) - np.minimum(one, two)))
        function = self._library[f"apart_{_KERNELS[dtype.name]}"]
        function.restype = ctypes.c_uint64
        return int(function(*_pointers(left, right), ctypes.c_int64(left.size)))


@cache
def _library() -> ctypes.CDLL | None:
    """Return the compiled kernel, if it was built for this machine (``hatch_build.py``)."""
    try:
        found = ctypes.CDLL(str(Path(__file__).with_name("_kernel.lib")))
    except OSError:
        return None
    return found if sys.byteorder == "little" else None


def _pointers(*arrays: NDArray[Any]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(each.ctypes.data) for each in arrays]


def _by_numpy(rows: Floats, chunks: Sequence[Buffer], dtype: DType, number: int) -> Blocks:
    """Return *number* vectors of blocks, made in *rows*; where left is right, once for both."""
    gap, left, right, left_update, right_update, start, spare = rows
    same = chunks[0] is chunks[1]
    widen(chunks[0], dtype, left, spare)
    if not same:
        widen(chunks[1], dtype, right, spare)
        np.subtract(left, right, out=gap)
    if len(chunks) > 2:  # noqa: PLR2004 - left, right and initial
        widen(chunks[2], dtype, start, spare)
        np.subtract(left, start, out=left_update)
        if not same:
            np.subtract(right, start, out=right_update)
    used = rows[1:number:2] if same else rows[:number]
    np.square(used, out=used)
    squares, totals = _reduced(used)
    # In binary floating point sqrt(x * x) == abs(x), where the square is a normal number (Boldo,
    # "Stupid is as stupid does", 2015).
    largest = np.sqrt(squares)
    if dtype.name in ("F64", "C128"):
        largest[largest == 0] = np.nan  # it may have vanished
    if same:
        largest, totals = (
            np.pad(np.repeat(each, 2, axis=0), ((1, 0), (0, 0))) for each in (largest, totals)
        )
        return Blocks(largest, totals, zeros=False)
    return Blocks(largest, totals, zeros=not np.minimum.reduce(used[min(1, number - 1)]) > 0)


def scaled(block: Floats) -> Part:
    """Return what one block adds; what *block* held is lost.

    Values are finite; differences of such may be infinite.
    """
    largest = max(float(np.maximum.reduce(block)), -float(np.minimum.reduce(block)))
    if largest in (0.0, math.inf):
        return Part(largest, 0.0)
    # A block in range is added as elsewhere: no sum depends on what stands beside it.
    exponent = 0 if _LEAST <= largest <= _LARGEST else math.frexp(largest)[1]
    if exponent:
        np.ldexp(block, -exponent, out=block)
    np.square(block, out=block)
    return Part(largest, float(_reduced(block.reshape(1, -1))[1][0, 0]), exponent)


def _reduced(rows: Floats) -> tuple[Floats, Floats]:
    """Return the largest value and the sum of each block of each row."""
    number, count = rows.shape
    whole = count // BLOCK * BLOCK
    largest, totals = [], []
    for part, size in ((rows[:, :whole], BLOCK), (rows[:, whole:], count - whole)):
        if not part.size:
            continue
        blocks = part.reshape(number, -1, size)
        full = size // LANES * LANES
        rounds = blocks[:, :, :full].reshape(number, blocks.shape[1], full // LANES, LANES)
        lanes = np.add.reduce(rounds, axis=2)
        lanes[:, :, : size - full] += blocks[:, :, full:]
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
        largest.append(np.maximum.reduce(blocks, axis=2))
        totals.append(lanes[..., 0])
    return np.concatenate(largest, axis=1), np.concatenate(totals, axis=1)


def _ordered(bits: Codes) -> Codes:
    """Return *bits* of sign and magnitude as unsigned integers in the order of the values."""
    top = bits.dtype.itemsize * 8 - 1
    # All ones where the sign is set, else the sign bit.
    mask = (bits.view(f"<i{bits.dtype.itemsize}") >> top).view(bits.dtype)
    return (mask | bits.dtype.type(1 << top)) ^ bits
