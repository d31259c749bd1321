"""A count of bytes on stderr for what takes more than a second; nothing where it is no terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE_SECONDS, INTERVAL_SECONDS = 1.0, 0.2
"""How long a user waits before something is shown, and how often it is drawn again."""

_ERASE_LINE = "\r\x1b[K"


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None] | None]:
    """Give a function to call with the number of bytes done; None where nobody looks."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    began = drawn = time.monotonic()
    done = 0
    lock = threading.Lock()

    def advance(count: int) -> None:
        nonlocal done, drawn
        with lock:
            done += count
            now = time.monotonic()
            if now - began < PATIENCE_SECONDS or now - drawn < INTERVAL_SECONDS:
                return
            drawn = now
            rate = done / 1e6 / (now - began)
            sys.stderr.write(f"{_ERASE_LINE}{what}: {done / 1e9:,.2f} GB, {rate:,.0f} MB/s")
            sys.stderr.flush()

    try:
        yield advance
    finally:
        if drawn != began:
            sys.stderr.write(_ERASE_LINE)
            sys.stderr.flush()
