"""Metrics as a recorder keeps them: one JSON object (JCS) a line.

As ``{"name":"loss","rank":1,"step":10,"value":0.25}``; ``step`` may be absent; ``rank`` is
where there is one process alone, and ``restart`` unless all processes were started again. The order
is by rank, then by restart, then that of writing. They are the byproduct ``metrics`` of a training
statement (``docs/spec/training.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError

BYPRODUCT: Final = "metrics"
"""The name of the byproduct."""

MAX_BYTES: Final = 256 * 2**20
"""Most that a recorder keeps, and a reader reads, in bytes: about four million metrics."""


class Metric(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value of one metric."""

    name: str
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    """A text where JSON has no number."""
    step: int | None = None
    rank: Annotated[int, msgspec.Meta(ge=0)] | None = None
    restart: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def number(self) -> float:
        """The value as a float."""
        return float(self.value)


def format_metric(metric: Metric) -> bytes:
    """Return the line of *metric*."""
    return strict_json.format(metric) + b"\n"


def parse_metrics(data: bytes, where: str) -> Iterator[tuple[str, Metric]]:
    """Yield the metrics in *data*, each with its place (file and line)."""
    if len(data) > MAX_BYTES:
        raise MalformedError(f"longer than {MAX_BYTES} bytes", where=where)
    if data and not data.endswith(b"\n"):
        raise MalformedError("the last line has no newline: the file is truncated", where=where)
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        place = f"{where}:{number}"
        record = strict_json.parse(line, where=place, max_depth=1)
        yield place, strict_json.convert(record, Metric, where=place, what="a metric")


def is_metric(document: Any) -> bool:  # noqa: ANN401 - a JSON value
    """Tell whether a JSON value has the fields of a metric."""
    return isinstance(document, dict) and (
        {"name", "value"} <= document.keys() <= set(Metric.__struct_fields__)
    )
