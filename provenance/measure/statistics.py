"""Exact bounds of rates, and tests that two means are equivalent.

A test that does not reject a difference shows nothing: with few examples it never rejects. What is
tested here is *equivalence*: that the mean of paired differences lies within a margin that was
declared before.

- :func:`disagreement_bound`: Clopper and Pearson, Biometrika 26 (1934), one-sided. Of 0
  disagreements in n it is ``1 - (1 - c)^(1/n)``, about 3/n at 95 %.
- :func:`tost`: two one-sided t tests, Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).
- :func:`paired_bootstrap`: the same question without the normal distribution, by the percentile
  interval of level 1 - 2 alpha, Efron and Tibshirani, An Introduction to the Bootstrap (1993).
- :func:`mcnemar`: McNemar, Psychometrika 12 (1947), in its exact form. It asks whether as many
  answers got better as got worse, and is blind to how many changed: judge by :func:`churn`.
- :func:`holm`: Holm, Scand. J. Statist. 6 (1979).

**Several metrics.** To claim that *all* are equivalent, each may be tested at the full level: the
conjunction errs only if one that is not equivalent passes (intersection-union test; Berger and Hsu,
Statist. Sci. 11 (1996)). Holm's correction is not needed for that claim and makes it stricter; with
it, what is said of each single metric holds too, at the level of the whole family.

P-values and bounds are enlarged by the error of the distributions they are made from
(:mod:`~provenance.measure.distributions`), so rounding never lets anything pass.

Limits: 2^30 trials; 2^31 draws of a bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from provenance.errors import UsageError
from provenance.measure.distributions import ACCURACY, MAX_TRIALS, incomplete_beta, t_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MAX_DRAWS: Final = 2**31
"""Most draws of one bootstrap, resamples times examples: about half a minute. With so many examples
means are normal and :func:`tost` answers the same question at once."""

_WIDTH: Final = 2.0**-44
"""Relative width at which the search for a bound ends."""

_BLOCK: Final = 2**16
"""Numbers handled at once."""


# --- Rates ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Churn:
    """How many answers of 0 and 1 changed between two models on the same examples."""

    examples: int
    gained: int
    """Examples that only the right model has as 1."""
    lost: int
    """Examples that only the left model has as 1."""
    rate: float | None
    """Part of the examples that changed; None without examples."""
    bound: float
    """Upper bound of the rate in the population."""
    mcnemar: float
    """Two-sided p-value that as many are gained as lost; blind to how many these are."""


def disagreement_bound(disagreements: int, trials: int, confidence: float) -> float:
    """Return the upper bound of a rate of which *disagreements* in *trials* were seen.

    One-sided and exact; without trials nothing is known, and the bound is 1. The trials must be
    independent draws of what the rate is said of.

    Raises:
        UsageError: a number is outside its range.
    """
    if not (0 <= disagreements <= trials <= MAX_TRIALS and 0 < confidence < 1):
        raise UsageError("there is no bound of such a rate")
    if disagreements == trials:
        return 1.0
    error = 1 - confidence
    if disagreements == 0:
        return -math.expm1(math.log(error) / trials)
    low, high = disagreements / trials, 1.0
    while high - low > high * _WIDTH:
        middle = (low + high) / 2
        tail = incomplete_beta(trials - disagreements, disagreements + 1, 1 - middle, middle)
        if tail * (1 + ACCURACY) <= error:
            high = middle
        else:
            low = middle
    return high


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value that *gained* and *lost* have equal chances.

    Raises:
        UsageError: a number is negative, or they are more than ``MAX_TRIALS``.
    """
    total, fewer = gained + lost, min(gained, lost)
    if fewer < 0 or total > MAX_TRIALS:
        raise UsageError("there is no such number of answers that changed")
    if gained == lost:
        return 1.0
    return _enlarged(2 * incomplete_beta(total - fewer, fewer + 1, 0.5, 0.5))


def churn(gained: int, lost: int, examples: int, confidence: float) -> Churn:
    """Return the rate at which answers changed, with its bound. See :func:`disagreement_bound`."""
    changed = gained + lost
    return Churn(
        examples=examples,
        gained=gained,
        lost=lost,
        rate=changed / examples if examples else None,
        bound=disagreement_bound(changed, examples, confidence),
        mcnemar=mcnemar(gained, lost),
    )


def _enlarged(p: float) -> float:
    return min(1.0, p * (1 + ACCURACY))


# --- Equivalence of means -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Equivalence:
    """A test that the mean of paired differences lies within a margin.

    ``note`` says what is special: ``too-few`` (under two examples), ``not-finite`` (a difference is
    NaN, infinite or beyond float64), ``zero-variance`` (all differences are the same number).
    """

    examples: int
    lower: float
    """P-value that the mean is at or below minus the margin."""
    upper: float
    """P-value that it is at or above the margin."""
    mean: float | None = None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    """Of a bootstrap: level 1 - 2 alpha; None too where there are too few resamples for alpha."""
    note: str | None = None

    @property
    def p(self) -> float:
        """Return the larger of both: equivalence is shown where it is at most alpha."""
        return max(self.lower, self.upper)


def tost(differences: Floats, margin: float) -> Equivalence:
    """Test by two one-sided t tests whether the mean of *differences* is within *margin*.

    By rule, fewer than two examples and numbers that are not finite show nothing (p = 1), and where
    all differences are the same number, the tests' limit is taken: p is 0 inside and 1 outside.

    Raises:
        UsageError: the margin is not a positive number, or there are too many examples.
    """
    degenerate = _degenerate(differences, margin, least=0.0)
    if degenerate is not None:
        return degenerate
    scaled, exponent = _scaled(differences)
    count = scaled.size
    mean = _sum(scaled, np.positive) / count
    squares = _sum(scaled, lambda block: np.square(block - mean))
    error = math.sqrt(squares / (count - 1) / count)
    within = _shifted(margin, -exponent)
    return Equivalence(
        examples=count,
        lower=_enlarged(t_tail((mean + within) / error, count - 1)),
        upper=_enlarged(t_tail((within - mean) / error, count - 1)),
        mean=_shifted(mean, exponent),
        standard_error=_shifted(error, exponent),
    )


def paired_bootstrap(
    differences: Floats, margin: float, alpha: float, resamples: int, seed: bytes
) -> Equivalence:
    """Test by a bootstrap whether the mean of *differences* is within *margin*.

    The p-values are ``(1 + resampled means at or beyond the margin) / (resamples + 1)``: at most
    alpha where the percentile interval of level 1 - 2 alpha is inside the margin.

    The draws are fixed by *seed*, a big-endian integer: example ``floor(n * (r >> 11) / 2^53)`` for
    each 64-bit output ``r`` of ``numpy.random.PCG64(seed)`` in turn, resample after resample. (NEP
    19 keeps that stream; it does not keep those of ``Generator``'s methods.)

    Raises:
        UsageError: a number is outside its range, or the draws are more than ``MAX_DRAWS``.
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
    scaled, exponent = _scaled(differences)
    means = np.sort(_resampled_means(scaled, resamples, seed))
    within = _shifted(margin, -exponent)
    outside = math.floor(alpha * (resamples + 1))
    interval = None
    if outside:
        low, high = float(means[outside - 1]), float(means[resamples - outside])
        interval = (_shifted(low, exponent), _shifted(high, exponent))
    return Equivalence(
        examples=scaled.size,
        lower=(1 + int(np.count_nonzero(means <= -within))) / (resamples + 1),
        upper=(1 + int(np.count_nonzero(means >= within))) / (resamples + 1),
        mean=_shifted(_sum(scaled, np.positive) / scaled.size, exponent),
        standard_error=_shifted(float(np.std(means)), exponent),
        interval=interval,
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return *p_values*, each adjusted for their number by Holm's step-down procedure.

    Raises:
        UsageError: one is not a probability.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise UsageError("a p-value is not between 0 and 1")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    ranked = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(ranked):
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
        return Equivalence(count, 1.0, 1.0, note="not-finite")
    if count < 2:  # noqa: PLR2004 - no variance can be told from one
        return Equivalence(count, 1.0, 1.0, note="too-few")
    value = float(differences[0])
    if (differences != value).any():
        return None
    return Equivalence(
        examples=count,
        lower=least if value > -margin else 1.0,
        upper=least if value < margin else 1.0,
        mean=value,
        standard_error=0.0,
        note="zero-variance",
    )


def _scaled(differences: Floats) -> tuple[Floats, int]:
    """Return *differences* over a power of two, the largest from 1/2 to 1, and its exponent."""
    exponent = math.frexp(float(np.max(np.abs(differences))))[1]
    return np.ldexp(differences, -exponent), exponent


def _shifted(value: float, exponent: int) -> float:
    """Return ``value * 2^exponent``, infinite beyond float64."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def _sum(values: Floats, function: Callable[[Floats], Floats]) -> float:
    """Return the sum of *function* of *values*, rounded once."""
    starts = range(0, values.size, _BLOCK)
    blocks = (function(values[start : start + _BLOCK]).tolist() for start in starts)
    return math.fsum(chain.from_iterable(blocks))


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
