"""A library in C in a process of its own: what kills it does not kill the caller.

For readers that cannot avoid a large parser in C, and for running models. The child is a script
beside this package that imports nothing of ours. :mod:`~provenance.weights.isolated_start` limits
the processor time and memory of its process first, because setting limits between fork and exec is
not safe in a process with threads, and sees to it that it ends when the caller does. It is started
with ``-P``: neither its own folder nor the current one, which may be the model's, is on its module
path.

This is no sandbox: the child has the rights of the user. It turns a crash, an endless loop or an
exhausted memory into one clear error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provenance.errors import MalformedError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ANSWER: Final = 2**28
"""Longest answer of a child, in bytes."""

_START: Final = Path(__file__).with_name("isolated_start.py")
_STARTING: Final = 60
"""Seconds of the clock that a child may take beside its processor time, times two."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use."""

    seconds: int
    """Processor time; twice that, and a minute, on the clock."""
    memory: int
    """Address space, in bytes, where the system limits it (Linux)."""


def answer_of(
    script: Path,
    arguments: Sequence[str],
    *,
    limits: Limits,
    where: str,
    descriptors: tuple[int, ...] = (),
) -> bytes:
    """Return what *script* writes; it is called with *arguments*, and inherits *descriptors*.

    Raises:
        MalformedError: it crashed; *where* names the file that it read.
        UnreadableError: it ran out of time or memory, or could not be started.
    """
    bounds = [str(bound) for bound in (limits.seconds, limits.memory, MAX_ANSWER + 1)]
    command = [sys.executable, "-P", str(_START), *bounds, str(script), *arguments]
    with tempfile.TemporaryFile() as answer, _pipe() as open_while_we_live:
        try:
            ended = subprocess.run(
                command,
                stdin=open_while_we_live,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                pass_fds=descriptors,
                env=_environment(),
                timeout=2 * limits.seconds + _STARTING,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnreadableError("took too long", where=where) from error
        except OSError as error:
            raise UnreadableError("the process for it cannot start", where=where) from error
        if answer.seek(0, os.SEEK_END) > MAX_ANSWER:
            raise MalformedError("gives too long an answer", where=where)
        if ended.returncode:
            raise _failure(ended.returncode, where)
        answer.seek(0)
        return answer.read()


@contextmanager
def _pipe() -> Iterator[int]:
    """Give the reading end of a pipe whose other end this process alone holds."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _environment() -> dict[str, str]:
    """Return the environment of a child: no plug-ins of HDF5, one thread for numpy."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **single, "HDF5_PLUGIN_PRELOAD": "::"}


def _failure(code: int, where: str) -> MalformedError | UnreadableError:
    if code == -signal.SIGXCPU:
        return UnreadableError("took too much processor time", where=where)
    if code == -signal.SIGKILL:
        return UnreadableError("the process for it was killed", where=where)
    if code < 0:
        return MalformedError(f"crashed its library (signal {-code})", where=where)
    return MalformedError("stopped its library", where=where)
