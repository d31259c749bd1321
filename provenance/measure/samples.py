"""The scores of two models on the same examples: is their mean the same, and how many changed.

A metric is an array of one axis, one score for each example, in the same order on both sides:
integers, booleans or floats. The mean of the paired differences, left less right, is tested
(:mod:`~provenance.measure.statistics`); the p-value is the same when the sides are exchanged.

Where every score on both sides is 0 or 1, the answers that changed are counted too, for means can
be equal while every answer changed. (Measured: two honest rebuilds of equal accuracy, 0.4305, gave
other predictions for 39.7 % of the examples.) Where a score is NaN or infinite on either side, or
an integer beyond 2^53, p is 1.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from provenance.equality.rules import Metrics
from provenance.errors import MalformedError, UsageError
from provenance.measure.squares import Floats, total, widened
from provenance.measure.statistics import Equivalence, disagreement_bound, paired_bootstrap, tost
from provenance.weights.dtypes import NUMPY, DType
from provenance.weights.view import TensorFile, TensorInfo

MAX_EXAMPLES: Final = 2**24
"""Most examples of one metric: their differences take 128 MiB."""

BLOCK: Final = 2**16
"""Examples read together."""

_EXACT: Final = 2.0**53
"""Beyond it float64 leaves out integers."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of two models."""

    name: str
    examples: int
    left_mean: float | None
    right_mean: float | None
    """None without examples, or where a score is not finite."""
    test: Equivalence
    changed: int | None
    """Examples with another answer, where every score is 0 or 1."""
    churn_bound: float | None
    """Upper bound of their rate in the population."""


def measure_metric(name: str, left: TensorFile, right: TensorFile, rule: Metrics) -> Metric:
    """Return how the scores *name* of *left* and *right* compare by the test of *rule*.

    UsageError: the arrays do not hold scores that can be paired.
    """
    info = left.tensors[name]
    _check_scores(info, right.tensors[name])
    scores = _Scores(info)
    with np.errstate(all="ignore"):
        for mine, theirs in zip(left.chunks(name, BLOCK), right.chunks(name, BLOCK), strict=True):
            scores.add(mine, theirs)
        given = scores.differences, rule.margin
        if rule.test == "tost":
            result = tost(*given)
        else:
            result = paired_bootstrap(*given, rule.alpha, rule.resamples, scores.seed())
    changed = bound = None
    if scores.binary and info.elements:
        changed = scores.changed
        bound = disagreement_bound(changed, info.elements, 1 - rule.alpha)
    return Metric(name, info.elements, scores.mean(0), scores.mean(1), result, changed, bound)


def _check_scores(info: TensorInfo, other: TensorInfo) -> None:
    if not info.is_like(other):
        raise UsageError("scores of two types or lengths are not paired", where=info.name)
    if len(info.shape) != 1:
        raise UsageError("a metric has one axis, the examples", where=info.name)
    if info.elements > MAX_EXAMPLES:
        raise UsageError(f"more than {MAX_EXAMPLES} examples", where=info.name)
    if info.dtype.kind == "complex" or not (info.dtype.kind == "float" or info.dtype.name in NUMPY):
        raise UsageError(f"the type {info.dtype.name} holds no scores", where=info.name)


class _Scores:
    """What is kept of a metric's scores while they are read."""

    def __init__(self, info: TensorInfo) -> None:
        self._info = info
        self._done = 0
        self._sums: tuple[list[float], list[float]] = ([], [])
        self._hashes = (hashlib.sha256(), hashlib.sha256())
        self.differences: Floats = np.empty(info.elements)
        self.binary = True
        self.changed = 0

    def add(self, left: memoryview, right: memoryview) -> None:
        sides = []
        for raw, sums, hasher in zip((left, right), self._sums, self._hashes, strict=True):
            hasher.update(raw)
            values = _scores(raw, self._info.dtype, self._info.name)
            sums.append(total(values.data) if np.isfinite(values).all() else math.nan)
            sides.append(values)
        a, b = sides
        part = self.differences[self._done : self._done + a.size]
        np.subtract(a, b, out=part)
        self._done += a.size
        if self.binary:
            self.binary = all(bool(((side == 0) | (side == 1)).all()) for side in sides)
            self.changed += int(np.count_nonzero(part))

    def mean(self, side: int) -> float | None:
        """Return the mean of the left (0) or right (1) scores."""
        added = total(self._sums[side])
        return added / self._done if self._done and math.isfinite(added) else None

    def seed(self) -> bytes:
        """Return a seed that is the same when the sides are exchanged."""
        return hashlib.sha256(b"".join(sorted(hasher.digest() for hasher in self._hashes))).digest()


def _scores(raw: memoryview, dtype: DType, where: str) -> Floats:
    """Return *raw* as float64; integers that it leaves out are NaN."""
    if dtype.kind == "float":
        return widened(raw, dtype)
    integers = np.frombuffer(raw, "|u1" if dtype.name == "BOOL" else NUMPY[dtype.name])
    if dtype.name == "BOOL" and integers.size and integers.max() > 1:
        raise MalformedError("a boolean is neither 0 nor 1", where=where)
    values = integers.astype(np.float64)
    values[np.abs(values) >= _EXACT] = np.nan
    return values
