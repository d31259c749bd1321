"""Exact bounds of rates, and tests that two means are equivalent.

A test that does not reject a difference shows nothing: with few examples it never rejects. These
tests are of *equivalence*: that the mean of paired differences is within a margin declared before.

- :func:`disagreement_bound`: Clopper and Pearson, Biometrika 26 (1934), one-sided. Of 0
  disagreements in n it is ``1 - (1 - c)^(1/n)``, about 3/n at 95 %.
- :func:`tost`: two one-sided t tests, Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).
- :func:`paired_bootstrap`: the same question without the normal distribution, by the percentile
  interval of level 1 - 2 alpha, Efron and Tibshirani, An Introduction to the Bootstrap (1993).
- :func:`holm`: Holm, Scand. J. Statist. 6 (1979). (That *all* are equivalent needs no correction:
  Berger and Hsu, Statist. Sci. 11 (1996).)

The distributions are scipy's (extra ``stats``). So that no verdict depends on scipy's last digits,
what it returns is enlarged by ``SCIPY_ERROR`` and rounded up to ``DIGITS`` significant digits. A
limit that is written with no more digits decides as it would without the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Final

import numpy as np
from numpy.typing import NDArray

from provenance.errors import UnavailableError, UsageError

Floats = NDArray[np.float64]

SCIPY_ERROR: Final = 2.0**-20
"""Bound of the relative error of what scipy returns, with room to spare: over the whole range,
less than 2^-27 was seen between its releases and an implementation of our own."""

DIGITS: Final = 6
"""Significant digits of p-values and bounds."""

MAX_TRIALS: Final = 2**30
"""Most trials or examples: far more than anybody evaluates, and the range in which the error was
measured."""

MAX_DRAWS: Final = 2**31
"""Most draws of one bootstrap, resamples times examples: about half a minute. With so many examples
means are normal and :func:`tost` answers the same question at once."""

_BLOCK: Final = 2**16
"""Numbers drawn at once."""

_UP: Final = Context(prec=DIGITS, rounding=ROUND_CEILING)


def check_scipy() -> None:
    """Check that scipy is installed."""
    try:
        import scipy.special  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise UnavailableError(
            "judging scores and answers needs scipy",
            hint="pip install 'training-provenance[stats]'",
        ) from error


def disagreement_bound(disagreements: int, trials: int, confidence: float) -> float:
    """Return the upper bound of a rate of which *disagreements* in *trials* were seen.

    One-sided and exact; without trials nothing is known, and the bound is 1. The trials must be
    independent draws of what the rate is said of.
    """
    from scipy.special import betainccinv  # noqa: PLC0415 - an extra

    if not (0 <= disagreements <= trials <= MAX_TRIALS and 0 < confidence < 1):
        raise UsageError("disagreements, trials or confidence out of range")
    if disagreements == trials:
        return 1.0
    return _outward(betainccinv(disagreements + 1, trials - disagreements, 1 - confidence))


def t_tail(t: float, freedom: int) -> float:
    """Return the probability that Student's t with *freedom* degrees is greater than *t*."""
    from scipy.special import betainc, betaincc  # noqa: PLC0415 - an extra

    square = t * t
    total = freedom + square
    # Of x and 1 - x, the one that is small keeps its digits.
    if square < freedom:
        half = float(betaincc(0.5, freedom / 2, square / total)) / 2
    else:
        half = float(betainc(freedom / 2, 0.5, freedom / total)) / 2
    return half if t >= 0 else 1 - half


def _outward(value: float) -> float:
    """Return *value*, a probability from scipy, with its error added, rounded up."""
    return min(1.0, float(_UP.create_decimal_from_float(float(value) * (1 + SCIPY_ERROR))))


@dataclass(frozen=True, slots=True)
class Equivalence:
    """A test that the mean of paired differences lies within a margin.

    ``note`` says what is special: ``too-few`` (under two examples), ``not-finite`` (a difference is
    NaN, infinite or beyond float64), ``zero-variance`` (all differences are the same number).
    """

    lower: float
    """P-value that the mean is at or below minus the margin."""
    upper: float
    """P-value that it is at or above the margin."""
    note: str | None = None

    @property
    def p(self) -> float:
        """The larger of both: equivalence is shown where it is at most alpha."""
        return max(self.lower, self.upper)


def tost(differences: Floats, margin: float) -> Equivalence:
    """Test by two one-sided t tests whether the mean of *differences* is within *margin*.

    By rule, fewer than two examples and numbers that are not finite show nothing (p = 1), and where
    all differences are the same number, the tests' limit is taken: p is 0 inside and 1 outside.
    """
    degenerate = _degenerate(differences, margin, least=0.0)
    if degenerate is not None:
        return degenerate
    scaled, within = _scaled(differences, margin)
    count = scaled.size
    mean = math.fsum(scaled.data) / count
    scaled -= mean
    error = math.sqrt(math.fsum(np.square(scaled).data) / (count - 1) / count)
    return Equivalence(
        lower=_outward(t_tail((mean + within) / error, count - 1)),
        upper=_outward(t_tail((within - mean) / error, count - 1)),
    )


def paired_bootstrap(
    differences: Floats, margin: float, alpha: float, resamples: int, seed: bytes
) -> Equivalence:
    """Test by a bootstrap whether the mean of *differences* is within *margin*.

    The p-values are ``(1 + resampled means at or beyond the margin) / (resamples + 1)``: at most
    *alpha* where the percentile interval of level 1 - 2 alpha is inside the margin.

    The draws are fixed by *seed*, a big-endian integer: example ``floor(n * (r >> 11) / 2^53)`` for
    each 64-bit output ``r`` of ``numpy.random.PCG64(seed)`` in turn, resample after resample. (NEP
    19 keeps that stream; it does not keep those of ``Generator``'s methods.)
    """
    if not (0 < alpha <= 0.5 and resamples > 0):  # noqa: PLR2004 - the median
        raise UsageError("a bootstrap needs resamples, and a level of at most 1/2")
    if resamples * differences.size > MAX_DRAWS:
        raise UsageError(
            f"a bootstrap of more than {MAX_DRAWS} draws", hint="fewer resamples, or the t tests"
        )
    degenerate = _degenerate(differences, margin, least=1 / (resamples + 1))
    if degenerate is not None:
        return degenerate
    scaled, within = _scaled(differences, margin)
    means = _resampled_means(scaled, resamples, seed)
    return Equivalence(
        lower=(1 + int(np.count_nonzero(means <= -within))) / (resamples + 1),
        upper=(1 + int(np.count_nonzero(means >= within))) / (resamples + 1),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return *p_values*, each adjusted for their number by Holm's step-down procedure."""
    if not all(0 <= p <= 1 for p in p_values):
        raise UsageError("a p-value is not between 0 and 1")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _degenerate(differences: Floats, margin: float, *, least: float) -> Equivalence | None:
    """Return the result by rule where there is no distribution to speak of.

    *least* is the smallest p-value of the test.
    """
    if not (0 < margin < math.inf):
        raise UsageError("a margin is a positive number")
    count = differences.size
    if differences.ndim != 1 or count > MAX_TRIALS:
        raise UsageError("differences are one number for each example", where=f"{count} numbers")
    if not np.isfinite(differences).all():
        return Equivalence(1.0, 1.0, note="not-finite")
    if count < 2:  # noqa: PLR2004 - no variance can be told from one
        return Equivalence(1.0, 1.0, note="too-few")
    value = float(differences[0])
    if (differences != value).any():
        return None
    return Equivalence(
        lower=least if value > -margin else 1.0,
        upper=least if value < margin else 1.0,
        note="zero-variance",
    )


def _scaled(differences: Floats, margin: float) -> tuple[Floats, float]:
    """Return *differences* over a power of two, the largest from 1/2 to 1, and *margin* over it."""
    exponent = math.frexp(float(np.max(np.abs(differences))))[1]
    try:
        within = math.ldexp(margin, -exponent)
    except OverflowError:
        within = math.inf
    return np.ldexp(differences, -exponent), within


def _resampled_means(values: Floats, resamples: int, seed: bytes) -> Floats:
    bits = np.random.PCG64(int.from_bytes(seed, "big"))
    count = values.size

    def drawn(number: int) -> Floats:
        uniform = (bits.random_raw(number) >> np.uint64(11)) * 2.0**-53
        return values[(uniform * count).astype(np.intp)]

    def totals_by_parts() -> Iterator[float]:
        parts = [min(_BLOCK, count - start) for start in range(0, count, _BLOCK)]
        for _ in range(resamples):
            yield math.fsum(float(np.add.reduce(drawn(part))) for part in parts)

    def totals_by_rows() -> Iterator[float]:
        at_once = _BLOCK // count
        for start in range(0, resamples, at_once):
            rows = min(at_once, resamples - start)
            yield from np.add.reduce(drawn(rows * count).reshape(rows, count), axis=1).tolist()

    totals = totals_by_parts() if count > _BLOCK else totals_by_rows()
    return np.fromiter(totals, np.float64) / count
