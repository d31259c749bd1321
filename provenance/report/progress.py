"""A progress bar on stderr for what takes more than a second.

Nothing is drawn where stderr is not a terminal, and rich is imported only when a bar is.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

PATIENCE_SECONDS = 1.0
"""How long a user waits before a bar says that something happens."""


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None] | None]:
    """Give a function to call with the number of bytes done; None where nobody looks."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bar = _LateBar(what)
    try:
        yield bar.advance
    finally:
        bar.close()


class _LateBar:
    """A count of bytes that becomes a visible bar after :data:`PATIENCE_SECONDS`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._done = 0
        self._bar: Progress | None = None
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._bar is None and time.monotonic() - self._began > PATIENCE_SECONDS:
                self._bar = _open_bar(self._what)
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _open_bar(what: str) -> Progress:
    from rich.console import Console  # noqa: PLC0415 - 50 ms that most calls never need
    from rich.progress import (  # noqa: PLC0415
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        SpinnerColumn(),
        TextColumn(what),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task(what, total=None)
    bar.start()
    return bar
