"""Two curves: shifts, restarts and cuts do not pass."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import UsageError
from provenance.measure.curves import Curve, measure_curves, relative_difference
from provenance.measure.squares import at_most


def curve(*values: float, first: int = 0) -> Curve:
    return Curve("loss", tuple(range(first, first + len(values))), values)


NUMBERS = st.floats(-1e3, 1e3)
VALUES = st.one_of(NUMBERS, st.sampled_from([math.nan, math.inf, 1.7e308, -1.7e308, 5e-324]))
LOSSES = [2.0 * 0.9**step for step in range(60)]


def curves(values: st.SearchStrategy[float]) -> st.SearchStrategy[Curve]:
    points = st.dictionaries(st.integers(0, 12), values, max_size=10)
    return points.map(
        lambda found: Curve("loss", tuple(sorted(found)), tuple(found[s] for s in sorted(found)))
    )


def exact_ratio(a: float, b: float) -> Fraction:
    size = max(abs(Fraction(a)), abs(Fraction(b)))
    return abs(Fraction(a) - Fraction(b)) / size if size else Fraction(0)


@given(VALUES, VALUES)
def test_the_relative_difference_against_exact_arithmetic(a: float, b: float) -> None:
    found = relative_difference(a, b)
    if not (math.isfinite(a) and math.isfinite(b)):
        assert math.isnan(found)
        return
    assert found == pytest.approx(float(exact_ratio(a, b)), rel=2.0**-50)
    assert found == relative_difference(b, a)


@given(curves(NUMBERS), st.data(), st.floats(0, 1), st.integers(1, 15))
def test_the_measures_against_exact_arithmetic(
    left: Curve, data: st.DataObject, limit: float, window: int
) -> None:
    right = Curve("loss", left.steps, tuple(data.draw(NUMBERS) for _ in left.steps))
    found = measure_curves(left, right, limit, window)
    if not left.steps:
        assert found.notes == ("empty",)
        assert (found.largest, found.terminal) == (None, None)
        return
    ratios = [exact_ratio(a, b) for a, b in zip(left.values, right.values, strict=True)]
    assert found.largest == pytest.approx(float(max(ratios)), rel=2.0**-50)
    agreeing = [at_most(float(ratio), limit) for ratio in ratios]
    assert found.agreed == (agreeing.index(False) if False in agreeing else len(ratios))
    if found.divergence is None:
        assert found.agreed == len(left.steps)
    else:
        assert found.divergence.step == left.steps[found.agreed]
    used = min(window, len(left.steps))
    sums = [sum(map(Fraction, side.values[-used:]), Fraction(0)) for side in (left, right)]
    expected = float(abs(sums[0] - sums[1]) / max(map(abs, sums))) if any(sums) else 0.0
    assert found.terminal == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(curves(VALUES), curves(VALUES), st.floats(0, 2), st.integers(1, 15))
def test_exchanged_sides_give_the_same(
    left: Curve, right: Curve, limit: float, window: int
) -> None:
    one = measure_curves(left, right, limit, window)
    other = measure_curves(right, left, limit, window)
    assert (one.agreed, one.largest, one.largest_step, one.terminal, one.notes) == (
        other.agreed, other.largest, other.largest_step, other.terminal, other.notes,
    )  # fmt: skip
    assert (one.divergence is None) == (other.divergence is None)
    if one.divergence and other.divergence:
        assert one.divergence.step == other.divergence.step


@given(curves(VALUES), curves(VALUES), st.floats(0, 2), st.floats(0, 2))
def test_a_wider_limit_agrees_for_longer(
    left: Curve, right: Curve, one: float, other: float
) -> None:
    narrow, wide = sorted((one, other))
    assert (
        measure_curves(left, right, narrow, 5).agreed <= measure_curves(left, right, wide, 5).agreed
    )


@given(curves(NUMBERS), st.integers(1, 15))
def test_a_curve_equals_itself(left: Curve, window: int) -> None:
    found = measure_curves(left, left, 0.0, window)
    assert (found.agreed, found.divergence) == (len(left.steps), None)
    if left.steps:
        assert (found.largest, found.largest_step, found.terminal) == (0, None, 0)


@given(curves(VALUES), curves(VALUES))
def test_what_is_not_finite_has_no_end_and_never_agrees(left: Curve, right: Curve) -> None:
    found = measure_curves(left, right, 2.0, 5)
    if not all(map(math.isfinite, (*left.values, *right.values))):
        assert "not-finite" in found.notes
        assert (found.largest, found.terminal) == (None, None)
        assert found.divergence is not None


def test_a_curve_with_nan_does_not_equal_itself() -> None:
    broken = curve(1.0, math.nan, 0.5)
    found = measure_curves(broken, broken, 1.0, 1)
    assert found.agreed == 1
    assert found.divergence is not None
    assert found.divergence.index == 1
    assert found.terminal is None


def test_a_shifted_curve_diverges_at_once() -> None:
    # The same values one step later: correlation 1, and no distance under time warping.
    found = measure_curves(curve(*LOSSES), curve(*LOSSES, first=1), 0.05, 10)
    assert found.agreed == 0
    assert found.notes == ("steps-differ",)
    assert found.terminal is None
    relabelled = measure_curves(curve(*LOSSES[:-1]), curve(*LOSSES[1:]), 0.05, 10)
    assert relabelled.agreed == 0
    assert relabelled.terminal == pytest.approx(0.1)


def test_a_restart_is_no_curve() -> None:
    steps = (0, 1, 2, 3, 2, 3, 4)
    restarted = Curve("loss", steps, tuple(LOSSES[step] for step in steps))
    for left, right in ((restarted, curve(*LOSSES[:5])), (restarted, restarted)):
        found = measure_curves(left, right, 0.1, 1)
        assert found.notes == ("steps-not-increasing",)
        assert (found.agreed, found.terminal) == (0, None)


def test_a_step_that_comes_twice_is_a_restart() -> None:
    twice = Curve("loss", (0, 1, 1), (1.0, 0.5, 0.5))
    assert measure_curves(twice, twice, 0.1, 1).notes == ("steps-not-increasing",)


def test_a_curve_that_was_cut_has_no_end() -> None:
    found = measure_curves(curve(*LOSSES), curve(*LOSSES[:40]), 0.05, 10)
    assert found.agreed == 40
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.right) == (40, None)
    assert (found.notes, found.terminal) == (("steps-differ",), None)


def test_other_steps_between_are_a_divergence() -> None:
    left = Curve("loss", (0, 10, 20), (1.0, 0.5, 0.25))
    right = Curve("loss", (0, 5, 10, 20), (1.0, 0.7, 0.5, 0.25))
    found = measure_curves(left, right, 0.05, 1)
    assert (found.agreed, found.notes) == (1, ("steps-differ",))
    assert found.divergence is not None
    assert (found.divergence.index, found.divergence.step, found.divergence.left) == (1, 5, None)


def test_no_step_in_common() -> None:
    found = measure_curves(curve(1.0, 0.5), curve(1.0, 0.5, first=7), 0.05, 1)
    assert found.notes == ("empty", "steps-differ")
    assert (found.largest, found.terminal) == (None, None)


def test_after_the_divergence_only_the_end_counts() -> None:
    other = [*LOSSES[:20], *(value * 3 for value in LOSSES[20:50]), *LOSSES[50:]]
    found = measure_curves(curve(*LOSSES), curve(*other), 0.05, 10)
    assert (found.agreed, found.terminal) == (20, 0)
    assert found.divergence is not None
    assert (found.divergence.left, found.divergence.right) == (LOSSES[20], other[20])
    assert found.largest == pytest.approx(2 / 3)
    assert found.largest_step in range(20, 50)


def test_the_end_feels_one_point_in_ten() -> None:
    # A median of the window would be the same on both sides.
    other = [*LOSSES[:-1], 5.0]
    found = measure_curves(curve(*LOSSES), curve(*other), 0.05, 10)
    assert found.terminal is not None
    assert found.terminal > 0.9


def test_a_window_longer_than_the_curve_is_all_of_it() -> None:
    found = measure_curves(curve(1.0, 2.0), curve(1.0, 4.0), 0.05, 10)
    assert found.terminal == 0.4


def test_huge_and_tiny_values_have_an_end() -> None:
    huge = curve(1.7e308, 1.7e308, 1.7e308)
    assert measure_curves(huge, huge, 0.1, 3).terminal == 0
    other = curve(-1.7e308, -1.7e308, -1.7e308)
    assert measure_curves(huge, other, 0.1, 3).terminal == 2
    tiny = measure_curves(curve(5e-324, 5e-324), curve(1e-323, 1e-323), 0.1, 2)
    assert tiny.terminal == 0.5


@pytest.mark.parametrize(
    ("pointwise", "window"), [(-0.1, 1), (math.nan, 1), (math.inf, 1), (0.1, 0)]
)
def test_limits_that_are_none_are_refused(pointwise: float, window: int) -> None:
    with pytest.raises(UsageError, match="a limit is"):
        measure_curves(curve(1.0), curve(1.0), pointwise, window)
