"""A library in C in a process of its own: what kills it does not kill the caller.

For readers that cannot avoid a large parser in C, and for running models. The child is a script
beside this package that imports nothing of ours; it limits its own processor time and memory first,
because setting limits between fork and exec is not safe in a process with threads. It is started
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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from provenance.errors import MalformedError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_ANSWER: Final = 2**28
"""Longest answer of a child, in bytes."""

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
    """Return what *script* writes; it is called with the two limits and *arguments*.

    Raises:
        MalformedError: it crashed; *where* names the file that it read.
        UnreadableError: it ran out of time or memory, or could not be started.
    """
    command = [sys.executable, "-P", str(script), str(limits.seconds), str(limits.memory)]
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
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
        if ended.returncode:
            raise _failure(ended.returncode, where)
        if answer.tell() > MAX_ANSWER:
            raise MalformedError("gives too long an answer", where=where)
        answer.seek(0)
        return answer.read()


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
