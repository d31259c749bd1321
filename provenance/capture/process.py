"""Running the command transparently.

It inherits the recorder's standard streams, other descriptors, folder and process group; no shell
is involved. Its exit status is reported as a shell would.

Signals. The command stays in the recorder's process group, so that Ctrl-C, Ctrl-Z and ``fg``, a
background job that reads the terminal, ``kill -- -GROUP`` and batch systems that signal every
process of a job do with it what they did without a recorder. The recorder itself survives what can
be caught, to write the statement, and passes on to the command what was sent to the recorder alone.
Which of the two it was is told by the *sentinel*, a process in the same group that blocks these
signals: one that is pending there too was sent to all of them.

Signals that it was started to ignore (``nohup``) stay ignored, also by the command, but for
SIGCHLD: ignored, it hides from the recorder how the command ended. If the recorder is killed, the
command goes on, as a program does whose parent is gone. The recorder does not wait for the
command's background processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Self

from provenance.capture.run import VARIABLE
from provenance.errors import UnavailableError, UsageError, reason

NOT_FOUND, NOT_EXECUTABLE, KILLED = 127, 126, 128
"""A shell's exit statuses, the last with the number of the signal added."""

CAUGHT = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
)
"""Signals that are meant for the command: from the keyboard, and by which jobs are ended."""

SECONDS_TO_ALL = 0.1
"""How long after the recorder others may get a signal that is sent to each process of a job."""

MAX_ROUNDS = 10
"""How often that is waited for while more signals come."""

SECONDS_TO_ANSWER = 5.0
"""How long the sentinel may take to answer on a busy machine."""

_PYTHON = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*t?)?")

_SENTINEL = """
import os, signal, sys
numbers = {int(word) for word in sys.argv[1:]}
while os.read(0, 1):
    pending = numbers & signal.sigpending()
    for number in pending:
        signal.sigwait([number])
    os.write(1, bytes([0, *pending]))
"""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How the command ended: its status, or the name of the signal that killed it.

    ``status`` is the recorder's exit status. ``problem`` says why the command was not ``started``.
    Times are RFC 3339, in UTC, to the second. ``cost`` is what was measured of it.
    """

    status: int
    started_on: str
    finished_on: str
    signal: str = ""
    started: bool = True
    problem: str = ""
    cost: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_status(self) -> int | None:
        """The status that the command returned; None if a signal killed it."""
        return None if self.signal else self.status


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    run_directory: Path | None = None,
    on_start: Callable[[int], None] | None = None,
    output: int | None = None,
) -> CommandResult:
    """Run *command* in *folder* and return how it ended.

    *run_directory* is passed to the program in its environment. *on_start* is told the command's
    process number. What it prints goes to the descriptor *output*, if that is given. Signals are
    handled only in the main thread, as Python requires.
    """
    variables = dict(environ)
    if run_directory is not None:
        variables[VARIABLE] = str(run_directory.absolute())
    started_on = timestamp()

    def failed(status: int, problem: str) -> CommandResult:
        return CommandResult(status, started_on, timestamp(), started=False, problem=problem)

    program = find_program(command[0], variables, folder)
    if program is None:  # exec would say "permission denied" where the PATH has a closed folder
        return failed(NOT_FOUND, "command not found")

    def spawn() -> subprocess.Popen[bytes]:
        # Python's own descriptors are not inherited; those of a job server are.
        child = subprocess.Popen(
            list(command),
            executable=program,
            cwd=folder,
            env=variables,
            close_fds=False,
            stdout=output,
            stderr=output,
        )
        if on_start is not None:
            on_start(child.pid)
        return child

    before, own_peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        code, usage = _wait_for(spawn)
    except (FileNotFoundError, NotADirectoryError):
        return failed(NOT_FOUND, "command not found")
    except OSError as error:
        return failed(NOT_EXECUTABLE, reason(error))
    finished_on = timestamp()
    times = {"user": usage.ru_utime, "system": usage.ru_stime} if usage else {}
    cost = measured(time.monotonic() - before, times)
    if usage and usage.ru_maxrss > own_peak:  # with which a child begins
        cost["peakMemoryBytes"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if code >= 0:
        return CommandResult(code, started_on, finished_on, cost=cost)
    names = {number.value: number.name for number in signal.Signals}
    name = names.get(-code, f"SIG{-code}")  # a real-time signal
    return CommandResult(KILLED - code, started_on, finished_on, name, cost=cost)


def find_program(name: str, environ: Mapping[str, str], folder: Path) -> str | None:
    """Return the path of the program that *name* starts in *folder*, or None."""
    if "/" in name:
        path = os.path.join(folder, name)  # noqa: PTH118 - keeps an absolute name as it is
        return path if os.path.exists(path) else None  # noqa: PTH110
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:  # there but not executable: exec says so better
        found = shutil.which(name, mode=os.F_OK, path=environ.get("PATH", os.defpath))
    return found and os.path.join(folder, found)  # noqa: PTH118


def is_python(program: str) -> bool:
    """Tell whether *program* is called like a Python interpreter."""
    return _PYTHON.fullmatch(os.path.basename(program)) is not None  # noqa: PTH119 - a word


def timestamp(moment: datetime | None = None) -> str:
    """Return *moment*, or now, in RFC 3339, in UTC, to the second."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_that_ends_are_told() -> None:
    """Return if it is told how a child ends; else ``subprocess`` says that all is well."""
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        what = "SIGCHLD is ignored here, so that nobody is told how a command ends"
        raise UsageError(what, hint="signal.signal(signal.SIGCHLD, signal.SIG_DFL)")


@contextlib.contextmanager
def blocked(signals: Iterable[int] = CAUGHT) -> Iterator[None]:
    """Block *signals*: a thread or process that is started meanwhile never gets them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """Raise a KeyboardInterrupt for what ends a job or closes its terminal, which else kills."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    before = {number: signal.signal(number, interrupt) for number in numbers if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measured(seconds: float, times: Mapping[str, float]) -> dict[str, Any]:
    """Return the cost of a run that took *seconds*, and of processors these *times*, if known."""
    cost: dict[str, Any] = {"wallSeconds": round(seconds, 3)}
    spent = {name: round(value, 3) for name, value in times.items()}
    return cost | ({"cpuSeconds": spent} if spent else {})


def _end_of(child: subprocess.Popen[bytes]) -> tuple[int, resource.struct_rusage | None]:
    """Return the exit code of *child*, and what it and the children it waited for have used."""
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except ChildProcessError as error:
        told, code = child.returncode is not None, child.wait()
        if not told:  # then it is 0, by subprocess
            what = "how the command ended was told to another part of this program"
            raise UnavailableError(what, hint="wait for single processes there") from error
        return code, None  # a signal's handler found that it has ended
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage


def _wait_for(
    spawn: Callable[[], subprocess.Popen[bytes]],
) -> tuple[int, resource.struct_rusage | None]:
    """Return how the child that *spawn* starts ended; pass signals on to it meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        return _end_of(spawn())
    caught = {number for number in CAUGHT if signal.getsignal(number) is not signal.SIG_IGN}
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []
    reached: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if not children:
            early.append(number)
            return
        with blocked(caught):
            came = {number, *_until_quiet(caught)}
            reached.update(sentinel.reached())
            for each in came:
                if each in reached:
                    reached.discard(each)
                else:
                    children[0].send_signal(each)

    previous = {number: signal.signal(number, pass_on) for number in caught}
    try:
        with _Sentinel(caught) as sentinel:
            if early:  # the child is not there yet, whoever else is
                sentinel.reached()
            certain = len(early)
            children.append(spawn())
            for number in early[:certain]:
                children[0].send_signal(number)
            for number in early[certain:]:
                pass_on(number, None)
            return _end_of(children[0])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _until_quiet(caught: set[signal.Signals]) -> set[int]:
    """Wait until all have got what was sent to all; return the blocked signals that came meanwhile.

    Two of one signal are one, as when they are pending.
    """
    came: set[int] = set()
    for _ in range(MAX_ROUNDS):
        time.sleep(SECONDS_TO_ALL)
        if not (pending := caught & signal.sigpending()):
            break
        came |= {signal.sigwait([number]) for number in pending}
    return came


class _Sentinel:
    """A process of this group in which the *caught* signals are blocked; it ends with this one."""

    def __init__(self, caught: set[signal.Signals]) -> None:
        words = [sys.executable, "-ISc", _SENTINEL, *(str(number.value) for number in caught)]
        try:
            with blocked(caught):
                self._process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
        except OSError as error:
            raise UnavailableError(reason(error), where=sys.executable) from error

    def reached(self) -> set[int]:
        """Return the signals that reached it since it was last asked."""
        asked, answer = self._process.stdin, self._process.stdout
        assert asked is not None  # noqa: S101 - they are pipes
        assert answer is not None  # noqa: S101
        try:
            os.write(asked.fileno(), b"?")
            listening = select.poll()
            listening.register(answer, select.POLLIN)
            if listening.poll(SECONDS_TO_ANSWER * 1000):
                return set(os.read(answer.fileno(), 1 + signal.NSIG)[1:])
        except (OSError, ValueError):
            pass  # it was killed, or the child has ended already: what came is passed on
        return set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
