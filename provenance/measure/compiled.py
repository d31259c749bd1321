"""A meter that has whole blocks of floats measured by compiled code.

What it finds is what :class:`~provenance.measure.meter.Meter` finds, bit for bit: sums are added
in the same order, and whatever is not usual is left to it.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from provenance.measure.kernel import Squares, has_kernel, is_installed, kernel_for
from provenance.measure.meter import VANISHING, Meter, Scratch, Tally
from provenance.measure.norms import LANES, fold, part_of, usual
from provenance.measure.pieces import BLOCK
from provenance.weights.dtypes import codes, widen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from provenance.measure.norms import Floats, Part
    from provenance.weights.view import TensorInfo

    Codes = NDArray[np.unsignedinteger[Any]]
    Bits = NDArray[np.bool_]

LARGE: Final = 2**24
"""Floats of tensors from which loading and running LLVM, about 60 ms, is less than what it saves:
numpy takes about 5 ns for each, compiled code less than 1."""


def is_worth(tensors: Iterable[TensorInfo]) -> bool:
    """Tell whether compiled code is there, and *tensors* are large enough for it."""
    return is_installed() and sum(t.elements for t in tensors if has_kernel(t.dtype)) >= LARGE


def meter_for(tally: Tally, scratch: Scratch, *, compiled: bool) -> Meter:
    """Return a meter that adds to *tally*; a *compiled* one if there is one for its type.

    Raises:
        UnavailableError: it cannot be compiled.
    """
    kind = CompiledMeter if compiled and has_kernel(tally.dtype) else Meter
    return kind(tally, scratch)


class CompiledMeter(Meter):
    """Adds chunks to a tally. The floats of whole blocks of usual size go through the kernel."""

    def __init__(self, tally: Tally, scratch: Scratch) -> None:
        """Add to *tally*; what is not usual works in *scratch*."""
        super().__init__(tally, scratch)
        self._kernel = kernel_for(tally.dtype)

    def add_equal(self, chunks: tuple[memoryview, ...]) -> None:
        """Add a chunk that is the same on both sides, and initial if there is: norms, once."""
        bits = [codes(chunk, self._dtype) for chunk in (chunks[0], *chunks)]
        found = self._squares(bits)
        if found is None:
            super().add_equal(chunks)
        else:
            self._add_norms(found[0])

    def _add_floats(
        self, start: int, chunks: tuple[memoryview, ...], bits: tuple[Codes, Codes], unequal: Bits
    ) -> None:
        tally = self._tally
        found = self._squares([*bits, *(codes(chunk, self._dtype) for chunk in chunks[2:])])
        if found is None:
            super()._add_floats(start, chunks, bits, unequal)
            return
        parts, squares = found
        # Of finite values whose bits differ only zeros have no distance: no difference underflows.
        tally.zero_signs += int(np.count_nonzero(unequal)) - squares.moved
        place = None
        if max(part.largest for part in parts[0]) > tally.difference.largest:
            place = start + self._place_of_largest(bits, squares.largest[0])
        tally.difference.add(parts[0], place)
        self._add_norms(parts)
        if tally.ulp:
            tally.max_ulp = max(tally.max_ulp, self._kernel.apart(*bits))

    def _squares(self, sides: list[Codes]) -> tuple[list[list[Part]], Squares] | None:
        """Return what the blocks of a chunk add to each vector that is wanted.

        None where the chunk is not of whole blocks with usual squares. *sides* are the bits of
        left, right, and initial if there is.
        """
        tally = self._tally
        if not sides[0].size or sides[0].size % BLOCK:
            return None
        squares = self._kernel.square(sides if tally.updates else sides[:2], BLOCK)
        wanted = len(squares.sums) if tally.norms else 1
        totals = fold(squares.sums[:wanted]).tolist()
        most = np.maximum.reduce(squares.largest[:wanted], axis=2).tolist()
        vanish = self._dtype.name in VANISHING
        parts = []
        for pairs in (list(zip(*row, strict=True)) for row in zip(most, totals, strict=True)):
            # The largest square passes over NaN; the sum does not.
            if not all(usual(square, vanish=vanish) and isfinite(total) for square, total in pairs):
                return None
            parts.append([part_of(square, total) for square, total in pairs])
        return parts, squares

    def _add_norms(self, parts: list[list[Part]]) -> None:
        tally = self._tally
        sums = tally.left, tally.right, tally.left_update, tally.right_update
        for total, part in zip(sums, parts[1:], strict=False):
            total.add(part)

    def _place_of_largest(self, bits: tuple[Codes, Codes], largest: Floats) -> int:
        """Return where in a chunk the first of its largest differences stands.

        *largest* tells the block and the lanes in which to look.
        """
        block = int(np.argmax(np.maximum.reduce(largest, axis=1)))
        lanes = np.flatnonzero(largest[block] == np.maximum.reduce(largest[block]))
        rows = BLOCK // LANES
        left, right = np.empty((2, rows * lanes.size))
        for side, out in zip(bits, (left, right), strict=True):
            raw = side.reshape(-1, rows, LANES)[block][:, lanes].tobytes()
            widen(raw, self._dtype, out, np.empty(out.size))
        row, lane = divmod(int(np.argmax(np.abs(left - right))), lanes.size)
        return block * BLOCK + row * LANES + int(lanes[lane])
