"""``record``: the command's status, what is written, and what is refused beforehand."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.world import Ran, Shell, make_log, payload_of, refused, run_program, tree, vkey_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.world import Person

TRAIN = "mkdir -p model; printf 1 > model/w"


def last_claim(root: Path) -> dict[str, Any]:
    line = (root / "claims.jsonl").read_bytes().splitlines()[-1]
    statement: dict[str, Any] = json.loads(payload_of(line))
    return statement


def outcome(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = last_claim(root)["predicate"]["runDetails"]["provenance_outcome"]
    return found


def test_a_private_key_in_the_models_folder_is_refused_before_the_run(
    work: Path, provenance: Shell
) -> None:
    (work / "model").mkdir()
    assert provenance("keygen", work / "model" / "alice").status == 0
    options = ("--model", "model", "--key", work / "model" / "alice")
    ran = provenance("record", *options, "--", "sh", "-c", "touch started")
    refused(ran, 125, "model/alice: is a private key", "move it out")
    assert not (work / "started").exists()


def test_a_private_key_that_the_run_leaves_is_never_signed(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    ran = record(f"{TRAIN}; mkdir model/keys; cp {alice.private} model/keys/id")
    refused(ran, 125, "model/keys/id: is a private key", "record --finish")
    assert not (work / "model" / "claims.jsonl").exists()
    assert not (work / "model" / "model.sig").exists()
    run = re.findall(r"--finish (\w+)", ran.err)[0]
    refused(provenance("record", "--finish", run), 125, "model/keys/id: is a private key")
    (work / "model" / "keys" / "id").unlink()
    assert provenance("record", "--finish", run).status == 0
    key = ("--key", alice.public, "--require", "recorded")
    assert provenance("verify", work / "model", *key).status == 0


def test_another_equality_for_the_same_files(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    assert "will refuse" not in record(TRAIN, "--equality", "bytes").err
    assert "will refuse" not in record(TRAIN, "--equality", "bytes").err
    ran = record(TRAIN, "--equality", "tensors")
    assert "'verify' will refuse both: claims.jsonl:1 declares another equality" in ran.err
    refused(provenance("verify", work / "model", "--key", alice.public), 1, "different equalities")


def test_a_failed_run_after_a_good_one(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    assert record().status == 0
    ran = record(f"{TRAIN}; exit 3")
    assert ran.status == 3
    assert "'verify' goes by an earlier claim about the same files, claims.jsonl:1" in ran.err
    verified = provenance("verify", work / "model", "--key", alice.public)
    assert verified.status == 0
    assert "a later claim about these files does not count, claims.jsonl:2: the" in verified.out
    ran = record("printf 2 > model/w; exit 3")  # other files, about which there is no good claim
    assert "will refuse this claim" in ran.err
    assert "goes by" not in ran.err
    refused(provenance("verify", work / "model", "--key", alice.public), 1)


# --- What is said of the claim --------------------------------------------------------------------


def test_an_equality_that_does_not_fit_is_told(work: Path, record: Callable[..., Ran]) -> None:
    """The training took its time and is not thrown away for a declaration."""
    declaration = (
        "format = 1\nname = 'heads'\nversion = 1\n[[any]]\n[[any.all]]\n"
        "equality = 'bytes'\nfiles = ['head*']\n"
    )
    (work / "heads.toml").write_text(declaration)
    ran = record(TRAIN, "--equality", work / "heads.toml")
    assert ran.status == 0
    assert "warning: the equality does not fit this model: rule 1 (" in ran.err
    assert "warning: 'agree' will refuse it ('provenance equality check FILE MODEL'" in ran.err
    (work / "heads.toml").write_text(declaration.replace("head*", "*"))
    assert "does not fit" not in record(TRAIN, "--equality", work / "heads.toml").err


# --- How the command ended ------------------------------------------------------------------------


def test_a_training_that_succeeds(
    record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    ran = record()
    assert (ran.status, ran.out) == (0, "")
    assert "recorded 1 file, 1 byte, root sha256 " in ran.err
    assert "written  model/claims.jsonl" in ran.err
    assert "written  model/model.sig" in ran.err
    assert provenance("verify", "model", "--key", alice.public).status == 0
    assert sorted(tree(work)) == ["model", "model/claims.jsonl", "model/model.sig", "model/w"]


def test_a_training_that_fails(
    record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    ran = record(f"{TRAIN}; exit 3")
    assert ran.status == 3
    assert "'verify' will refuse this claim: the training command ended with status 3" in ran.err
    assert outcome(work / "model") == {"exitStatus": 3}
    assert not (work / "model" / "model.sig").exists()
    refused(provenance("verify", "model", "--key", alice.public), 1, "ended with status 3")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGSEGV"])
def test_a_training_that_is_killed(
    name: str, record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    number = signal.Signals[name].value
    ran = record(f"{TRAIN}; kill -{number} $$")
    assert ran.status == 128 + number
    assert f"'verify' will refuse this claim: the training command was killed by {name}" in ran.err
    assert outcome(work / "model") == {"signal": name}
    refused(provenance("verify", "model", "--key", alice.public), 1, f"killed by {name}")


@pytest.mark.parametrize("status", [1, 2, 125, 126, 127, 255])
def test_every_status_is_passed_on(status: int, record: Callable[..., Ran], work: Path) -> None:
    assert record(f"{TRAIN}; exit {status}").status == status
    assert outcome(work / "model") == {"exitStatus": status}


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["no-such-command"], 127, "no-such-command: command not found"),
        (["./none"], 127, "./none: command not found"),
        ([""], 127, "'': command not found"),
        (["./plain"], 126, "./plain: permission denied"),
        (["--help"], 127, "--help: command not found"),
    ],
    ids=lambda value: " ".join(value) or "empty" if isinstance(value, list) else None,
)
def test_a_command_that_cannot_be_run(
    words: list[str], status: int, message: str, work: Path, provenance: Shell, alice: Person
) -> None:
    (work / "plain").write_text("#!/bin/sh\n")
    before = tree(work)
    ran = provenance("record", "--model", "model", "--key", alice.private, "--", *words)
    refused(ran, status, message)
    assert tree(work) == before


def test_a_failed_training_without_a_model(record: Callable[..., Ran], work: Path) -> None:
    ran = record("exit 7")
    refused(ran, 7, "model: the command failed (status 7) and left nothing", "no such folder")
    assert tree(work) == {}


def test_a_training_that_leaves_no_model(record: Callable[..., Ran], work: Path) -> None:
    refused(record("true"), 125, "model: the command has ended", "no such folder", "--model names")
    refused(record("mkdir model"), 125, "left nothing to attest", "holds no files")
    assert tree(work) == {"model": "folder"}


def test_a_training_that_leaves_a_link(record: Callable[..., Ran], work: Path) -> None:
    ran = record(f"{TRAIN}; ln -s /etc/passwd model/x")
    refused(ran, 125, "model/x", "symbolic link that leaves the folder", "cp -rL")
    assert sorted(tree(work)) == ["model", "model/w", "model/x"]


def test_a_training_that_leaves_a_fifo(record: Callable[..., Ran], work: Path) -> None:
    refused(record(f"{TRAIN}; mkfifo model/x"), 125, "model/x", "is a FIFO")
    assert "model/claims.jsonl" not in tree(work)


# --- The words of the command ---------------------------------------------------------------------


def test_the_commands_own_options_reach_it(work: Path, provenance: Shell, alice: Person) -> None:
    words = ["--key", "other", "--help", "--json", "--", "--model", "", "a b", "ü\n"]
    script = 'mkdir model; printf "[%s]" "$@" > model/w'
    ran = provenance(
        "record", "--model", "model", "--key", alice.private, "--", "sh", "-c", script, "x", *words
    )
    assert ran.status == 0, ran
    assert (work / "model" / "w").read_text() == "".join(f"[{word}]" for word in words)
    command = last_claim(work / "model")["predicate"]["buildDefinition"]["externalParameters"]
    assert command["command"][-len(words) :] == ["--key", "other", "--help", "--json", "--",
                                                "--model", "", "a b", "ü\n"]  # fmt: skip


def test_the_double_dash_may_be_left_out(work: Path, provenance: Shell, alice: Person) -> None:
    ran = provenance(
        "record", "--model", "model", "--key", alice.private, "sh", "-c", f"{TRAIN}; exit 5"
    )
    assert ran.status == 5
    assert outcome(work / "model") == {"exitStatus": 5}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing"),
        (["--model", "m", "--key", "KEY"], "Missing argument '-- COMMAND...'"),
        (["--model", "m", "--key", "KEY", "--"], "Missing argument '-- COMMAND...'"),
        (["--key", "KEY", "--", "true"], "Missing option '--model'"),
        (["--bogus", "--model", "m", "--key", "KEY", "--", "true"], "No such option '--bogus'"),
        (["--model", "m", "--key", "none", "--", "true"], "none: no such file"),
        (
            ["--model", "m", "--key", "KEY.pub", "--", "true"],
            "is a public key (name the private key, the file without .pub)",
        ),
        (
            ["--seed", "1", "--seed", "2", "--model", "m", "--key", "KEY", "--", "true"],
            "two seeds have no name",
        ),
        (["--seed", "x", "--model", "m", "--key", "KEY", "--", "true"], "not an integer"),
        (["--data", "none", "--model", "m", "--key", "KEY", "--", "true"], "none"),
        (["--config", "none", "--model", "m", "--key", "KEY", "--", "true"], "none"),
        (["--base-model", "none", "--model", "m", "--key", "KEY", "--", "true"], "none"),
        (["--equality", "close", "--model", "m", "--key", "KEY", "--", "true"], "no equality"),
        (["--equality", "./none", "--model", "m", "--key", "KEY", "--", "true"], "no such file"),
        (["--log", "none", "--model", "m", "--key", "KEY", "--", "true"], "there is no log here"),
        (["--model", "KEY", "--key", "KEY", "--", "true"], "is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_refused_before_the_command_runs(
    arguments: list[str], words: str, work: Path, provenance: Shell, alice: Person
) -> None:
    marker = work / "ran"
    key = str(alice.private)
    arguments = [word.replace("KEY", key) for word in arguments]
    if arguments[-1:] == ["true"]:
        arguments[-1:] = ["touch", str(marker)]
    refused(provenance("record", *arguments), 125, words)
    assert tree(work) == {}


def test_claims_that_cannot_be_read_are_found_before_the_training(
    record: Callable[..., Ran], work: Path
) -> None:
    (work / "model").mkdir()
    (work / "model" / "claims.jsonl").write_bytes(b"{}\n")
    before = tree(work)
    refused(record("touch ran"), 125, "model/claims.jsonl")
    assert tree(work) == before


# --- What is observed -----------------------------------------------------------------------------


def test_an_input_that_changes_meanwhile(
    record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    (work / "data.csv").write_text("1\n")
    ran = record(f"{TRAIN}; echo 2 >> data.csv", "--data", "train=data.csv")
    assert ran.status == 0
    assert "data:train: data.csv was" in ran.err
    assert outcome(work / "model") == {
        "exitStatus": 0,
        "changedInputs": [{"name": "data:train", "changed": ["data.csv"]}],
    }
    refused(provenance("verify", "model", "--key", alice.public), 1, "inputs changed", "data:train")


def test_a_path_with_an_equals_sign_needs_a_folder_before_it(
    record: Callable[..., Ran], work: Path
) -> None:
    (work / "a=b").write_text("1\n")
    assert record(TRAIN, "--data", "./a=b").status in (0, 125)
    refused(record(TRAIN, "--data", "a=b"), 125, "b")


def test_metrics_and_seeds_of_the_program(record: Callable[..., Ran], work: Path) -> None:
    (work / "train.py").write_text(
        "import pathlib, provenance\n"
        "run = provenance.current_run()\n"
        "run.seed('numpy', 7); run.metric('loss', 0.25, step=1)\n"
        "pathlib.Path('model').mkdir(); pathlib.Path('model/w').write_text('1')\n"
    )
    assert record(f"{sys.executable} train.py").status == 0
    statement = last_claim(work / "model")["predicate"]
    assert statement["buildDefinition"]["externalParameters"]["seeds"] == {"numpy": "7"}
    assert "metrics" in json.dumps(statement["runDetails"]["byproducts"])


def test_published_at_once(
    record: Callable[..., Ran], tmp_path: Path, provenance: Shell, alice: Person, larry: Person
) -> None:
    signer = make_log(tmp_path / "log", larry)
    ran = record(TRAIN, "--log", tmp_path / "log")
    assert "published claim 1 as entry 0" in ran.err
    vkey = vkey_text(signer.verifier)
    ran = provenance("verify", "model", "--key", alice.public, "--log", vkey)
    assert "entry 0 of example.org/log, proven offline" in ran.out


def test_one_document(record: Callable[..., Ran]) -> None:
    ran = record(f"{TRAIN}; exit 3", "--json")
    assert ran.status == 3
    assert ran.document["level"] == "recorded"
    assert ran.document["rootDigest"].keys() == {"sha256"}
    predicate = ran.document["statement"]["predicate"]
    assert len(predicate["provenance_manifest"]) == 1
    assert "ended with status" in ran.document["warnings"][-1]
    assert predicate["runDetails"]["provenance_outcome"] == {"exitStatus": 3}
    assert ran.document["written"] == ["model/claims.jsonl"]


def test_a_dry_run_runs_and_writes_nothing(record: Callable[..., Ran], work: Path) -> None:
    ran = record(TRAIN, "--dry-run")
    assert ran.status == 0
    assert ran.document["predicate"]["buildDefinition"]["externalParameters"]["command"][0] == "sh"
    assert "not run" in ran.err
    assert tree(work) == {}


def test_a_live_secret_is_never_signed(
    record: Callable[..., Ran], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "abcdefgh12345678")
    (work / "abcdefgh12345678").write_text("1")
    refused(record("touch ran", "--config", "abcdefgh12345678"), 125, "SERVICE_TOKEN")
    assert "ran" not in tree(work)


def test_several_runs_are_several_claims(
    record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    assert record().status == 0
    assert record("printf 2 > model/w").status == 0
    assert len((work / "model" / "claims.jsonl").read_bytes().splitlines()) == 2
    ran = provenance("verify", "model", "--key", alice.public)
    assert "2 training statements" in ran.out
    assert stat.S_IMODE((work / "model" / "claims.jsonl").stat().st_mode) & 0o077 == 0o044


@pytest.mark.parametrize(
    "name", ["with space", "ünïcode", "new\nline", "-dash", "quo'te\"s", "🙂", "a=b", "$HOME"]
)
def test_folders_with_difficult_names(
    name: str, work: Path, provenance: Shell, alice: Person
) -> None:
    root = work / name
    script = 'mkdir -- "$0"; echo 1 > "$0/w"'
    ran = provenance(
        "record", "--model", root, "--key", alice.private, "--json", "--", "sh", "-c", script, root
    )
    assert ran.status == 0, ran
    assert ran.document["written"] == [f"{root}/claims.jsonl", f"{root}/model.sig"]
    verified = provenance("verify", root, "--key", alice.public)
    assert verified.status == 0
    assert "\nline" not in verified.out


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path, alice: Person) -> None:
    root = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(root)  # noqa: PTH102 - a path in bytes
    with open(root + b"/w", "wb") as file:  # noqa: PTH123
        file.write(b"1")
    for command in ("sign", "attest"):
        ran = run_program(command, root, "--key", alice.private)
        refused(ran, 3, "the path is not UTF-8", "rename the folder")
    assert os.listdir(root) == [b"w"]  # noqa: PTH208


def test_a_program_whose_name_is_not_utf_8(work: Path, alice: Person) -> None:
    program = os.fsdecode(b"tr\xffain.sh")
    (work / program).write_text(TRAIN)
    key = ("--key", alice.private)
    ran = run_program("record", "--model", "model", *key, "--", "sh", program, "--x=\udcff")
    assert ran.status == 0, ran
    recipe = last_claim(work / "model")["predicate"]["buildDefinition"]["externalParameters"]
    assert [each["name"] for each in recipe["source"]["files"]] == ["tr\\xffain.sh"]
    assert recipe["command"] == ["sh", "tr${byte:ff}ain.sh", "--x=${byte:ff}"]


def test_a_private_key_among_the_words_is_no_code(work: Path, alice: Person) -> None:
    """Its digest would be published, and whoever rebuilds has another key."""
    (work / "train.sh").write_text(TRAIN)
    words = ("sh", "train.sh", alice.private, f"--key={alice.private}")
    ran = run_program("record", "--model", "model", "--key", alice.private, "--", *words)
    assert ran.status == 0, ran
    source = last_claim(work / "model")["predicate"]["buildDefinition"]["externalParameters"]
    assert [each["name"] for each in source["source"]["files"]] == ["train.sh"]


# --- Strange runs ---------------------------------------------------------------------------------


def test_what_a_detached_child_writes_after_the_end_is_not_the_claims(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    """The recorder does not wait for it, and the claim is about the files as they were."""
    os.mkfifo(work / "go")
    late = "sh -c 'read x < go; echo 2 > model/late; : > done' </dev/null >/dev/null 2>&1 &"
    assert record(f"{TRAIN}; {late}").status == 0
    assert provenance("verify", "model", "--key", alice.public).status == 0
    (work / "go").write_text("now\n")
    while not (work / "done").exists():
        time.sleep(0.05)
    refused(provenance("verify", "model", "--key", alice.public), 1, "late is extra")


def test_output_into_a_pipe_that_nobody_reads(work: Path, alice: Person) -> None:
    loud = f"{sys.executable} -c 'while True: print(1)'"
    line = f"{sys.executable} -m provenance record --model model --key {alice.private}"
    script = f'{line} -- sh -c "{TRAIN}; {loud}" | head -1'
    ran = subprocess.run(
        ["bash", "-c", script], check=False, capture_output=True, text=True, timeout=300
    )
    assert ran.stdout == "1\n"
    assert outcome(work / "model") == {"exitStatus": 1}


def test_the_status_is_told_where_a_parent_ignores_how_children_end(
    work: Path, alice: Person
) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    words = ("--model", "model", "--key", alice.private, "--", "sh", "-c", f"{TRAIN}; exit 7")
    assert run_program("record", *words, preexec_fn=ignore).status == 7
    assert outcome(work / "model") == {"exitStatus": 7}


def test_a_hundred_thousand_files_of_data(work: Path, record: Callable[..., Ran]) -> None:
    """The list of them is a file beside the weights, and not in the statement."""
    for folder in range(100):
        (work / f"data/{folder}").mkdir(parents=True)
        for name in range(1000):
            descriptor = os.open(f"data/{folder}/{name}", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, b"%d" % name)
            os.close(descriptor)
    assert record(TRAIN, "--data", "train=data").status == 0
    [data] = last_claim(work / "model")["predicate"]["buildDefinition"]["externalParameters"][
        "data"
    ]
    assert (data["files"], data["size"]) == (100_000, 289_000)
    assert (work / "model" / "claims.jsonl").stat().st_size < 200_000
    assert (work / "model" / "provenance" / data["manifest"]).stat().st_size > 7_000_000


# --- What is said before the run ------------------------------------------------------------------


def test_a_strict_recorder_names_every_cause_and_starts_nothing(
    record: Callable[..., Ran], work: Path
) -> None:
    ran = record("touch ran", "--strict")
    refused(ran, 125, "no data is named", "--data ROLE=PATH", "not in a git repository")
    assert "equality" not in ran.err
    assert tree(work) == {}
    refused(record("touch ran", "--strict", "--dry-run"), 125, "no data is named")


def test_what_is_said_before_the_run_comes_before_it(work: Path, alice: Person) -> None:
    script = f"echo started >&2; {TRAIN}"
    ran = run_program("record", "--model", "model", "--key", alice.private, "sh", "-c", script)
    assert work == Path.cwd()
    before, _, after = ran.err.partition("started\n")
    lines = before.splitlines()
    default = "the equality is 'bytes', by default (--equality NAME|FILE)"
    assert lines[0] == f"provenance: note: {default}"
    assert all(line.startswith("provenance: warning: ") for line in lines[1:])
    assert 2 <= len(lines) <= 8
    assert "provenance: recorded" in after
    assert "warning" not in after


def test_what_was_captured_is_said_in_six_lines(record: Callable[..., Ran], work: Path) -> None:
    (work / "data.csv").write_text("1,2\n")
    stated = ("--data", "train=data.csv", "--seed", "7", "--equality", "bytes")
    lines = record(TRAIN, *stated).err.partition("provenance: recorded ")[2].splitlines()
    labels = [line.removeprefix("provenance: ").split(" ")[0] for line in lines[1:]]
    assert labels == ["code", "data", "software", "run", "trace", "written", "written"]
    assert lines[0].startswith("1 file, 1 byte, root sha256 ")
    assert "no repository" in lines[1]
    assert "train  1 file, 4 bytes" in lines[2]
    assert "interpreter and packages unknown" in lines[3]
    assert "status 0; seeds seed=7; equality bytes" in lines[4]
    (work / "train.py").write_text("import pathlib; pathlib.Path('model/w').write_text('2')\n")
    ran = record(f"{sys.executable} train.py; kill -9 $$", *stated)
    assert "run      killed by SIGKILL; seeds seed=7" in ran.err


def test_bytes_is_declared_by_default(
    record: Callable[..., Ran], work: Path, provenance: Shell, alice: Person
) -> None:
    assert record().status == 0
    assert provenance("attest", "model", "--key", alice.private).status == 0
    for line in (work / "model" / "claims.jsonl").read_bytes().splitlines():
        build = json.loads(payload_of(line))["predicate"]["buildDefinition"]
        assert build["externalParameters"]["equality"]["name"] == "bytes"
    assert "default" not in record(TRAIN, "--equality", "bytes").err


def test_it_is_said_that_nobody_can_tell_which_python_trained(
    record: Callable[..., Ran], work: Path
) -> None:
    silent = f"import os; os.system('{sys.executable} -I -c 1')"
    work.joinpath("launch.py").write_text(f"{silent}\nos.mkdir('model'); open('model/w', 'w')\n")
    ran = record(f"{sys.executable} launch.py")
    assert ran.status == 0
    (line,) = [line for line in ran.err.splitlines() if "not recorded" in line]
    assert "started and did not report" in line


@pytest.mark.parametrize("script", ["true", "cat model/*", "touch model/.gitignore", "mkdir -p x"])
def test_a_run_that_wrote_no_file_of_the_model_signs_nothing(
    work: Path, record: Callable[..., Ran], script: str
) -> None:
    (work / "model").mkdir()
    (work / "model/w").write_text("1")
    refused(record(script), 125, "model: ", "the run wrote none of its files")
    assert not (work / "model/model.sig").exists()
    assert record(f"{script}; exit 7").status == 7
    assert not (work / "model/model.sig").exists()
    assert not (work / "model/claims.jsonl").exists()


def test_a_name_with_a_typing_error_signs_nothing(work: Path, record: Callable[..., Ran]) -> None:
    refused(record("mkdir modle; echo 1 > modle/w"), 125, "model: ", "no such folder")
    assert not list(work.rglob("claims.jsonl"))


def test_files_that_the_run_did_not_make_are_named(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    (work / "model").mkdir()
    for name in ("old", "same"):
        (work / "model" / name).write_text("1")
    ran = record("printf 1 > model/same; printf 2 > model/w")
    assert ran.status == 0
    assert "1 file there before and not written by the run: old" in ran.err
    assert "1 file there before and written by the run with equal bytes: same" in ran.err
    found = outcome(work / "model")
    assert (found["untouched"], found["rewritten"]) == (["old"], ["same"])
    assert provenance("verify", "model", "--key", alice.public).status == 0


def test_a_pattern_means_the_folder_that_the_run_wrote(
    work: Path, provenance: Shell, alice: Person
) -> None:
    (work / "runs/v1").mkdir(parents=True)
    (work / "runs/v1/w").write_text("1")
    options = ("--model", "runs/*/", "--key", alice.private)
    ran = provenance("record", *options, "--", "sh", "-c", "mkdir runs/v2; echo 2 > runs/v2/w")
    assert ran.status == 0, ran.err
    assert (work / "runs/v2/claims.jsonl").exists()
    assert last_claim(work / "runs/v2")["subject"][0]["name"] == "v2"
    assert provenance("verify", "runs/v2", "--key", alice.public).status == 0
    ran = provenance(
        "record", *options, "--", "sh", "-c", "for n in 1 2; do echo > runs/v$n/w; done"
    )
    refused(ran, 125, "runs/*: ", "2 folders that match: runs/v1, runs/v2", "--finish")
    refused(provenance("record", *options, "--", "true"), 125, "runs/*: ", "runs/v1, runs/v2")


LINKED = """mkdir -p model/checkpoint-40; printf 1 > model/checkpoint-40/w
ln -s checkpoint-40 model/checkpoint-best; ln -s checkpoint-40/w model/last.ckpt"""


def test_a_model_with_links_inside_is_recorded_and_verified(
    work: Path, record: Callable[..., Ran], provenance: Shell, alice: Person
) -> None:
    assert record(LINKED).status == 0
    manifest = last_claim(work / "model")["predicate"]["provenance_manifest"]
    names = ["checkpoint-40/w", "checkpoint-best/w", "last.ckpt"]
    assert [entry["name"] for entry in manifest] == names
    assert len({entry["sha256"] for entry in manifest}) == 1
    verify = ("verify", "model", "--key", alice.public)
    assert provenance(*verify).status == 0
    assert provenance("show", "model").status == 0
    (work / "model/other").write_text("2")
    for target, word in (("other", "is extra"), ("/etc/hostname", "leaves the folder")):
        (work / "model/last.ckpt").unlink()
        (work / "model/last.ckpt").symlink_to(target)
        assert word in (ran := provenance(*verify)).err
        assert ran.status in (1, 3)


def test_a_model_whose_link_leads_elsewhere_after_the_run(
    work: Path, provenance: Shell, alice: Person
) -> None:
    for version in ("v1", "v2"):
        (work / version).mkdir()
        (work / version / "w").write_text("old")
    (work / "latest").symlink_to("v1")
    options = ("--model", "latest", "--key", alice.private)
    ran = provenance("record", *options, "--", "sh", "-c", "echo > v2/w; ln -sfn v2 latest")
    refused(ran, 125, "latest: ", "led to v1 before the run, and leads to v2 after it")
    assert not list(work.rglob("claims.jsonl"))
