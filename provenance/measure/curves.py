"""Two curves of a training, such as its loss: the same points for a while, and the same end.

Honest rebuilds follow each other for some steps and then drift apart chaotically. So points are
compared one by one up to the first that differs, and after it only the mean of the last ones.

- Two points of one step agree where ``|l - l'| / max(|l|, |l'|)``, which is 0 where both are 0, is
  within the limit. Steps are walked in order; a step that only one side has is a divergence.
- Curves over different steps have no end to compare: otherwise a curve that was shifted, cut or
  logged at other steps could pass on its beginning alone. Steps must increase; if not, the training
  was restarted.
- NaN and infinities agree with nothing, themselves included.
- The end is the mean of the last points: a median would hide what happens to fewer than half.

There is no dynamic time warping or correlation: they hide shifts and restarts. **Anybody can write
down a curve**, so findings here corroborate and prove nothing.

Ratios have a relative error below :data:`~provenance.measure.squares.RELATIVE_ERROR`, which a test
of a limit adds first. :mod:`~provenance.measure.curve_files` reads curves from files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from provenance.errors import UsageError
from provenance.measure.squares import at_most


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one metric, in the order in which they were written."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def increasing(self) -> bool:
        """Whether every step is after the one before."""
        return all(first < second for first, second in pairwise(self.steps))


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first point at which two curves do not agree."""

    index: int
    """How many steps of either side come before it."""
    step: int
    left: float | None
    right: float | None
    """None where that side has no such step."""


@dataclass(frozen=True, slots=True)
class CurveDistance:
    """How far two curves are apart."""

    agreed: int = 0
    """Points that agree before the first that does not."""
    divergence: Divergence | None = None
    """None where all agree."""
    largest: float | None = None
    """The largest relative difference over the common steps."""
    largest_step: int | None = None
    """The first step with that difference; None where it is 0."""
    terminal: float | None = None
    """The relative difference of the means of the last points, or of all where there are fewer."""
    notes: tuple[str, ...] = ()
    """Why a number is absent: words of :data:`~provenance.measure.findings.NOTES`."""


def measure_curves(left: Curve, right: Curve, pointwise: float, window: int) -> CurveDistance:
    """Return how far *left* and *right* are apart, and for how long they agree.

    *pointwise* is the largest relative difference of two points that agree, *window* how many last
    points are averaged. An absent number never meets a limit.
    """
    if not 0 <= pointwise < math.inf or window < 1:
        raise UsageError("a limit is a number from 0 up, and a window has a point or more")
    if not (left.increasing and right.increasing):
        return CurveDistance(notes=("steps-not-increasing",))
    common = agreed = 0
    alone, divergence = False, None
    largest, largest_step = 0.0, None
    first, second = (dict(zip(it.steps, it.values, strict=True)) for it in (left, right))
    for index, step in enumerate(sorted(first.keys() | second.keys())):
        a, b, apart = first.get(step), second.get(step), math.nan
        if a is None or b is None:
            alone = True
        else:
            common += 1
            apart = relative_difference(a, b)
            if apart > largest:
                largest, largest_step = apart, step
        if divergence is None and at_most(apart, pointwise):
            agreed += 1
        elif divergence is None:
            divergence = Divergence(index, step, a, b)
    finite = all(map(math.isfinite, (*left.values, *right.values)))
    found = {"empty": not common, "steps-differ": alone, "not-finite": not finite}
    notes = tuple(word for word, is_so in found.items() if is_so)
    used = min(window, common)
    return CurveDistance(
        agreed=agreed,
        divergence=divergence,
        largest=largest if finite and common else None,
        largest_step=largest_step if finite else None,
        terminal=None if notes else _terminal(left.values[-used:], right.values[-used:]),
        notes=notes,
    )


def relative_difference(a: float, b: float) -> float:
    """Return ``|a - b| / max(|a|, |b|)``, from 0 to 2; NaN where one is not finite."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.nan
    if a == b:
        return 0.0
    apart, size = abs(a - b), max(abs(a), abs(b))
    return apart / size if apart < math.inf else abs(a / 2 - b / 2) / (size / 2)


def _terminal(left: Sequence[float], right: Sequence[float]) -> float:
    # Both sides have as many points, so their sums have the ratio of their means.
    try:
        sums = [math.fsum(side) for side in (left, right)]
    except OverflowError:
        sums = [math.fsum(value / (2 * len(side)) for value in side) for side in (left, right)]
    return relative_difference(*sums)
