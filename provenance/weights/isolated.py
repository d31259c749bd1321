"""A C library in a process of its own: a crash, an endless loop or exhausted memory is one error.

For large parsers in C, and for running models. The child is a script of this package that imports
nothing of ours; :mod:`~provenance.weights.isolated_start` has the protocol, limits its process
(between fork and exec that is not safe in a process with threads), and ends it with the caller.
``-P`` keeps its own folder and the current one, which may be the model's, off its module path.

This is no sandbox: the child has the rights of the user.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

import msgspec

from provenance.errors import MalformedError, ProvenanceError, UnavailableError, UnreadableError

MAX_ANSWER: Final = 2**28
"""Longest answer of a child, in bytes."""

_START: Final = Path(__file__).with_name("isolated_start.py")
_SLACK: Final = 60
"""Seconds of the clock that an answer may take beside its processor time, times two."""

_ANSWER, _MALFORMED, _UNREADABLE, _MISSING = range(4)


class Limits(NamedTuple):
    """What a child may use."""

    seconds: int
    """Processor time of an answer; twice that, and a minute, on the clock."""
    memory: int
    """Address space, in bytes, where the system limits it (Linux)."""


class Isolated:
    """A running script; several threads may ask it. Close it."""

    def __init__(
        self,
        script: Path,
        arguments: Sequence[str],
        *,
        limits: Limits,
        where: str,
        needs: tuple[str, str],
        descriptor: int | None = None,
    ) -> None:
        """Start *script*, which inherits *descriptor*, if any, with *arguments*.

        *where* names the file that it reads; *needs* are the package that it imports, and the extra
        that brings it.
        """
        self._where, self._needs = where, needs
        self._clock = 2 * limits.seconds + _SLACK
        self._lock = Lock()
        self._failed: ProvenanceError | None = None
        bounds = [str(bound) for bound in (*limits, MAX_ANSWER + 1)]
        single = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", str(_START), *bounds, str(script), *arguments],
                    stdin=subprocess.PIPE,  # it ends when this closes
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    pass_fds=() if descriptor is None else (descriptor,),
                    env={**os.environ, **dict.fromkeys(single, "1"), "HDF5_PLUGIN_PRELOAD": "::"},
                )
        except OSError as error:
            self._socket.close()
            raise UnreadableError("its reader process cannot start", where=where) from error

    def answer(self, request: bytes | None = None) -> bytearray:
        """Return the answer to *request*; the first is to none. After an error there is no other.

        MalformedError: the file is malformed, or crashed the library. UnreadableError: out of time
        or memory. UnavailableError: a package is missing.
        """
        with self._lock:
            if self._failed is None:
                try:
                    return self._answer(request)
                except TimeoutError:
                    self._failed = UnreadableError("took too long", where=self._where)
                except OSError:  # the connection is closed or reset
                    self._failed = self._ended()
                except ProvenanceError as error:
                    self._failed = error
            raise self._failed

    def _answer(self, request: bytes | None) -> bytearray:
        deadline = time.monotonic() + self._clock
        if request is not None:
            self._socket.sendall(struct.pack("<Q", len(request)) + request)
        kind, length = struct.unpack("<BQ", self._take(9, deadline))
        if length > MAX_ANSWER:
            raise MalformedError("gives too long an answer", where=self._where)
        data = self._take(length, deadline)
        if kind == _ANSWER:
            return data
        if kind == _MISSING:
            package, extra = self._needs
            hint = f"pip install 'training-provenance[{extra}]'"
            raise UnavailableError(f"needs {package}", where=self._where, hint=hint)
        try:
            place, what = msgspec.json.decode(data, type=tuple[str, str])
        except msgspec.DecodeError as error:  # a library that was taken over can write anything
            raise MalformedError("gives an answer that is not one", where=self._where) from error
        where = f"{self._where}: {place}" if place else self._where
        raise (MalformedError if kind == _MALFORMED else UnreadableError)(what, where=where)

    def _take(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        done = 0
        while done < size:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            count = self._socket.recv_into(memoryview(data)[done:])
            if not count:
                raise ConnectionError
            done += count
        return data

    def _ended(self) -> ProvenanceError:
        try:
            code = self._process.wait(_SLACK)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            slow = code == -signal.SIGXCPU
            what = "took too much processor time" if slow else "its reader process was killed"
            return UnreadableError(what, where=self._where)
        crashed = f"crashed its library (signal {-code})"
        what = crashed if code < 0 else f"its reader process exited with status {code}"
        return MalformedError(what, where=self._where)

    def close(self) -> None:
        """End the process; closing again does nothing."""
        self._process.kill()
        self._process.__exit__(None, None, None)  # waits, and closes the pipe
        self._socket.close()
