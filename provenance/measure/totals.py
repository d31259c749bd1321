"""What differs in a pair of tensors, counted and summed chunk by chunk.

Elements are widened to float64, exactly, and the arithmetic is float64: differences have one
rounding each, and their norms the error of :mod:`~provenance.measure.squares`. Whether elements
differ is told by their bits alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from provenance.measure.pieces import BLOCK
from provenance.measure.squares import (
    Bits,
    BlockSum,
    Codes,
    Floats,
    Rows,
    Squares,
    SquareSum,
    measured,
    widened,
)
from provenance.weights.dtypes import codes
from provenance.weights.view import TensorInfo


class Totals:
    """The running totals of one pair of tensors, or of a part of it."""

    def __init__(self, info: TensorInfo, *, norms: bool, ulp: bool, initial: bool) -> None:
        """Begin with nothing. *norms*, *ulp*: what is wanted; *initial*: are there updates."""
        dtype = info.dtype
        floats = dtype.kind != "exact"
        self.dtype = dtype
        self.norms = norms and floats
        self.ulp = ulp and floats
        self.updates = initial and self.norms
        """False from the first initial weight on that is NaN or infinite."""
        self.sums = [SquareSum() for _ in range(1 + 2 * self.norms + 2 * self.updates)]
        """Of the difference; with norms of left and right; and of the updates of both."""
        rows = info.shape[0] if self.norms and len(info.shape) > 1 else 0
        self.rows = Rows(info.elements // rows * dtype.components if rows else 0)
        self.differing = self.not_finite = self.nan = self.zero_signs = self.max_ulp = 0
        self.first: int | None = None
        self.parts = dict.fromkeys((part.name for part in dtype.parts), 0)
        self._worst: tuple[int, tuple[bytes, bytes]] | None = None
        """A block with the largest difference: its first element, and its bytes on either side."""

    def merge(self, other: Totals) -> None:
        """Add what was found of a later part of the tensor."""
        if other.sums[0].largest > self.sums[0].largest:
            self._worst = other._worst
        for total, more in zip(self.sums, other.sums, strict=True):
            total.merge(more)
        self.rows.merge(other.rows)
        self.updates &= other.updates
        self.differing += other.differing
        self.not_finite += other.not_finite
        self.nan += other.nan
        self.zero_signs += other.zero_signs
        self.max_ulp = max(self.max_ulp, other.max_ulp)
        self.first = other.first if self.first is None else self.first
        for name, number in other.parts.items():
            self.parts[name] += number

    def add(self, start: int, chunks: Sequence[memoryview], squares: Squares) -> None:
        """Add a chunk that begins at the element *start*: left, right, and initial if there is."""
        dtype = self.dtype
        sides = codes(chunks[0], dtype), codes(chunks[1], dtype)
        unequal: Bits = sides[0] != sides[1]
        width = dtype.components if unequal.ndim == 1 else unequal.shape[1]
        differing = _elements(unequal, width)
        self.differing += differing
        if differing and self.first is None:
            self.first = start + int(np.argmax(unequal)) // width * dtype.block
        for part in dtype.parts:
            found = np.any(unequal[:, part.start : part.stop], axis=1)
            self.parts[part.name] += int(np.count_nonzero(found))
        if not differing:
            chunks = chunks[0], chunks[0], *chunks[2:]
        if self.norms or (differing and dtype.kind != "exact"):
            chunks = chunks if self.updates else chunks[:2]
            self._add_floats(start, chunks, sides, unequal, squares)

    def _add_floats(
        self,
        start: int,
        chunks: Sequence[memoryview],
        sides: tuple[Codes, Codes],
        unequal: Bits,
        squares: Squares,
    ) -> None:
        """Add a chunk with the bits *sides*; where these are equal, *chunks* has one twice."""
        dtype, (left, right), row = self.dtype, sides, self.rows.row
        begin = start * dtype.components
        found, zeros = squares.blocks(
            chunks, dtype, norms=self.norms, row=row, before=begin % row if row else 0
        )
        if None in found:
            left, right = left.copy(), right.copy()
        for number, usual in enumerate(found):
            place = slice(number * BLOCK, min((number + 1) * BLOCK, left.size))
            parts = usual
            if parts is None:
                values = [widened(codes(chunk, dtype)[place].tobytes(), dtype) for chunk in chunks]
                before = (begin + place.start) % row if row else 0
                parts = self._measured(values, left[place], right[place], unequal[place], before)
            if parts[0].largest > self.sums[0].largest:
                one, two = (side[place].tobytes() for side in sides)
                self._worst = start + place.start // dtype.components, (one, two)
            for total, part in zip(self.sums, parts, strict=False):
                total.add(part)
            if row and parts[0].largest:
                self.rows.add(begin + place.start, begin + place.stop, parts[0])
        if zeros:
            signs: Bits = unequal & ((left | right) << left.dtype.type(1) == 0)
            self.zero_signs += _elements(signs, dtype.components)
        if self.ulp and chunks[0] is not chunks[1]:
            self.max_ulp = max(self.max_ulp, squares.apart(left, right, dtype))

    def _measured(
        self, values: list[Floats], left: Codes, right: Codes, unequal: Bits, before: int
    ) -> list[BlockSum]:
        """Return what a block adds that holds values of any size, or what is not finite.

        The *values* are of left, right and initial; *before* stand before the block in its first
        row. Places in which a side is not finite are counted and cleared, in *left*, *right* and
        *unequal* too.
        """
        a, b, *start = values
        lost = ~(np.isfinite(a) & np.isfinite(b))
        if lost.any():
            self.not_finite += int(np.count_nonzero(unequal & lost))
            self.nan += _elements(np.isnan(a) | np.isnan(b), self.dtype.components)
            left[lost] = right[lost] = unequal[lost] = 0
        bases = [a, b] if self.norms else []
        for each in start:
            if np.isfinite(each[~lost]).all():
                bases += [a - each, b - each]
            else:
                self.updates = False
        gap = a - b
        for values_of in (gap, *bases):
            values_of[lost] = 0
        rows = measured(gap, self.rows.row, before, base=False)
        return [rows, *(measured(each, base=True) for each in bases)]

    def worst(self) -> int | None:
        """Return the first element with the largest difference; None where every one is zero."""
        if self._worst is None:
            return None
        start, sides = self._worst
        with np.errstate(all="ignore"):
            left, right = (widened(side, self.dtype) for side in sides)
            gaps = np.abs(left - right)
        gaps[~(np.isfinite(left) & np.isfinite(right))] = 0
        return start + int(np.argmax(gaps)) // self.dtype.components


def _elements(marked: Bits, width: int) -> int:
    """Count the elements, *width* places each, in which a place is marked."""
    if width > 1:
        marked = np.any(marked.reshape(-1, width), axis=1)
    return int(np.count_nonzero(marked))
