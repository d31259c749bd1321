"""Squares are added in the stated order, by numpy and by compiled code, to the last bit."""

from __future__ import annotations

import math
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
from provenance.measure.squares import CAP, LANES, ROW_LANES, Squares, measured
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
        patch.setattr(pieces, "READ_SAME", 2 * SMALL)
        patch.setattr(pieces, "READ", 2 * SMALL)
        yield


def sum_in_order(values: list[float], number: int = LANES) -> float:
    """Add the squares of one block as the module says, in a *number* of lanes."""
    lanes = [0.0] * number
    for index, value in enumerate(values):
        lanes[index % number] += value * value
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
    found, _ = Squares(compiled=compiled).blocks(chunks, DTYPES["F64"], norms=True, row=0, before=0)
    for number, parts in enumerate(found):
        assert [part.total for part in parts or ()] == [
            (row[number], 0) for row in expected if parts
        ]
        largest = [float(abs(row[number]).max()) for row in blocks if parts]
        assert [part.largest for part in parts or ()] == largest
    assert [
        [measured(values.copy(), base=True).total[0] for values in row] for row in blocks
    ] == expected
    twice = [chunks[0], *chunks[::2]]
    once, _ = Squares(compiled=compiled).blocks(twice, DTYPES["F64"], norms=True, row=0, before=0)
    for number, parts in enumerate(once):
        sums = [0.0, *(expected[row][number] for row in (1, 1, 3, 3))]
        assert [part.total[0] for part in parts or ()] == (sums if parts else [])
    assert (None in found) != compiled


def test_the_sum_of_a_whole_block_is_within_its_bound() -> None:
    values = np.random.default_rng(1).standard_normal(BLOCK)
    exact = sum((Fraction(value) ** 2 for value in values.tolist()), Fraction(0))
    total, exponent = measured(values, base=False).total
    assert exponent == 0
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
    found, zeros = Squares(compiled=True).blocks(chunks, DTYPES[dtype], norms=True, row=0, before=0)
    with np.errstate(all="ignore"):
        values = every.view(COMPONENTS[dtype]).astype(np.float64)
    assert [parts is not None for parts in found] == np.isfinite(values).tolist()
    for parts, value in zip(found, values.tolist(), strict=True):
        if parts is not None:
            gap, left, right = parts
            assert gap.total[0] == (4 * value**2 if flip else 0)
            assert left == right
            assert (left.largest, left.total, left.capped) == (
                abs(value),
                (value**2, 0),
                (value**2, 0),
            )
            assert left.filled == (value != 0)
            assert not value or left.binade == math.frexp(value)[1] - 1
    assert zeros == bool(flip)


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
        Squares(compiled=True).blocks(chunks, DTYPES["F32"], norms=True, row=0, before=0)


@dataclass(frozen=True)
class Case:
    """Tensors: random values of one size, and any bits in a few places."""

    size: int
    seed: int
    exponent: int
    changed: float
    bits: list[tuple[int, int, int]]
    rows: int = 1

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
        shape = next((each, self.size // each) for each in (self.rows, 1) if self.size % each == 0)
        return [kind(array, dtype, shape) for array in found]


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
    rows=st.sampled_from([1, 2, 3, 7, 64, 512, 1000]),
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
                for name in ("READ", "READ_SAME"):
                    monkeypatch.setattr(pieces, name, read)
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


def exact_base(values: Array, block: int) -> tuple[Fraction, Fraction]:
    """Return the square of a base, and its L-infinity, as they are specified."""
    zero, binades = Fraction(0), list[int]()
    each: list[tuple[int, Fraction]] = []
    for at in range(0, values.size, block):
        one = [abs(Fraction(value)) for value in values[at : at + block].tolist()]
        filled = sorted(filter(None, one))
        if filled:
            binade = math.frexp(float(filled[(len(filled) - 1) // 2]))[1] - 1
            least = Fraction(2) ** (binade + CAP)
            each.append((len(filled), sum((min(it, least) ** 2 for it in one), zero)))
            known = [math.frexp(float(value))[1] - 1 for value in filled]
            binades += [min(it, binade) if it > binade - 4 else -9999 for it in known]
    cap = Fraction(2) ** (sorted(binades)[(len(binades) - 1) // 2] + CAP)
    sums = [min(total, count * cap**2) for count, total in each]
    return sum(sums, zero), min(cap, Fraction(float(np.abs(values).max())))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("compiled", WAYS)
@settings(max_examples=40)
@given(
    sizes=st.lists(st.sampled_from([0, -20, 3, 17, -300, 250, -420]), min_size=1, max_size=5),
    inert=st.lists(
        st.tuples(
            st.integers(0, 4 * SMALL), st.integers(1, 2 * SMALL), st.sampled_from([1e5, 30.0])
        ),
        max_size=3,
    ),
    seed=st.integers(0, 9),
)
def test_a_base_against_exact_arithmetic(
    sizes: list[int], inert: list[tuple[int, int, float]], seed: int, *, compiled: bool
) -> None:
    generator = np.random.default_rng(seed)
    left = np.concatenate([np.ldexp(generator.standard_normal(SMALL), size) for size in sizes])
    for begin, count, value in inert:
        left[begin : begin + count] = value
    right = generator.permutation(left)
    right[0] = -left[0] - 1
    found = measure("t", InMemory(left, "F64"), InMemory(right, "F64"), Wanted(compiled=compiled))
    assert found.bases is not None
    for base, side in zip(found.bases, (left, right), strict=True):
        square, largest = exact_base(side, SMALL)
        square_of = (Fraction(base.root) * Fraction(2) ** base.exponent) ** 2
        assert abs(square_of - square) <= square * Fraction(2) ** -37
        assert base.largest == largest


@pytest.mark.parametrize("compiled", WAYS)
def test_subnormal_numbers_are_in_one_binade(*, compiled: bool) -> None:
    left = np.array([5e-324, 1e-320] * 5 + [1.0])
    found = measure("t", InMemory(left, "F64"), InMemory(-left, "F64"), Wanted(compiled=compiled))
    assert found.bases is not None
    assert [base.largest for base in found.bases] == [2.0 ** (CAP - 1023)] * 2


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("compiled", WAYS)
@pytest.mark.parametrize(("kind", "huge"), [(InMemory, 0), (InMemory, 0.001), (Stream, 0.001)])
@pytest.mark.parametrize(
    "shape", [(9, 700), (8 * SMALL, 1), (3, 3 * SMALL), (1, 5000), (70, 9, 10)]
)
def test_the_longest_row_is_added_in_the_stated_order(
    shape: tuple[int, ...], kind: type[InMemory], huge: float, *, compiled: bool
) -> None:
    generator = np.random.default_rng(3)
    left, right = generator.standard_normal((2, *shape))
    left[generator.random(shape) < huge] *= 1e150
    one, two = (kind(side, "F64") for side in (left, right))
    found = measure("t", one, two, Wanted(compiled=compiled, threads=1))
    rows = (left - right).reshape(shape[0], -1)
    sums = []
    for number, row in enumerate(rows.tolist()):
        begin = number * len(row)
        edges = [begin, *range(-(-(begin + 1) // SMALL) * SMALL, begin + len(row), SMALL)]
        runs = [
            row[at - begin : end - begin]
            for at, end in zip(edges, [*edges[1:], begin + len(row)], strict=True)
        ]
        if all(abs(value) < 2.0**400 for value in row):
            sums.append(math.fsum(sum_in_order(run, ROW_LANES) for run in runs))
    exact = max(sum((Fraction(value) ** 2 for value in row), Fraction(0)) for row in rows.tolist())
    assert found.row is not None
    value = (Fraction(found.row.root) * Fraction(2) ** found.row.exponent) ** 2
    assert abs(value - exact) <= exact * Fraction(2) ** -37
    if len(sums) == len(rows):
        assert found.row.l2 == math.sqrt(max(sums))
