"""Squares are added in the stated order, by numpy and by compiled code, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import UsageError
from provenance.measure import pieces, squares, totals
from provenance.measure.distances import Measured, Wanted
from provenance.measure.pieces import BLOCK
from provenance.measure.squares import LANES, Squares, scaled
from provenance.weights.dtypes import DTYPES
from tests.measure.in_memory import COMPONENTS, Array, InMemory, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNEL = pytest.mark.skipif(
    squares._library() is None,  # noqa: SLF001 - whether it was built
    reason="the kernel is not compiled (pip install -e .)",
)
WAYS = [pytest.param(False, id="numpy"), pytest.param(True, id="compiled", marks=KERNEL)]

COMPILED = ["BF16", "F16", "F32", "F64", "BC32", "C32", "C64", "C128"]
SMALL = 512
"""Floats of a block where the tests have small ones."""


class Stream(InMemory):
    """A file that can only be read from its beginning."""

    direct = False


@pytest.fixture
def small_blocks() -> Iterator[None]:
    """Blocks of few floats, so that small tensors have several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (squares, totals):
            patch.setattr(module, "BLOCK", SMALL)
        patch.setattr(pieces, "PIECE", 8 * SMALL)
        patch.setattr(pieces, "READ_ALONE", 2 * SMALL)
        for module in (pieces, squares):
            patch.setattr(module, "READ", 2 * SMALL)
        yield


def sum_in_order(values: list[float]) -> float:
    """Add the squares of one block as the module says."""
    lanes = [0.0] * LANES
    for index, value in enumerate(values):
        lanes[index % LANES] += value * value
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [low + high for low, high in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("size", [1, 7, 255, 256, 257, 1024, 1025, 2048, 2 * 2048 + 300])
@pytest.mark.parametrize("block", [1024, 2048])
def test_squares_are_added_in_the_stated_order(
    size: int, block: int, monkeypatch: pytest.MonkeyPatch, *, compiled: bool
) -> None:
    monkeypatch.setattr(squares, "BLOCK", block)
    left, right, start = np.random.default_rng(size).standard_normal((3, size))
    chunks = [memoryview(side.tobytes()) for side in (left, right, start)]
    rows = [left - right, left, right, left - start, right - start]
    blocks = [[row[place : place + block] for place in range(0, size, block)] for row in rows]
    expected = [[sum_in_order(values.tolist()) for values in row] for row in blocks]
    found = Squares(compiled=compiled).blocks(chunks, DTYPES["F64"], norms=True)
    assert found.totals.tolist() == expected
    assert found.largest.tolist() == [[float(abs(part).max()) for part in row] for row in blocks]
    assert [[scaled(values.copy()).total for values in row] for row in blocks] == expected
    once = Squares(compiled=compiled).blocks([chunks[0], *chunks[::2]], DTYPES["F64"], norms=True)
    assert once.totals[1:].tolist() == [expected[row] for row in (1, 1, 3, 3)]
    assert not once.totals[0].any()


def test_the_sum_of_a_whole_block_is_within_its_bound() -> None:
    values = np.random.default_rng(1).standard_normal(BLOCK)
    exact = sum((Fraction(value) ** 2 for value in values.tolist()), Fraction(0))
    total = scaled(values).total
    assert abs(Fraction(total) - exact) <= exact * (4 + 2**8 + 8) / 2**53


@KERNEL
@pytest.mark.parametrize("dtype", ["BF16", "F16"])
@pytest.mark.parametrize("flip", [0, 0x8000])
def test_every_value_is_widened_exactly(
    dtype: str, flip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In blocks of one value the sum is that value's square.
    monkeypatch.setattr(squares, "BLOCK", 1)
    every = np.arange(2**16, dtype="<u2")
    chunks = [memoryview(side.tobytes()) for side in (every, every ^ np.uint16(flip))]
    found = Squares(compiled=True).blocks(chunks, DTYPES[dtype], norms=True)
    with np.errstate(all="ignore"):
        values = every.view(COMPONENTS[dtype]).astype(np.float64)
    finite = np.isfinite(values)
    gaps = 2 * values[finite] if flip else 0 * values[finite]
    assert np.array_equal(found.totals[0][finite], gaps**2)
    assert np.array_equal(found.totals[1][finite], values[finite] ** 2)
    assert np.array_equal(found.largest[2][finite], abs(values[finite]))
    assert np.array_equal(found.unusual(), np.flatnonzero(~finite))
    assert found.zeros == bool(flip)


@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_units_of_last_place_do_not_wrap(dtype: str, *, compiled: bool) -> None:
    kind = DTYPES[dtype]
    left = np.zeros(300, f"<u{kind.bits // 8}")
    right = left.copy()
    ours = Squares(compiled=compiled)
    assert ours.apart(left, right, kind) == 0
    right[200] = 1 << (kind.bits - 1)
    assert ours.apart(left, right, kind) == ours.apart(right, left, kind) == 1
    left[100], right[100] = (1 << kind.bits) - 1, (1 << (kind.bits - 1)) - 1
    assert ours.apart(left, right, kind) == ours.apart(right, left, kind) == (1 << kind.bits) - 1


def test_chunks_of_two_lengths_do_not_reach_the_kernel() -> None:
    chunks = [memoryview(bytes(8)), memoryview(bytes(4))]
    with pytest.raises(UsageError, match="one length"):
        Squares(compiled=True).blocks(chunks, DTYPES["F32"], norms=True)


@dataclass(frozen=True)
class Case:
    """Tensors: random values of one size, and any bits in a few places."""

    size: int
    seed: int
    exponent: int
    changed: float
    bits: list[tuple[int, int, int]]

    def files(self, dtype: str, kind: type[InMemory] = InMemory) -> list[InMemory]:
        generator = np.random.default_rng(self.seed)
        size = self.size * DTYPES[dtype].components
        values = generator.standard_normal((3, size)) * 2.0**self.exponent
        values[1] = np.where(generator.random(size) < self.changed, values[1], values[0])
        with np.errstate(all="ignore"):
            found: list[Array] = [row.astype(COMPONENTS[dtype]) for row in values]
        for which, place, code in self.bits:
            width = found[which].dtype.itemsize
            if size:
                found[which].view(f"<u{width}")[place % size] = code >> (64 - 8 * width)
        return [kind(array, dtype, (self.size,)) for array in found]


CODES = st.sampled_from([0, 2**63, 0x7FF8 << 48, 0xFFF0 << 48, 0x7F80 << 48, 0x7C00 << 48, 1])
CASES = st.builds(
    Case,
    size=st.integers(0, 3 * SMALL) | st.sampled_from([SMALL, 2 * SMALL, 4 * SMALL, 9 * SMALL]),
    seed=st.integers(0, 1000),
    exponent=st.sampled_from([0, -6, 3, -130, -500, 600]),
    changed=st.sampled_from([0, 0.001, 0.5, 1]),
    bits=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**20), CODES | st.integers(0, 2**64 - 1)),
        max_size=4,
    ),
)


def both(files: list[InMemory], wanted: Wanted, *, initial: bool = True) -> list[Measured]:
    left, right, start = files
    choices = (replace(wanted, compiled=choice) for choice in (False, True))
    return [measure("t", left, right, w, initial=start if initial else None) for w in choices]


@KERNEL
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", COMPILED)
@settings(max_examples=60)
@given(case=CASES, norms=st.booleans(), ulp=st.booleans(), initial=st.booleans())
def test_every_field_is_the_same(
    dtype: str, case: Case, norms: bool, ulp: bool, initial: bool
) -> None:
    wanted = Wanted(norms=norms, ulp=ulp, threads=1)
    numpys, ours = both(case.files(dtype), wanted, initial=initial)
    assert ours == numpys


@KERNEL
@pytest.mark.parametrize("dtype", COMPILED)
def test_blocks_of_full_size(dtype: str) -> None:
    size = 5 * BLOCK + 1234
    files = Case(size, 7, -5, 0.7, [(1, 70_000, 2**63), (0, 70_000, 0)]).files(dtype)
    numpys, ours = both(files, Wanted(ulp=True, threads=2))
    assert ours == numpys
    assert ours.zero_signs == 1


@KERNEL
@pytest.mark.usefixtures("small_blocks")
def test_threads_reads_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(16 * SMALL + 256, 3, 0, 0.3, [(0, 5000, 0x7FF8 << 48)])
    found = []
    for kind in (InMemory, Stream):
        left, right, start = case.files("BF16", kind)
        for threads in (1, 2, 5):
            for read in (SMALL, 2 * SMALL, 8 * SMALL):
                for module, name in ((pieces, "READ"), (pieces, "READ_ALONE"), (squares, "READ")):
                    monkeypatch.setattr(module, name, read)
                wanted = Wanted(ulp=True, threads=threads)
                found.append(measure("t", left, right, wanted, initial=start))
    assert found[0].nan == 1
    assert found.count(found[0]) == len(found)


@pytest.mark.parametrize("compiled", WAYS)
def test_the_place_of_the_largest_is_the_first(*, compiled: bool) -> None:
    left = np.zeros(2 * BLOCK, "<f4")
    right = left.copy()
    right[[70_000, 70_001, 70_256, 100_000]] = 2, -3, 3, 3
    wanted = Wanted(compiled=compiled)
    found = measure("t", InMemory(left, "F32"), InMemory(right, "F32"), wanted)
    assert (found.worst, found.first) == ((70_001,), (70_000,))


def test_a_kernel_that_is_not_there_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squares, "_library", lambda: None)
    one, two = InMemory(np.zeros(2, "<f4"), "F32"), InMemory(np.ones(2, "<f4"), "F32")
    assert measure("t", one, two, Wanted(compiled=True)).difference.largest == 1
