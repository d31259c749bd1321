"""What a trace says of a whole run, by each mechanism."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.api.finishing import finish
from provenance.api.making import record
from provenance.capture.trace import inotify, supervisor, tracer
from provenance.capture.trace.inotify import Event
from provenance.errors import UnavailableError, UsageError
from provenance.report.recording import captured_lines
from tests.capture.trace.test_supervisor import wait_for

if TYPE_CHECKING:
    from provenance.api.finishing import Recorded
    from tests.capture.conftest import Repository
    from tests.world import Person

TRAINING = """
import os, pathlib, subprocess
open("data/train.csv").read()
subprocess.run(["cat", "extra.bin", os.environ["WHERE"] + "/w.bin"], check=True)
open("a.npy", "rb").close()
try: open("a.npy", "x")
except FileExistsError: pass
pathlib.Path("log.txt").write_text("x")
pathlib.Path("log.txt").read_text()
open("key").close()
open(".env").close()
open(os.environ["WHERE"] + "/.settings/token").close()
made = pathlib.Path(os.environ["WHERE"], "made.tmp")
made.write_text("x")
made.rename(made.with_suffix(".csv")).read_text()
os.makedirs("model", exist_ok=True)
pathlib.Path("model/w.bin").write_text("x")
exec(os.environ.get("MORE", ""))
"""


def works(mechanism: str) -> bool:
    try:
        tracer.check(mechanism)
    except UnavailableError:
        return False
    return True


@pytest.fixture
def training(
    repository: Repository, tmp_path: Path, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> Any:  # noqa: ANN401 - a function
    repository.commit({"train.py": TRAINING})
    files = {"data/train.csv": "1", "eval/e.csv": "2", "extra.bin": "3", ".env": "TOKEN=x"}
    repository.write({**files, "a.npy": "4"})
    shutil.copy(alice.private, repository.path / "key")
    elsewhere = tmp_path / "client names"
    (elsewhere / ".settings").mkdir(parents=True)
    (elsewhere / ".settings/token").write_text("x")
    (elsewhere / "w.bin").write_text("x")
    monkeypatch.chdir(repository.path)
    monkeypatch.setenv("WHERE", str(elsewhere))
    monkeypatch.setenv("HOME", str(repository.home))

    def train(mechanism: str, **stated: Any) -> Recorded:  # noqa: ANN401
        command = stated.pop("command", [sys.executable, "train.py"])
        data = {"train": "data", "eval": "eval"}
        return record(
            command, model="model", key=alice.private, trace=mechanism, **{"data": data, **stated}
        )

    return train


def seen(recorded: Recorded) -> dict[str, Any]:
    collected = recorded.statement.build.internal_parameters.collectors["trace"]
    assert collected.status == "ok"
    return collected.values


def outputs(values: dict[str, Any]) -> list[str]:
    """Return what was written beside the model, but for what measures these tests."""
    return [name for name in values["outputs"] if ".coverage" not in name]


@pytest.mark.parametrize("mechanism", ["seccomp", "strace"])
def test_what_children_read_is_found(training: Any, mechanism: str) -> None:  # noqa: ANN401
    if not works(mechanism):
        pytest.skip(f"{mechanism} does not work here")
    recorded = training(mechanism)
    values = seen(recorded)
    assert values["undeclared"] == ["a.npy", "extra.bin", "w.bin"]
    assert values["unopened"] == {"data:eval": {"files": 1, "of": 1}}
    assert outputs(values) == ["log.txt", *(["made.csv"] if mechanism == "seccomp" else [])]
    assert values["unnamed"] == 3  # .env, the key, and what lies in a hidden folder
    assert mechanism in values["mechanism"]
    assert values["complete"] is False
    assert "client names" not in str(recorded.document())
    read = {each.name for each in recorded.statement.recipe.source.read}  # one consumer
    assert {"a.npy", "extra.bin"} <= read
    assert not any("w.bin" in name for name in read)


def test_the_default_sees_pythons_own_opens_and_declared_data(training: Any) -> None:  # noqa: ANN401
    recorded = training("auto")
    values = seen(recorded)
    assert values["undeclared"] == ["a.npy"]
    assert outputs(values) == ["log.txt"]
    line = next(line for line in captured_lines(recorded.statement) if line.startswith("trace"))
    assert "read 1 file that nobody declared: a.npy" in line
    if sys.platform == "linux":
        assert values["unopened"] == {"data:eval": {"files": 1, "of": 1}}
        assert "declared data:eval was never opened" in line


def test_forged_records_name_nothing_above_the_folders(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = """
folder = os.getcwd()
for path in (f"{folder}/../../{'../' * 9}home/x/secret.csv", f"{folder}/{'long/' * 700}"):
    with open(os.environ["PROVENANCE_RUN"] + "/records.jsonl", "a") as records:
        records.write(f'\\n{{"read":"{path}","size":1,"mtimeNs":1,"ctimeNs":1,"pid":1}}\\n')
        records.write(f'\\n{{"wrote":"{folder}/../alice.pem","pid":1}}\\n')
"""
    monkeypatch.setenv("MORE", more)
    recorded = training("auto")
    values = seen(recorded)
    assert [name[:9] for name in values["undeclared"]] == ["a.npy", "long/long", "secret.csv"[:9]]
    assert ".." not in f"{values['undeclared']}{values['changed']}{values['outputs']}"
    assert max(map(len, captured_lines(recorded.statement))) < 2000


def test_off_says_so(training: Any) -> None:  # noqa: ANN401
    collected = training("off").statement.build.internal_parameters.collectors["trace"]
    assert (collected.status, collected.reason) == ("absent", "--trace off")


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_files_of_a_declared_folder_that_nobody_opened_are_counted(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("forgotten.csv", "below/forgotten.csv", "read.csv"):
        Path("data", name).parent.mkdir(exist_ok=True)
        Path("data", name).write_text("2")
    monkeypatch.setenv("MORE", "open('data/read.csv').close()")
    recorded = training("auto")
    assert seen(recorded)["unopened"]["data:train"] == {"files": 2, "of": 4}
    line = next(line for line in captured_lines(recorded.statement) if line.startswith("trace"))
    assert "2 of 4 files of data:train not opened" in line


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_data_that_was_changed_and_changed_back_is_said(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = "p = pathlib.Path('eval/e.csv'); p.write_text('9'); p.read_text(); p.write_text('2')"
    monkeypatch.setenv("MORE", more)
    values = seen(training("inotify"))
    assert values["writtenMeanwhile"] == ["data:eval"]
    assert values["unopened"] == {}
    assert "undeclared" not in values  # inotify alone tells nothing of it


MOVED = {
    "a folder": "shutil.move('eval', 'old'); shutil.copytree('old', 'eval')",
    "a folder in it": "shutil.rmtree('data/below')",
    "a file": "shutil.copy('one.csv', 'new'); os.replace('new', 'one.csv')",
    "more than is kept": """
limit = int(pathlib.Path('/proc/sys/fs/inotify/max_queued_events').read_text())
for number in range(limit + 2):
    os.close(os.open(('data/train.csv', 'data/below/b.csv')[number % 2], os.O_RDONLY))
""",
}


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize("how", MOVED.values(), ids=MOVED)
def test_what_inotify_did_not_tell_is_said(
    training: Any,  # noqa: ANN401
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No file of what was watched is called unopened: its name is that of another now."""
    Path("data/below").mkdir()
    Path("data/below/b.csv").write_text("2")
    Path("one.csv").write_text("1")
    monkeypatch.setenv("MORE", f"import shutil\n{how}")
    data = {"train": "data", "eval": "eval", "one": "one.csv"}
    recorded = training("inotify", data=data)
    collected = recorded.statement.build.internal_parameters.collectors["trace"]
    assert collected.reason == "inotify: not all was told"
    assert 0 < len(collected.values["unopened"]) < len(data)


def test_what_is_opened_on_and_on_after_the_run_ends_its_reading(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As by a process that the run left behind."""
    endless = [Event(Path("data/train.csv"), inotify.OPEN)]
    monkeypatch.setattr(tracer, "SECONDS_TO_END", 0)
    monkeypatch.setattr(inotify.Inotify, "read", lambda *_: endless)
    collected = training("auto").statement.build.internal_parameters.collectors["trace"]
    assert "inotify: not all was told" in collected.reason
    assert collected.values["unopened"] == {}


@pytest.mark.parametrize("mechanism", ["seccomp", "strace"])
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number is of x86-64")
def test_a_ring_that_opens_unseen_is_said(
    training: Any,  # noqa: ANN401
    mechanism: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not works(mechanism):
        pytest.skip(f"{mechanism} does not work here")
    ring = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); "
    ring += "number = libc.syscall(425, 4, bytes(120)); print(ctypes.get_errno(), flush=True)"
    monkeypatch.setenv("MORE", ring)
    assert seen(training(mechanism))["lost"] == 1


@pytest.mark.parametrize("mechanism", ["audit", "auto"])
def test_where_no_python_told_nothing_is_said_of_what_they_opened(
    training: Any,  # noqa: ANN401
    mechanism: str,
) -> None:
    recorded = training(mechanism, command=[sys.executable, "-I", "train.py"])
    collected = recorded.statement.build.internal_parameters.collectors["trace"]
    if mechanism == "audit" or sys.platform != "linux":
        assert (collected.status, collected.reason) == ("absent", "no Python of the run reported")
        line = "trace    nothing was seen: no Python of the run reported"
        assert line in captured_lines(recorded.statement)
    else:
        assert collected.values["mechanism"] == "inotify"
        assert "undeclared" not in collected.values


def test_a_file_that_changed_after_it_was_opened_is_said(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MORE", "subprocess.run(['sh', '-c', 'echo 5 > a.npy'], check=True)")
    assert seen(training("auto"))["changed"] == ["a.npy"]


def test_what_does_not_work_is_refused_before_the_run(
    training: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="no trace"):
        training("all")
    monkeypatch.setattr(tracer, "_STRACE", "no-strace-here")
    with pytest.raises(UnavailableError, match=r"strace: (is not installed|permission denied)"):
        training("strace")
    monkeypatch.setattr(
        tracer, "_PROGRAM", ["sh", "-c", "echo provenance: launch: busy >&2; exit 1"]
    )
    with pytest.raises(UnavailableError, match="seccomp: busy"):
        training("seccomp")
    assert not Path("model").exists()


@pytest.mark.skipif(not works("seccomp"), reason="seccomp does not work here")
def test_the_trace_of_a_recorder_that_is_killed_is_read_when_the_run_is_finished(
    training: Any,  # noqa: ANN401
    repository: Repository,
    alice: Person,
) -> None:
    assert callable(training)
    text = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(0.5)\n"
    text += "import pathlib, subprocess\nsubprocess.run(['cat', 'extra.bin'])\n"
    text += "os.makedirs('model')\npathlib.Path('model/w.bin').write_text('x')\n"
    repository.write({"kill.py": text})
    words = [sys.executable, "-m", "provenance", "record", "--trace", "seccomp", "--model", "model"]
    words += ["--key", str(alice.private), "--", sys.executable, "kill.py"]
    state = repository.home / "state"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environ["XDG_STATE_HOME"] = str(state)
    done = subprocess.run(words, env=environ, check=False, capture_output=True, timeout=300)
    assert done.returncode == -9  # the pipes were open to the end of the program
    (run,) = (state / "provenance/runs").iterdir()
    wait_for(lambda: not (run / supervisor.SUPERVISED).exists())
    recorded = finish(run, model="model", key=alice.private)
    collected = recorded.statement.build.internal_parameters.collectors["trace"]
    assert "extra.bin" in collected.values["undeclared"]
    assert collected.reason == "the end of the command was not seen"
