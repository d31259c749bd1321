from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from provenance.capture.process import (
    CAUGHT,
    SECONDS_TO_ALL,
    CommandResult,
    find_program,
    run,
    timestamp,
)
from provenance.capture.run import VARIABLE
from provenance.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
ENVIRON = {"PATH": os.environ["PATH"]}

# A recorder in a process of its own: what it makes of signals can only be seen from outside.
RECORDER = """
import os, sys
from pathlib import Path
from provenance.capture.process import run
result = run(sys.argv[1:], folder=Path(), environ=os.environ)
os.write(1, f"recorder: {result.status} {result.signal}\\n".encode())
sys.exit(result.status)
"""

# A training that says when it is ready and what reached it; it ends when told to. Each line is
# one write: print is several under PYTHONUNBUFFERED, and other processes write to the same pipe.
TRAINING = """
import os, signal, sys, time
def say(text):
    os.write(1, f"training: {text}\\n".encode())
def tell(number, frame):
    say(signal.Signals(number).name)
    if signal.Signals(number).name in sys.argv[1:]:
        sys.exit(7)
for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
    signal.signal(signal.Signals[name], tell)
say("ready")
while True:
    time.sleep(0.05)
"""


def run_here(*command: str, folder: Path | None = None) -> CommandResult:
    return run(command, folder=folder or Path(), environ=ENVIRON)


def recorder(*command: str) -> list[str]:
    return [sys.executable, "-c", RECORDER, *command]


def training(*ends_at: str) -> list[str]:
    return [sys.executable, "-c", TRAINING, *ends_at]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("status", [0, 1, 2, 125, 255])
def test_the_exit_status_is_passed_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"])
    monkeypatch.setattr("provenance.capture.process.timestamp", lambda: next(moments))
    result = run_here("sh", "-c", f"exit {status}")
    assert (result.status, result.exit_status, result.signal) == (status, status, "")
    assert result.started
    assert result.started_on == "2026-01-01T00:00:00Z"
    assert result.finished_on == "2026-01-01T01:00:00Z"


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGHUP"])
def test_a_killed_command_is_128_and_the_signal(name: str) -> None:
    number = signal.Signals[name]
    result = run_here("sh", "-c", f"ulimit -c 0; kill -{number.value} $$")
    assert (result.status, result.exit_status, result.signal) == (128 + number, None, name)


def test_a_real_time_signal_has_a_name() -> None:
    number = signal.SIGRTMIN + 3
    result = run_here(sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})")
    assert (result.status, result.signal) == (128 + number, f"SIG{number}")


@pytest.mark.parametrize("name", ["no-such-command", "./no-such-file", "/no/such/file"])
def test_a_command_that_does_not_exist_is_127(tmp_path: Path, name: str) -> None:
    result = run_here(name, folder=tmp_path)
    assert (result.status, result.started, result.problem) == (127, False, "command not found")


def test_a_script_whose_interpreter_is_missing_is_127(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert run_here("./script", folder=tmp_path).status == 127


def test_a_file_that_is_not_executable_is_126(tmp_path: Path) -> None:
    tmp_path.joinpath("script").write_text("echo\n")
    assert run_here("./script", folder=tmp_path).status == 126
    assert run_here(str(tmp_path), folder=tmp_path).status == 126
    result = run(["script"], folder=Path(), environ={"PATH": str(tmp_path)})
    assert result.status == 126


def test_a_file_of_no_known_format_is_126(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\0\1\2\3")
    script.chmod(0o755)
    assert run_here("./script", folder=tmp_path).status == 126


def test_the_program_is_looked_for_on_the_path_of_its_own_environment(tmp_path: Path) -> None:
    program = tmp_path / "train"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    result = run(["train"], folder=Path(), environ={"PATH": str(tmp_path)})
    assert result.status == 3
    assert find_program("train", {"PATH": str(tmp_path)}, Path()) == str(program)
    assert find_program("sh", {}, Path()) is not None


def test_the_command_gets_folder_environment_and_arguments_untouched(tmp_path: Path) -> None:
    argument = "a b'\"$HOME\\\n*"
    script = f'printf %s "$1" > arg; printf %s "${VARIABLE}" > run; [ -z "$HOME" ]'
    result = run(
        ["sh", "-c", script, "sh", argument],
        folder=tmp_path,
        environ=ENVIRON,
        run_directory=tmp_path / "directory",
    )
    assert result.status == 0
    assert tmp_path.joinpath("arg").read_text() == argument
    assert tmp_path.joinpath("run").read_text() == str(tmp_path / "directory")


def test_inherited_descriptors_reach_the_command() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # noqa: FBT003 - the name of the function says it
    try:
        assert run_here("sh", "-c", f"echo here > /dev/fd/{writer}").status == 0
        assert os.read(reader, 10) == b"here\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_it_runs_outside_the_main_thread() -> None:
    found: list[CommandResult] = []
    thread = threading.Thread(target=lambda: found.append(run_here("sh", "-c", "exit 4")))
    thread.start()
    thread.join()
    assert found[0].status == 4


def test_a_status_that_somebody_else_took_is_not_called_0(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(pid: int, _options: int) -> None:
        os.waitpid(pid, 0)
        raise ChildProcessError

    monkeypatch.setattr(os, "wait4", taken)
    with pytest.raises(UnavailableError, match="was told to another part"):
        run_here("sh", "-c", "exit 4")


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run_here("true")
    run_here("no-such-command")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_comes_when_the_command_has_just_ended_is_no_defect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    communicate = subprocess.Popen.communicate

    def late(self: subprocess.Popen[bytes]) -> object:
        try:
            return communicate(self)
        finally:  # its sentinel has ended, and the handlers are still there
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess.Popen, "communicate", late)
    assert run_here("sh", "-c", "exit 3").status == 3


SIGNALS = [number.name for number in sorted(CAUGHT)]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_the_recorder_alone_reaches_the_command(name: str) -> None:
    with subprocess.Popen(
        recorder(*training(name)),
        env=environ(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # no terminal
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training: ready\n"
        process.send_signal(signal.Signals[name])
        assert process.stdout.read() == f"training: {name}\nrecorder: 7 \n"
    assert process.returncode == 7


@contextlib.contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start a recorder of *command* without a terminal, in a group of its own; wait for a line."""
    with subprocess.Popen(
        recorder(*command),
        env=environ(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        guard = threading.Timer(300, os.killpg, (process.pid, signal.SIGKILL))
        guard.start()
        assert process.stdout.readline() == "training: ready\n"
        yield process, process.stdout
        guard.cancel()


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_to_the_group_reaches_the_command_once(name: str) -> None:
    last = signal.SIGTERM if name == "SIGUSR2" else signal.SIGUSR2
    with started(*training(last.name)) as (process, output):
        os.killpg(process.pid, signal.Signals[name])
        assert output.readline() == f"training: {name}\n"
        time.sleep(10 * SECONDS_TO_ALL)  # a second one would come now
        process.send_signal(signal.Signals[name])
        assert output.readline() == f"training: {name}\n"
        os.killpg(process.pid, last)
        assert output.read() == f"training: {last.name}\nrecorder: 7 \n"


def test_signals_that_come_together_reach_the_command_once_each() -> None:
    with started(*training("SIGUSR2")) as (process, output):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.killpg(process.pid, number)
        lines = sorted(output.readline() for _ in range(4))
        assert lines == [f"training: SIG{n}\n" for n in ("HUP", "INT", "TERM", "USR1")]
        time.sleep(10 * SECONDS_TO_ALL)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        lines = sorted(output.readline() for _ in range(2))
        assert lines == ["training: SIGINT\n", "training: SIGTERM\n"]
        process.send_signal(signal.SIGUSR2)
        assert output.read() == "training: SIGUSR2\nrecorder: 7 \n"


def test_a_command_that_signals_its_own_group_gets_that_once() -> None:
    program = f"""
import os, signal, time
got = []
signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
os.kill(0, signal.SIGTERM)
time.sleep({5 * SECONDS_TO_ALL})
print(len(got))
"""
    done = subprocess.run(
        recorder(sys.executable, "-c", program),
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
    )
    assert done.stdout == "1\nrecorder: 0 \n"


@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_handler_that_saves_and_exits_with_0_ends_with_0(
    send: Callable[[int, int], None], name: str
) -> None:
    program = f"""
import signal, sys, time
signal.signal(signal.{name}, lambda *_: sys.exit(0))
print("training: ready", flush=True)
time.sleep(60)
"""
    with started(sys.executable, "-c", program) as (process, output):
        send(process.pid, signal.Signals[name])
        assert output.read() == "recorder: 0 \n"
    assert process.returncode == 0


def test_the_script_around_a_training_gets_the_signal_as_the_training_does() -> None:
    inner = f"{sys.executable} -c '{TRAINING}' SIGUSR1"
    script = f"trap 'echo script: TERM' TERM; {inner} & wait; wait; exit 5"
    with started("bash", "-c", script) as (process, output):
        os.killpg(process.pid, signal.SIGTERM)
        lines = sorted(output.readline() for _ in range(2))
        assert lines == ["script: TERM\n", "training: SIGTERM\n"]
        os.killpg(process.pid, signal.SIGUSR1)
        process.wait()


def test_a_recorder_that_is_killed_leaves_the_command_alone() -> None:
    with started(*training("SIGUSR2")) as (process, output):
        process.kill()
        process.wait()
        time.sleep(0.3)
        group = subprocess.run(
            ["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True
        )
        alive = [line.split() for line in group.stdout.splitlines()]
        assert len([1 for pgid, stat in alive if int(pgid) == process.pid and stat[0] != "Z"]) == 1
        os.killpg(process.pid, signal.SIGUSR2)
        assert output.read() == "training: SIGUSR2\n"


def test_a_sentinel_that_is_killed_costs_no_signal() -> None:
    with started(*training("SIGUSR2")) as (process, output):
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "sigpending"],
            capture_output=True,
            text=True,
            check=True,
        )
        os.kill(int(children.stdout), signal.SIGKILL)
        process.send_signal(signal.SIGTERM)
        assert output.readline() == "training: SIGTERM\n"
        process.send_signal(signal.SIGUSR2)
        assert output.read() == "training: SIGUSR2\nrecorder: 7 \n"


def test_signals_that_the_command_ignores_do_not_end_the_recorder() -> None:
    with subprocess.Popen(
        recorder(*training("SIGUSR2")),
        env=environ(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for name in ("SIGINT", "SIGTERM", "SIGTERM", "SIGINT"):
            process.send_signal(signal.Signals[name])
            assert process.stdout.readline() == f"training: {name}\n"
        process.send_signal(signal.SIGUSR2)
        assert process.stdout.read() == "training: SIGUSR2\nrecorder: 7 \n"


def test_signals_that_the_recorder_was_started_to_ignore_stay_ignored() -> None:
    shell = 'trap "" HUP; exec "$@"'
    program = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *recorder(sys.executable, "-c", program)],
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\nrecorder: 0 \n"


@pytest.fixture
def terminal() -> Iterator[Callable[..., tuple[int, int]]]:
    """Start a command on a terminal of its own: its process id and the terminal's other end."""
    started: list[tuple[int, int]] = []

    def start(*command: str) -> tuple[int, int]:
        child, descriptor = pty.fork()
        if child == 0:
            os.execvpe(command[0], command, environ())  # noqa: S606 - no shell is meant
        started.append((child, descriptor))
        return child, descriptor

    yield start
    for _, descriptor in started:
        os.close(descriptor)


def read_until(descriptor: int, text: str, seconds: float = 300) -> str:
    found = ""
    end = time.monotonic() + seconds
    while text not in found and time.monotonic() < end:
        try:
            found += os.read(descriptor, 1024).decode()
        except OSError:  # the other end is closed
            break
    return found


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ctrl_c_at_a_terminal_reaches_the_command_once(
    terminal: Callable[..., tuple[int, int]],
) -> None:
    child, descriptor = terminal(*recorder(*training("SIGUSR1")))
    assert "ready" in read_until(descriptor, "ready")
    os.write(descriptor, b"\x03")
    assert "SIGINT" in read_until(descriptor, "SIGINT")
    time.sleep(0.3)  # a second one would come now
    os.kill(child, signal.SIGUSR1)
    rest = read_until(descriptor, "recorder: 7")
    assert "SIGINT" not in rest
    assert "recorder: 7" in rest
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_the_recorder_alone_reaches_the_command_at_a_terminal_too(
    terminal: Callable[..., tuple[int, int]], name: str
) -> None:
    child, descriptor = terminal(*recorder(*training(name)))
    assert "ready" in read_until(descriptor, "ready")
    os.kill(child, signal.Signals[name])
    assert f"training: {name}" in read_until(descriptor, "recorder: 7")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.fixture
def shell(terminal: Callable[..., tuple[int, int]]) -> Iterator[int]:
    """Start a shell with job control on a terminal; give the terminal's other end."""
    child, descriptor = terminal("bash", "--norc", "--noediting", "-i")
    os.write(descriptor, b"stty -echo; PS1=; echo be''gin\n")
    read_until(descriptor, "begin")
    yield descriptor
    os.kill(child, signal.SIGHUP)
    os.waitpid(child, 0)


def type_in(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode() + b"\n")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ctrl_z_stops_recorder_and_command_and_fg_continues_them(shell: int) -> None:
    ticking = (
        "import itertools, time\n"
        "for n in itertools.count(): print('ti' + 'ck', n, flush=True); time.sleep(.05)"
    )
    type_in(shell, shlex.join(recorder(sys.executable, "-c", ticking)))
    assert "tick 3" in read_until(shell, "tick 3")
    os.write(shell, b"\x1a")
    assert "Stopped" in read_until(shell, "Stopped")
    type_in(shell, "sleep 0.5; echo qui''et; ps -Ao pgid=,stat= | grep $(jobs -p); echo sho''wn")
    stopped = read_until(shell, "shown").split("quiet")[1].split("shown")[0].split()[1::2]
    assert {state[0] for state in stopped} == {"T"}
    assert len(stopped) >= 2
    type_in(shell, "fg")
    assert "tick" in read_until(shell, "tick")
    os.write(shell, b"\x03")
    assert "recorder: 130 SIGINT" in read_until(shell, "SIGINT")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_background_job_that_reads_the_terminal_waits_for_fg(shell: int) -> None:
    type_in(shell, shlex.join(recorder("sh", "-c", "read line; echo $line:$line")) + " &")
    type_in(shell, "sleep 1; jobs")
    assert "Stopped" in read_until(shell, "Stopped")
    type_in(shell, "fg")
    time.sleep(0.3)
    type_in(shell, "word")
    assert "word:word" in (found := read_until(shell, "recorder: 0"))
    assert "recorder: 0" in found


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_command_that_dies_of_ctrl_c_is_recorded(
    terminal: Callable[..., tuple[int, int]],
) -> None:
    child, descriptor = terminal(*recorder("sh", "-c", "echo ready; exec sleep 60"))
    assert "ready" in read_until(descriptor, "ready")
    time.sleep(0.3)
    os.write(descriptor, b"\x03")
    assert "recorder: 130 SIGINT" in read_until(descriptor, "SIGINT")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_what_the_command_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    begin = time.monotonic()
    result = run_here("sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $! > pid", folder=tmp_path)
    assert result.status == 0
    assert time.monotonic() - begin < 200
    os.kill(int(tmp_path.joinpath("pid").read_text()), signal.SIGKILL)


def test_times_are_utc_to_the_second() -> None:
    moment = datetime(2026, 7, 1, 1, 2, 3, 999999, timezone(timedelta(hours=2)))
    assert timestamp(moment) == "2026-06-30T23:02:03Z"
