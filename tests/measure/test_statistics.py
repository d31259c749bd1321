"""Bounds and tests against exact sums, scipy, and examples of which the answer is published."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.errors import UnavailableError, UsageError
from provenance.measure import statistics
from provenance.measure.statistics import (
    MAX_DRAWS,
    MAX_TRIALS,
    check_scipy,
    disagreement_bound,
    holm,
    paired_bootstrap,
    tost,
)

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NUMBERS = hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e3, 1e3))


def binomial_below(successes: int, trials: int, p: Fraction) -> Fraction:
    """Return the exact probability of at most *successes*."""
    return sum(
        (math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes + 1)),
        Fraction(0),
    )


# --- Rates ----------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_the_bound_is_the_least_rate_that_is_excluded(
    trials: int, data: st.DataObject, confidence: float
) -> None:
    disagreements = data.draw(st.integers(0, trials - 1))
    bound = disagreement_bound(disagreements, trials, confidence)
    error = Fraction(1 - confidence)
    assert binomial_below(disagreements, trials, Fraction(bound)) <= error
    # Rounded outward in the sixth digit.
    lower = Fraction(bound) * (1 - Fraction(13, 10**6))
    assert binomial_below(disagreements, trials, lower) > error


def test_a_bound_has_six_digits_and_does_not_turn_on_the_last_of_scipy() -> None:
    for seen, trials in ((0, 300), (3, 1000), (397, 1000), (10**5, 10**6), (5, MAX_TRIALS)):
        exact = scipy.special.betaincinv(seen + 1, trials - seen, 0.95)
        bound = disagreement_bound(seen, trials, 0.95)
        assert bound == float(f"{bound:.5e}")
        assert exact * (1 + 9e-7) < bound < exact * (1 + 1.2e-5)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_scipy()
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(UnavailableError, match=r"needs scipy \(pip install .*\[stats\]"):
        check_scipy()


@pytest.mark.parametrize(("seen", "trials"), [(0, 300), (3, 1000), (397, 1000), (10**5, 10**6)])
def test_the_bound_against_scipy(seen: int, trials: int) -> None:
    expected = scipy.stats.beta.ppf(0.95, seen + 1, trials - seen)
    assert disagreement_bound(seen, trials, 0.95) == pytest.approx(float(expected), rel=1.2e-5)


def test_no_disagreement_is_the_rule_of_three() -> None:
    # Hanley and Lippman-Hand, JAMA 249 (1983): 0 of n excludes rates of 3/n at 95 %.
    for trials in (30, 1000, 10**9):
        bound = disagreement_bound(0, trials, 0.95)
        assert bound == pytest.approx(-math.expm1(math.log(0.05) / trials), rel=1.2e-5)
        assert 2.8 / trials < bound < 3 / trials


def test_nothing_seen_is_nothing_known() -> None:
    assert disagreement_bound(0, 0, 0.95) == 1
    assert disagreement_bound(5, 5, 0.95) == 1
    assert disagreement_bound(1, 1, 0.5) == 1


@given(st.integers(0, 200), st.integers(0, 200))
def test_more_disagreements_and_more_confidence_raise_the_bound(one: int, other: int) -> None:
    bounds = [disagreement_bound(seen, 200, 0.95) for seen in sorted((one, other))]
    assert bounds[0] <= bounds[1]
    assert disagreement_bound(one, 200, 0.9) <= disagreement_bound(one, 200, 0.99)
    assert one / 200 <= disagreement_bound(one, 200, 0.9) <= 1


@pytest.mark.parametrize(
    ("seen", "trials", "confidence"),
    [(-1, 5, 0.95), (6, 5, 0.95), (0, MAX_TRIALS + 1, 0.95), (0, 5, 0.0), (0, 5, 1.0),
     (0, 5, math.nan)],
)  # fmt: skip
def test_rates_that_cannot_be_are_refused(seen: int, trials: int, confidence: float) -> None:
    with pytest.raises(UsageError, match="out of range"):
        disagreement_bound(seen, trials, confidence)


# --- Equivalence ----------------------------------------------------------------------------------


def two_t_tests(values: Array, margin: float) -> tuple[float, float]:
    """Return the p-values of scipy's one-sided tests."""
    below = scipy.stats.ttest_1samp(values, -margin, alternative="greater")
    above = scipy.stats.ttest_1samp(values, margin, alternative="less")
    return float(below.pvalue), float(above.pvalue)


@given(st.integers(2, 200), st.floats(-2, 2), st.floats(0.01, 3), st.integers(0, 2**32))
def test_tost_against_scipy(size: int, shift: float, margin: float, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(size) + shift
    found = tost(values, margin)
    lower, upper = two_t_tests(values, margin)
    for p, expected in ((found.lower, lower), (found.upper, upper)):
        assert p == pytest.approx(expected, rel=1.2e-5, abs=1e-290)
        assert p >= min(1, expected) or p < 1e-290


def test_t_of_published_tables() -> None:
    # Student's t: one-sided 5 % with 10 degrees is 1.812, 2.5 % with 4 is 2.776.
    assert statistics.t_tail(1.812461, 10) == pytest.approx(0.05, rel=1e-6)
    assert statistics.t_tail(2.776445, 4) == pytest.approx(0.025, rel=1e-6)


@given(st.floats(-12, 2), st.sampled_from([1, -1]))
def test_t_with_one_degree_is_cauchys(exponent: float, sign: int) -> None:
    t = sign * 10**exponent
    assert statistics.t_tail(t, 1) == pytest.approx(math.atan2(1, t) / math.pi, rel=1e-9)


def test_the_ends_of_t() -> None:
    assert statistics.t_tail(0.0, 7) == pytest.approx(0.5, rel=1e-14)
    assert statistics.t_tail(math.inf, 3) == 0
    assert statistics.t_tail(-math.inf, 3) == 1
    assert statistics.t_tail(1e200, 1) == 0  # its square is beyond float64


@given(NUMBERS, st.floats(1e-3, 1e3))
def test_exchanged_sides_give_the_same_p(values: Array, margin: float) -> None:
    one, other = tost(values, margin), tost(-values, margin)
    assert (one.lower, one.upper, one.p) == (other.upper, other.lower, other.p)
    seed = b"seed"
    one = paired_bootstrap(values, margin, 0.05, 50, seed)
    other = paired_bootstrap(-values, margin, 0.05, 50, seed)
    assert (one.lower, one.upper, one.p) == (other.upper, other.lower, other.p)


@given(NUMBERS, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_wider_margin_has_a_smaller_p(values: Array, one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    assert tost(values, wide).p <= tost(values, narrow).p * (1 + 1e-9)
    seed = b"seed"
    assert (
        paired_bootstrap(values, wide, 0.05, 50, seed).p
        <= paired_bootstrap(values, narrow, 0.05, 50, seed).p
    )


@given(NUMBERS, st.floats(1e-3, 1e3))
def test_a_mean_outside_the_margin_is_never_equivalent(values: Array, margin: float) -> None:
    if abs(float(np.mean(values))) > margin * 1.001:
        assert tost(values, margin).p > 0.499


@given(NUMBERS, st.integers(-900, 900))
def test_the_unit_of_the_metric_does_not_matter(values: Array, exponent: int) -> None:
    scaled = np.ldexp(values, exponent)
    if not np.array_equal(np.ldexp(scaled, -exponent), values):
        return  # a value left the range of float64
    plain, other = tost(values, 0.5), tost(scaled, math.ldexp(0.5, exponent))
    assert (plain.lower, plain.upper, plain.note) == (other.lower, other.upper, other.note)


def test_not_rejecting_a_difference_is_not_equivalence() -> None:
    # Five examples, a mean of 0.2, far beyond the margin: a t test finds no difference.
    values = np.array([-0.9, 1.3, 0.1, -0.6, 1.1])
    assert scipy.stats.ttest_1samp(values, 0.0).pvalue > 0.05
    assert tost(values, 0.01).p > 0.4


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_passes(value: float) -> None:
    values = np.zeros(1000)
    values[7] = value
    for found in (tost(values, 1e30), paired_bootstrap(values, 1e30, 0.05, 100, b"seed")):
        assert (found.p, found.note) == (1.0, "not-finite")


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_examples_never_pass(size: int) -> None:
    values = np.zeros(size)
    for found in (tost(values, 1.0), paired_bootstrap(values, 1.0, 0.05, 100, b"seed")):
        assert (found.p, found.note) == (1.0, "too-few")


@pytest.mark.parametrize(
    ("value", "p"), [(0.0, 0.0), (0.09, 0.0), (-0.09, 0.0), (0.1, 1.0), (-0.1, 1.0), (3.0, 1.0)]
)
def test_one_difference_throughout_is_judged_by_rule(value: float, p: float) -> None:
    values = np.full(49, value)
    found = tost(values, 0.1)
    assert (found.p, found.note) == (p, "zero-variance")
    again = paired_bootstrap(values, 0.1, 0.05, 99, b"seed")
    assert again.p == (p or 0.01)  # a bootstrap is never surer than its resamples


def test_means_beyond_float64_are_no_numbers_that_pass() -> None:
    huge = np.array([1.7e308, -1.7e308, 1.6e308, 1.5e308])
    assert tost(huge, 1.0).p > 0.4
    assert tost(np.array([1e-300, 2e-300, 1.5e-300]), 1e300).p == 0


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_is_a_positive_number(margin: float) -> None:
    with pytest.raises(UsageError, match="margin"):
        tost(np.zeros(5), margin)


def test_differences_have_one_axis() -> None:
    with pytest.raises(UsageError, match="one number for each example"):
        tost(np.zeros((2, 2)), 1.0)


# --- Bootstrap ------------------------------------------------------------------------------------


def test_the_draws_are_those_that_are_documented() -> None:
    values = np.array([0.5, -0.25, 0.125, 0.75, -0.5])
    found = paired_bootstrap(values, 0.3, 0.05, 200, b"\x01\x02")
    bits = np.random.PCG64(0x0102)
    means = []
    for _ in range(200):
        draws = [math.floor(5 * (int(bits.random_raw()) >> 11) / 2**53) for _ in range(5)]
        means.append(sum(float(values[index]) for index in draws) / 5)
    assert found.lower == (1 + sum(mean <= -0.3 for mean in means)) / 201
    assert found.upper == (1 + sum(mean >= 0.3 for mean in means)) / 201


def test_the_draws_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Sums of these are exact in any order.
    values = np.random.default_rng(3).integers(-1, 2, 100).astype(np.float64)
    found = paired_bootstrap(values, 0.1, 0.05, 300, b"seed")
    for block in (1, 7, 100, 250):
        monkeypatch.setattr(statistics, "_BLOCK", block)
        assert paired_bootstrap(values, 0.1, 0.05, 300, b"seed") == found


def test_the_p_value_is_near_scipys_interval() -> None:
    values = np.random.default_rng(1).standard_normal(400) * 0.1
    expected = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=4000, method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    widest = max(-expected.low, expected.high)
    assert paired_bootstrap(values, widest - 0.001, 0.05, 4000, b"seed").p > 0.05
    assert paired_bootstrap(values, widest + 0.001, 0.05, 4000, b"seed").p <= 0.05


def test_too_few_resamples_for_the_level_never_pass() -> None:
    found = paired_bootstrap(np.array([0.0, 1e-9, 0.0]), 1.0, 0.001, 100, b"seed")
    assert found.p > 0.001


@pytest.mark.parametrize(("alpha", "resamples"), [(0.0, 10), (0.6, 10), (math.nan, 10), (0.05, 0)])
def test_a_bootstrap_has_a_level_and_resamples(alpha: float, resamples: int) -> None:
    with pytest.raises(UsageError, match="a bootstrap needs"):
        paired_bootstrap(np.zeros(5), 1.0, alpha, resamples, b"seed")


def test_a_bootstrap_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="draws"):
        paired_bootstrap(np.zeros(2), 1.0, 0.05, MAX_DRAWS, b"seed")


# --- Several metrics ------------------------------------------------------------------------------


def test_holm_of_a_worked_example() -> None:
    # By hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, and no less than the one before.
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx((0.03, 0.06, 0.06, 0.02))


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_adjusted_values_decide_as_his_procedure(p_values: list[float], alpha: float) -> None:
    adjusted = holm(p_values)
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if (len(p_values) - rank) * p_values[index] > alpha:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(one <= other for one, other in zip(p_values, adjusted, strict=True))


def test_holm_is_stricter_than_the_conjunction_needs() -> None:
    p_values = [0.04, 0.03]
    assert max(p_values) <= 0.05  # the intersection-union test passes
    assert max(holm(p_values)) > 0.05


@pytest.mark.parametrize("p", [math.nan, -0.1, 1.1])
def test_holm_takes_probabilities(p: float) -> None:
    with pytest.raises(UsageError, match="p-value"):
        holm([0.01, p])
