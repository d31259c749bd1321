"""The outputs of two models on the same probes: how far apart, and how often another answer.

The first axis of an array counts probes. The last axis of ``logits`` and ``probabilities`` holds
the classes, two or more: each row of classes is a distribution, and axes between are positions
within a probe. ``values`` have no classes. Arrays are streamed in blocks of rows, so memory is
bounded by ``MAX_CLASSES``, not by the file.

Measures, all symmetric:

- ``|left - right|``: maximum, with its first place, and mean. Elements are widened to float64
  exactly, differences rounded once, and the blocks' sums added exactly;
- the Kullback-Leibler divergence of each row in nats, the larger of both directions: mean over the
  rows. Logits go through log-softmax in float64, less the row's maximum, so nothing overflows.
  Given probabilities must be a distribution, and are divided by their sum. The absolute error is
  below ``KL_ERROR * (1 + divergence)``;
- top-1 disagreements: *probes* in which, for any position, the sets of classes that share the
  largest value differ: a tie agrees only with the same tie. Positions of one probe depend on each
  other, so a bound of the rate (:func:`~provenance.measure.statistics.disagreement_bound`) counts
  probes;
- of integers and booleans (class ids) only how many probes and elements differ.

Rows of equal bits are 0 everywhere, and agree. Where NaN or infinity differs from its counterpart,
only counts are left. An absent number never meets a limit; ``notes`` says why it is absent, with a
word of :data:`~provenance.measure.findings.NOTES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from provenance.errors import UsageError
from provenance.measure.distances import check_arithmetic
from provenance.measure.findings import NOTES
from provenance.measure.pieces import place_in
from provenance.measure.squares import Bits, Floats, total, widened
from provenance.weights.dtypes import NUMPY, codes
from provenance.weights.view import TensorFile, TensorInfo, regrouped

Kind = Literal["logits", "probabilities", "values"]

MAX_CLASSES: Final = 2**20
"""Most classes: four times the largest published vocabulary (262,144). A row of them takes 8 MiB
for each of about a dozen arrays."""

BLOCK: Final = 2**16
"""Elements measured together, or one row where it is longer."""

KL_ERROR: Final = 2.0**-40
"""Bound of the error of a divergence, as a part of 1 + the divergence: the error of pairwise sums
over ``MAX_CLASSES`` classes and of log and exp, with room to spare."""

SUM_TOLERANCE: Final = 2.0**-10
"""How far from 1 the probabilities of a row may add up to: twice the rounding of F16; for F32, room
for a softmax in F32 over the largest vocabularies."""

SUM_TOLERANCE_BF16: Final = 2.0**-8
"""The same for BF16: twice its rounding."""

_READ: Final = 2**16
"""Elements asked of a file at once; a multiple of ``CHUNK_UNIT``."""

_FOLD: Final = 4096
"""Sums kept before they are added up."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """How far the outputs of two models are apart."""

    name: str
    kind: Kind
    probes: int
    differing: int
    """Elements whose bits differ."""
    not_finite: int
    """Elements whose bits differ and of which one side is NaN or infinite."""
    max_difference: float | None = None
    max_place: tuple[int, ...] | None = None
    """Index of the first element with that difference; None where it is 0."""
    mean_difference: float | None = None
    kl_mean: float | None = None
    """In nats, over all rows; None for values."""
    disagreements: int | None = None
    """Probes with another answer; None for values that are no integers."""
    notes: tuple[str, ...] = ()


def measure_outputs(name: str, left: TensorFile, right: TensorFile, kind: Kind) -> Outputs:
    """Return how far the arrays *name* of *left* and *right* are apart.

    UsageError: they differ in type or shape, or *kind* does not allow these.
    """
    info = left.tensors[name]
    if not info.is_like(right.tensors[name]):
        raise UsageError("outputs of two types or shapes have no distance", where=name)
    _check_kind(info, kind)
    if info.elements == 0:
        return Outputs(name, kind, info.shape[0], 0, 0, notes=("empty",))
    check_arithmetic()
    meter = _Meter(info, kind)
    step = max(1, BLOCK // meter.classes) * meter.classes
    part, size = (0, info.nbytes), info.dtype.nbytes(step)
    sides = (regrouped(file.chunks(name, _READ), part, size) for file in (left, right))
    with np.errstate(all="ignore"):
        for number, (mine, theirs) in enumerate(zip(*sides, strict=True)):
            meter.add(number * step, mine, theirs)
    return meter.measured()


def _check_kind(info: TensorInfo, kind: Kind) -> None:
    if not info.shape:
        raise UsageError("an array of outputs has a first axis, the probes", where=info.name)
    dtype = info.dtype
    if dtype.kind == "complex" or not (dtype.kind == "float" or dtype.name in NUMPY):
        raise UsageError(f"outputs of the type {dtype.name} cannot be measured", where=info.name)
    if kind == "values":
        return
    if dtype.kind == "exact":
        raise UsageError(f"{kind} are floats, not {dtype.name}", where=info.name)
    if len(info.shape) < 2 or info.shape[-1] == 1:  # noqa: PLR2004
        # The softmax of one class is 1, whatever the model says.
        raise UsageError(f"{kind} have a last axis of two classes or more", where=info.name)
    if info.shape[-1] > MAX_CLASSES:
        raise UsageError(f"more than {MAX_CLASSES} classes", where=info.name)


class _Probes:
    """Counts the probes, *width* places each, that hold any of the places, which come in order."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._last = -1
        self.count = 0

    def add(self, places: NDArray[np.intp]) -> None:
        found = np.unique(places // self._width)
        if found.size:
            self.count += found.size - (int(found[0]) == self._last)
            self._last = int(found[-1])


class _Total:
    """A sum of numbers that are not negative, added exactly from time to time."""

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, parts: list[float]) -> None:
        self._parts.extend(parts)
        if len(self._parts) > _FOLD:
            self._parts = [self.value()]

    def value(self) -> float:
        return total(self._parts)


class _Meter:
    """The running measures of one pair of arrays."""

    def __init__(self, info: TensorInfo, kind: Kind) -> None:
        self.classes = 1 if kind == "values" else info.shape[-1]
        self._info, self._kind = info, kind
        self._rows = None if kind == "values" else _Rows(info, kind)
        self._probes = _Probes(info.elements // info.shape[0])  # of integers and booleans
        self._differing = self._not_finite = 0
        self._sum = _Total()
        self._largest = 0.0
        self._place: int | None = None

    def add(self, start: int, left: memoryview, right: memoryview) -> None:
        """Add a block of whole rows, whose first element is at *start*."""
        dtype = self._info.dtype
        unequal: Bits = codes(left, dtype) != codes(right, dtype)
        differing = int(np.count_nonzero(unequal))
        self._differing += differing
        if dtype.kind == "exact":
            self._probes.add(np.flatnonzero(unequal) + start)
            return
        a, b = widened(left, dtype), widened(right, dtype)
        if differing:
            apart = np.abs(a - b)
            apart[~unequal] = 0  # infinity less itself is NaN
            endless = unequal & ~(np.isfinite(a) & np.isfinite(b))
            self._not_finite += int(np.count_nonzero(endless))
            apart[endless] = 0
            place = int(np.argmax(apart))
            if apart[place] > self._largest:
                self._largest, self._place = float(apart[place]), start + place
            self._sum.add([float(np.add.reduce(apart))])
        if self._rows is not None:
            self._rows.add(start, a, b, unequal)

    def measured(self) -> Outputs:
        """Return the measures of all blocks."""
        info, rows = self._info, self._rows
        found = partial(
            Outputs, info.name, self._kind, info.shape[0], self._differing, self._not_finite
        )
        exact = info.dtype.kind == "exact"
        if exact and self._differing:
            return found(disagreements=self._probes.count, notes=("exact-type",))
        notes = [] if rows is None else rows.notes()
        if self._not_finite:
            return found(notes=tuple(word for word in NOTES if word in ("not-finite", *notes)))
        largest, added = self._largest, self._sum.value()
        if not (math.isfinite(largest) and math.isfinite(added)):
            notes.append("overflow")
        kl_mean, disagreements = None, 0 if exact else None
        if rows is not None and not (rows.undefined or rows.improper):
            kl_mean = _finite(rows.kl_sum.value() / rows.count)
            disagreements = rows.answers.count
        return found(
            max_difference=_finite(largest),
            max_place=place_in(info.shape, self._place),
            mean_difference=_finite(added / info.elements),
            kl_mean=kl_mean,
            disagreements=disagreements,
            notes=tuple(word for word in NOTES if word in notes),
        )


class _Rows:
    """The running measures of rows of classes."""

    def __init__(self, info: TensorInfo, kind: Kind) -> None:
        self._shape = (-1, info.shape[-1])
        self._given = kind == "probabilities"
        self._tolerance = SUM_TOLERANCE_BF16 if info.dtype.name == "BF16" else SUM_TOLERANCE
        self.count = info.elements // info.shape[-1]
        self.answers = _Probes(self.count // info.shape[0])
        self.kl_sum = _Total()
        self.undefined = False
        """A row that differs has no softmax."""
        self.improper = False
        """A row is not a distribution."""

    def add(self, start: int, a: Floats, b: Floats, unequal: Bits) -> None:
        a, b = a.reshape(self._shape), b.reshape(self._shape)
        self.improper |= self._given and not (self._proper(a) and self._proper(b))
        changed = np.flatnonzero(unequal.reshape(self._shape).any(axis=1))
        if self.improper or not changed.size:
            return
        a, b = a[changed], b[changed]
        tops = np.max(a, axis=1, keepdims=True), np.max(b, axis=1, keepdims=True)
        if not (np.isfinite(tops[0]).all() and np.isfinite(tops[1]).all()):
            self.undefined = True
            return
        others = changed[((a == tops[0]) != (b == tops[1])).any(axis=1)]
        self.answers.add(others + start // self._shape[1])
        self.kl_sum.add(_divergence(self._logs(a, tops[0]), self._logs(b, tops[1])).tolist())

    def _logs(self, rows: Floats, tops: Floats) -> Floats:
        if self._given:
            return np.log(rows / np.add.reduce(rows, axis=1, keepdims=True))
        shifted = rows - tops
        return shifted - np.log(np.add.reduce(np.exp(shifted), axis=1, keepdims=True))

    def _proper(self, rows: Floats) -> bool:
        """Tell whether every row is a distribution; NaN fails both tests."""
        sums = np.add.reduce(rows, axis=1)
        return bool((rows >= 0).all() and (np.abs(sums - 1) <= self._tolerance).all())

    def notes(self) -> list[str]:
        notes = ["not-a-distribution"] * self.improper + ["not-finite"] * self.undefined
        return notes or ["infinite-divergence"] * (self.kl_sum.value() == math.inf)


def _divergence(p: Floats, q: Floats) -> Floats:
    """Return for each row of log-probabilities the larger divergence of both directions."""
    directions = []
    for one, other in ((p, q), (q, p)):
        parts = np.exp(one)
        terms = parts * (one - other)
        terms[parts == 0] = 0  # 0 ln 0 is 0
        directions.append(np.add.reduce(terms, axis=1))
    larger: Floats = np.maximum(directions[0], directions[1])
    return np.maximum(larger, 0.0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
