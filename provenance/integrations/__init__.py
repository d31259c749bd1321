"""Lines for other libraries' scripts that tell the run what the library knows (``docs/api.md``).

- ``huggingface``: a callback for the ``Trainer`` of transformers.
- ``lightning``: a callback for Lightning, added to every ``Trainer`` if a variable asks for it.
- ``mlflow``: tags by which a run of MLflow names the claim.

Each is imported only where it is asked for, reports to :func:`~provenance.capture.run.current_run`,
does nothing outside a recorder, and raises only what a signal's handler raises in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from provenance.capture.run import is_of_signal


def quietly(hook: Callable[..., Any]) -> Callable[..., None]:
    """Return *hook* without its errors: a library of another version may lack what it asks."""

    @functools.wraps(hook)
    def call(*arguments: Any, **named: Any) -> None:
        try:
            hook(*arguments, **named)
        except Exception as error:
            if is_of_signal(error):
                raise

    return call
