"""The distributions against exact sums, and against scipy where these are too long."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import UnavailableError, UsageError
from provenance.measure import distributions
from provenance.measure.distributions import ACCURACY, MAX_TRIALS, incomplete_beta, t_cdf, t_tail


@cache
def binomial_below(successes: int, trials: int, p: Fraction) -> Fraction:
    """Return the exact probability of at most *successes*."""
    return sum(
        (math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes + 1)),
        Fraction(0),
    )


@given(st.integers(1, 60), st.data(), st.integers(1, 63))
def test_whole_parameters_are_binomial_tails(trials: int, data: st.DataObject, p: int) -> None:
    successes = data.draw(st.integers(0, trials - 1))
    exact = binomial_below(successes, trials, Fraction(p, 64))
    found = incomplete_beta(trials - successes, successes + 1, 1 - p / 64, p / 64)
    assert abs(Fraction(found) - exact) <= exact * Fraction(2) ** -44


@given(st.floats(-1, 29), st.floats(-1, 29), st.floats(-5, 5))
def test_the_whole_range_against_scipy(log_a: float, log_b: float, deviations: float) -> None:
    a, b = max(0.5, 2**log_a), max(0.5, 2**log_b)
    mean = a / (a + b)
    x = min(1.0, max(0.0, mean + deviations * math.sqrt(mean * (1 - mean) / (a + b + 1))))
    found = incomplete_beta(a, b, x, 1 - x)
    assert found == pytest.approx(float(scipy.special.betainc(a, b, x)), rel=ACCURACY, abs=1e-290)


@pytest.mark.parametrize("trials", [10**3, 10**6, 10**9])
def test_few_successes_of_many_trials(trials: int) -> None:
    # 1 - 1/n is no float: `rest` is what keeps the digits.
    rate = 3 / trials
    found = incomplete_beta(trials, 1, 1 - rate, rate)
    assert found == pytest.approx(math.exp(trials * math.log1p(-rate)), rel=2.0**-36)


@given(st.floats(-60, 60), st.integers(1, 10**6))
def test_t_against_scipy(t: float, freedom: int) -> None:
    if abs(t) < 1e-3:  # there scipy loses digits: at 1e-8 it is wrong from the ninth on (Cauchy's)
        assert t_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, rel=1e-14)
        return
    expected = float(scipy.stats.t.sf(t, freedom))
    assert t_tail(t, freedom) == pytest.approx(expected, rel=1e-10, abs=1e-290)
    assert t_cdf(t, freedom) == t_tail(-t, freedom)


def test_t_of_published_tables() -> None:
    # Student's t: one-sided 5 % with 10 degrees is 1.812, 2.5 % with 4 is 2.776.
    assert t_tail(1.812461, 10) == pytest.approx(0.05, rel=1e-6)
    assert t_tail(2.776445, 4) == pytest.approx(0.025, rel=1e-6)
    # With one degree it is Cauchy's distribution.
    assert t_cdf(1.0, 1) == pytest.approx(0.75, rel=1e-12)


def test_the_ends() -> None:
    assert t_tail(0.0, 7) == pytest.approx(0.5, rel=1e-14)
    assert t_tail(math.inf, 3) == 0
    assert t_tail(-math.inf, 3) == 1
    assert t_tail(1e200, 1) == 0  # its square is beyond float64
    assert incomplete_beta(2, 3, 0.0, 1.0) == 0
    assert incomplete_beta(2, 3, 1.0, 0.0) == 1


@pytest.mark.parametrize(
    ("t", "freedom"), [(math.nan, 5), (1.0, 0), (1.0, math.nan), (1.0, MAX_TRIALS * 2)]
)
def test_outside_its_range_t_is_refused(t: float, freedom: float) -> None:
    with pytest.raises(UsageError, match="not defined"):
        t_tail(t, freedom)


def test_the_slowest_place_stays_within_the_terms() -> None:
    assert incomplete_beta(MAX_TRIALS, MAX_TRIALS, 0.5, 0.5) == pytest.approx(0.5, rel=ACCURACY)


def test_a_fraction_that_does_not_converge_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_MAX_TERMS", 2)
    with pytest.raises(UnavailableError, match="converge"):
        incomplete_beta(300, 200, 0.58, 0.42)
