"""What is measured of a pair of tensors, chunk by chunk.

Chunks of equal bits are told first. Elements of the others are widened to float64, exactly, and
the arithmetic is float64: differences have one rounding each, and their norms the error of
:mod:`~provenance.measure.norms`. Whether elements differ is told by their bits alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from provenance.measure.norms import SquareSum, scaled, square_rows
from provenance.measure.pieces import READ, earlier
from provenance.weights.dtypes import codes, widen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from provenance.measure.norms import Floats, Part
    from provenance.weights.dtypes import DType

    Codes = NDArray[np.unsignedinteger[Any]]
    Bits = NDArray[np.bool_]

VANISHING: Final = frozenset({"F64", "C128"})
"""Types with values whose square is zero in float64."""


class Scratch:
    """Working memory of a thread, taken once: the allocator gives memory of this size back."""

    __slots__ = ("halves", "initial", "keys", "rows", "spare")

    def __init__(self) -> None:
        """Take the memory."""
        self.rows = np.empty((5, READ))
        self.initial = np.empty(READ)
        self.spare = np.empty(READ)
        self.keys = tuple(np.empty(READ, "<u8") for _ in range(2))
        self.halves = np.zeros((READ, 2), "<u2")
        """Halves of float32 numbers, the lower ones zero: bfloat16 is the upper half."""


class Tally:
    """The running measures of one pair of tensors, or of a part of it."""

    def __init__(self, dtype: DType, *, norms: bool, ulp: bool, initial: bool) -> None:
        """Begin with nothing. *norms*, *ulp*: what is wanted; *initial*: are there updates."""
        floats = dtype.kind != "exact"
        self.dtype = dtype
        self.norms = norms and floats
        self.ulp = ulp and floats
        self.updates = initial and self.norms
        """False from the first initial weight on that is NaN or infinite."""
        self.difference, self.left, self.right = SquareSum(), SquareSum(), SquareSum()
        self.left_update, self.right_update = SquareSum(), SquareSum()
        self.differing = self.not_finite = self.nan = self.zero_signs = self.max_ulp = 0
        self.first: int | None = None
        self.parts = {part.name: 0 for part in dtype.parts}

    def merge(self, other: Tally) -> None:
        """Add what was found of another part of the tensor."""
        self.updates &= other.updates
        self.difference.merge(other.difference)
        self.left.merge(other.left)
        self.right.merge(other.right)
        self.left_update.merge(other.left_update)
        self.right_update.merge(other.right_update)
        self.differing += other.differing
        self.not_finite += other.not_finite
        self.nan += other.nan
        self.zero_signs += other.zero_signs
        self.max_ulp = max(self.max_ulp, other.max_ulp)
        self.first = earlier(self.first, other.first)
        for name, number in other.parts.items():
            self.parts[name] += number


class Meter:
    """Adds chunks to a tally.

    Rows of floats: the difference, left, right, and both updates; or left and its update alone.
    """

    def __init__(self, tally: Tally, scratch: Scratch) -> None:
        """Add to *tally*, working in *scratch*."""
        self._tally = tally
        self._dtype = tally.dtype
        self._scratch = scratch

    def add(self, start: int, chunks: tuple[memoryview, ...]) -> None:
        """Add a chunk that begins at the element *start*: left, right, and initial if there is."""
        tally, dtype = self._tally, self._dtype
        left, right = codes(chunks[0], dtype), codes(chunks[1], dtype)
        unequal: Bits = left != right
        width = dtype.components if left.ndim == 1 else left.shape[1]
        differing = elements_of(unequal, width)
        if not differing:
            if tally.norms:
                self.add_equal((chunks[0], *chunks[2:]))
            return
        tally.differing += differing
        if tally.first is None:
            tally.first = start + int(np.argmax(unequal)) // width * dtype.block
        for part in dtype.parts:
            found = np.any(unequal[:, part.start : part.stop], axis=1)
            tally.parts[part.name] += int(np.count_nonzero(found))
        if dtype.kind != "exact":
            self._add_floats(start, chunks, (left, right), unequal)

    def add_equal(self, chunks: tuple[memoryview, ...]) -> None:
        """Add a chunk that is the same on both sides, and initial if there is: norms, once."""
        tally = self._tally
        parts = self._squared(self._equal_rows(chunks))
        if parts is None:
            rows = self._equal_rows(chunks)
            finite: Bits = np.isfinite(rows[0])
            tally.nan += elements_of(np.isnan(rows[0]), self._dtype.components)
            rows[:, ~finite] = 0
            parts = self._unusual(rows, finite, own=1)
        sums = (tally.left, tally.left_update), (tally.right, tally.right_update)
        for side in sums:
            for total, part in zip(side, parts, strict=False):
                total.add(part)

    def _add_floats(
        self, start: int, chunks: tuple[memoryview, ...], bits: tuple[Codes, Codes], unequal: Bits
    ) -> None:
        tally, width = self._tally, self._dtype.components
        rows = self._rows(chunks)
        parts = self._squared(rows)
        gaps, finite = rows[0], None
        if parts is None:
            rows = self._rows(chunks)
            finite = self._drop_what_is_not_finite(rows, unequal)
            gaps = np.abs(rows[0], out=self._scratch.spare[: unequal.size])
            parts = self._unusual(rows, finite, own=3)
        # Where a row has no zero, and so no zero of another sign, one look at it is enough.
        if finite is not None or not np.minimum.reduce(rows[min(1, len(rows) - 1)]):
            tally.zero_signs += elements_of(_both_zero(*bits) & unequal, width)
        place = None
        if max(part.largest for part in parts[0]) > tally.difference.largest:
            place = start + int(np.argmax(gaps)) // width
        tally.difference.add(parts[0], place)
        sums = tally.left, tally.right, tally.left_update, tally.right_update
        for total, part in zip(sums, parts[1:], strict=False):
            total.add(part)
        if tally.ulp:
            self._add_ulp(*bits, finite)

    def _drop_what_is_not_finite(self, rows: Floats, unequal: Bits) -> Bits:
        """Count the places where a side is NaN or infinite and clear them; return the others."""
        tally = self._tally
        a, b = self._scratch.rows[1:3, : unequal.size]
        finite: Bits = np.logical_and(np.isfinite(a), np.isfinite(b))
        tally.not_finite += int(np.count_nonzero(unequal & ~finite))
        tally.nan += elements_of(np.isnan(a) | np.isnan(b), self._dtype.components)
        unequal &= finite
        rows[:, ~finite] = 0
        return finite

    def _rows(self, chunks: tuple[memoryview, ...]) -> Floats:
        """Return the rows of two chunks, and initial if there is: those that are wanted."""
        d, a, b, *updates = self._scratch.rows[:, : self._count(chunks[0])]
        self._widen(chunks[0], a)
        self._widen(chunks[1], b)
        np.subtract(a, b, out=d)
        if self._tally.updates:
            w = self._scratch.initial[: d.size]
            self._widen(chunks[2], w)
            np.subtract(a, w, out=updates[0])
            np.subtract(b, w, out=updates[1])
        number = 5 if self._tally.updates else 3 if self._tally.norms else 1
        return self._scratch.rows[:number, : d.size]

    def _equal_rows(self, chunks: tuple[memoryview, ...]) -> Floats:
        """Return the rows of a chunk that is the same on both sides, and initial if there is."""
        a, update, *_ = self._scratch.rows[:, : self._count(chunks[0])]
        self._widen(chunks[0], a)
        if self._tally.updates:
            w = self._scratch.initial[: a.size]
            self._widen(chunks[1], w)
            np.subtract(a, w, out=update)
        return self._scratch.rows[: 2 if self._tally.updates else 1, : a.size]

    def _count(self, chunk: memoryview) -> int:
        return len(chunk) * 8 * self._dtype.components // self._dtype.bits

    def _widen(self, chunk: memoryview, out: Floats) -> None:
        if self._dtype.name in ("BF16", "BC32"):
            halves = self._scratch.halves[: out.size]
            halves[:, 1] = codes(chunk, self._dtype)
            out[...] = halves.reshape(-1).view("<f4")
        else:
            widen(chunk, self._dtype, out, self._scratch.spare[: out.size])

    def _squared(self, rows: Floats) -> list[list[Part]] | None:
        return square_rows(rows, vanish=self._dtype.name in VANISHING)

    def _unusual(self, rows: Floats, finite: Bits, own: int) -> list[list[Part]]:
        """Return the parts of *rows*, cleared where these are not *finite*, of any size.

        The first *own* of them are of the two tensors; what comes after is updates.
        """
        start = self._scratch.initial[: finite.size]
        if len(rows) > own and not np.isfinite(start[finite]).all():
            self._tally.updates = False
            rows = rows[:own]
        return [scaled(row) for row in rows]

    def _add_ulp(self, left: Codes, right: Codes, finite: Bits | None) -> None:
        a, b = (keys.view(left.dtype)[: left.size] for keys in self._scratch.keys)
        _order(left, a)
        _order(right, b)
        apart = _apart(a, b)
        if finite is not None:
            apart[~finite] = 0
        self._tally.max_ulp = max(self._tally.max_ulp, int(np.maximum.reduce(apart)))


def same_bytes(left: memoryview, right: memoryview) -> bool:
    """Tell whether two chunks of one length are the same, eight bytes at a time."""
    whole = len(left) // 8 * 8
    return (
        np.array_equal(np.frombuffer(left[:whole], "<u8"), np.frombuffer(right[:whole], "<u8"))
        and left[whole:] == right[whole:]
    )


def elements_of(marked: Bits, width: int) -> int:
    """Count the elements, *width* places each, in which a place is marked."""
    if width > 1:
        return int(np.count_nonzero(np.any(marked.reshape(-1, width), axis=1)))
    return int(np.count_nonzero(marked))


def _both_zero(left: Codes, right: Codes) -> Bits:
    """Return where both are zero, of whatever sign."""
    both = left | right
    both <<= left.dtype.type(1)
    zero: Bits = both == 0
    return zero


def _order(bits: Codes, out: Codes) -> None:
    """Write sign-and-magnitude *bits* to *out* as unsigned integers in the order of the values."""
    top = bits.dtype.itemsize * 8 - 1
    signed = f"<i{bits.dtype.itemsize}"
    np.right_shift(bits.view(signed), top, out=out.view(signed))
    out |= bits.dtype.type(1 << top)  # all ones where the sign is set, else the sign bit
    out ^= bits


def _apart(a: Codes, b: Codes) -> Codes:
    """Return the distances of unsigned integers, which no unsigned type can overflow, in *b*."""
    less = np.minimum(a, b)
    np.maximum(a, b, out=b)
    b -= less
    return b
