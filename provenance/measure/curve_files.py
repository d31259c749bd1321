"""Curves in files: three forms, each read strictly and within bounds.

- **JSON lines** as this package records them (:mod:`provenance.statement.metrics`). A metric may
  leave out ``step`` in all of its records: these are then steps 0, 1, 2, and so on.
- **CSV** with a header (RFC 4180), as Lightning's ``CSVLogger`` writes ``metrics.csv``: the column
  ``step``, or ``epoch`` where there is none, holds an integer in every row; every other column is a
  curve, an empty cell no point. Numbers are decimal, or ``nan``, ``inf`` and ``-inf``.
- **trainer_state.json** of Hugging Face Transformers: the objects of the list ``log_history``,
  each with an integer ``step``. Python's ``json`` writes it, so ``NaN`` and ``Infinity`` may stand
  there.

``step`` and ``epoch`` are coordinates, never curves. In CSV and ``trainer_state.json``, a name with
a value that is not a number (a text, a list, a truth value) is not a curve, and is missing where a
rule asks for it. Whether steps increase is for :mod:`~provenance.measure.curves` to say.

Limits: 256 MiB, four million points, 4,096 names of at most 256 bytes; steps up to 2^53 - 1.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import PurePosixPath
from typing import Any, Final

from provenance.equality.rules import MAX_POINTS
from provenance.errors import MalformedError, UnreadableError
from provenance.measure.curves import Curve
from provenance.statement.metrics import MAX_BYTES, parse_metrics

MAX_NAMES: Final = 4096
"""Most curves in a file."""

MAX_NAME_BYTES: Final = 256
"""Longest name, in bytes: that of a recorded metric."""

MAX_STEP: Final = 2**53 - 1
"""Largest magnitude of a step: what JSON keeps exactly."""

_MAX_VALUES: Final = 2_500_000
"""Most JSON values of a trainer state: a million points, each an object of a step and a number, and
room for what stands beside the log."""

_COORDINATES: Final = ("step", "epoch")

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|-?inf")
_MAX_DIGITS: Final = 400
"""Longest number read, in characters: every float64 has a shorter spelling."""


def parse_curves(name: str, data: bytes) -> dict[str, Curve]:
    """Return the curves in *data* by name; the file's *name* tells the form."""
    file = PurePosixPath(name.lower())
    if file.name == "trainer_state.json":
        return parse_trainer_state(data, name)
    parse = {".jsonl": parse_records, ".csv": parse_csv}.get(file.suffix)
    if parse is None:
        raise UnreadableError(
            "its curves cannot be read by this version",
            where=name,
            hint="*.jsonl, *.csv and trainer_state.json can",
        )
    return parse(data, name)


def parse_records(data: bytes, where: str) -> dict[str, Curve]:
    """Return the curves in JSON lines, the form of our own records."""
    points = _Points(where)
    stepless: dict[str, bool] = {}
    for place, metric in parse_metrics(data, where):
        name, step = metric.name, metric.step
        if stepless.setdefault(name, step is None) != (step is None):
            raise MalformedError("a metric has a step in every record or in none", where=place)
        points.add(name, points.count(name) if step is None else step, metric.number)
    return points.curves()


def parse_csv(data: bytes, where: str) -> dict[str, Curve]:
    """Return the curves in a CSV file with a header."""
    text = _text(data, where)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(rows, [])
        if len(set(header)) != len(header):
            raise MalformedError("two columns have one name", where=where)
        clock = next((name for name in _COORDINATES if name in header), None)
        if clock is None:
            raise MalformedError("no column is called 'step' or 'epoch'", where=where)
        points = _Points(where)
        for cells in rows:
            place = f"{where}:{rows.line_num}"
            if len(cells) != len(header):
                raise MalformedError("not as many cells as the header has", where=place)
            row = dict(zip(header, cells, strict=True))
            if not _INTEGER.fullmatch(row[clock]):
                raise MalformedError(f"the {clock} is not an integer", where=place)
            for name, cell in row.items():
                if cell and name not in _COORDINATES:
                    points.add(name, int(row[clock]), _decimal(cell))
    except csv.Error as error:
        raise MalformedError(f"not CSV: {error}", where=where) from error
    return points.curves()


def parse_trainer_state(data: bytes, where: str) -> dict[str, Curve]:
    """Return the curves in a ``trainer_state.json`` of Hugging Face Transformers."""
    state = _parse_python_json(_text(data, where), where)
    log = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(log, list):
        raise MalformedError("has no list 'log_history'", where=where)
    points = _Points(where)
    for number, entry in enumerate(log):
        place = f"{where}: log_history/{number}"
        step = entry.get("step") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or type(step) is not int:
            raise MalformedError("an entry is an object with an integer 'step'", where=place)
        for name, value in entry.items():
            if name not in _COORDINATES:
                points.add(name, step, _number(value))
    return points.curves()


class _Points:
    """The points read so far, by name."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._total = 0
        self._points: dict[str, tuple[list[int], list[float]]] = {}
        self._not_numbers: set[str] = set()

    def count(self, name: str) -> int:
        """Return how many points the curve *name* has."""
        return len(self._points[name][0]) if name in self._points else 0

    def add(self, name: str, step: int, value: float | None) -> None:
        """Add a point; *name* is not a curve where a *value* is None, not a number."""
        if name not in self._points:
            self._check_name(name)
            self._points[name] = ([], [])
        if not -MAX_STEP <= step <= MAX_STEP:
            raise MalformedError(f"a step of {name!r} is beyond 2^53 - 1", where=self._where)
        self._total += 1
        if self._total > MAX_POINTS:
            raise MalformedError(f"more than {MAX_POINTS} points", where=self._where)
        if value is None:
            self._not_numbers.add(name)
            return
        steps, values = self._points[name]
        steps.append(step)
        values.append(value)

    def _check_name(self, name: str) -> None:
        if len(self._points) == MAX_NAMES:
            raise MalformedError(f"more than {MAX_NAMES} names", where=self._where)
        # What is printable has no lone surrogate and can be encoded.
        if not name.isprintable() or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            raise MalformedError(f"{name!r} is not the name of a curve", where=self._where)

    def curves(self) -> dict[str, Curve]:
        """Return the curves."""
        return {
            name: Curve(name, tuple(steps), tuple(values))
            for name, (steps, values) in self._points.items()
            if name not in self._not_numbers
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
        raise MalformedError("a key stands twice in one object")
    return result


def _integer(spelling: str) -> int:
    if len(spelling) > _MAX_DIGITS:
        raise MalformedError("an integer is too long")
    return int(spelling)
