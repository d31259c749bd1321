"""The beta and Student's t distribution, small and with a stated accuracy.

A verdict must not depend on which release of a large library is installed; scipy is the oracle of
the tests. The regularised incomplete beta function is a continued fraction (Didonato and Morris,
ACM TOMS 18 (1992), equation 9) times a term in Loader's form (Fast and Accurate Computation of
Binomial Probabilities, 2000): both keep their digits where logarithms of gamma functions, and
differences from 1, lose them.

Limits: parameters that add up to 2^31.
"""

from __future__ import annotations

import math
from typing import Final

from provenance.errors import UnavailableError, UsageError

ACCURACY: Final = 2.0**-30
"""Bound of the relative error of the incomplete beta function, with room to spare: against
exact sums, and scipy where these are too long, less than 2^-36 was seen."""

MAX_TRIALS: Final = 2**30
"""Most trials or examples: far more than anybody evaluates, and the range in which the accuracy is
tested."""

_MAX_TERMS: Final = 2**14
"""Most terms of the continued fraction; the most that 2^30 trials were seen to take is 5,488."""

_SERIES_FROM: Final = 15.0
"""From here on Stirling's series with six terms is exact to 2^-57."""

_TINY: Final = 2.0**-1000
"""Stands for zero in the continued fraction."""


def incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for *a* and *b* of 1/2 or more.

    *rest* is 1 - *x*, which is given because it may be tiny.
    """
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    # The fraction converges fast below the mean: on one side of it here, else on the other.
    apart = a - (a + b) * x if a <= b else (a + b) * rest - b
    if apart < 0:
        return 1 - _below_mean(b, a, rest, x, -apart)
    return _below_mean(a, b, x, rest, apart)


def t_tail(t: float, freedom: float) -> float:
    """Return the probability that Student's t with *freedom* degrees is greater than *t*.

    Raises:
        UsageError: *t* is NaN, or *freedom* is less than 1 or beyond ``MAX_TRIALS``.
    """
    if math.isnan(t) or not 1 <= freedom <= MAX_TRIALS:
        raise UsageError("Student's t is not defined here")
    square = t * t
    if square == math.inf:
        half = 0.0
    else:
        total = freedom + square
        half = incomplete_beta(freedom / 2, 0.5, freedom / total, square / total) / 2
    return half if t >= 0 else 1 - half


def t_cdf(t: float, freedom: float) -> float:
    """Return the probability that Student's t is at most *t*. See :func:`t_tail`."""
    return t_tail(-t, freedom)


def _below_mean(a: float, b: float, x: float, rest: float, apart: float) -> float:
    """Return I_x(a, b); *apart* is a - (a + b) x, not negative."""
    total = a + b
    exponent = (
        _stirling_error(total)
        - _stirling_error(a)
        - _stirling_error(b)
        - _deviance(a, total * x)
        - _deviance(b, total * rest)
    )
    term = math.sqrt(a * b / (2 * math.pi * total)) * math.exp(exponent)
    return min(1.0, term * _fraction(a, b, x, rest, apart)) if term else 0.0


def _fraction(a: float, b: float, x: float, rest: float, apart: float) -> float:
    """Return the continued fraction of Didonato and Morris by the modified method of Lentz."""
    value = d = (a + 1) / (a * (1 + apart))
    c = 1 / _TINY
    for n in range(1, _MAX_TERMS):
        odd = a + 2 * n
        w = n * (b - n) * x / (odd - 1)
        alpha = (a + n - 1) / (odd - 1) * (a + b + n - 1) * w * x
        beta = n + w + (a + n) / (odd + 1) * (apart + 1 + n * (1 + rest))
        d = 1 / _not_zero(beta + alpha * d)
        c = _not_zero(beta + alpha / c)
        value *= d * c
        if abs(d * c - 1) < 2.0**-51:
            return value
    raise UnavailableError("the incomplete beta function does not converge")


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _stirling_error(z: float) -> float:
    """Return ln Gamma(z + 1) less Stirling's approximation of it (DLMF 5.11.1)."""
    if z < _SERIES_FROM:
        return math.lgamma(z + 1) - (z + 0.5) * math.log(z) + z - math.log(2 * math.pi) / 2
    s = 1 / (z * z)
    tail = 1 / 1680 - s * (1 / 1188 - s * 691 / 360360)
    return (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * tail))) / z


def _deviance(x: float, mean: float) -> float:
    """Return x ln(x / mean) + mean - x without cancellation (Loader, section 3)."""
    gap = x - mean
    if abs(gap) >= 0.1 * (x + mean):
        return x * math.log(x / mean) - gap
    v = gap / (x + mean)
    total, part, odd = gap * v, 2 * x * v, 1
    while True:
        part *= v * v
        odd += 2
        if total + part / odd == total:
            return total
        total += part / odd
