"""The traps of comparing numbers, one test each.

Where a library falls into a trap, the test begins by showing that it does; then it gives our answer
with its reason, and the sound counterpart that must pass. ``docs/equality.md`` has the same as a
table; ``test_holes.py`` has the holes of published verifiers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.errors import MalformedError
from tests.judge.judging import TENSORS, Judge, bits, close, declaration, one, rounded
from tests.weights.writing import npy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


# --- Shapes and types -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [TENSORS, close(), close(1, "max_ulp = 1")])
@pytest.mark.parametrize("shape", [(1,), (1, 4), (2, 2), ()])
def test_broadcasting(judge: Judge, rule: str, shape: tuple[int, ...]) -> None:
    four = one([1, 1, 1, 1])
    other = {"w": np.ones(shape, np.float32)}
    if shape != (2, 2):
        assert np.allclose(four["w"], other["w"])
        np.testing.assert_array_almost_equal_nulp(four["w"], other["w"], nulp=1)
    assert judge(four, other, rule).reasons == {"w type-and-shape"}
    assert judge(four, four, rule).outcome.alternatives[0].held


@pytest.mark.parametrize("rule", [TENSORS, close()])
def test_empty_is_close_to_anything(judge: Judge, rule: str) -> None:
    empty, some = one([]), one([7])
    assert np.allclose(empty["w"], some["w"])
    assert judge(empty, some, rule).reasons == {"w type-and-shape"}
    assert judge(empty, empty, rule).outcome.alternatives[0].held


@pytest.mark.parametrize("rule", [TENSORS, close()])
def test_a_missing_tensor_is_not_an_empty_one(judge: Judge, rule: str) -> None:
    both = {"v": np.ones(2, np.float32), "w": np.zeros(0, np.float32)}
    assert judge(both, {"v": both["v"]}, rule).reasons == {"w presence"}


@pytest.mark.parametrize("rule", [TENSORS, close()])
def test_the_type_is_ignored(judge: Judge, rule: str) -> None:
    single, double = one([0.5, 1.5]), one([0.5, 1.5], np.float64)
    assert np.array_equal(single["w"], double["w"])
    assert np.allclose(single["w"], double["w"])
    assert judge(single, double, rule).reasons == {"w type-and-shape"}


def test_memory_order_is_not_a_change(judge: Judge) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    turned = np.asfortranarray(array)
    assert turned.tobytes("A") != array.tobytes("A")
    answer = judge.files(npy(array), npy(turned), TENSORS, "w.npy")
    assert (answer.conclusion, answer.reasons) == ("match", frozenset())
    assert "layout" in {n.name for n in answer.outcome.normalisers}


# --- Tolerances -----------------------------------------------------------------------------------


def test_rtol_is_asymmetric(judge: Judge) -> None:
    smaller, larger = one([10]), one([11.05])
    assert np.allclose(smaller["w"], larger["w"], rtol=0.1)
    assert not np.allclose(larger["w"], smaller["w"], rtol=0.1)
    # Judged in both orders: of the smaller of both, in each.
    answer = judge(smaller, larger, close(0.1))
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert answer.value == pytest.approx(0.105, rel=1e-6)
    assert judge(smaller, one([10.9]), close(0.1)).conclusion == "consistent"


def test_atol_admits_any_change_of_small_values(judge: Judge) -> None:
    small, five_times = one([1e-9, -1e-9]), one([5e-9, -5e-9])
    assert np.allclose(small["w"], five_times["w"])
    answer = judge(small, five_times, close(1))
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert answer.value == pytest.approx(4, rel=1e-6)
    assert judge(small, one([1.0001e-9, -1e-9]), close()).conclusion == "consistent"


def test_l2_alone_admits_few_large_changes(judge: Judge) -> None:
    weights = np.ones(10_000, np.float32)
    flipped = weights.copy()
    flipped[17] = -1
    answer = judge({"w": weights}, {"w": flipped}, close(3e-2))
    assert answer.reasons == {"w relative-linf-of-weights"}
    assert judge({"w": weights}, {"w": flipped}, close(3e-2, linf=3)).conclusion == "consistent"


def test_linf_alone_admits_many_small_changes(judge: Judge) -> None:
    weights = np.full(10_000, 1e-3, np.float32)
    weights[0] = 1
    replaced = weights.copy()
    replaced[1:] *= -1
    # The largest counts as 16 * 2^-10: the base of L-infinity is no more than that.
    answer = judge({"w": weights}, {"w": replaced}, close(0.2))
    assert answer.reasons == {"w relative-l2-of-weights"}
    assert judge({"w": weights}, {"w": replaced}, close(2, linf=0.2)).conclusion == "consistent"


def test_closeness_is_not_transitive(judge: Judge) -> None:
    first, middle, last = one([1.0]), one([1.0009]), one([1.0018])
    assert judge(first, middle, close()).conclusion == "consistent"
    assert judge(middle, last, close()).conclusion == "consistent"
    assert judge(first, last, close()).conclusion == "mismatch"


# --- Overflow -------------------------------------------------------------------------------------


def test_a_difference_overflows_float16(judge: Judge) -> None:
    left, right = one([50_000], np.float16), one([-60_000], np.float16)
    with np.errstate(over="ignore"):
        assert np.allclose(left["w"], right["w"], rtol=0, atol=1e5)  # inf <= inf
    answer = judge(left, right, close(2.1))
    assert answer.value == pytest.approx(110_000 / 50_000, rel=1e-3)
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert judge(left, one([-50_000], np.float16), close(2.1)).conclusion == "consistent"


def test_a_difference_is_nan_in_e4m3(judge: Judge) -> None:
    left, right = (one([value], ml_dtypes.float8_e4m3fn) for value in (448, -448))
    assert np.isnan((left["w"] - right["w"]).astype(np.float32)).all()
    answer = judge(left, right, close(1.9))
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert answer.value == pytest.approx(2)
    assert judge(left, right, close(2.1)).conclusion == "consistent"


def test_a_norm_overflows_float32(judge: Judge) -> None:
    weights = np.full(100, 1e25, np.float32)
    other = -weights
    with np.errstate(over="ignore"):
        assert np.isinf(np.linalg.norm(weights))
    answer = judge({"w": weights}, {"w": other}, close())
    assert answer.value == pytest.approx(2)
    near = weights * np.float32(1.0001)
    assert judge({"w": weights}, {"w": near}, close()).conclusion == "consistent"


def test_a_difference_overflows_float64(judge: Judge) -> None:
    left, right = one([1.7e308], np.float64), one([-1.7e308], np.float64)
    assert judge(left, right, close(10)).reasons == {
        "w relative-l2-of-weights overflow",
        "w relative-linf-of-weights overflow",
    }
    near = one([1.7001e308], np.float64)
    assert judge(left, near, close()).conclusion == "consistent"


# --- Integers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "dtype"),
    [(0, 255, np.uint8), (-(2**63), 0, np.int64), (2**60, 2**60 + 10, np.int64),
     (2**63, 2**63 + 1, np.uint64)],
    ids=["uint8 wraps", "abs of int min", "int64 to float", "uint64 to float"],
)  # fmt: skip
def test_integers_have_no_distance(judge: Judge, left: int, right: int, dtype: type) -> None:
    mine, theirs = one([left, 3], dtype), one([right, 3], dtype)
    if dtype is np.uint8:
        assert (mine["w"] - theirs["w"]).max() == 1
    elif left < 0:
        assert not np.abs(mine["w"] - theirs["w"]).max() > 0
    else:
        assert np.allclose(mine["w"], theirs["w"], rtol=1e-15, atol=0)
    answer = judge(mine, theirs, close(10))
    assert answer.reasons == {"w differing-elements exact-type"}
    assert answer.value == 1
    assert judge(mine, theirs, TENSORS).conclusion == "mismatch"
    assert judge(mine, mine, close(10)).conclusion == "consistent"


# --- NaN and infinities ---------------------------------------------------------------------------


def test_nan_is_greater_than_no_threshold(judge: Judge) -> None:
    left, right = one([1, 2]), one([1, np.nan])
    assert not np.abs(left["w"] - right["w"]).max() > 0.1
    assert judge(left, right, close(10)).reasons == {"w differing-elements not-finite"}
    more = judge(left, right, close(10, 'nan = "same-bits"'))
    assert more.reasons == {"w differing-elements not-finite"}
    assert judge(left, one([1, 2.0001]), close()).conclusion == "consistent"


def test_nan_is_equal_by_default_or_is_not(judge: Judge) -> None:
    left, right = one([np.nan, 1]), one([np.nan, 1.0001])
    np.testing.assert_allclose(left["w"][:1], right["w"][:1])
    assert not np.array_equal(left["w"][:1], right["w"][:1])
    # The declaration says it; where it does not, a drifting tensor may not hold NaN.
    assert judge(left, right, close()).reasons == {"w differing-elements not-a-number"}
    assert judge(left, right, close(1e-3, 'nan = "same-bits"')).conclusion == "consistent"
    # Equal bits are equal, NaN or not.
    assert judge(left, left, TENSORS).conclusion == "match"
    assert judge(left, left, close()).conclusion == "consistent"


@pytest.mark.parametrize("other", [0x7FC00001, 0xFFC00000, 0x7F800001])
def test_payload_and_sign_of_nan_are_ignored(judge: Judge, other: int) -> None:
    left = bits([0x7FC00000, 0x3F800000], "<u4", np.float32)
    right = bits([other, 0x3F800000], "<u4", np.float32)
    np.testing.assert_array_equal(left["w"], right["w"])
    assert judge(left, right, TENSORS).reasons == {"w differing-elements"}
    answer = judge(left, right, close(10, 'nan = "same-bits"'))
    assert answer.reasons == {"w differing-elements not-finite"}
    assert judge(left, left, TENSORS).conclusion == "match"


def test_units_of_nan(judge: Judge) -> None:
    left, right = bits([0x7FC00000], "<u4", np.float32), bits([0x7FC00001], "<u4", np.float32)
    np.testing.assert_array_max_ulp(left["w"], right["w"], maxulp=1)
    rule = close(10, "max_ulp = 1", 'nan = "same-bits"')
    assert judge(left, right, rule).reasons == {"w differing-elements not-finite"}
    assert judge(left, left, rule).conclusion == "consistent"


def test_an_infinite_tolerance_or_an_infinity(judge: Judge) -> None:
    left, right = one([1, np.inf]), one([1, -np.inf])
    with np.errstate(invalid="ignore"):
        assert np.isclose(1.0, -7.0, rtol=np.inf)
    with pytest.raises(MalformedError, match="relative_l2"):
        parse(declaration(close(float("inf"))))
    assert judge(left, right, close(10)).reasons == {"w differing-elements not-finite"}
    # An infinity in the same place is the same; the rest of the tensor is measured.
    assert judge(left, one([1.0001, np.inf]), close()).conclusion == "consistent"
    assert judge(left, one([1.1, np.inf]), close()).reasons == {
        "w relative-l2-of-weights",
        "w relative-linf-of-weights",
    }


# --- Units of last place --------------------------------------------------------------------------


def test_infinity_is_one_unit_from_the_largest_number(judge: Judge) -> None:
    left, right = one([np.finfo(np.float32).max]), one([np.inf])
    np.testing.assert_array_max_ulp(left["w"], right["w"], maxulp=1)
    assert judge(left, right, close(10, "max_ulp = 1")).reasons == {
        "w differing-elements not-finite"
    }
    near = one([np.nextafter(np.finfo(np.float32).max, np.float32(0))])
    assert judge(left, near, close(10, "max_ulp = 1")).conclusion == "consistent"


@pytest.mark.parametrize(
    ("dtype", "width"),
    [(ml_dtypes.bfloat16, "<u2"), (ml_dtypes.float8_e4m3fn, "u1"), (ml_dtypes.float8_e5m2, "u1")],
)
def test_units_of_narrow_floats(judge: Judge, dtype: type, width: str) -> None:
    code = int(np.array([1], dtype).view(width)[0])
    left, next_, after = (bits([code + step], width, dtype) for step in (0, 1, 2))
    with pytest.raises(TypeError):
        np.testing.assert_array_max_ulp(left["w"], next_["w"], maxulp=1)
    assert judge(left, next_, close(10, "max_ulp = 1")).conclusion == "consistent"
    answer = judge(left, after, close(10, "max_ulp = 1"))
    assert answer.reasons == {"w max-ulp"}
    assert [f.value for f in answer.findings if not f.held] == [2.0]


def test_units_across_zero_are_counted_in_a_wider_type(judge: Judge) -> None:
    largest = float(np.finfo(np.float64).max) / 4
    left, right = one([largest], np.float64), one([-largest], np.float64)
    answer = judge(left, right, close(10, "max_ulp = 9007199254740991"))
    assert answer.reasons == {"w max-ulp ulp-too-large"}
    tiny = one([5e-324], np.float64), one([-5e-324], np.float64)
    (ulp,) = (f for f in judge(*tiny, close(10, "max_ulp = 3")).findings if f.measure == "max-ulp")
    assert (ulp.held, ulp.value) == (True, 3.0)  # -0 and +0 stand between


# --- Zeros and subnormal numbers ------------------------------------------------------------------


def test_minus_zero_equals_zero(judge: Judge) -> None:
    left, right = one([0.0, 1.0]), one([-0.0, 1.0])
    assert np.array_equal(left["w"], right["w"])
    assert judge(left, right, TENSORS).reasons == {"w differing-elements"}
    assert judge(left, right, close()).conclusion == "consistent"
    answer = judge(left, right, close(1e-3, 'signed_zero = "distinct"'))
    assert answer.reasons == {"w differing-elements sign-of-zero"}


def test_subnormal_numbers_are_taken_for_zero(judge: Judge) -> None:
    subnormal, zero = one([1e-40, 2e-40]), one([0, 0])
    assert np.allclose(subnormal["w"], zero["w"])
    assert judge(subnormal, zero, TENSORS).reasons == {"w differing-elements"}
    assert judge(subnormal, zero, close(10)).reasons == {
        "w relative-l2-of-weights zero-weights",
        "w relative-linf-of-weights zero-weights",
    }
    assert judge(subnormal, one([1e-40, 4e-40]), close(0.5)).reasons == {
        "w relative-l2-of-weights",
        "w relative-linf-of-weights",
    }
    assert judge(subnormal, one([1e-40, 2.0001e-40]), close()).conclusion == "consistent"


# --- Complex numbers and eight bits ---------------------------------------------------------------


def test_a_huge_part_does_not_hide_the_other(judge: Judge) -> None:
    left, right = one([1e8 + 1j], np.complex64), one([1e8 + 9j], np.complex64)
    assert np.allclose(left["w"], right["w"])
    both = {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert judge(left, right, close(1e-6)).reasons == both
    assert judge(left, right, close(1, "max_ulp = 64")).reasons == {"w max-ulp"}
    near = one([1e8 + 1.000001j], np.complex64)
    assert judge(left, near, close(1e-6, "max_ulp = 64")).conclusion == "consistent"


def test_nan_in_one_part(judge: Judge) -> None:
    left, right = one([1 + 2j], np.complex64), one([complex(1, np.nan)], np.complex64)
    assert judge(left, right, close(10)).reasons == {"w differing-elements not-finite"}


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_eight_bit_floats_have_distances(judge: Judge, dtype: type) -> None:
    left, right = one([1.0, 2.0], dtype), one([1.25, 2.0], dtype)
    answer = judge(left, right, close(0.1))
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    (linf,) = (f for f in answer.findings if f.measure == "relative-linf-of-weights")
    assert linf.value == pytest.approx(0.125)
    assert judge(left, right, close(0.2)).conclusion == "consistent"


# --- Rounding -------------------------------------------------------------------------------------


def test_bfloat16_by_way_of_float32_rounds_twice(judge: Judge) -> None:
    above_the_tie = one([1 + 2**-8 + 2**-40], np.float64)
    up, down = one([1 + 2**-7], np.float64), one([1.0], np.float64)
    twice = above_the_tie["w"].astype(np.float32).astype(ml_dtypes.bfloat16)
    assert twice.astype(np.float64) == down["w"]
    assert judge(above_the_tie, up, rounded("BF16")).conclusion == "consistent"
    assert judge(above_the_tie, down, rounded("BF16")).reasons == {"w differing-elements-as-BF16"}


def test_a_change_below_the_rounding_is_what_rounded_admits(judge: Judge) -> None:
    left, right = one([1.0]), one([1.0001])
    assert judge(left, right, rounded("BF16")).conclusion == "consistent"
    assert judge(left, right, TENSORS).conclusion == "mismatch"
    assert judge(left, one([1.01]), rounded("BF16")).reasons == {"w differing-elements-as-BF16"}
