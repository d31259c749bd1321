"""The measures against exact rational arithmetic."""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.errors import MalformedError, UnavailableError, UsageError
from provenance.measure import distances
from provenance.measure.contents import Beside, read_contents
from provenance.measure.distances import Measured, Wanted
from provenance.measure.pieces import BLOCK, PIECE
from provenance.measure.squares import (
    LEAST_ERROR,
    RELATIVE_ERROR,
    Norm,
    at_most,
    enlarged,
)
from provenance.weights import view
from provenance.weights.dtypes import DTYPES, DType, Part
from provenance.weights.opening import open_tensors
from tests.measure.in_memory import COMPONENTS, Array, InMemory, arrays, in_memory, measure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def measured(
    left: Array, right: Array, dtype: str = "F32", initial: Array | None = None
) -> Measured:
    start = InMemory(initial, dtype) if initial is not None else None
    wanted = Wanted(ulp=True)
    return measure("t", InMemory(left, dtype), InMemory(right, dtype), wanted, initial=start)


def exact_root(square: Fraction) -> Fraction:
    """Return the square root of *square*, to 60 digits."""
    scale = 10**400
    return Fraction(math.isqrt(square.numerator * scale * scale // square.denominator), scale)


def close_to(value: float, exact: Fraction) -> bool:
    """Tell whether *value* is within half the stated bound of *exact*, where it is normal."""
    error = exact * Fraction(RELATIVE_ERROR) / 2
    if exact < Fraction(2) ** -1022:
        error += Fraction(LEAST_ERROR)
    assert bool(value) == bool(exact)
    assert enlarged(value) == math.inf or Fraction(enlarged(value)) >= exact
    return abs(Fraction(value) - exact) <= error


@pytest.mark.parametrize("dtype", COMPONENTS)
@settings(max_examples=50)
@given(data=st.data())
def test_norms_against_exact_arithmetic(dtype: str, data: st.DataObject) -> None:
    parts = data.draw(arrays(dtype, 2))
    left, right, initial = (in_memory(part, dtype) for part in parts)
    result = measure("t", left, right, Wanted(), initial=initial)
    with np.errstate(invalid="ignore"):
        a, b, w = ([float(value) for value in part.astype(np.float64)] for part in parts)
    bits = [part.view(f"<u{part.dtype.itemsize}").tolist() for part in parts[:2]]
    finite = [math.isfinite(x) and math.isfinite(y) for x, y in zip(a, b, strict=True)]
    unequal = [x != y for x, y in zip(*bits, strict=True)]
    signs = [u and x == y == 0 for u, x, y in zip(unequal, a, b, strict=True)]
    nan = [math.isnan(x) or math.isnan(y) for x, y in zip(a, b, strict=True)]
    assert result.differing == elements(unequal, dtype)
    assert result.not_finite == sum(u and not f for u, f in zip(unequal, finite, strict=True))
    assert result.zero_signs == elements(signs, dtype)
    kept = [index for index, good in enumerate(finite) if good]
    gaps = {index: abs(Fraction(a[index]) - Fraction(b[index])) for index in kept}
    assert result.first == place(unequal.index(True) if any(unequal) else None, dtype)
    check_norm(result.difference, list(gaps.values()))
    check_worst(result, gaps, dtype)
    if not any(unequal):
        assert (result.left, result.right, result.nan) == (None, None, None)
        return
    assert result.nan == elements(nan, dtype)
    check_norm(result.left, [Fraction(a[i]) for i in kept])
    check_norm(result.right, [Fraction(b[i]) for i in kept])
    if all(math.isfinite(w[i]) for i in kept):
        assert result.updates is not None
        for base, side in zip(result.updates, (a, b), strict=True):
            check_base(base, [Fraction(side[i]) - Fraction(w[i]) for i in kept])
    else:
        assert result.updates is None
    assert result.bases is not None
    for base, side in zip(result.bases, (a, b), strict=True):
        check_base(base, [Fraction(side[i]) for i in kept])


def elements(marked: list[bool], dtype: str) -> int:
    """Count the elements in a part of which *marked* is set."""
    width = DTYPES[dtype].components
    return sum(any(marked[index : index + width]) for index in range(0, len(marked), width))


def place(index: int | None, dtype: str) -> tuple[int, ...] | None:
    return None if index is None else (index // DTYPES[dtype].components,)


def check_norm(norm: Norm | None, values: list[Fraction]) -> None:
    assert norm is not None
    largest = max(map(abs, values), default=Fraction(0))
    if largest > Fraction(np.finfo(np.float64).max):
        assert norm.largest == math.inf
        return
    root = exact_root(sum((value * value for value in values), Fraction(0)))
    assert close_to(norm.largest, largest)
    if root < Fraction(2) ** 1023:
        assert close_to(norm.l2, root)
    scaled = Fraction(norm.root) * Fraction(2) ** norm.exponent
    assert abs(scaled - root) <= root * Fraction(RELATIVE_ERROR) / 2


def check_base(base: Norm, values: list[Fraction]) -> None:
    if any(abs(to_float(value)) == math.inf for value in values):
        assert base.largest == math.inf
        return
    square, largest = exact_base(values)
    root = exact_root(square)
    assert close_to(base.largest, largest)
    scaled = Fraction(base.root) * Fraction(2) ** base.exponent
    assert abs(scaled - root) <= root * Fraction(RELATIVE_ERROR) / 2


def exact_base(values: list[Fraction]) -> tuple[Fraction, Fraction]:
    """Return the square of the base of one block, and its L-infinity, as they are specified."""
    filled = sorted(rounded for value in values if (rounded := abs(to_float(value))))
    if not filled:
        return Fraction(0), Fraction(0)
    cap = 16 * Fraction(2) ** max(math.frexp(filled[(len(filled) - 1) // 2])[1] - 1, -1023)
    capped = [min(abs(value), cap) for value in values]
    return sum((value * value for value in capped), Fraction(0)), max(capped)


def check_worst(result: Measured, gaps: dict[int, Fraction], dtype: str) -> None:
    """Check that the worst place is the first whose gap, rounded once, is the largest."""
    rounded = {index: to_float(gap) for index, gap in gaps.items()}
    largest = max(rounded.values(), default=0.0)
    if largest == 0:
        assert result.worst is None
    else:
        first = next(index for index, gap in rounded.items() if gap == largest)
        assert result.worst == place(first, dtype)


def to_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_ulp_counts_every_representable_value(dtype: str) -> None:
    width = DTYPES[dtype].bits
    every = np.arange(2**width, dtype=f"<u{width // 8}").view(COMPONENTS[dtype])
    with np.errstate(invalid="ignore"):
        values = every.astype(np.float64)
    finite = every[np.isfinite(values)]
    # -0 before +0, and no two values else are equal.
    wide = finite.astype(np.float64)
    order = np.lexsort((~np.signbit(wide), wide))
    ordered = finite[order]
    for step in (1, 2, 100):
        result = measured(ordered[step:], ordered[:-step], dtype)
        assert result.max_ulp == step
    assert measured(ordered[:1], ordered[-1:], dtype).max_ulp == len(ordered) - 1


def test_ulp_of_the_widest_type_does_not_wrap() -> None:
    most = np.finfo(np.float64).max
    result = measured(np.array([most]), np.array([-most]), "F64")
    assert result.max_ulp == 2 * 0x7FEFFFFFFFFFFFFF + 1


def test_zeros_of_two_signs_are_one_apart() -> None:
    result = measured(np.array([0.0], "<f4"), np.array([-0.0], "<f4"))
    assert (result.differing, result.max_ulp, result.difference.l2) == (1, 1, 0.0)


def test_signs_of_zeros_are_counted_and_no_others() -> None:
    """The code of 2 is a single bit, beside the sign. Every chunk counts, NaN in one or none."""
    left = np.ones(3 * BLOCK, "<f4")
    left[[1, 2, BLOCK + 1, 2 * BLOCK + 5]] = 0, 2, 0, 0
    right = left.copy()
    right[[1, 2, BLOCK + 1]] *= -1
    result = measured(left, right)
    assert (result.differing, result.zero_signs, result.max_ulp) == (3, 2, 2**31 + 1)
    right[2 * BLOCK + 7] = np.nan
    result = measured(left, right)
    assert (result.differing, result.zero_signs, result.not_finite, result.nan) == (4, 2, 1, 1)


def test_float16_does_not_overflow() -> None:
    result = measured(np.array([50000], "<f2"), np.array([-60000], "<f2"), "F16")
    assert result.difference.largest == 49984 + 60000


def test_float8_does_not_overflow() -> None:
    kind = ml_dtypes.float8_e4m3fn
    result = measured(np.array([448], kind), np.array([-448], kind), "F8_E4M3")
    assert result.difference.largest == 896


def test_float64_overflow_is_infinite_not_small() -> None:
    most = np.finfo(np.float64).max
    result = measured(np.array([most, 1.0]), np.array([-most, 1.0]), "F64")
    assert result.difference.largest == math.inf
    assert result.difference.l2 == math.inf


@pytest.mark.parametrize("size", [1e-300, 1e-200, 5e-324, 1e200, 1e300])
def test_squares_leave_float64_and_norms_do_not(size: float) -> None:
    left = np.array([3 * size, 0.0])
    right = np.array([0.0, 4 * size])
    result = measured(left, right, "F64")
    assert result.difference.l2 == pytest.approx(5 * size, rel=1e-12, abs=1e-323)
    assert result.left is not None
    assert result.difference.l2_ratio(result.left) == pytest.approx(5 / 3, rel=1e-12)


def test_blocks_of_tiny_and_huge_values_add_up() -> None:
    count = BLOCK
    left = np.concatenate([np.full(count, 1e-300), np.full(count, 1e300), np.ones(5)])
    result = measured(left, np.zeros_like(left), "F64")
    assert result.difference.l2 == pytest.approx(1e300 * math.sqrt(count), rel=1e-11)


def test_what_is_not_finite_is_told_by_its_bits() -> None:
    nan, other = np.array([0x7FC00000, 0x7FC00001], "<u4").view("<f4")
    left = np.array([np.inf, nan, nan, np.inf, 1.0, nan, 2.0], "<f4")
    right = np.array([np.inf, nan, other, -np.inf, np.inf, 1.0, 2.5], "<f4")
    result = measured(left, right)
    assert (result.differing, result.not_finite) == (5, 4)
    assert result.difference.l2 == 0.5


def test_an_initial_tensor_that_is_not_finite_gives_no_update() -> None:
    left, right = np.array([1, 2], "<f4"), np.array([1, 3], "<f4")
    result = measured(left, right, "F32", np.array([0, np.nan], "<f4"))
    assert result.updates is None
    far = measured(np.array([1e308, 1.0]), np.array([1e308, 2.0]), "F64", np.array([-1e308, 0.0]))
    assert far.updates is not None
    assert far.updates[0].largest == math.inf


def test_a_complex_element_differs_as_one() -> None:
    left = np.array([1e30 + 1j, 2 + 2j], "<c8")
    right = np.array([1e30 + 2j, 2 + 2j], "<c8")
    result = measured(left, right, "C64")
    assert (result.differing, result.difference.largest, result.difference.l2) == (1, 1, 1)


@pytest.mark.parametrize(
    ("dtype", "left", "right"),
    [
        ("U8", np.array([0, 1], "u1"), np.array([255, 1], "u1")),
        ("I64", np.array([2**60, 1], "<i8"), np.array([2**60 + 10, 1], "<i8")),
        ("I32", np.array([-(2**31), 1], "<i4"), np.array([2**31 - 1, 1], "<i4")),
        ("BOOL", np.array([True, False]), np.array([False, False])),
    ],
)
def test_exact_types_are_counted(dtype: str, left: Array, right: Array) -> None:
    result = measured(left, right, dtype)
    assert (result.differing, result.difference.l2, result.max_ulp) == (1, 0, None)


def test_packed_elements_are_counted_one_by_one() -> None:
    left, right = (
        InMemory(np.array(raw, "u1"), "F4", (2, 2)) for raw in ([0x12, 0x34], [0x12, 0x45])
    )
    result = measure("t", left, right, Wanted())
    assert (result.differing, result.first, result.worst) == (2, (1, 0), None)


def test_blocks_are_counted_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = DType("Q", 40, "exact", block=8, parts=(Part("scales", 0, 1), Part("codes", 1, 5)))
    monkeypatch.setattr(view, "DTYPES", {"Q": kind})
    raw = np.arange(20, dtype="u1")
    other = raw.copy()
    other[[5, 11, 12, 15]] += 1
    left, right = (InMemory(each, "Q", (2, 16)) for each in (raw, other))
    result = measure("t", left, right, Wanted())
    assert (result.differing, result.parts) == (3, {"scales": 2, "codes": 1})
    assert result.first == (0, 8)


def test_empty_and_scalar_tensors() -> None:
    empty = np.zeros((0, 3), "<f4")
    assert measured(empty, empty).differing == 0
    result = measured(np.array(1, "<f4"), np.array(2, "<f4"))
    assert (result.difference.l2, result.first, result.worst) == (1, (), ())


def test_places_are_in_c_order() -> None:
    left = np.zeros((3, 4, 5), "<f4")
    right = left.copy()
    right[1, 2, 3], right[2, 0, 1], right[2, 3, 4] = 1, -3, 3
    result = measured(left, right)
    assert (result.first, result.worst) == ((1, 2, 3), (2, 0, 1))


def test_a_fortran_array_has_its_places_in_c_order(tmp_path: Path) -> None:
    left = np.asfortranarray(np.zeros((3, 4), "<f4"))
    right = left.copy(order="F")
    right[0, 3], right[2, 0] = 1, 2
    np.save(tmp_path / "l.npy", left)
    np.save(tmp_path / "r.npy", right)
    with open_tensors(tmp_path / "l.npy") as one, open_tensors(tmp_path / "r.npy") as two:
        result = measure("array", one, two, Wanted())
    assert (result.first, result.worst) == ((0, 3), (2, 0))


def test_equal_blocks_add_to_the_norms() -> None:
    left = np.ones(2 * PIECE + 3, ml_dtypes.bfloat16)
    right = left.copy()
    right[-1] = 3
    start = np.zeros_like(left)
    result = measured(left, right, "BF16", start)
    assert result.updates is not None
    for norm in (result.left, result.updates[0]):
        assert norm is not None
        assert norm.l2 == pytest.approx(math.sqrt(left.size), rel=1e-15)
    assert result.right is not None
    assert result.right.l2 == pytest.approx(math.sqrt(left.size + 8), rel=1e-15)
    assert (result.first, result.nan) == ((left.size - 1,), 0)


def test_nan_of_equal_blocks_is_counted() -> None:
    left = np.ones(PIECE + 1, "<f4")
    left[[0, 70_000]] = np.nan
    right = left.copy()
    right[-1] = 2
    result = measured(left, right)
    assert (result.differing, result.not_finite, result.nan) == (1, 0, 2)
    assert result.left is not None
    assert result.left.l2 == pytest.approx(math.sqrt(PIECE - 1), rel=1e-15)


class Broken(InMemory):
    """A file whose bytes do not decode from an element on."""

    def __init__(self, array: Array, where: int) -> None:
        super().__init__(array, "U8")
        self._where = where

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        for number, chunk in enumerate(super().chunks(name, elements, start, stop)):
            if start + number * elements >= self._where:
                raise MalformedError(f"breaks in the piece at {start}", where="t")
            yield chunk


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_an_error_in_a_thread_arrives_once_and_is_the_first(threads: int) -> None:
    array = np.zeros(12 * PIECE, "u1")
    done: list[int] = []
    before = threading.active_count()
    wanted = Wanted(threads=threads, on_bytes=done.append)
    with pytest.raises(MalformedError, match=f"piece at {4 * PIECE}$"):
        measure("t", InMemory(array, "U8"), Broken(array, 4 * PIECE), wanted)
    assert done == [PIECE] * 4
    assert threading.active_count() == before


def test_an_interruption_ends_the_threads() -> None:
    array = np.zeros(12 * PIECE, "u1")

    before = threading.active_count()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    wanted = Wanted(threads=2, on_bytes=interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure("t", InMemory(array, "U8"), InMemory(array, "U8"), wanted)
    assert threading.active_count() == before


def test_every_thread_checks_its_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    monkeypatch.setattr(
        distances, "check_arithmetic", lambda: seen.add(threading.current_thread().name)
    )
    left = np.zeros(2 * PIECE, ml_dtypes.bfloat16)
    right = np.ones_like(left)
    measure("t", InMemory(left, "BF16"), InMemory(right, "BF16"), Wanted(threads=2))
    assert seen
    assert threading.main_thread().name not in seen


@pytest.mark.parametrize(
    "other", [np.zeros((1, 4), "<f4"), np.zeros((1,), "<f4"), np.zeros(0, "<f4")]
)
def test_nothing_is_broadcast(other: Array) -> None:
    with pytest.raises(UsageError, match="no distance"):
        measured(np.zeros(4, "<f4"), other)


def test_types_are_not_promoted() -> None:
    with pytest.raises(UsageError, match="no distance"):
        measure("t", InMemory(np.zeros(2, "<f4"), "F32"), InMemory(np.zeros(2), "F64"), Wanted())


def test_the_result_does_not_depend_on_the_processors_sums() -> None:
    generator = np.random.default_rng(5)
    left = generator.standard_normal(3 * BLOCK + 17).astype("<f4")
    right = left + np.float32(1e-6) * generator.standard_normal(left.size).astype("<f4")
    result = measured(left, right)
    exact = math.fsum((float(x) - float(y)) ** 2 for x, y in zip(left, right, strict=True))
    assert result.difference.l2 == pytest.approx(math.sqrt(exact), rel=1e-13)


def test_at_most_adds_the_error_first() -> None:
    assert at_most(1.0, 1.0 + 2 * RELATIVE_ERROR)
    assert not at_most(1.0, 1.0)
    assert not at_most(math.nan, 1.0)
    assert not at_most(math.inf, 1.0)
    assert at_most(0.0, 1e-30)
    assert (enlarged(0.0), enlarged(LEAST_ERROR)) == (0.0, 2 * LEAST_ERROR)


EXTREMES = st.floats(allow_nan=False, allow_infinity=False) | st.builds(
    math.ldexp, st.floats(-2, 2), st.integers(-1090, 1020)
)


@settings(max_examples=300)
@given(pairs=st.lists(st.tuples(EXTREMES, EXTREMES), min_size=2, max_size=8))
def test_ratios_against_exact_arithmetic(pairs: list[tuple[float, float]]) -> None:
    pairs = pairs[: len(pairs) // 2 * 2]
    left, right = (np.array(side).reshape(2, -1) for side in zip(*pairs, strict=True))
    files = InMemory(left, "F64"), InMemory(right, "F64")
    (found,) = read_contents([Beside("m", 0, 1)], files, Wanted())
    assert found is not None
    distance = found.tensors[0].distance
    if distance is None or not {"overflow", "zero-weights"}.isdisjoint(distance.notes):
        return
    gaps = [
        [Fraction(a) - Fraction(b) for a, b in zip(*it, strict=True)]
        for it in zip(left.tolist(), right.tolist(), strict=True)
    ]
    sums = [sum((gap * gap for gap in row), Fraction(0)) for row in gaps]
    bases = [exact_base([*map(Fraction, side.ravel().tolist())]) for side in (left, right)]
    base = min(base for base, _ in bases)
    exact = {
        "l2": exact_root(sum(sums, Fraction(0))),
        "linf": max(abs(gap) for row in gaps for gap in row),
        "relative_l2_weights": exact_root(sum(sums, Fraction(0)) / base),
        "relative_linf_weights": max(abs(gap) for row in gaps for gap in row)
        / min(largest for _, largest in bases),
        "relative_l2_rows_weights": exact_root(max(sums) / base * 2),
    }
    for name, expected in exact.items():
        value = getattr(distance, name)
        if value is None:
            assert expected > Fraction(2) ** 1023
            assert "ratio-overflow" in distance.notes
        else:
            assert close_to(value, expected)
            assert not name.startswith("relative") or enlarged(value) < math.inf


def test_arithmetic_that_loses_subnormals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distances.check_arithmetic()
    flushed = np.array

    def array(values: Any, **keywords: Any) -> Array:  # noqa: ANN401
        return flushed([0.0 for _ in values], **keywords)

    monkeypatch.setattr(np, "array", array)
    with pytest.raises(UnavailableError, match="subnormal"):
        distances.check_arithmetic()
