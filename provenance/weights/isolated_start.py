"""The start of every process of :mod:`~provenance.weights.isolated`, and its side of the protocol.

A program of its own that imports nothing of ours. Arguments are the limits (processor seconds,
bytes of memory, bytes of files), the script, and the script's own.

The script has a generator ``main``, called with its arguments. It yields an answer, a list of
buffers, and is sent the next request. On standard output, a socket, an answer is one byte
(``ANSWER`` or a kind of failure), its length (64 bits, little-endian) and its bytes; a request has
no kind. A failure is the last answer: place and reason, in JSON.

Standard input is a pipe that the caller holds and never writes to: when the caller ends, it closes,
and this process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import runpy
import socket
import struct
import sys
import threading
from typing import Any

ANSWER, MALFORMED, UNREADABLE, MISSING = range(4)
"""MISSING: the package that the script imports."""

MAX_REASON = 2000
"""Longest text of a library that is passed on, in characters."""


def limit(kind: int, value: int) -> None:
    """Limit what this process may use of *kind*."""
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


def send(caller: socket.socket, kind: int, parts: list[Any]) -> None:
    """Send *parts* to the caller."""
    caller.sendall(struct.pack("<BQ", kind, sum(memoryview(part).nbytes for part in parts)))
    for part in parts:
        caller.sendall(part)


def serve(caller: socket.socket, script: str, arguments: list[str], seconds: int) -> None:
    """Answer the caller until it asks for nothing more."""
    try:
        answers = runpy.run_path(script)["main"](arguments)
        request = None
        while True:
            used = resource.getrusage(resource.RUSAGE_SELF)
            limit(resource.RLIMIT_CPU, seconds + int(used.ru_utime + used.ru_stime))
            send(caller, ANSWER, answers.send(request))
            length = caller.recv(8, socket.MSG_WAITALL)
            if not length:
                return
            request = caller.recv(int.from_bytes(length, "little"), socket.MSG_WAITALL)
    except MemoryError:
        kind, reason = UNREADABLE, ("", "takes too much memory to read")
    except ImportError:
        kind, reason = MISSING, ("", "")
    except Exception as error:  # noqa: BLE001 - whatever the library says is about the file
        kind, reason = MALFORMED, ("", f"cannot be read by its library: {error}"[:MAX_REASON])
        if type(error).__name__ == "RefusedError":  # place and reason; and more: it is unreadable
            kind, reason = (UNREADABLE if error.args[2:] else MALFORMED), error.args[:2]
    send(caller, kind, [json.dumps(reason).encode()])


def main(arguments: list[str]) -> None:
    """Run the script that the fourth of *arguments* names."""
    seconds, memory, files = map(int, arguments[:3])
    end_with_the_caller()
    limit(resource.RLIMIT_CORE, 0)  # it may hold a token, and a limit ends it with one
    limit(resource.RLIMIT_AS, memory)
    limit(resource.RLIMIT_FSIZE, files)
    with socket.socket(fileno=os.dup(1)) as caller:
        os.dup2(2, 1)  # what a library prints is no answer
        serve(caller, arguments[3], arguments[4:], seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
