"""Norms of a vector that arrives in blocks, with a stated error bound.

The order of every addition is fixed. The squares of a block, ``BLOCK`` or fewer, are ``LANES``
sums first: lane *j* adds the squares *j*, *j* + ``LANES``, *j* + 2 ``LANES`` and so on, in that
order. Then the upper half of the lanes is added to the lower half, lane by lane, until one is left;
a lane without squares is zero. The sums of the blocks are added exactly, as integers. So a norm
depends on where blocks begin and on nothing else: not on the order in which they come, on how many
threads bring them, on the processor, or on whether numpy or :mod:`~provenance.measure.kernel`
adds: lanes do not depend on one another, and either computes many at once. Where squares could
leave float64's range, a block is scaled by a power of two first, which is exact.

``RELATIVE_ERROR`` bounds the relative error of every norm and ratio, with room to spare. A value
has one rounding (it is a difference) of at most 2^-53 and its square another; a lane of a block has
``BLOCK / LANES`` = 2^8 squares, and the lanes are halved 8 times. So the sum has a relative error
of at most ``(3 + 2^8 + 8) * 2^-53`` and a little, under 2^-44; a root has half of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from provenance.measure.pieces import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RELATIVE_ERROR: Final = 2.0**-36
"""Bound of the relative error of a norm or of a ratio of two."""

LANES: Final = 2**8
"""Sums that a block is added to side by side: a power of two that divides ``BLOCK``. It is part of
what a distance means. Fewer give numpy rows too short to be worth a call; with more, the kernel's
ten rows of them (20 KB) would leave a processor's first cache."""

MAX_RATIO: Final = 2.0**10
"""Largest ratio of two norms for which the cosine of their vectors is given."""

_LEAST_SQUARE: Final = 2.0**-800
_LARGEST_SQUARE: Final = 2.0**800
"""Where the largest square of a block is between these, the sum of its squares stays in range, and
squares too small to be normal numbers are less than 2^-200 of it."""

_UNIT: Final = 2300
"""Sums are integers in units of 2^-2300: the square of float64's least number is 2^-2148, and a
sum of a scaled block has at most 55 bits below that."""

_MANTISSA: Final = 53
"""Bits of a float64's significand."""

_ROOT_BITS: Final = 128
"""Bits of a sum of which the root is taken: the root then has 64, more than a float64 keeps."""


def enlarged(value: float) -> float:
    """Return *value*, a norm or a ratio, with the bound of its error added."""
    return value * (1 + RELATIVE_ERROR)


def at_most(value: float, limit: float) -> bool:
    """Tell whether *value* is certainly within *limit*: its error bound is added first."""
    return enlarged(value) <= limit


@dataclass(frozen=True, slots=True)
class Norm:
    """L2 and L-infinity of a vector; the L2 norm is ``root * 2^exponent``."""

    largest: float
    root: float
    """From 0.5 to 1; 0 for a vector of zeros, infinite where a value is."""
    exponent: int

    @property
    def l2(self) -> float:
        """Return the L2 norm, infinite beyond float64."""
        try:
            return math.ldexp(self.root, self.exponent)
        except OverflowError:
            return math.inf

    def l2_ratio(self, base: Norm) -> float:
        """Return this L2 norm as a part of *base*'s, infinite beyond float64."""
        try:
            return math.ldexp(self.root / base.root, self.exponent - base.exponent)
        except OverflowError:
            return math.inf


class Part(NamedTuple):
    """What a block adds: the sum of its squares is ``total * 2^(2 exponent)``."""

    largest: float
    total: float
    exponent: int


class SquareSum:
    """The norms of a vector, growing by blocks, and where its largest value stands."""

    __slots__ = ("_total", "largest", "place")

    def __init__(self) -> None:
        """Begin with no block."""
        self.largest = 0.0
        self.place: int | None = None
        self._total = 0

    def add(self, parts: Iterable[Part], place: int | None = None) -> None:
        """Add blocks; *place* is where their largest value stands, if it may be asked for."""
        for part in parts:
            if part.largest > self.largest:
                self.largest, self.place = part.largest, place
            if part.total:
                mantissa, power = math.frexp(part.total)
                shift = power - _MANTISSA + 2 * part.exponent + _UNIT
                self._total += int(math.ldexp(mantissa, _MANTISSA)) << shift

    def merge(self, other: SquareSum) -> None:
        """Add the blocks of *other*."""
        if other.largest > self.largest:
            self.place = other.place
        elif other.largest == self.largest and other.place is not None:
            self.place = other.place if self.place is None else min(self.place, other.place)
        self.largest = max(self.largest, other.largest)
        self._total += other._total

    def norm(self) -> Norm:
        """Return the norms of all blocks."""
        if self.largest == math.inf:
            return Norm(math.inf, math.inf, 0)
        if not self._total:
            return Norm(0.0, 0.0, 0)
        shift = self._total.bit_length() - _ROOT_BITS
        shift += (shift - _UNIT) % 2
        kept = self._total >> shift if shift >= 0 else self._total << -shift
        root, exponent = math.frexp(math.isqrt(kept))
        return Norm(self.largest, root, exponent + (shift - _UNIT) // 2)


def square_rows(rows: Floats, *, vanish: bool) -> list[list[Part]] | None:
    """Square *rows* in place, and return of each what its blocks add to a sum.

    None where a value is NaN or infinite or a square may have left the range of normal numbers:
    :func:`scaled` is for those. *vanish* tells that the square of a value may be zero and the value
    not.
    """
    np.square(rows, out=rows)
    largest = _largest(rows)
    if not all(usual(square, vanish=vanish) for row in largest for square in row):
        return None
    return [
        [part_of(most, total) for most, total in zip(*row, strict=True)]
        for row in zip(largest, _sums(rows), strict=True)
    ]


def usual(square: float, *, vanish: bool) -> bool:
    """Tell whether *square*, the largest of its block, leaves the sum of the block in range."""
    return _LEAST_SQUARE <= square <= _LARGEST_SQUARE or (square == 0 and not vanish)


def part_of(square: float, total: float) -> Part:
    """Return what a block adds of which *square* is the largest square and *total* the sum.

    The root of the largest square is the largest value itself: in binary floating point
    ``sqrt(x * x) == abs(x)`` (Boldo, "Stupid is as stupid does", 2015).
    """
    return Part(math.sqrt(square), total, 0)


def scaled(values: Floats) -> list[Part]:
    """Return what the blocks of *values*, whatever their size, add to a sum.

    Values are finite; differences of such may be infinite. What *values* held is lost.
    """
    return [_scaled(values[start : start + BLOCK]) for start in range(0, values.size, BLOCK)]


def _scaled(block: Floats) -> Part:
    largest = extent_of(block)
    if largest in (0.0, math.inf):
        return Part(largest, 0.0, 0)
    # A block that square_rows can do is done as there: no sum depends on what stands beside it.
    exponent = 0 if usual(largest * largest, vanish=True) else math.frexp(largest)[1]
    if exponent:
        np.ldexp(block, -exponent, out=block)
    np.square(block, out=block)
    ((total,),) = _sums(block.reshape(1, -1))
    return Part(largest, total, exponent)


def _largest(rows: Floats) -> list[list[float]]:
    """Return the largest value of each block of each row, NaN if there is one."""
    number, count = rows.shape
    whole = count // BLOCK * BLOCK
    found: list[list[float]] = [[] for _ in range(number)]
    if whole:
        blocks = rows[:, :whole].reshape(number, -1, BLOCK)
        found = np.maximum.reduce(blocks, axis=2).tolist()
    if whole < count:
        rest = np.maximum.reduce(rows[:, whole:], axis=1).tolist()
        found = [[*row, last] for row, last in zip(found, rest, strict=True)]
    return found


def _sums(rows: Floats) -> list[list[float]]:
    """Return the sum of each block of each row: whole blocks, and what is left."""
    number, count = rows.shape
    whole = count // BLOCK * BLOCK
    found: list[list[float]] = [[] for _ in range(number)]
    if whole:
        blocks = rows[:, :whole].reshape(number, -1, BLOCK // LANES, LANES)
        found = fold(np.add.reduce(blocks, axis=2)).tolist()
    if whole < count:
        full = whole + (count - whole) // LANES * LANES
        lanes = np.add.reduce(rows[:, whole:full].reshape(number, -1, LANES), axis=1)
        lanes[:, : count - full] += rows[:, full:]
        found = [[*row, last] for row, last in zip(found, fold(lanes).tolist(), strict=True)]
    return found


def fold(lanes: Floats) -> Floats:
    """Return the sums of *lanes*, which the last axis holds."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def extent_of(values: Floats) -> float:
    """Return the largest magnitude; NaN if there is one."""
    if not values.size:
        return 0.0
    return max(float(np.maximum.reduce(values)), -float(np.minimum.reduce(values)))


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
