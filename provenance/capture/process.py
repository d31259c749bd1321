"""Running the command so that it does not notice the recorder.

It gets the recorder's standard streams, other inherited descriptors, folder and process group, and
no shell comes between. How it ended is passed on as a shell would:

========  =======================================================
status    meaning
========  =======================================================
0 to 255  what the command returned
126       it was found and cannot be executed
127       it was not found
128 + N   signal N killed it
========  =======================================================

Signals. Ctrl-C at a terminal reaches the command itself, because it is in the same process group;
the recorder ignores it and waits. Where there is no terminal, an interrupt that reaches the
recorder is passed on. A request to end, to hang up, or a user signal (batch systems announce the
end of a job so) is always passed on. Signals that the recorder was started to ignore (``nohup``)
stay ignored, by the command too. However often it is asked, the recorder outlives the command: the
statement is still to be written. It does not wait for what the command leaves running behind it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from provenance.capture.run import VARIABLE
from provenance.errors import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType

NOT_FOUND = 127
NOT_EXECUTABLE = 126
KILLED = 128

PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that reach the recorder alone and are meant for the command."""

FROM_THE_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a terminal sends to the whole foreground process group."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How the command ended: its status, or the name of the signal that killed it.

    ``status`` is what the recorder exits with. ``started`` is false where it could not be run, and
    ``problem`` says why. The times are RFC 3339, in UTC, to the second.
    """

    status: int
    started_on: str
    finished_on: str
    signal: str = ""
    started: bool = True
    problem: str = ""

    @property
    def exit_status(self) -> int | None:
        """The status that the command returned; None where a signal killed it."""
        return None if self.signal else self.status


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    clock: Callable[[], datetime],
    run_directory: Path | None = None,
) -> CommandResult:
    """Run *command* in *folder* to its end, and return how it ended.

    The training program finds *run_directory* in its environment. Signals are looked after only
    where this is called in the main thread, as Python asks.
    """
    variables = dict(environ)
    if run_directory is not None:
        variables[VARIABLE] = str(run_directory.absolute())
    started_on = timestamp(clock())
    program = find_program(command[0], variables, folder)
    if program is None:  # exec would say "permission denied" where the PATH has a closed folder
        return CommandResult(
            NOT_FOUND, started_on, timestamp(clock()), started=False, problem="command not found"
        )
    with _signals_passed_on() as start:
        try:
            child = start(
                lambda: subprocess.Popen(
                    list(command),
                    executable=program,
                    cwd=folder,
                    env=variables,
                    close_fds=False,  # Python's own are not inherited; a job server's are
                )
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            status = NOT_FOUND if missing else NOT_EXECUTABLE
            problem = "command not found" if missing else reason(error)
            return CommandResult(
                status, started_on, timestamp(clock()), started=False, problem=problem
            )
        code = child.wait()
    finished_on = timestamp(clock())
    if code < 0:
        return CommandResult(KILLED - code, started_on, finished_on, _signal_name(-code))
    return CommandResult(code, started_on, finished_on)


def find_program(name: str, environ: Mapping[str, str], folder: Path) -> str | None:
    """Return the path of the program that *name* starts in *folder*; None: there is none."""
    if "/" in name:
        path = os.path.join(folder, name)  # noqa: PTH118 - keeps an absolute name as it is
        return path if os.path.exists(path) else None  # noqa: PTH110
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:  # there but not executable: exec says so better
        found = shutil.which(name, mode=os.F_OK, path=environ.get("PATH", os.defpath))
    return None if found is None else os.path.join(folder, found)  # noqa: PTH118


def timestamp(moment: datetime) -> str:
    """Return *moment* in RFC 3339, in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[
    Callable[[Callable[[], subprocess.Popen[bytes]]], subprocess.Popen[bytes]]
]:
    """Give the function that starts the child; meanwhile signals are passed on to it."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def start(spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        children.append(spawn())
        for number in early:
            children[0].send_signal(number)
        return children[0]

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in FROM_THE_KEYBOARD and _is_in_foreground():
            return
        if children:
            children[0].send_signal(number)
        else:
            early.append(number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (*PASSED_ON, *FROM_THE_KEYBOARD):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, pass_on)
    try:
        yield start
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Tell whether this process is in the foreground of a terminal, whose Ctrl-C reaches all."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
