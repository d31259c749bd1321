"""Running the command transparently.

It inherits the recorder's standard streams, other descriptors, folder and process group; no shell
is involved. Its exit status is reported as a shell would:

========  =======================================================
status    meaning
========  =======================================================
0 to 255  what the command returned
126       it was found and cannot be executed
127       it was not found
128 + N   signal N killed it
========  =======================================================

Signals. Ctrl-C at a terminal reaches the command itself, which is in the same process group; the
recorder ignores it and waits. Without a terminal, the recorder forwards an interrupt. It always
forwards SIGTERM, SIGHUP and user signals (by which batch systems announce the end of a job).
Signals that it was started to ignore (``nohup``) stay ignored, also by the command. The recorder
always outlives the command, to write the statement, but does not wait for the command's background
processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from provenance.capture.run import VARIABLE
from provenance.errors import reason

NOT_FOUND = 127
NOT_EXECUTABLE = 126
KILLED = 128

PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that only the recorder receives and that are meant for the command."""

FROM_THE_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a terminal sends to the whole foreground process group."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How the command ended: its status, or the name of the signal that killed it.

    ``status`` is the recorder's exit status. ``problem`` says why the command was not ``started``.
    Times are RFC 3339, in UTC, to the second.
    """

    status: int
    started_on: str
    finished_on: str
    signal: str = ""
    started: bool = True
    problem: str = ""

    @property
    def exit_status(self) -> int | None:
        """The status that the command returned; None if a signal killed it."""
        return None if self.signal else self.status


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    clock: Callable[[], datetime],
    run_directory: Path | None = None,
    on_start: Callable[[int], None] | None = None,
) -> CommandResult:
    """Run *command* in *folder* and return how it ended.

    *run_directory* is passed to the program in its environment. *on_start* is told the command's
    process number. Signals are handled only if this is
    called in the main thread, as Python requires.
    """
    variables = dict(environ)
    if run_directory is not None:
        variables[VARIABLE] = str(run_directory.absolute())
    started_on = timestamp(clock())

    def failed(status: int, problem: str) -> CommandResult:
        return CommandResult(status, started_on, timestamp(clock()), started=False, problem=problem)

    program = find_program(command[0], variables, folder)
    if program is None:  # exec would say "permission denied" where the PATH has a closed folder
        return failed(NOT_FOUND, "command not found")

    def spawn() -> subprocess.Popen[bytes]:
        # Python's own descriptors are not inherited; those of a job server are.
        child = subprocess.Popen(
            list(command), executable=program, cwd=folder, env=variables, close_fds=False
        )
        if on_start is not None:
            on_start(child.pid)
        return child

    try:
        code = _wait_for(spawn)
    except (FileNotFoundError, NotADirectoryError):
        return failed(NOT_FOUND, "command not found")
    except OSError as error:
        return failed(NOT_EXECUTABLE, reason(error))
    finished_on = timestamp(clock())
    if code < 0:
        return CommandResult(KILLED - code, started_on, finished_on, _signal_name(-code))
    return CommandResult(code, started_on, finished_on)


def find_program(name: str, environ: Mapping[str, str], folder: Path) -> str | None:
    """Return the path of the program that *name* starts in *folder*, or None."""
    if "/" in name:
        path = os.path.join(folder, name)  # noqa: PTH118 - keeps an absolute name as it is
        return path if os.path.exists(path) else None  # noqa: PTH110
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:  # there but not executable: exec says so better
        found = shutil.which(name, mode=os.F_OK, path=environ.get("PATH", os.defpath))
    return found and os.path.join(folder, found)  # noqa: PTH118


def timestamp(moment: datetime) -> str:
    """Return *moment* in RFC 3339, in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def _wait_for(spawn: Callable[[], subprocess.Popen[bytes]]) -> int:
    """Return the exit code of the child that *spawn* starts; forward signals to it meanwhile."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in FROM_THE_KEYBOARD and _is_in_foreground():
            return
        if children:
            children[0].send_signal(number)
        else:
            early.append(number)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for caught in (*PASSED_ON, *FROM_THE_KEYBOARD):
            if signal.getsignal(caught) is not signal.SIG_IGN:
                previous[caught] = signal.signal(caught, pass_on)
    try:
        children.append(spawn())
        for number in early:
            children[0].send_signal(number)
        return children[0].wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_in_foreground() -> bool:
    """Tell whether this process is in the foreground process group of its terminal."""
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
