"""Prove how a machine-learning model was made.

The command ``provenance`` is the main face. Inside a training program,
:func:`current_run` gives the run that ``provenance record`` wraps::

    import provenance

    run = provenance.current_run()
    run.metric("loss", 0.25, step=10)

Outside the recorder the same calls do nothing, so a program needs no switch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provenance.capture.run import Run

__all__ = ["__version__", "current_run"]

__version__ = "0.1.0"


def current_run() -> Run:
    """Return the run that this process belongs to; outside a recorder, one that keeps nothing."""
    from provenance.capture.run import current_run as current  # noqa: PLC0415 - keeps import light

    return current()
