"""What a training statement recorded of the training: its metrics, with their digest checked."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from provenance.encoding import strict_base64
from provenance.errors import MalformedError, UnreadableError
from provenance.files.names import BYPRODUCTS
from provenance.files.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.statement.training import TrainingStatement

METRICS: Final = "metrics"
"""The name of the byproduct that holds the metrics (docs/spec/training.md)."""

MAX_BYTES: Final = 256 * 2**20
"""Most that a recorder writes of metrics, in bytes."""


def recorded_metrics(root: Path, training: TrainingStatement) -> bytes | None:
    """Return the metrics that *training*, about the model in *root*, states: JSON lines.

    None where it states none, or where the file beside the weights is missing or another: it is
    not part of the model, and whoever copies the weights may leave it out.
    """
    for item in training.run.byproducts:
        sha256 = item.digest.get("sha256", "")
        if item.name != METRICS or not sha256:
            continue
        try:
            data = (
                strict_base64.parse(item.content)
                if item.content
                else read_file(root / BYPRODUCTS / sha256, MAX_BYTES, follow=False)
            )
        except (MalformedError, UnreadableError):
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None
    return None
