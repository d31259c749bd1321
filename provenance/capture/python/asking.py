"""Asking the Python that a command starts what it is: :mod:`probe` runs in it, as a process.

That takes as long as the recorder takes to load itself, so a command begins with :func:`begun`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from provenance.capture.python.launchers import find_interpreter

TIMEOUT_SECONDS = 120
"""Time limit for an interpreter to answer; 76 distributions take under a second."""

_START = """import sys
if sys.path[:1] == [""]:
    del sys.path[0]
exec(compile(sys.argv[1], "probe", "exec"))
"""

_Question = tuple[list[str], Path, dict[str, str]]
_Asked = tuple[subprocess.Popen[bytes], int]

_asked: list[tuple[_Question, _Asked]] = []


@contextlib.contextmanager
def begun(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[None]:
    """Ask here what :func:`ask` will be asked in this block: the answer comes meanwhile."""
    with contextlib.ExitStack() as at_end:
        with contextlib.suppress(OSError, ValueError):  # then it is asked later, and that is told
            folder = Path(os.path.realpath("."))
            if interpreter := find_interpreter(command, folder, environ):
                question = (interpreter, folder, dict(environ))
                process, began = _start(*question)
                at_end.enter_context(process)
                at_end.callback(process.kill)
                at_end.callback(_asked.clear)
                _asked.append((question, (process, began)))
        yield


def ask(interpreter: list[str], folder: Path, environ: Mapping[str, str]) -> tuple[bytes, str, int]:
    """Return what *interpreter* printed, the last line of its errors, and when it was started.

    Raises OSError where it cannot be run, subprocess.TimeoutExpired where it does not end.
    """
    question = (interpreter, folder, dict(environ))
    known = next((number for number, each in enumerate(_asked) if each[0] == question), None)
    process, began = _start(*question) if known is None else _asked.pop(known)[1]
    with process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            process.kill()
    said = errors.decode("utf-8", "replace").strip().splitlines() or ["no answer"]
    return output, said[-1], began


def _start(interpreter: list[str], folder: Path, environ: Mapping[str, str]) -> _Asked:
    """Start the probe; return it, and the nanosecond before."""
    program = Path(__file__).with_name("probe.py").read_text("utf-8")
    words, pipe, began = [*interpreter, "-c", _START, program], subprocess.PIPE, time.time_ns()
    process = subprocess.Popen(
        words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    return process, began
