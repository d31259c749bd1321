"""Metrics as a recorder keeps them: one JSON object (JCS) a line, in the order of writing.

As ``{"name":"loss","step":10,"value":0.25}``; ``step`` may be absent. They are the byproduct
``metrics`` of a training statement (``docs/spec/training.md``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError

BYPRODUCT: Final = "metrics"
"""The name of the byproduct."""

MAX_BYTES: Final = 256 * 2**20
"""Most that a recorder keeps, and a reader reads, in bytes: about four million metrics."""

NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The values that JSON cannot hold, by their texts."""


class Metric(msgspec.Struct, frozen=True):
    """A value of one metric."""

    name: str
    value: float | str
    """A number, or one of the texts of ``NOT_FINITE``."""
    step: int | None = None

    @property
    def number(self) -> float:
        """The value as a float."""
        return NOT_FINITE[self.value] if isinstance(self.value, str) else float(self.value)


def format_metric(metric: Metric) -> bytes:
    """Return the line of *metric*."""
    record: dict[str, object] = {"name": metric.name, "value": metric.value}
    if metric.step is not None:
        record["step"] = metric.step
    return strict_json.format(record) + b"\n"


def parse_metrics(data: bytes, where: str) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics in *data*, each with its place (file and line)."""
    if len(data) > MAX_BYTES:
        raise MalformedError(f"longer than {MAX_BYTES} bytes", where=where)
    if data and not data.endswith(b"\n"):
        raise MalformedError("the last line has no newline: the file is truncated", where=where)
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        place = f"{where}:{number}"
        yield place, _parse(line, place)


def is_metric(document: Any) -> bool:  # noqa: ANN401 - a JSON value
    """Tell whether a JSON value has the fields of a metric."""
    return isinstance(document, dict) and (
        {"name", "value"} <= document.keys() <= {"name", "step", "value"}
    )


def _parse(line: bytes, place: str) -> Metric:
    record = strict_json.parse(line, where=place, max_depth=1)
    if not is_metric(record):
        raise MalformedError("not a metric: needs a name, a value and perhaps a step", where=place)
    name, value, step = record["name"], record["value"], record.get("step")
    if not isinstance(name, str):
        raise MalformedError("the name of a metric is not a text", where=place)
    if type(value) not in (int, float) and not (isinstance(value, str) and value in NOT_FINITE):
        what = 'the value is not a number, "NaN", "Infinity" or "-Infinity"'
        raise MalformedError(what, where=place)
    if "step" in record and type(step) is not int:
        raise MalformedError("the step is not an integer", where=place)
    return Metric(name, value, step)
