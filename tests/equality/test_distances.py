"""The measures against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.equality import distances
from provenance.equality.distances import RELATIVE_ERROR, Measured, Wanted, at_most, measure
from provenance.errors import UnavailableError, UsageError
from provenance.tensors.dtypes import DTYPES
from provenance.tensors.view import TensorInfo, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, Any]
NUMPY: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
}


class InMemory:
    """A weight file of one tensor, without a file."""

    format = "memory"
    aliases: tuple[tuple[str, ...], ...] = ()
    direct = True
    metadata: dict[str, str] = {}  # noqa: RUF012 - empty
    container: dict[str, str] = {}  # noqa: RUF012 - empty

    def __init__(self, array: Array, dtype: str) -> None:
        self._raw = array.tobytes()
        known = DTYPES[dtype]
        self.tensors = {"t": TensorInfo("t", known, array.shape, array.size, len(self._raw))}

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        step = info.dtype.nbytes(elements)
        for place in range(begin, end, step):
            yield memoryview(self._raw)[place : min(place + step, end)]

    def check_unchanged(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


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
    """Tell whether *value* is within half the stated bound of *exact*."""
    if exact < Fraction(2) ** -1000:  # reported in subnormal numbers; ratios are not made of these
        return value < 2.0**-999
    return abs(Fraction(value) - exact) <= exact * Fraction(RELATIVE_ERROR) / 2


def arrays(dtype: str, count: int = 1) -> st.SearchStrategy[tuple[Array, ...]]:
    width = DTYPES[dtype].bits // 8
    codes = hnp.arrays(f"<u{width}", st.integers(0, 6))
    pairs = codes.flatmap(
        lambda first: st.tuples(
            st.just(first), *[hnp.arrays(f"<u{width}", first.shape) for _ in range(count)]
        )
    )
    return pairs.map(lambda found: tuple(array.view(NUMPY[dtype]) for array in found))


@pytest.mark.parametrize("dtype", NUMPY)
@given(data=st.data())
def test_norms_against_exact_arithmetic(dtype: str, data: st.DataObject) -> None:
    left, right, initial = data.draw(arrays(dtype, 2))
    result = measured(left, right, dtype, initial)
    with np.errstate(invalid="ignore"):
        wide = [array.astype(np.float64) for array in (left, right, initial)]
    a, b, w = ([float(value) for value in array] for array in wide)
    bits = [array.view(f"<u{array.dtype.itemsize}").tolist() for array in (left, right)]
    finite = [math.isfinite(x) and math.isfinite(y) for x, y in zip(a, b, strict=True)]
    unequal = [x != y for x, y in zip(*bits, strict=True)]
    assert result.differing == sum(unequal)
    assert result.not_finite == sum(u and not f for u, f in zip(unequal, finite, strict=True))
    kept = [index for index, good in enumerate(finite) if good]

    def check(norm: distances.Norm | None, values: list[Fraction]) -> None:
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

    check(result.difference, [Fraction(a[i]) - Fraction(b[i]) for i in kept])
    check(result.left, [Fraction(a[i]) for i in kept])
    check(result.right, [Fraction(b[i]) for i in kept])
    if all(math.isfinite(w[i]) for i in kept):
        check(result.left_update, [Fraction(a[i]) - Fraction(w[i]) for i in kept])
        check(result.right_update, [Fraction(b[i]) - Fraction(w[i]) for i in kept])
    else:
        assert result.left_update is None
        assert result.right_update is None


@pytest.mark.parametrize("dtype", NUMPY)
@given(data=st.data())
def test_measures_are_symmetric(dtype: str, data: st.DataObject) -> None:
    left, right = data.draw(arrays(dtype))
    one, two = measured(left, right, dtype), measured(right, left, dtype)
    assert (one.differing, one.not_finite, one.max_ulp) == (
        two.differing,
        two.not_finite,
        two.max_ulp,
    )
    assert one.difference == two.difference
    assert (one.left, one.right) == (two.right, two.left)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_ulp_counts_every_representable_value(dtype: str) -> None:
    width = DTYPES[dtype].bits
    every = np.arange(2**width, dtype=f"<u{width // 8}").view(NUMPY[dtype])
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
    count = distances.BLOCK
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
    assert result.left_update is None
    far = measured(np.array([1e308, 1.0]), np.array([1e308, 2.0]), "F64", np.array([-1e308, 0.0]))
    assert far.left_update is not None
    assert far.left_update.largest == math.inf


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
    class Packed(InMemory):
        def __init__(self, raw: bytes) -> None:
            self._raw = raw
            self.tensors = {"t": TensorInfo("t", DTYPES["F4"], (4,), 4, 2)}

    left, right = Packed(b"\x12\x34"), Packed(b"\x13\x35")
    assert measure("t", left, right, Wanted()).differing == 2


def test_empty_and_scalar_tensors() -> None:
    empty = np.zeros((0, 3), "<f4")
    assert measured(empty, empty).differing == 0
    assert measured(np.array(1, "<f4"), np.array(2, "<f4")).difference.l2 == 1


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
    left = generator.standard_normal(3 * distances.BLOCK + 17).astype("<f4")
    right = left + np.float32(1e-6) * generator.standard_normal(left.size).astype("<f4")
    result = measured(left, right)
    exact = math.fsum((float(x) - float(y)) ** 2 for x, y in zip(left, right, strict=True))
    assert result.difference.l2 == pytest.approx(math.sqrt(exact), rel=1e-13)


def test_many_blocks_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_FOLD", 2)
    monkeypatch.setattr(distances, "BLOCK", 8)
    ones = np.ones(100, "<f4")
    assert measured(ones, np.zeros(100, "<f4")).difference.l2 == 10


def test_at_most_adds_the_error_first() -> None:
    assert at_most(1.0, 1.0 + 2 * RELATIVE_ERROR)
    assert not at_most(1.0, 1.0)
    assert not at_most(math.nan, 1.0)
    assert not at_most(math.inf, 1.0)
    assert at_most(0.0, 1e-30)


def test_arithmetic_that_loses_subnormals_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distances.check_arithmetic()
    flushed = np.array

    def array(values: Any, **keywords: Any) -> Array:  # noqa: ANN401
        return flushed([0.0 for _ in values], **keywords)

    monkeypatch.setattr(np, "array", array)
    with pytest.raises(UnavailableError, match="subnormal"):
        distances.check_arithmetic()
