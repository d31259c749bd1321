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
of a limit adds first.

Curves are read from files of three forms, each strictly and within bounds:

- **JSON lines** as this package records them (:mod:`provenance.statement.metrics`). A metric may
  leave out ``step`` in all of its records: these are then steps 0, 1, 2, and so on. Of a metric
  that several ranks recorded, the curve has the values of the first in the file, where the recorder
  puts the lowest; those of rank 1 are the curve ``loss (rank 1)``. After a restart a curve goes on
  at the step at which it was taken up again: what was computed beyond that was thrown away. Without
  steps nobody can tell where that was, so it is no curve.
- **CSV** with a header (RFC 4180), as Lightning's ``CSVLogger`` writes ``metrics.csv``: the column
  ``step``, or ``epoch`` where there is none, holds an integer in every row; every other column is a
  curve, an empty cell no point. Numbers are decimal, or ``nan``, ``inf`` and ``-inf``.
- **trainer_state.json** of Hugging Face Transformers: the objects of the list ``log_history``,
  each with an integer ``step``. Python's ``json`` writes it, so ``NaN`` and ``Infinity`` are read.

``step`` and ``epoch`` are coordinates, never curves. In CSV and ``trainer_state.json``, a name with
a value that is not a number (text, list, boolean) is not a curve, and is missing where a rule asks
for it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Final

from provenance.equality.rules import MAX_POINTS
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.measure.squares import at_most
from provenance.statement.metrics import MAX_BYTES, parse_metrics


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


MAX_NAMES: Final = 4096
"""Most curves in a file."""

MAX_NAME_BYTES: Final = 256 + len(" (rank 1234567)")
"""Longest name, in bytes: that of a recorded metric, with its rank."""

MAX_STEP: Final = 2**53 - 1
"""Largest magnitude of a step: what JSON keeps exactly."""

_MAX_VALUES: Final = 2_500_000
"""Most JSON values of a trainer state: a million points, each an object with a step and a number,
and room for the rest of the file."""

_COORDINATES: Final = ("step", "epoch")

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|-?inf")
_MAX_DIGITS: Final = 400
"""Longest number read, in characters: every float64 has a shorter spelling."""


_Point = tuple[str, int | None, float | None, int]
"""A name, a step (None: the next one), a value (None: not a number), and after which restart."""


def parse_curves(name: str, data: bytes, form: str | None = None) -> dict[str, Curve]:
    """Return the curves in *data* by name; without *form*, a key of ``_FORMS``, *name* tells it."""
    file = PurePosixPath(name.lower())
    points = _FORMS.get(form or (file.name if file.name in _FORMS else file.suffix))
    if points is None:
        raise UnreadableError(
            "its curves cannot be read by this version",
            where=name,
            hint="*.jsonl, *.csv and trainer_state.json can",
        )
    return _curves(points(data, name), name)


def _records(data: bytes, where: str) -> Iterator[_Point]:
    stepless: dict[str, bool] = {}
    ranks: dict[str, int | None] = {}
    for place, metric in parse_metrics(data, where):
        has_none = metric.step is None
        if stepless.setdefault(metric.name, has_none) != has_none:
            raise MalformedError("a metric has a step in every record or in none", where=place)
        of_others = metric.rank != ranks.setdefault(metric.name, metric.rank)
        name = f"{metric.name} (rank {metric.rank})" if of_others else metric.name
        yield name, metric.step, metric.number, metric.restart


def _cells(data: bytes, where: str) -> Iterator[_Point]:
    rows = csv.reader(io.StringIO(_text(data, where), newline=""), strict=True)
    try:
        header = next(rows, [])
        if len(set(header)) != len(header):
            raise MalformedError("two columns have one name", where=where)
        clock = next((name for name in _COORDINATES if name in header), None)
        if clock is None:
            raise MalformedError("no column is called 'step' or 'epoch'", where=where)
        for cells in rows:
            place = f"{where}:{rows.line_num}"
            if len(cells) != len(header):
                raise MalformedError("not as many cells as the header has", where=place)
            row = dict(zip(header, cells, strict=True))
            if not _INTEGER.fullmatch(row[clock]):
                raise MalformedError(f"the {clock} is not an integer", where=place)
            for name, cell in row.items():
                if cell and name not in _COORDINATES:
                    yield name, int(row[clock]), _decimal(cell), 0
    except csv.Error as error:
        raise MalformedError(f"not CSV: {error}", where=where) from error


def _entries(data: bytes, where: str) -> Iterator[_Point]:
    state = _parse_python_json(_text(data, where), where)
    log = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(log, list):
        raise MalformedError("has no list 'log_history'", where=where)
    for number, entry in enumerate(log):
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or type(step) is not int:
            place = f"{where}: log_history/{number}"
            raise MalformedError("an entry is an object with an integer 'step'", where=place)
        for name, value in entry.items():
            if name not in _COORDINATES:
                yield name, step, _number(value), 0


_FORMS: Final[Mapping[str, Callable[[bytes, str], Iterator[_Point]]]] = {
    ".jsonl": _records,
    ".csv": _cells,
    "trainer_state.json": _entries,
}


def _curves(points: Iterable[_Point], where: str) -> dict[str, Curve]:
    """Return the curves of *points*; a name with a value that is not a number is not a curve."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    attempts: dict[str, int] = {}
    not_numbers: set[str] = set()
    for number, (name, step, value, restart) in enumerate(points):
        if name not in found:
            if len(found) == MAX_NAMES:
                raise MalformedError(f"more than {MAX_NAMES} names", where=where)
            # What is printable has no lone surrogate and can be encoded.
            if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
                raise MalformedError(f"{name!r} is not the name of a curve", where=where)
            found[name] = [], []
        steps, values = found[name]
        if restart != attempts.setdefault(name, restart):
            attempts[name] = restart
            going_on = 0 if step is None else bisect_left(steps, step)
            del steps[going_on:], values[going_on:]
            not_numbers.update([name] if step is None else [])
        if step is not None and not -MAX_STEP <= step <= MAX_STEP:
            raise MalformedError(f"a step of {name!r} is beyond 2^53 - 1", where=where)
        if number == MAX_POINTS:
            raise MalformedError(f"more than {MAX_POINTS} points", where=where)
        if value is None:
            not_numbers.add(name)
        else:
            steps.append(len(steps) if step is None else step)
            values.append(value)
    return {
        name: Curve(name, tuple(steps), tuple(values))
        for name, (steps, values) in found.items()
        if name not in not_numbers
    }


def _text(data: bytes, where: str) -> str:
    if len(data) > MAX_BYTES:
        raise MalformedError(f"longer than {MAX_BYTES} bytes", where=where)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error


def _number(value: object) -> float | None:
    """Return a JSON number as float; None: it is not one, or beyond float64."""
    if type(value) not in (int, float):
        return None
    try:
        return float(value)  # type: ignore[arg-type]  # a number
    except OverflowError:
        return None


def _decimal(cell: str) -> float | None:
    """Return the number that *cell* spells; None: it is not one, or beyond float64."""
    if len(cell) > _MAX_DIGITS or not _DECIMAL.fullmatch(cell):
        return None
    number = float(cell)
    return None if math.isinf(number) and not cell.endswith("inf") else number


def _parse_python_json(text: str, where: str) -> Any:  # noqa: ANN401 - a JSON value
    """Return the value that *text* spells, NaN and infinities allowed, no key twice."""
    if sum(map(text.count, ",[{")) >= _MAX_VALUES:  # before any is made
        raise MalformedError(f"more than {_MAX_VALUES} values", where=where)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}", where=where
        ) from error
    except RecursionError as error:
        raise MalformedError("nested too deeply", where=where) from error
    except MalformedError as error:
        raise error.inside(where) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedError("an object with a duplicate key")
    return result


def _integer(spelling: str) -> int:
    if len(spelling) > _MAX_DIGITS:
        raise MalformedError("an integer is too long")
    return int(spelling)
