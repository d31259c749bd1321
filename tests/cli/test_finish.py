"""``record --finish``: what was seen of a run becomes its claim, once, and no more than that."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.capture import made, run_folder
from provenance.files.atomic import locked
from provenance.folder import claims
from tests.world import PROGRAM, Ran, Shell, make_log, payload_of, refused, run_program, tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.world import Person

TRAIN = "mkdir -p model; printf 1 > model/w; printf 2 > model/v"

pytestmark = pytest.mark.usefixtures("runs")


def command_in(ran: Ran) -> list[str]:
    """Return the arguments of the command that an error says completes the claim."""
    (line,) = [line for line in ran.err.splitlines() if "record --finish" in line]
    _, _, command = line.removesuffix(")").partition("to go on: ")
    words = shlex.split(command)
    assert words[:3] == ["provenance", "record", "--finish"]
    assert len(command) <= 80 or "/" in command, command
    return words[1:]


def statements(root: Path) -> list[dict[str, Any]]:
    lines = (root / "claims.jsonl").read_bytes().splitlines()
    return [json.loads(payload_of(line))["predicate"] for line in lines]


def statement(root: Path) -> dict[str, Any]:
    (found,) = statements(root)
    return found


def outcome(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = statement(root)["runDetails"]["provenance_outcome"]
    return found


def accepted(provenance: Shell, root: Path, person: Person) -> str:
    """Return what ``verify`` says of *root*, which it accepts."""
    ran = provenance("verify", root, "--key", person.public)
    assert ran.status == 0, ran
    return ran.out


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


# --- Whatever is wrong after the run --------------------------------------------------------------

TROUBLES = {
    "a link out of the folder": ("ln -s /etc/passwd model/x", "rm model/x"),
    "a FIFO": ("mkfifo model/x", "rm model/x"),
    "a name in Latin-1": (r"touch model/$(printf '\351')", r"rm model/$(printf '\351')"),
    "a folder in place of the claims": ("mkdir model/claims.jsonl", "rmdir model/claims.jsonl"),
    "broken claims": ("echo {} > model/claims.jsonl", "rm model/claims.jsonl"),
    "a link in place of the byproducts": (
        "ln -s /tmp model/provenance",
        "rm model/provenance",
    ),
}


@pytest.mark.parametrize(("wrong", "mend"), TROUBLES.values(), ids=TROUBLES)
def test_what_is_wrong_with_the_model_costs_nothing(
    wrong: str, mend: str, work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    (work / "data").write_text("x" * 2000)
    many = [word for n in range(40) for word in ("--data", f"a{n}=data")]  # byproducts beside it
    ran = record(f"{TRAIN}; {wrong}", *many)
    if "link in place" in wrong or ran.status == 0:
        assert ran.status in (0, 125), ran
    if ran.status == 0:  # nothing had to be written there
        return
    assert ran.status == 125, ran
    command = command_in(ran)
    again = provenance(*command)
    assert (again.status, command_in(again)) == (125, command)
    subprocess.run(["sh", "-c", mend], check=True)
    assert provenance(*command).status == 0
    assert outcome(work / "model") == {"exitStatus": 0}
    assert "the command ended with status 0" in accepted(provenance, work / "model", alice)
    refused(provenance(*command), 125, "no such run, or it is finished")


def test_a_model_that_is_elsewhere_is_attested(
    work: Path, provenance: Shell, runs: Path, alice: Person
) -> None:
    options = ("--model", "modle", "--key", alice.private)
    ran = provenance("record", *options, "--", "sh", "-c", TRAIN)
    assert ran.status == 125
    command = command_in(ran)
    assert command[-2:] == ["--model", "DIR"]
    assert [path.stat().st_mode & 0o777 for path in (only(runs), only(runs) / "plan.json")] == [
        0o700,
        0o600,
    ]
    refused(provenance(*command), 125, "DIR", "no such folder", command[2])
    ran = provenance(*command[:-1], "model")
    assert ran.status == 0, ran
    assert "2 files that the run was not seen to make: v, w" in ran.err
    assert outcome(work / "model") == {"exitStatus": 0, "unseen": ["v", "w"]}
    assert not list(runs.iterdir())


def test_a_model_that_the_run_did_not_make_is_not_claimed_later(
    work: Path, provenance: Shell, alice: Person
) -> None:
    subprocess.run(["sh", "-c", TRAIN], check=True)
    options = ("--model", "none", "--key", alice.private)
    command = command_in(provenance("record", *options, "--", "true"))
    refused(provenance(*command[:-1], "model"), 125, "the run wrote none of its files")
    assert not (work / "model/claims.jsonl").exists()
    (work / "model/w").write_text("touched since")
    assert provenance(*command[:-1], "model").status == 0
    assert outcome(work / "model") == {"exitStatus": 0, "untouched": ["v"], "unseen": ["w"]}


def test_a_command_that_failed_and_wrote_nothing_leaves_nothing_to_finish(
    work: Path, record: Callable[..., Ran], runs: Path
) -> None:
    refused(record("exit 3"), 3, "left nothing to attest")
    (work / "model").mkdir()
    (work / "model/w").write_text("1")
    refused(record("exit 4"), 4, "left nothing to attest")
    assert not list(runs.iterdir())


def test_the_status_of_a_command_that_failed_is_passed_on(
    work: Path, record: Callable[..., Ran], provenance: Shell
) -> None:
    ran = record(f"{TRAIN}; mkfifo model/x; exit 7")
    assert ran.status == 7
    (work / "model/x").unlink()
    assert provenance(*command_in(ran)).status == 7
    assert outcome(work / "model") == {"exitStatus": 7}


def test_a_password_of_the_log_that_is_wrong(
    work: Path, tmp_path: Path, record: Callable[..., Ran], provenance: Shell, alice: Person,
    larry: Person,
) -> None:  # fmt: skip
    """The log is found to be gone only when the claim is published; another one is as good."""
    make_log(tmp_path / "log", larry)
    make_log(tmp_path / "other", larry)
    ran = record(f"{TRAIN}; rm -r {tmp_path}/log/*", "--log", tmp_path / "log")
    assert ran.status == 125
    command = command_in(ran)
    refused(provenance(*command), 125, "record --finish")
    ran = provenance(*command, "--log", tmp_path / "other")
    assert ran.status == 0, ran
    assert "published claim 1 as entry 0" in ran.err
    assert len(statements(work / "model")) == 1
    accepted(provenance, work / "model", alice)


def test_the_variables_of_passwords_are_in_the_command(
    work: Path, provenance: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYPW", "correct horse battery")
    key = tmp_path / "carol"
    assert provenance("keygen", key, "--password-env", "KEYPW").status == 0
    options = ("--model", "model", "--key", key, "--password-env", "KEYPW")
    ran = provenance("record", *options, "--", "sh", "-c", f"{TRAIN}; mkfifo model/x")
    command = command_in(ran)
    assert command[-2:] == ["--password-env", "KEYPW"]
    (work / "model/x").unlink()
    monkeypatch.setenv("KEYPW", "wrong")
    assert command_in(provenance(*command)) == command
    monkeypatch.setenv("KEYPW", "correct horse battery")
    assert provenance(*command).status == 0


@pytest.mark.parametrize("wrong", ["KeyboardInterrupt", "ZeroDivisionError", "OSError"])
def test_an_interrupt_or_a_defect_of_ours_costs_nothing(
    wrong: str, work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise {"KeyboardInterrupt": KeyboardInterrupt, "OSError": OSError}.get(
            wrong, ZeroDivisionError
        )

    with monkeypatch.context() as patch:
        patch.setattr("provenance.capture.recorder.look_after", fail)
        ran = record()
    assert ran.status == (130 if wrong == "KeyboardInterrupt" else 125)
    assert provenance(*command_in(ran)).status == 0
    made = statement(work / "model")
    assert made["runDetails"]["provenance_outcome"] == {"exitStatus": 0}
    assert made["buildDefinition"]["internalParameters"]["observed"] == ["start"]
    accepted(provenance, work / "model", alice)


def test_on_a_terminal_the_command_is_not_broken() -> None:
    from provenance.report.terminal import wrap  # noqa: PLC0415 - this test's own

    command = "provenance record --finish 12345678 --redact byproducts/metrics)"
    lines = wrap(f"provenance: no (something long to do; to go on: {command}", 70, 2)
    assert command in [line.strip() for line in lines]


# --- What is recorded and what is attested --------------------------------------------------------

CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "touched": ("touch model/w", {}, ""),
    "moved": ("mv model m; mkdir model; mv m/* model", {}, ""),
    "changed": (
        "echo 9 > model/w",
        {"unseen": ["w"]},
        "1 file that the run was not seen to make: w",
    ),
    "added": ("echo 9 > model/n", {"unseen": ["n"]}, "was not seen to make: n"),
    "renamed": ("mv model/w model/n", {"unseen": ["n"]}, "since the command ended: w"),
    "removed": ("rm model/w", {}, "since the command ended: w"),
}


@pytest.mark.parametrize(("change", "stated", "said"), CHANGES.values(), ids=CHANGES)
def test_only_what_is_as_it_was_at_the_end_is_recorded(
    change: str, stated: dict[str, Any], said: str, work: Path, record: Callable[..., Ran],
    provenance: Shell, alice: Person,
) -> None:  # fmt: skip
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    subprocess.run(["sh", "-c", change], check=True)
    ran = provenance(*command)
    assert ran.status == 0, ran
    assert said in ran.err
    assert ("say: attested" in ran.err) == ("unseen" in stated)
    assert outcome(work / "model") == {"exitStatus": 0, **stated}
    accepted(provenance, work / "model", alice)


def test_a_model_that_was_moved_is_still_what_was_seen(
    work: Path, record: Callable[..., Ran], provenance: Shell
) -> None:
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    (work / "model").rename(work / "kept")
    assert provenance(*command, "--model", "kept").status == 0
    assert outcome(work / "kept") == {"exitStatus": 0}


def test_a_recorder_that_is_killed_leaves_an_unknown_outcome(
    work: Path, provenance: Shell, runs: Path, alice: Person
) -> None:
    (work / "train.py").write_text(
        "import pathlib, time, provenance\n"
        "provenance.current_run().metric('loss', 0.25)\n"
        "provenance.current_run().seed('numpy', 7)\n"
        "pathlib.Path('model').mkdir(); pathlib.Path('model/w').write_text('1')\n"
        "pathlib.Path('ready').touch()\n"
        "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
    )
    options = ("--model", "model", "--key", str(alice.private))
    process = subprocess.Popen(
        [*PROGRAM, "record", *options, "--", sys.executable, "train.py"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (work / "ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    name = only(runs).name
    refused(provenance("record", "--finish", name), 125, "being recorded or finished by another")
    process.kill()
    process.wait()
    refused(provenance("record", "--finish", name), 125, "the command still runs")
    pid = json.loads((runs / name / "started.json").read_text())["pid"]
    (work / "go").touch()
    while run_folder.process(pid) is not None:
        time.sleep(0.01)
    ran = provenance("record", "--finish", name)
    assert ran.status == 0, ran
    assert "say: unknown: the run began" in ran.err
    made = statement(work / "model")
    assert made["runDetails"]["provenance_outcome"] == {"unseen": ["w"]}
    assert made["runDetails"]["metadata"].keys() == {"invocationId", "startedOn"}
    assert made["buildDefinition"]["externalParameters"]["seeds"] == {"numpy": "7"}
    cost = {"status": "absent", "reason": "the end of the command was not seen"}
    assert made["buildDefinition"]["internalParameters"]["collectors"]["cost"] == cost
    assert "metrics" in [item["name"] for item in made["runDetails"]["byproducts"]]
    assert not (work / "model/model.sig").exists()
    verify = ("verify", "model", "--key", alice.public)
    shown = provenance(*verify).out
    assert "unknown: the run began and its end was not seen" in shown
    assert "no input changed" not in shown
    ran = provenance(*verify, "--require", "recorded")
    assert ran.status == 1
    assert "recorded is required, but the outcome is unknown" in ran.err


# --- Once -----------------------------------------------------------------------------------------


def test_a_claim_that_was_signed_is_the_only_one_of_its_run(
    work: Path, record: Callable[..., Ran], provenance: Shell, runs: Path, tmp_path: Path
) -> None:
    command = command_in(record(f"{TRAIN}; mkdir model/claims.jsonl"))
    shutil.copytree(only(runs), tmp_path / "copy", copy_function=shutil.copy2)
    (work / "model/claims.jsonl").rmdir()
    refused(provenance(*command, "--redact", "byproducts/metrics"), 125, "is signed")
    assert provenance(*command).status == 0
    before = tree(work)
    # Killed before the folder was removed, it would be there again.
    shutil.copytree(tmp_path / "copy", runs / command[2], copy_function=shutil.copy2)
    assert provenance(*command).status == 0
    assert tree(work) == before
    assert len(claims.read_bundles(work / "model/claims.jsonl")) == 1


@pytest.mark.parametrize("place", ["model", "other"])
def test_a_signed_claim_is_put_beside_the_files_that_it_is_about_alone(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person, place: str
) -> None:
    command = command_in(record(f"{TRAIN}; mkdir model/claims.jsonl"))
    (work / "model/claims.jsonl").rmdir()
    (work / place).mkdir(exist_ok=True)
    (work / place / "w").write_text("another")
    assert provenance(*command, "--model", place).status == 0
    assert "w" in outcome(work / place)["unseen"]
    assert "attested" in accepted(provenance, work / place, alice)


def test_a_copy_of_a_runs_folder_makes_no_second_claim(
    work: Path, record: Callable[..., Ran], provenance: Shell, runs: Path, tmp_path: Path
) -> None:
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    shutil.copytree(only(runs), tmp_path / "copy")
    assert provenance(*command).status == 0
    before = tree(work)
    refused(provenance(*command[:2], f"{tmp_path}/copy"), 125, "line 1 claims this run already")
    assert tree(work) == before


def test_a_training_that_removes_its_runs_folder_is_recorded(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    wait = "until [ -e $run/started.json ]; do sleep 0.1; done"  # which is written meanwhile
    ran = record(f"{TRAIN}; run=$(dirname $PROVENANCE_RUN); {wait}; rm -r $run")
    assert ran.status == 0, ran
    assert outcome(work / "model") == {"exitStatus": 0}
    assert accepted(provenance, work / "model", alice)


def test_a_file_that_is_still_written_is_not_what_was_seen(
    work: Path, record: Callable[..., Ran], provenance: Shell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A background process of the training goes on with its log while the model is hashed."""
    look = made.look_after

    def while_it_is_written(*arguments: Any) -> Any:  # noqa: ANN401 - as the function has them
        looks = look(*arguments)
        with (work / "model/log").open("a") as file:
            file.write("and more")
        return looks

    with monkeypatch.context() as patch:
        patch.setattr(made, "look_after", while_it_is_written)
        command = command_in(record(f"{TRAIN}; echo 1 > model/log; mkfifo model/x"))
    (work / "model/x").unlink()
    assert provenance(*command).status == 0
    assert outcome(work / "model") == {"exitStatus": 0, "unseen": ["log"]}


def test_what_is_left_of_a_finished_run_is_no_run(
    record: Callable[..., Ran], provenance: Shell, runs: Path
) -> None:
    only_name = command_in(record(f"{TRAIN}; mkfifo model/x"))[2]
    (runs / only_name).rename(runs / f"{only_name}.finished")
    refused(provenance("record", "--finish", f"{only_name}.finished"), 125, "is finished")
    refused(provenance("record", "--finish", only_name), 125, "no such run, or it is finished")


def test_two_cannot_finish_at_once(
    record: Callable[..., Ran], provenance: Shell, runs: Path, work: Path
) -> None:
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    with locked(only(runs)):
        refused(provenance(*command), 125, "being recorded or finished by another process")
    assert not (work / "model/claims.jsonl").exists()
    running = [subprocess.Popen([*PROGRAM, *command], stderr=subprocess.DEVNULL) for _ in "ab"]
    assert sorted(process.wait() for process in running) == [0, 125]
    assert len(claims.read_bundles(work / "model/claims.jsonl")) == 1


# --- What is no run's folder, or not one to trust -------------------------------------------------


def test_a_folder_that_others_could_write_is_refused(
    record: Callable[..., Ran], provenance: Shell, runs: Path, work: Path, tmp_path: Path
) -> None:
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    run = only(runs)
    run.chmod(0o750)
    refused(provenance(*command), 125, "is no folder of yours with mode 0700")
    run.chmod(0o700)
    run.rename(tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    refused(provenance(*command), 125, "is a symbolic link")
    run.unlink()
    os.mkfifo(run)
    refused(provenance(*command), 125, "is a FIFO")
    run.unlink()
    refused(provenance(*command), 125, "no such run")
    if os.geteuid() == 0:
        os.chown(tmp_path / "elsewhere", 12345, 12345)
        refused(provenance(*command[:2], f"{tmp_path}/elsewhere"), 125, "is no folder of yours")
        os.chown(tmp_path / "elsewhere", 0, 0)
    assert not (work / "model/claims.jsonl").exists()
    assert provenance(*command[:2], f"{tmp_path}/elsewhere").status == 0


def test_files_that_are_damaged_are_an_error(
    record: Callable[..., Ran], provenance: Shell, runs: Path, work: Path
) -> None:
    command = command_in(record(f"{TRAIN}; mkdir model/claims.jsonl"))
    (work / "model/claims.jsonl").rmdir()
    run = only(runs)
    hostile = (b"[" * 10**5, b"null", b'{"a": 1}', b"\xff", b"[1e999]", b"9" * 10**5)
    needed = ("plan.json", "ended.json", "signed.json", "seen.json", "made.json")
    # A command that ends at once may be gone before it is written down which process it is.
    others = {"started.json", "trace.json"}
    assert {each.name for each in run.glob("*.json")} | others == {*needed, *others}
    for name in needed:
        path = run / name
        data = path.read_bytes()
        for bad in (b"", data[:1], data[: len(data) // 2], data[:-1], *hostile):
            path.write_bytes(bad)
            refused(provenance(*command), 125, run.name)
        path.write_bytes(data)
        if name == "signed.json":  # with it, what follows is not needed any more
            path.unlink()
    assert provenance(*command).status == 0


def test_without_one_of_its_files_less_is_claimed(
    record: Callable[..., Ran], provenance: Shell, runs: Path, work: Path, alice: Person
) -> None:
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    (only(runs) / "made.json").unlink()
    which = f"without a claim: {only(runs).name} (of model)"
    refused(provenance("record", "--finish", "nothing"), 125, "no such run", which)
    assert provenance(*command).status == 0
    assert outcome(work / "model") == {"exitStatus": 0, "unseen": ["v", "w"]}
    refused(provenance("record", "--finish", "nothing"), 125, "no such run", "its claim")
    (runs / "empty").mkdir(mode=0o700)
    refused(provenance("record", "--finish", "empty"), 125, "is not the folder of a run")
    accepted(provenance, work / "model", alice)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--finish", "x", "--", "true"], "COMMAND was stated for the run"),
        (["--finish", "x", "--data", "d"], "--data was stated for the run"),
        (["--finish", "x", "--seed", "1"], "--seed was stated for the run"),
        (["--finish", "x", "--dry-run"], "--dry-run was stated for the run"),
        (["--redact", "x", "--model", "m", "--key", "k", "--", "true"], "goes with --finish"),
    ],
)
def test_what_contradicts_it(provenance: Shell, arguments: list[str], words: str) -> None:
    refused(provenance("record", *arguments), 125, words)


def test_a_command_may_have_such_an_option(work: Path, provenance: Shell, alice: Person) -> None:
    script = 'mkdir model; echo "$@" > model/w'
    options = ("--model", "model", "--key", alice.private)
    ran = provenance("record", *options, "sh", "-c", script, "x", "--finish", "--redact")
    assert ran.status == 0, ran
    assert (work / "model/w").read_text() == "--finish --redact\n"


# --- Where it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["model", "repository", "data", "closed", "relative"])
def test_the_folder_is_outside_of_what_is_recorded(
    place: str, work: Path, record: Callable[..., Ran], tmp_path: Path, provenance: Shell,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (work / "data").mkdir()
    (work / "data/d").write_text("1")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if place == "closed":
        (work / "closed").write_text("no folder")
    if place == "repository":
        (work / ".git").mkdir()
    state = place if place == "relative" else str(work / place)
    monkeypatch.setenv("XDG_STATE_HOME", state)
    ran = record(f"{TRAIN}; mkfifo model/x", "--data", "data")
    found = command_in(ran)[2]
    if place == "relative":
        assert (tmp_path / "home/.local/state/provenance/runs" / found).is_dir()
    else:
        assert Path(found).parent == tmp_path / "tmp"
    (work / "model/x").unlink()
    assert provenance("record", "--finish", found).status == 0
    monkeypatch.setattr("tempfile.tempdir", None)


def test_without_any_place_nothing_is_started(
    work: Path, record: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(work / "model"))
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "model"))
    refused(record("touch ran"), 125, "no private folder", "XDG_STATE_HOME")
    assert tree(work) == {}


def test_without_a_home_it_is_a_temporary_folder() -> None:
    with run_folder.create("0" * 36, {}, ()) as kept:
        assert kept.path.parent == Path(tempfile.gettempdir())
        kept.remove()


@pytest.mark.parametrize("name", ["a\nb", "it's $x", b"l\xe9", "\x1b[31m"])
def test_the_command_names_any_folder(
    work: Path, provenance: Shell, alice: Person, tmp_path: Path, name: str | bytes
) -> None:
    temporary = tmp_path / os.fsdecode(name)
    temporary.mkdir()
    environ = {"XDG_STATE_HOME": "", "HOME": "", "TMPDIR": str(temporary), "PYTHONUTF8": "1"}
    options = ("--model", "model", "--key", alice.private)
    ran = run_program(
        "record", *options, "--", "sh", "-c", f"{TRAIN}; mkfifo model/x", environ=environ
    )
    (work / "model/x").unlink()
    _, _, command = ran.err.rstrip().removesuffix(")").partition("to go on: ")
    command = command.removeprefix("provenance")
    finished = subprocess.run(
        ["bash", "-c", shlex.join(map(str, PROGRAM)) + command], check=False, cwd=work
    )
    assert finished.returncode == 0
    accepted(provenance, work / "model", alice)


def test_the_working_folder_may_be_gone(work: Path, alice: Person, provenance: Shell) -> None:
    (work / "gone").mkdir()
    script = f"mkdir -p {work}/model/claims.jsonl; echo 1 > {work}/model/w; rmdir {work}/gone"
    options = ("--model", work / "model", "--key", alice.private)
    ran = run_program("record", *options, "--", "sh", "-c", script, cwd=work / "gone")
    (work / "model/claims.jsonl").rmdir()
    assert provenance(*command_in(ran)).status == 0


def test_what_was_given_to_finish_is_in_the_next_command(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person, tmp_path: Path
) -> None:
    key = tmp_path / "a key"
    shutil.copy(alice.private, key)
    allowed = ("--unsafe-allow-secret", "TOKEN")
    command = command_in(record(f"{TRAIN}; mkfifo model/x; rm '{key}'", "--key", key, *allowed))
    assert command[-2:] == list(allowed)
    assert command_in(provenance(*command))[3:] == ["--key", "KEY", *allowed]
    again = command_in(provenance(*command, "--key", alice.private))
    assert again[3:] == ["--key", str(alice.private), *allowed]
    (work / "model/x").unlink()
    assert provenance(*again).status == 0


# --- A secret that is found late ------------------------------------------------------------------

SECRET = "hunter2-hunter2-hunter2"
LEAKS = {
    "a metric's name": ("run.metric(f'loss {s}', 1)", "byproducts/metrics"),
    "a seed's name": ("run.seed(f'numpy {s}', 1)", "externalParameters/seeds"),
    "an added file of an input": (
        "pathlib.Path('data', s).write_text('1')",
        "changedInputs/0/added/0/name",
    ),
}


@pytest.mark.parametrize(("leak", "field"), LEAKS.values(), ids=LEAKS)
def test_a_secret_that_is_found_late_is_redacted(
    leak: str, field: str, work: Path, provenance: Shell, alice: Person, runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    (work / "data").mkdir()
    (work / "data/d").write_text("1")
    (work / "train.py").write_text(
        "import os, pathlib, provenance\n"
        "run, s = provenance.current_run(), os.environ['SERVICE_TOKEN']\n"
        "pathlib.Path('model').mkdir(); pathlib.Path('model/w').write_text('1')\n" + leak
    )
    options = ("--model", "model", "--key", alice.private, "--data", "data")
    ran = provenance("record", *options, "--", sys.executable, "train.py")
    assert ran.status == 125, ran
    assert "SERVICE_TOKEN" in ran.err
    command = command_in(ran)
    assert command[3:] == ["--redact", field]
    without = command[:3]
    assert command_in(provenance(*without)) == command
    # A shell that does not know the secret must not sign it either.
    monkeypatch.delenv("SERVICE_TOKEN")
    again = provenance(*without)
    assert (again.status, command_in(again)) == (125, command)
    refused(provenance(*without, "--redact", "externalParameters/none"), 125, "no such field")
    done = provenance(*command)
    assert done.status == 0, done
    assert SECRET not in f"{ran}{again}{done}"
    assert not any(SECRET in str(content) for name, content in tree(work / "model").items())
    assert not list(runs.iterdir())
    said = json.dumps(statement(work / "model"))
    assert "${redacted:late" in said or '"redacted": true' in said
    assert provenance("verify", "model", "--key", alice.public).status == 0


def test_the_name_of_a_file_of_the_model_is_not_redacted(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    ran = record(f'{TRAIN}; echo 3 > "model/$SERVICE_TOKEN"')
    command = command_in(ran)
    assert ran.status == 125
    assert "SERVICE_TOKEN" in ran.err
    assert "rename it" in ran.err
    assert len(command) == 3
    monkeypatch.delenv("SERVICE_TOKEN")  # this shell could not find it
    refused(provenance(*command), 125, "SERVICE_TOKEN", "--unsafe-allow-secret SERVICE_TOKEN")
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    (work / "model" / SECRET).rename(work / "model/n")
    ran = provenance(*command)
    assert ran.status == 0, ran
    assert outcome(work / "model") == {"exitStatus": 0, "unseen": ["n"]}
    accepted(provenance, work / "model", alice)


def test_secrets_of_the_run_are_searched_for_by_who_finishes_it(
    work: Path, record: Callable[..., Ran], provenance: Shell, runs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What the program said was not searched if its recorder was killed before."""
    monkeypatch.setenv("SERVICE_TOKEN", SECRET)
    command = command_in(record(f"{TRAIN}; mkfifo model/x"))
    (work / "model/x").unlink()
    (only(runs) / "seen.json").unlink()
    monkeypatch.delenv("SERVICE_TOKEN")
    refused(provenance(*command), 125, "SERVICE_TOKEN", "--unsafe-allow-secret")
    assert provenance(*command, "--unsafe-allow-secret", "SERVICE_TOKEN").status == 0


# --- Killed at each step --------------------------------------------------------------------------

DRIVER = """
import os, pathlib, signal, sys
from provenance import cli
from provenance.api import finishing, making  # once, not in each process
steps = 0
for line in sys.stdin:
    last, pid = int(line), os.fork()
    if not pid:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
def counted(function):
    def step(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return step
for module, name in ((os, "fsync"), (os, "unlink"), (os, "rmdir"), (pathlib.Path, "replace"),
                     (pathlib.Path, "rename"), (pathlib.Path, "mkdir"), (os, "waitpid")):
    setattr(module, name, counted(getattr(module, name)))
sys.exit(cli.run(sys.argv[1:]))
"""
"""For each line, run the command line and kill it before that one of its steps that others see."""


@contextmanager
def killing(*arguments: str | Path) -> Iterator[Callable[[int], int]]:
    """Return what runs the command line, killed before a step, and tells how it ended."""
    driver = [sys.executable, "-c", DRIVER, *arguments]
    with subprocess.Popen(driver, stdin=-1, stdout=-1, stderr=-3, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin
        assert stdout

        def run(step: int) -> int:
            stdin.write(f"{step}\n")
            stdin.flush()
            return int(stdout.readline())

        yield run


def test_a_recorder_killed_at_any_step_leaves_no_claim_or_a_true_one(
    work: Path, runs: Path, provenance: Shell, alice: Person
) -> None:
    root, number, levels = work / "model", 0, set()
    options = ("--model", "model", "--key", alice.private)
    status = -signal.SIGKILL
    with killing("record", *options, "--", "sh", "-c", TRAIN) as run:
        while status == -signal.SIGKILL:
            number += 1
            assert number < 100
            shutil.rmtree(root, ignore_errors=True)
            status = run(number)
            left = [path for path in runs.glob("*") if not path.name.endswith(".finished")]
            if (root / "claims.jsonl").exists():
                accepted(provenance, root, alice)
            for path in left:
                ran = provenance("record", "--finish", path.name)
                while "still runs" in ran.err:
                    time.sleep(0.01)
                    ran = provenance("record", "--finish", path.name)
                if "is not the folder of a run" in ran.err:  # the command was not to be started yet
                    assert not root.exists()
                    shutil.rmtree(path)
                    continue
                if not root.exists():  # it was, and the recorder was killed first
                    refused(ran, 125, "no such folder", "--model")
                    shutil.rmtree(path)
                    continue
                assert ran.status == 0, (number, ran)
            if root.exists():
                accepted(provenance, root, alice)
                levels.add(tuple(outcome(root)))
    assert status == 0
    assert number > 20
    assert levels == {("unseen",), ("exitStatus", "unseen"), ("exitStatus",)}
