"""The start of every process of :mod:`~provenance.weights.isolated`: its limits, then its script.

A program of its own that imports nothing of ours. Arguments are the limits (processor seconds,
bytes of memory, bytes of answer), the script, and the script's own.

Its standard input is a pipe whose other end the caller holds and never writes to: when the caller
ends, in whatever way, the pipe closes, and this process ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import runpy
import sys
import threading


def limit(seconds: int, memory: int, answer: int) -> None:
    """Limit what this process may use."""
    for kind, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, answer),
    ):
        with contextlib.suppress(OSError, ValueError):  # macOS has no limit of address space
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def end_with_the_caller() -> None:
    """End this process when its standard input closes."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    # A library may hold Python's lock for minutes, and no thread of ours then runs. On Linux the
    # kernel sends SIGIO as well, which ends a process that has no handler; macOS ignores it.
    with contextlib.suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=wait, daemon=True).start()  # after that: the pipe may be closed by now


def main(arguments: list[str]) -> None:
    """Run the script that the fourth of *arguments* names."""
    seconds, memory, answer = map(int, arguments[:3])
    end_with_the_caller()
    limit(seconds, memory, answer)
    sys.argv = arguments[3:]
    runpy.run_path(arguments[3], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
