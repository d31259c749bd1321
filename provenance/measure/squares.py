"""Norms of vectors of floats, summed by blocks, with a stated error bound.

The order of every addition is fixed (docs/spec/equality.md, "Error"), so a norm depends only on
where blocks begin: not on threads, the size of reads, the processor, or whether ``_kernel.c`` or
numpy adds (ADR 0011). numpy measures a block (:func:`measured`) where there is no kernel for its
type, and one that holds NaN, infinity, or values outside ``_LEAST`` to ``_LARGEST``.

A *base* is the norm of what a difference is a part of: an element counts in it by at most
``2^CAP`` times the power of two of the median, so that few elements cannot lift it (ADR 0026).

``RELATIVE_ERROR`` bounds the relative error of every norm and ratio, with room to spare. A value
has one rounding (it is a difference) of at most 2^-53 and its square another; a lane of a block has
``BLOCK / LANES`` = 2^8 squares, and the lanes are halved 8 times. So the sum has a relative error
of at most ``(4 + 2^8 + 8) * 2^-53`` and a little, under 2^-44; a root has half of that. A row has
fewer lanes: ``BLOCK / ROW_LANES`` = 2^11 squares in each, and a bound under 2^-41. Where a result
is subnormal, its last rounding has an error of up to ``LEAST_ERROR`` whatever its size.
"""

from __future__ import annotations

import ctypes
import math
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenance.errors import UsageError
from provenance.measure.pieces import BLOCK
from provenance.weights.dtypes import Buffer, DType, codes, widen

Codes = NDArray[np.unsignedinteger[Any]]
Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

RELATIVE_ERROR: Final = 2.0**-36
"""Bound of the relative error of a norm or of a ratio of two, where it is a normal number."""

LEAST_ERROR: Final = 2.0**-1074
"""What is added to that bound, for results that are subnormal; one of zero is exact."""

LANES: Final = 2**8
"""Sums that a block is added to side by side: a power of two that divides ``BLOCK``. It is part of
what a distance means. Fewer give numpy rows too short to be worth a call; with more, the kernel's
ten rows of them (20 KB) would leave a processor's first cache."""

ROW_LANES: Final = 2**5
"""The same for the rows of a tensor, which may be short."""

CAP: Final = 4
"""An element counts in a base by at most 2^CAP times the power of two of the median: 5 to 11
standard deviations of a normal distribution, where nothing is. It is part of what a distance
means."""

STEPS: Final = 4
"""In how many binades, from that of its median down, a block says how many values it has."""

_LEAST: Final = 2.0**-400
_LARGEST: Final = 2.0**400
"""Where the largest value of a block is between these, the sum of its squares stays in range, and
squares too small to be normal numbers are less than 2^-200 of it."""

_KERNELS: Final[Mapping[str, str]] = {
    "BF16": "bf16", "F16": "f16", "F32": "f32", "F64": "f64",
    "BC32": "bf16", "C32": "f16", "C64": "f32", "C128": "f64",
}  # fmt: skip
"""The suffix of the compiled functions, by type."""


def enlarged(value: float) -> float:
    """Return *value*, a norm or a ratio, with the bound of its error added."""
    return value * (1 + RELATIVE_ERROR) + LEAST_ERROR if value else 0.0


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

    @property
    def order(self) -> tuple[float, int, float]:
        """Return what orders norms by their L2."""
        return min(self.root, 0.5), self.exponent, self.root

    def l2_ratio(self, base: Norm, times: float = 1) -> float:
        """Return this L2 norm as a part of *base*'s, *times* over, infinite beyond float64."""
        return _shifted(self.root / base.root * times, self.exponent - base.exponent)


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
    """Return ``value * 2^exponent``: infinite beyond float64, and zero for zero alone."""
    try:
        return math.ldexp(value, exponent) or (LEAST_ERROR if value else 0.0)
    except OverflowError:
        return math.inf


class BlockSum(NamedTuple):
    """What a block adds. A sum of squares is a number and an exponent: ``number * 4^exponent``."""

    largest: float
    total: tuple[float, int] = (0.0, 0)
    capped: tuple[float, int] = (0.0, 0)
    """Of a base: with every magnitude at most 2^CAP times the power of two of the median."""
    binade: int = 0
    """The exponent of that power, the median being the lower one of what is not zero."""
    filled: int = 0
    """How many values are not zero."""
    reached: tuple[int, ...] = ()
    """How many have at least the binade, and each of the ``STEPS`` - 1 below it."""
    rows: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of a difference: sums of the row that begins or goes on, of the longest of those that are
    whole, and of the last if it goes on; with the exponent of the total."""


class SquareSum:
    """The norms of a vector, growing by blocks."""

    __slots__ = ("_capped", "_reached", "_totals", "largest")

    def __init__(self) -> None:
        """Begin with no block."""
        self.largest = 0.0
        self._totals: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        self._capped: defaultdict[tuple[int, int], array[float]] = defaultdict(lambda: array("d"))
        """By binade and exponent: for each block its sum, and how many values are not zero."""
        self._reached: Counter[int] = Counter()
        """By binade: how many values are known to have it at least, and none above."""

    def add(self, part: BlockSum) -> None:
        """Add a block."""
        self.largest = max(self.largest, part.largest)
        self.add_total(*part.total)
        if part.filled:
            total, exponent = part.capped
            self._capped[part.binade, exponent].extend((total, part.filled))
            for step, (more, less) in enumerate(pairwise((0, *part.reached))):
                self._reached[part.binade - step] += less - more

    def add_total(self, total: float, exponent: int) -> None:
        """Add a sum of squares."""
        if total:
            self._totals[exponent].append(total)

    def merge(self, other: SquareSum) -> None:
        """Add the blocks of *other*."""
        self.largest = max(self.largest, other.largest)
        for exponent, totals in other._totals.items():
            self._totals[exponent].extend(totals)
        for key, parts in other._capped.items():
            self._capped[key].extend(parts)
        self._reached.update(other._reached)

    def norm(self) -> Norm:
        """Return the norms of all blocks."""
        each = ((total, at) for at, totals in self._totals.items() for total in totals)
        return _norm(self.largest, each)

    def base(self) -> Norm:
        """Return the norms, to which a few large elements add no more than many others do.

        A block counts at most as if each of its elements had the largest magnitude that counts:
        2^CAP times the greatest power of two that more than half are known to have, of all.
        """
        if self.largest == math.inf:
            return self.norm()
        filled = sum(sum(parts[1::2]) for parts in self._capped.values())
        reached, middle = 0, 0
        for middle in sorted(self._reached, reverse=True):
            reached += self._reached[middle]
            if 2 * reached > filled:
                break
        cap = middle + CAP

        def each() -> Iterator[tuple[float, int]]:
            for (binade, exponent), parts in self._capped.items():
                for total, count in zip(parts[::2], parts[1::2], strict=True):
                    much = binade > middle and _shifted(total, 2 * (exponent - cap)) > count
                    yield (count, cap) if much else (total, exponent)

        return _norm(min(self.largest, _shifted(1.0, cap)), each())


def _norm(largest: float, totals: Iterable[tuple[float, int]]) -> Norm:
    """Return the norms of a vector with the sums of squares *totals*."""
    found = list(totals)
    if largest == math.inf:
        return Norm(math.inf, math.inf, 0)
    if not found:
        return Norm(largest, 0.0, 0)
    # What is too small to be added beside the largest exponent is zero beside its sum, too.
    top = max(exponent for _, exponent in found)
    total = math.fsum(math.ldexp(total, 2 * (exponent - top)) for total, exponent in found)
    root, exponent = math.frexp(math.sqrt(total))
    return Norm(largest, root, exponent + top)


class Rows:
    """The longest row of a difference, growing by blocks that may be apart."""

    def __init__(self, row: int) -> None:
        """Begin with no block; a row has *row* values, 0: there are none."""
        self.row = row
        self._longest = Norm(0.0, 0.0, 0)
        self._open: defaultdict[int, SquareSum] = defaultdict(SquareSum)
        """The rows that are not known to be whole, by number."""
        self._begin: int | None = None

    def add(self, begin: int, end: int, part: BlockSum) -> None:
        """Add the block from *begin* to *end*; blocks come in order, less those that are zero."""
        first, longest, last = part.rows
        self._begin = begin if self._begin is None else self._begin
        number, exponent = begin // self.row, part.total[1]
        self._open[number].add_total(first, exponent)
        if self._begin <= number * self.row and (number + 1) * self.row <= end:
            self._keep(self._open.pop(number).norm())
        if last:
            self._open[end // self.row].add_total(last, exponent)
        if longest:
            self._keep(_norm(0.0, [(longest, exponent)]))

    def _keep(self, norm: Norm) -> None:
        self._longest = max(self._longest, norm, key=lambda norm: norm.order)

    def merge(self, other: Rows) -> None:
        """Add the blocks of *other*, which come later: rows that end before them are whole."""
        self._keep(other._longest)
        begin = other._begin or 0
        for number in [each for each in self._open if (each + 1) * self.row <= begin]:
            self._keep(self._open.pop(number).norm())
        for number, total in other._open.items():
            self._open[number].merge(total)

    def longest(self) -> Norm:
        """Return the L2 norm of the longest row."""
        norms = [self._longest, *(total.norm() for total in self._open.values())]
        return max(norms, key=lambda norm: norm.order)


class Squares:
    """Squares of chunks, by ``_kernel.c``. Threads may share it."""

    def __init__(self, *, compiled: bool) -> None:
        """Use *compiled* code, where there is any."""
        self._library = _library() if compiled else None

    def blocks(
        self, chunks: Sequence[memoryview], dtype: DType, *, norms: bool, row: int, before: int
    ) -> tuple[list[list[BlockSum] | None], bool]:
        """Return what the blocks of *chunks*, of one length, add: left, right, and initial.

        Vectors are the difference; with *norms* left and right, too; and with an initial chunk
        both updates. None: :func:`measured` has to do it. A row has *row* values, of which
        *before* stand before the chunk. Also: whether zeros of two signs may stand in one place.
        """
        bits = [codes(chunk, dtype) for chunk in chunks]
        if any(each.size != bits[0].size for each in bits):
            raise UsageError("chunks that are compared have one length")
        count = -(-bits[0].size // BLOCK)
        if self._library is None or dtype.name not in _KERNELS:
            return [None] * count, True
        vectors = 2 * len(chunks) - 1
        found = np.empty((vectors, 5 + STEPS, count))
        zeros = getattr(self._library, f"{_KERNELS[dtype.name]}_{len(chunks) - 2}")(
            *_pointers(*bits, *bits[:1][: 3 - len(bits)]),
            *map(ctypes.c_int64, (bits[0].size, BLOCK, row, before)),
            *_pointers(found),
        )
        found = found[: vectors if norms else 1]
        largest, totals, binades = found[:, 0], found[:, 1], found[1:, 3]
        usual: Bits = (largest >= _LEAST) & (largest <= _LARGEST) & np.isfinite(totals)
        usual[1:] &= np.ldexp(1.0, binades.astype(int) + CAP) >= _LEAST
        each = (usual | (largest == 0) & (totals == 0)).all(axis=0).tolist()
        numbers = found.transpose(2, 0, 1).tolist()
        return [
            _parts(*it) if good else None for it, good in zip(numbers, each, strict=True)
        ], bool(zeros)

    def apart(self, left: Codes, right: Codes, dtype: DType) -> int:
        """Return the most representable values that stand between two elements."""
        if self._library is None or dtype.name not in _KERNELS:
            one, two = _ordered(left), _ordered(right)
            return int(np.max(np.maximum(one, two) - np.minimum(one, two)))
        function = getattr(self._library, f"apart_{_KERNELS[dtype.name]}")
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


def _parts(gap: list[float], *bases: list[float]) -> list[BlockSum]:
    """Return what the kernel found of one block."""
    largest, total, first, longest, last = gap[:5]
    return [
        BlockSum(largest, (total, 0), rows=(first, longest, last)),
        *(
            BlockSum(
                largest, (total, 0), (capped, 0), int(binade), int(filled), tuple(map(int, reached))
            )
            for largest, total, capped, binade, filled, *reached in bases
        ),
    ]


def measured(block: Floats, row: int = 0, before: int = 0, *, base: bool) -> BlockSum:
    """Return what one block adds; what *block* held is lost.

    Values are finite; differences of such may be infinite. A row has *row* values, of which
    *before* stand in other blocks; 0: rows are not asked for.
    """
    np.abs(block, out=block)
    largest = float(np.maximum.reduce(block))
    if largest in (0.0, math.inf):
        return BlockSum(largest)
    if not base:
        total = _squared(block, largest)
        return BlockSum(largest, total, rows=_rows(block, row, before) if row else (0.0, 0.0, 0.0))
    binade, filled, *reached = _median(block)
    cap = _shifted(1.0, binade + CAP)
    capped = _squared(np.minimum(block, cap), cap) if largest > cap else None
    total = _squared(block, largest)
    return BlockSum(largest, total, capped or total, binade, filled, tuple(reached))


def _median(sizes: Floats) -> list[int]:
    """Return the binade of the lower median of the magnitudes above zero, and their number.

    Then how many have this binade, and each of the next below. Subnormal numbers count as one.
    """
    counts = np.zeros(2**11, np.int64)
    for at in range(0, sizes.size, 2**12):  # as much as malloc has at hand
        counts += np.bincount(sizes[at : at + 2**12].view(np.int64) >> 52, minlength=counts.size)
    filled = int(np.count_nonzero(sizes))
    counts[0] -= sizes.size - filled
    from_above = np.cumsum(counts[::-1])
    first = int(np.argmax(2 * from_above > filled))
    reached = [int(from_above[min(first + step, from_above.size - 1)]) for step in range(STEPS)]
    return [1024 - first, filled, *reached]


def _squared(sizes: Floats, largest: float) -> tuple[float, int]:
    """Square *sizes* in place, and return their sum with its exponent."""
    # A block in range is added as elsewhere: no sum depends on what stands beside it.
    exponent = 0 if _LEAST <= largest <= _LARGEST else math.frexp(largest)[1]
    if exponent:
        np.ldexp(sizes, -exponent, out=sizes)
    np.square(sizes, out=sizes)
    return float(_summed(sizes, sizes.size, LANES)[0]), exponent


def _rows(squares: Floats, row: int, before: int) -> tuple[float, float, float]:
    first = min(row - before, squares.size)
    last = squares.size - (squares.size - first) % row
    parts = squares[:first], squares[first:last], squares[last:]
    first_sum, longest, last_sum = (
        float(np.max(_summed(part, min(row, part.size), ROW_LANES), initial=0.0)) for part in parts
    )
    return first_sum, longest, last_sum


def _summed(squares: Floats, size: int, lanes: int) -> Floats:
    """Return the sum of every *size* of *squares*, added in *lanes* that are halved."""
    if not squares.size:
        return squares
    rows = squares.reshape(-1, size)
    while lanes // 2 >= size:  # the others would be zero
        lanes //= 2
    full = size // lanes * lanes
    sums = np.add.reduce(rows[:, :full].reshape(len(rows), full // lanes, lanes), axis=1)
    sums[:, : size - full] += rows[:, full:]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    found: Floats = sums[:, 0]
    return found


def _ordered(bits: Codes) -> Codes:
    """Return *bits* of sign and magnitude as unsigned integers in the order of the values."""
    top = bits.dtype.itemsize * 8 - 1
    # All ones where the sign is set, else the sign bit.
    mask = (bits.view(f"<i{bits.dtype.itemsize}") >> top).view(bits.dtype)
    return (mask | bits.dtype.type(1 << top)) ^ bits
