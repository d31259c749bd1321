"""``provenance.recording``: a program that is recorded from inside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import provenance
from provenance.capture.run import VARIABLE
from provenance.errors import UnavailableError, UsageError
from tests.world import payload_of

if TYPE_CHECKING:
    from tests.world import Person

ROOT = Path(__file__).parents[2]

HEAD = """
import os, pathlib, signal, sys, provenance
import before
def save(text="0.5"):
    pathlib.Path("model").mkdir(exist_ok=True)
    pathlib.Path("model/weights").write_text(text)
def recording(**more):
    return provenance.recording(model="model", key=sys.argv[1], data={"train": "data.csv"}, **more)
"""


class Program:
    """A script in a folder of its own, and what it claimed."""

    def __init__(self, folder: Path, person: Person) -> None:
        self.folder, self.key = folder, person.private
        state = folder.parent / "state"
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(state)}
        self.runs = state / "provenance" / "runs"
        for name in ("RANK", "WORLD_SIZE", VARIABLE):
            self.environ.pop(name, None)

    def start(self, body: str, *words: str) -> subprocess.Popen[str]:
        (self.folder / "train.py").write_text(HEAD + body)
        command = [*words, sys.executable, "train.py", str(self.key)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, body: str, *words: str) -> subprocess.CompletedProcess[str]:
        child = self.start(body, *words)
        out, err = child.communicate(timeout=300)
        return subprocess.CompletedProcess([], child.returncode, out, err)

    def claims(self) -> list[dict[str, Any]]:
        path = self.folder / "model" / "claims.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(payload_of(line))["predicate"] for line in lines]

    def finished(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Finish the one run that was left, when its observer has gone; return its claim."""
        monkeypatch.setenv("XDG_STATE_HOME", self.environ["XDG_STATE_HOME"])
        monkeypatch.chdir(self.folder)
        [run] = self.runs.iterdir()
        for _ in range(600):
            try:
                provenance.finish(run)
                break
            except UnavailableError:
                time.sleep(0.1)
        [claim] = self.claims()
        return claim


@pytest.fixture
def program(tmp_path: Path, alice: Person) -> Program:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "data.csv").write_text("1,2\n")
    (folder / "before.py").write_text("V = 1\n")
    (folder / "later.py").write_text("V = 2\n")
    return Program(folder, alice)


def collectors(claim: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = claim["buildDefinition"]["internalParameters"]["collectors"]
    return found


def outcome(claim: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = claim["runDetails"]["provenance_outcome"]
    return found


def test_a_block_is_recorded_from_inside(program: Program) -> None:
    ran = program.run(
        """
opened = []
sys.addaudithook(lambda name, words: opened.append(words[0]) if name == "open" else None)
run = recording(seeds=3)
print(run)
with run:
    print(run)
    import later
    run.metric("loss", 0.5, step=1)
    provenance.current_run().metric("loss", 0.25, step=2)
    run.initial_weights({"w": 1.5})
    run.arguments({"rate": 0.5, "hub_token": "abc"})
    run.checkpoint("model/weights")
    save()
print(str(run).replace(f"{len(run.recorded.warnings)} warnings, ", ""))
print(run.recorded.statement.level, run.recorded.status, run.recorded.written, run.is_recorded)
print(sys.argv[1] in map(str, opened), os.environ["PYTHONPATH"], "PROVENANCE_RUN" in os.environ)
"""
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "<run: not recorded>",
        "<run: being recorded>",
        "<run: recorded, model/claims.jsonl>",
        "recorded 0 ('model/claims.jsonl', 'model/model.sig') False",
        f"False {ROOT} False",
    ]
    [claim] = program.claims()
    recipe = claim["buildDefinition"]["externalParameters"]
    assert recipe["command"][1:] == ["train.py", str(program.key)]
    assert recipe["seeds"] == {"seed": "3"}
    assert {each["name"].rpartition("/")[2] for each in recipe["source"]["read"]} >= {
        "before.py",
        "later.py",
    }
    said = collectors(claim)
    assert said["recorder"]["values"]["from"] == "inside"
    assert said["reads"]["values"]["by"] == "from inside the program, since then"
    assert said["metrics"]["values"] == {"records": 2}
    assert said["interpreter"]["status"] == "ok"
    assert said["cost"]["values"]["cpuSeconds"]["user"] >= 0
    [values] = said["arguments"]["values"].values()
    assert values["rate"] == 0.5
    assert values["hub_token"].startswith("${redacted:")
    assert outcome(claim)["exitStatus"] == 0
    names = [each["name"] for each in claim["runDetails"]["byproducts"]]
    assert names == ["manifest/data:train", "metrics", "initialWeights", "checkpoints"]
    assert not list(program.runs.iterdir())


@pytest.mark.parametrize(
    ("end", "said", "status"),
    [
        ("raise ValueError", {"exitStatus": 1}, 1),
        ("sys.exit(3)", {"exitStatus": 3}, 3),
        ("sys.exit()", {"exitStatus": 0}, 0),
        ("sys.exit('no')", {"exitStatus": 1}, 1),
        ("sys.exit('')", {"exitStatus": 1}, 1),
        ("sys.exit(10**30)", {"exitStatus": 255}, 255),
        ("raise KeyboardInterrupt", {"signal": "SIGINT"}, -signal.SIGINT),
    ],
)
def test_how_a_block_ends_is_how_the_run_ends(
    program: Program, end: str, said: dict[str, Any], status: int
) -> None:
    ran = program.run(f"with recording() as run:\n    save()\n    {end}\n")
    assert ran.returncode == status, ran.stderr
    [claim] = program.claims()
    assert {n: v for n, v in outcome(claim).items() if n in ("exitStatus", "signal")} == said


def test_a_block_that_fails_and_makes_nothing_claims_nothing(program: Program) -> None:
    ran = program.run("with recording() as run:\n    raise ValueError('mine')\n")
    assert ran.returncode == 1
    assert "ValueError: mine" in ran.stderr
    assert "left nothing to attest" in ran.stderr
    assert not list(program.runs.iterdir())


def test_what_is_raised_may_be_caught_outside(program: Program) -> None:
    ran = program.run(
        """
def steps():
    with recording() as run:
        save()
        yield run
        yield
made = steps()
run = next(made)
made.close()
print(run.recorded.status)
run = recording()
run.start(); save("1.5"); run.stop(); run.stop()
print(run.recorded.status)
"""
    )
    assert ran.stdout.split() == ["1", "0"], ran.stderr
    assert len(program.claims()) == 2


@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os._exit(0)",
        "os.fork() or signal.pause(); os._exit(0)",
    ],
)
def test_an_end_that_nobody_saw_is_unknown(
    program: Program, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = "child = os.fork()\n    if not child:\n        os.closerange(1, 3); signal.pause()\n"
    if "fork" in end:  # a child that keeps the pipe to the observer open
        end = f"{left}    pathlib.Path('child').write_text(str(child)); os._exit(0)"
    ran = program.run(f"with recording() as run:\n    save()\n    {end}\n")
    assert ran.stderr == ""
    assert program.claims() == []
    claim = program.finished(monkeypatch)
    assert not outcome(claim).keys() & {"exitStatus", "signal"}
    assert outcome(claim)["unseen"] == ["weights"]
    if (child := program.folder / "child").exists():
        os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_block_that_never_began_leaves_no_run(program: Program) -> None:
    child = program.start(
        """
os.mkfifo("begun")
import provenance.api.recording as module
module._OBSERVER = module._OBSERVER.replace("observe()", "open('begun').read(); observe()")
with recording() as run:
    save()
"""
    )
    fifo = program.folder / "begun"
    for _ in range(3000):
        if not fifo.exists():
            time.sleep(0.1)
    with fifo.open("w"):  # the observer waits
        child.kill()
        child.wait()
    child.communicate(timeout=300)  # until it has ended, too
    assert not list(program.runs.glob("*"))


def test_an_observer_that_is_killed_costs_the_end_alone(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = program.run(
        """
try:
    with recording() as run:
        save()
        run._observer.kill()
        run._observer.wait()
except provenance.UnfinishedError as error:
    print(run)
    print(error.hint, pathlib.Path(error.run).is_dir())
"""
    )
    assert "--finish" in ran.stdout, ran.stderr
    assert ran.stdout.startswith("<run: no claim: ")
    assert "--finish" in ran.stdout.splitlines()[0]
    assert ran.stdout.endswith("True\n")
    assert "exitStatus" not in outcome(program.finished(monkeypatch))


def test_a_secret_that_the_program_sets_is_not_signed(program: Program) -> None:
    ran = program.run(
        """
with recording() as run:
    os.environ["MY_TOKEN"] = "correct horse battery"
    run.arguments({"note": "it is correct horse battery", "kept": "staple"})
    save()
"""
    )
    assert ran.returncode == 0, ran.stderr
    [claim] = program.claims()
    assert "horse" not in json.dumps(claim)
    assert "staple" in json.dumps(claim)


@pytest.mark.parametrize(
    "lost",
    [
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL); run._observer.kill(); run._observer.wait()",
        "os.closerange(3, 100)",
    ],
)
def test_without_its_observer_the_training_goes_on(
    program: Program, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = program.run(
        f"""
run = recording()
run.start(); save()
{lost}
files = [open(f"mine{{number}}", "w+") for number in range(20)]
try:
    run.stop()
except provenance.UnfinishedError as error:
    print("--finish" in error.hint)
del run
for file in files:
    file.write("mine"); file.close()
print(*{{len(open(f"mine{{number}}").read()) for number in range(20)}})
"""
    )
    assert ran.stdout.split() == ["True", "4"], ran.stderr
    assert "exitStatus" not in outcome(program.finished(monkeypatch))


def test_what_ends_every_process_of_a_job_is_the_trainings_to_answer(program: Program) -> None:
    ran = program.run(
        """
signal.signal(signal.SIGTERM, lambda *_: save("saved in time"))
with recording() as run:
    for process in (run._observer.pid, os.getpid()):
        os.kill(process, signal.SIGTERM)
print(run.recorded.status)
"""
    )
    assert ran.stdout == "0\n", ran.stderr
    assert outcome(program.claims()[0])["exitStatus"] == 0


def test_a_training_that_ignores_how_children_end_hides_no_failure_of_git(program: Program) -> None:
    subprocess.run(["git", "init", "-q", program.folder], check=True)
    (program.folder / ".git" / "index").write_bytes(b"damaged")
    body = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    provenance.record(["touch", "ran"], model="model", key=sys.argv[1])
except provenance.errors.UsageError as error:
    print(error.what)
with recording():
    save()
"""
    ran = program.run(body)
    assert ran.stdout.startswith("SIGCHLD is ignored here"), ran
    assert not (program.folder / "ran").exists()
    [claim] = program.claims()
    assert collectors(claim)["source"]["status"] == "error"


def test_what_lies_beside_the_script_is_not_loaded_by_the_observer(program: Program) -> None:
    ran = program.run(
        """
text = "import sys; sys.argv[0] == '-c' and open('loaded', 'w')"
pathlib.Path("shlex.py").write_text(text)
sys.path += [pathlib.Path("a")]
with recording() as run:
    save()
print(os.path.exists("loaded"))
"""
    )
    assert ran.stdout == "False\n", ran.stderr
    assert len(program.claims()) == 1


def test_a_forked_child_that_leaves_the_block_ends_nothing(program: Program) -> None:
    ran = program.run(
        """
with recording() as run:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        save()
    run.metric("loss", 1.0)
if child:
    print(run.recorded.status)
"""
    )
    assert ran.stdout == "0\n", ran.stderr
    [claim] = program.claims()
    assert collectors(claim)["metrics"]["values"] == {"records": 2}


NESTED = """
with recording() as outer, recording() as inner:
    inner.metric("loss", 1.0)
    save()
print(outer.recorded is not None, inner.recorded)
print(inner, file=sys.stderr)
"""


def test_a_block_in_a_block_reports_to_the_outer_one(program: Program) -> None:
    ran = program.run(NESTED)
    assert (ran.stdout, ran.stderr) == (
        "True None\n",
        "<run: told to the recorder that is at work>\n",
    )
    [claim] = program.claims()
    assert collectors(claim)["metrics"]["values"] == {"records": 1}


def test_two_at_once_are_one_run(program: Program) -> None:
    ran = program.run(
        """
import threading
runs, both = [recording(), recording()], threading.Barrier(2)
def train(run):
    with run:
        run.metric("loss", 1.0)
        save()
        both.wait()
threads = [threading.Thread(target=train, args=(run,)) for run in runs]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(run.recorded is None for run in runs), "PROVENANCE_RUN" in os.environ)
"""
    )
    assert ran.stdout == "[False, True] False\n", ran.stderr
    [claim] = program.claims()
    assert collectors(claim)["metrics"]["values"] == {"records": 2}


def test_below_record_there_is_one_claim(program: Program) -> None:
    outer = (sys.executable, "-m", "provenance", "record", "--model", "model")
    ran = program.run(NESTED, *outer, "--key", str(program.key), "--")
    assert ran.stdout == "False None\n", ran.stderr
    [claim] = program.claims()
    assert collectors(claim)["metrics"]["values"] == {"records": 1}
    assert "from" not in collectors(claim)["recorder"]["values"]


def test_of_several_ranks_the_first_records(program: Program) -> None:
    program.environ |= {"RANK": "1", "WORLD_SIZE": "2"}
    ran = program.run("with recording() as run:\n    save()\nprint(run.recorded)\n")
    assert ran.stdout == "None\n", ran.stderr
    assert program.claims() == []


def test_what_could_never_be_signed_is_refused_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alice: Person
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    provenance.keygen("locked", password="secret")
    key = alice.private
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (provenance.ProvenanceError, {"key": "no-such-key"}),
        (provenance.ProvenanceError, {"key": "locked"}),
        (provenance.ProvenanceError, {"key": "locked", "password": b"wrong"}),
        (provenance.ProvenanceError, {"key": key, "data": ["no-such-file"]}),
        (TypeError, {"key": key, "unknown": 1}),
        (UsageError, {"key": alice.key}),
    ]
    for kind, arguments in wrong:
        with pytest.raises(kind), provenance.recording(model="model", **arguments):
            raise AssertionError
    assert VARIABLE not in os.environ


def test_a_dry_run_tells_what_would_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    provenance.keygen("locked", password="secret")
    said: list[object] = []
    run = provenance.recording(
        model="model", key="locked", password="secret", dry_run=True, on_warning=said.append
    )
    with run:
        assert not run.is_recorded
    assert run.recorded is not None
    assert run.recorded.statement.run.metadata.started_on == ""


def test_a_claim_that_cannot_be_made_is_finished_later(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.environ["MY_TOKEN"] = "a-secret-of-mine-42"
    ran = program.run(
        """
with recording() as run:
    save()
    os.mkfifo("model/pipe")
"""
    )
    assert ran.returncode == 1
    assert "provenance record --finish" in ran.stderr
    (program.folder / "model" / "pipe").unlink()
    monkeypatch.setenv("MY_TOKEN", "a-secret-of-mine-42")
    assert outcome(program.finished(monkeypatch))["exitStatus"] == 0


@pytest.mark.parametrize("known", [True, False])
def test_a_notebook_is_its_file_if_that_is_known(program: Program, *, known: bool) -> None:
    (program.folder / "a.ipynb").write_text("{}")
    ran = program.run(
        f"""
sys.orig_argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "/run/kernel-1.json"]
if {known}:
    __vsc_ipynb_file__ = os.path.abspath("a.ipynb")
with recording() as run:
    save()
print(run.recorded.warnings)
"""
    )
    assert ran.returncode == 0, ran.stderr
    assert known or "no file of the notebook is known (name it as a config)" in ran.stdout
    [claim] = program.claims()
    recipe, source = claim["buildDefinition"]["externalParameters"], collectors(claim)["source"]
    command = ["-m", "ipykernel_launcher", "a.ipynb"]
    assert recipe["command"][1:] == (command if known else command[:2])
    files = [each["name"] for each in recipe["source"].get("files", [])] if known else []
    assert files == (["a.ipynb"] if known else [])
    assert known or "notebook" in source["reason"]
