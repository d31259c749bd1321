"""Lines for other libraries' scripts that tell the run what the library knows (``docs/api.md``).

- ``huggingface``: a callback for the ``Trainer`` of transformers.
- ``lightning``: a callback for Lightning, added to every ``Trainer`` if a variable asks for it.
- ``mlflow``: tags by which a run of MLflow names the claim.

Each is imported only where it is asked for, reports to :func:`~provenance.capture.run.current_run`,
does nothing outside a recorder, and never raises into the training.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any


def quietly(hook: Callable[..., Any]) -> Callable[..., None]:
    """Return *hook* without its errors: a library of another version may lack what it asks."""

    @functools.wraps(hook)
    def call(*arguments: Any, **named: Any) -> None:
        with contextlib.suppress(Exception):
            hook(*arguments, **named)

    return call
