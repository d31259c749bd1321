"""``record --rebuild-of``: a second builder repeats a published training, or learns why not."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.statement.training import Outcome, Recipe, Source
from tests.world import (
    RECIPE,
    Ran,
    Shell,
    attest,
    declared,
    edit_lines,
    refused,
    tree,
    write_files,
)

if TYPE_CHECKING:
    from tests.world import Person

TRAIN = """import pathlib, sys
model = pathlib.Path(sys.argv[-1])
model.mkdir(exist_ok=True)
inputs = (pathlib.Path(word) for word in sys.argv[1:-1])
files = (file for path in inputs for file in ([path] if path.is_file() else sorted(path.iterdir())))
model.joinpath("weights").write_text("".join(file.read_text() for file in files))
"""


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Scene:
    """Alice's repository and model, and Bob's clone, in which he is."""

    shell: Shell
    alice: Person
    bob: Person
    alices: Path
    bobs: Path

    @property
    def published(self) -> Path:
        return self.alices / "model"

    def publish(self, *options: str | Path, command: tuple[str, ...], status: int = 0) -> None:
        os.chdir(self.alices)
        own = ("--model", "model", "--key", self.alice.private)
        assert self.shell("record", *own, *options, "--", *command).status == status
        os.chdir(self.bobs)

    def rebuild(self, *options: str | Path, of: Path | None = None) -> Ran:
        published = ("--rebuild-of", of or self.published, "--publisher-key", self.alice.public)
        model = () if "--model" in options else ("--model", "mine")
        own = (*model, "--key", self.bob.private)
        return self.shell("record", *published, *own, *options)

    def agree(self) -> Ran:
        keys = ("--key", self.alice.public, "--key", self.bob.public)
        return self.shell("agree", self.published, "mine", *keys)

    def refuses(self, *words: str, options: tuple[str | Path, ...] = ("--yes",)) -> None:
        before = tree(self.bobs)
        refused(self.rebuild(*options), 125, *words)
        assert tree(self.bobs) == before


@pytest.fixture
def scene(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provenance: Shell,
    alice: Person,
    bob: Person,
) -> Scene:
    alices, bobs = tmp_path / "alices", tmp_path / "bobs"
    alices.mkdir()
    git(alices, "init", "--quiet")
    write_files(
        alices,
        {
            "train.py": TRAIN.encode(),
            "conf/a.toml": b"lr = 1\n",
            "sub/keep": b"",
            ".gitignore": b"data*\nmodel\nmine\nbase\n",
        },
    )
    git(alices, "add", ".")
    git(alices, "commit", "--quiet", "--message", "one")
    git(tmp_path, "clone", "--quiet", "alices", "bobs")
    for folder in (alices, bobs):
        write_files(
            folder, {"data.csv": b"1\n", "data/a": b"2\n", "data/b": b"3\n", "base/w": b"4"}
        )
    monkeypatch.chdir(bobs)
    return Scene(provenance, alice, bob, alices, bobs)


EVERYTHING = ("--data", "train=data.csv", "--data", "data", "--config", "conf/a.toml",
              "--base-model", "base", "--seed", "numpy=7", "--equality", "tensors")  # fmt: skip
COMMAND = ("python3", "train.py", "data.csv", "data", "conf/a.toml", "base", "model")


# --- What is repeated -----------------------------------------------------------------------------


def test_a_second_builder_matches(scene: Scene) -> None:
    """Command, inputs, seeds and equality come from the claim; the names here are the same."""
    scene.publish(*EVERYTHING[:-2], command=COMMAND)
    ran = scene.rebuild("--yes", "--config", "conf/a.toml")
    assert ran.status == 0, ran.err
    filled = "  python3 train.py data.csv data conf/a.toml base mine\n"
    assert f"provenance: the published command, here:\n{filled}" in ran.err
    agreed = scene.agree()
    assert agreed.status == 0
    assert "match by bytes" in agreed.out
    recipe = scene.shell("verify", "mine", "--key", scene.bob.public, "--json").document["recipe"]
    assert recipe["seeds"] == {"numpy": "7"}
    assert recipe["equality"]["name"] == "bytes"


def test_inputs_may_lie_elsewhere(scene: Scene) -> None:
    scene.publish(*EVERYTHING[:-2], command=COMMAND)
    scene.refuses("config:a.toml (1 file, 7 bytes) is not here: --config FILE")
    shutil.rmtree(scene.published)
    scene.publish("--data", "train=data.csv", command=("python3", "train.py", "data.csv", "model"))
    moved = scene.bobs.parent / "elsewhere" / "data.csv"
    moved.parent.mkdir()
    (scene.bobs / "data.csv").rename(moved)
    scene.refuses("data:train (1 file, 2 bytes) is not here: --data train=PATH")
    assert scene.rebuild("--yes", "--data", f"train={moved}").status == 0
    assert "match by bytes" in scene.agree().out


def test_a_claim_alone_is_enough(scene: Scene) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    claim = scene.bobs.parent / "claim.jsonl"
    shutil.copy(scene.published / "claims.jsonl", claim)
    assert scene.rebuild("--yes", of=claim).status == 0
    assert "match by bytes" in scene.agree().out
    edit_lines(scene.published, lambda lines: [*lines, lines[0]])
    assert scene.rebuild("--yes", of=scene.published / "claims.jsonl").status == 0


def test_seeds_that_only_the_program_tells_are_left_to_it(scene: Scene) -> None:
    program = "import provenance\nfor n in (1, 2): provenance.current_run().seed('torch', n)\n"
    for folder in (scene.alices, scene.bobs):
        (folder / "train.py").write_text(program + TRAIN)
    scene.publish("--data", "data", command=(sys.executable, "train.py", "data", "model"))
    python = Path(sys.executable)
    path = f"{python.parent}:{os.environ['PATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        assert scene.rebuild("--yes").status == 0
    assert "verdict   match" in scene.agree().out


def test_a_dry_run_shows_and_runs_nothing(scene: Scene) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    before = tree(scene.bobs)
    ran = scene.rebuild("--dry-run")
    assert ran.status == 0
    assert "python3 train.py data mine" in ran.err
    assert (
        ran.document["predicate"]["buildDefinition"]["externalParameters"]["command"][1]
        == "train.py"
    )
    assert tree(scene.bobs) == before


# --- Nobody runs it unasked -----------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 125), ("\n", 125)])
def test_it_asks_on_a_terminal(scene: Scene, answer: str, status: int) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    ours, theirs = pty.openpty()
    words = ["--rebuild-of", str(scene.published), "--publisher-key", str(scene.alice.public)]
    own = ["--model", "mine", "--key", str(scene.bob.private)]
    os.write(ours, answer.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "provenance", "record", *words, *own], stdin=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(timeout=120) == status
    assert b"Run this? [y/N]" in shown
    assert (b"recorded 1 file" in shown) == (scene.bobs / "mine").exists() == (status == 0)


def test_off_a_terminal_it_refuses(scene: Scene) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    ran = scene.rebuild()
    assert ran.status == 125
    assert "python3 train.py data mine" in ran.err
    assert ran.err.splitlines()[-1].endswith("this is no terminal (--yes runs it)")
    assert not (scene.bobs / "mine").exists()


# --- What could never agree -----------------------------------------------------------------------


def test_other_data_is_refused_by_file(scene: Scene) -> None:
    scene.publish(*EVERYTHING[:-2], command=COMMAND)
    (scene.bobs / "data/a").write_text("changed")
    (scene.bobs / "data/c").touch()
    ran = scene.rebuild("--yes", "--config", "conf/a.toml")
    assert ran.status == 125
    last = ran.err.splitlines()[-1]
    assert "could never agree with" in last
    assert "data:data: a was changed; added c" in last
    assert not (scene.bobs / "mine").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data.csv", ("data:train: data.csv was changed",)),
        ("base/w", ("baseModel: w was changed",)),
        ("conf/a.toml", ("config:a.toml: a.toml was changed", "undo the changes")),
        ("train.py", ("the code is git tree", "undo the changes that are not committed")),
    ],
)
def test_another_input_is_refused(scene: Scene, name: str, words: tuple[str, ...]) -> None:
    scene.publish(*EVERYTHING[:-2], command=COMMAND)
    (scene.bobs / name).write_text("other")
    ran = scene.rebuild("--yes", "--config", "conf/a.toml")
    assert ran.status == 125
    for word in words:
        assert word in ran.err.splitlines()[-1]
    assert not (scene.bobs / "mine").exists()


def test_another_commit_is_refused_with_the_published_one(scene: Scene) -> None:
    commit = git(scene.alices, "rev-parse", "HEAD")
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    (scene.bobs / "train.py").write_text(f"{TRAIN}#\n")
    git(scene.bobs, "commit", "--quiet", "--all", "--message", "two")
    ran = scene.rebuild("--yes")
    assert ran.status == 125
    assert ran.err.endswith(f"(git checkout {commit})\n")


def test_code_that_was_not_committed_can_only_be_asked_for(scene: Scene) -> None:
    (scene.alices / "train.py").write_text(f"{TRAIN}#\n")
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    ran = scene.rebuild("--yes")
    assert "was not committed as it ran" in ran.err
    assert not (scene.bobs / "mine").exists()
    (scene.bobs / "train.py").write_text(f"{TRAIN}#\n")
    assert scene.rebuild("--yes").status == 0


def test_ignored_code_that_the_published_run_read_must_be_here(scene: Scene) -> None:
    """Git ignores it, so that a clone lacks it; with other content it is another recipe."""
    for folder in (scene.alices, scene.bobs):
        (folder / ".git/info/exclude").write_text("local.py\n")
        (folder / ".gitignore").write_text("data*\nmodel\nmine\nbase\nlocal.py\n__pycache__\n")
        (folder / "train.py").write_text(f"import local\n{TRAIN}")
        git(folder, "commit", "--quiet", "--all", "--message", "two")
    (scene.alices / "local.py").write_text("x = 1\n")
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    for text in ("", "x = 2\n"):
        if text:
            (scene.bobs / "local.py").write_text(text)
        ran = scene.rebuild("--yes")
        assert ran.status == 125
        assert "the file local.py, which was read," in ran.err.splitlines()[-1]
    (scene.bobs / "local.py").write_text("x = 1\n")
    assert scene.rebuild("--yes").status == 0
    assert "match by bytes" in scene.agree().out


def test_another_folder_of_the_repository_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    monkeypatch.chdir(scene.bobs / "sub")
    ran = scene.rebuild("--yes", "--data", "../data")
    assert ran.status == 125
    assert "the working folder is" in ran.err
    assert "run it in" in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "none=data"), "no data:none was published"),
        (("--config", "conf/a.toml"), "no config:a.toml was published"),
        (("--base-model", "base"), "no baseModel was published"),
        (("--seed", "1"), "seeds: stated by the published claim"),
        (("--equality", "bytes"), "equality: stated by the published claim"),
        (("--", "python3", "train.py"), "COMMAND comes from the published claim"),
    ],
)
def test_what_the_claim_says_cannot_be_said_otherwise(
    scene: Scene, options: tuple[str, ...], words: str
) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    before = tree(scene.bobs)
    ran = scene.rebuild("--yes", *options)
    assert ran.status == 125
    assert words in ran.err
    assert tree(scene.bobs) == before


def test_the_published_model_is_not_replaced(scene: Scene) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    before = tree(scene.published)
    refused(scene.rebuild("--yes", "--model", scene.published), 125, "is the published model")
    assert tree(scene.published) == before


# --- Claims that are not to be followed -----------------------------------------------------------


def test_nothing_is_followed_that_does_not_verify(scene: Scene, mallory: Person) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    own = ("--model", "mine", "--key", scene.bob.private, "--yes")
    for of in (scene.published, scene.published / "claims.jsonl"):
        ran = scene.shell("record", "--rebuild-of", of, *own)
        refused(ran, 125, "nothing is trusted by default", "--publisher-key")
        ran = scene.shell("record", "--rebuild-of", of, "--publisher-key", mallory.public, *own)
        refused(ran, 125, "signed by another key")
    (scene.published / "weights").write_text("other")
    scene.refuses("weights was changed")
    (scene.published / "weights").unlink()
    scene.refuses("weights is missing")
    scene.refuses("no such file", options=("--yes", "--rebuild-of", "nothing"))


def test_a_training_that_failed_is_not_repeated(scene: Scene) -> None:
    script = ("sh", "-c", "mkdir model; echo 1 > model/w; exit 3")
    scene.publish("--data", "data", command=script, status=3)
    scene.refuses("ended with status 3")
    claims = scene.published / "claims.jsonl"
    scene.refuses("ended with status 3", options=("--yes", "--rebuild-of", claims))


def test_claims_about_several_models_do_not_say_which(scene: Scene) -> None:
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    scene.publish("--data", "data", command=("python3", "train.py", "data", "data.csv", "model"))
    claims = scene.published / "claims.jsonl"
    scene.refuses("claims about several models", options=("--yes", "--rebuild-of", claims))


def test_what_was_attested_or_only_signed_has_no_command(scene: Scene) -> None:
    write_files(scene.published, {"w": b"1"})
    assert scene.shell("sign", scene.published, "--key", scene.alice.private).status == 0
    scene.refuses("states no command")
    assert scene.shell("attest", scene.published, "--key", scene.alice.private).status == 0
    scene.refuses("states no command")


def test_a_claim_without_an_equality_cannot_agree(scene: Scene) -> None:
    attest(write_files(scene.published, {"w": b"1"}), scene.alice, recipe=RECIPE)
    scene.refuses("declares no equality")


HOSTILE = {
    "above the model": (("python3", "train.py", "${model}/../../x"), "leaves the folder"),
    "above the data": (("python3", "${data:data}/.."), "leaves the folder"),
    "an option with it": (("python3", "--out=${model}/a/../../b"), "leaves the folder"),
    "an unknown input": (("python3", "train.py", "${data:none}"), "needs ${data:none}"),
    "an unknown name": (("python3", "train.py", "${IFS}"), "needs ${IFS}"),
    "no end": (("python3", "train.py", "${model"), "needs ${model"),
    "the home": (("cat", "${home}/.ssh/id_ed25519"), "needs ${home}"),
    "the user": (("cat", "/home/${user}/x"), "needs ${user}"),
    "redacted": (("python3", "--token", "${redacted:token}"), "redacted"),
    "an option as the program": (("--help",), "starts no program"),
    "an empty program": (("", "x"), "starts no program"),
    "a program by its path": (("/bin/sh", "-c", "true"), "starts no program of its repository"),
    "a program above": (("../evil", "x"), "starts no program of its repository"),
    "a program in another place": (("sub/../../evil",), "starts no program of its repository"),
    "a program as the model": (("${model}/../mine",), "leaves the folder"),
    "a program that is not here": (("no-such-program",), "starts a program that is not here"),
    "a null byte": (("python3", "a\0b"), "holds a null byte"),
    "a path that no recorder writes": (("python3", "train.py", "${data:data}/./a"), "has"),
    "a Python that no recorder writes": (("./python3", "train.py"), "not here"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_command_is_refused(scene: Scene, case: str) -> None:
    """Signed by the publisher all the same: a signature says who, not that it is harmless."""
    command, words = HOSTILE[case]
    scene.publish("--data", "data", command=("python3", "train.py", "data", "model"))
    verified = scene.shell("verify", scene.published, "--key", scene.alice.public, "--json")
    assert verified.status == 0, verified
    recipe = msgspec.convert(verified.document["recipe"], Recipe)
    (scene.published / "claims.jsonl").unlink()
    (scene.published / "model.sig").unlink()
    recipe = msgspec.structs.replace(recipe, command=command)
    attest(scene.published, scene.alice, recipe=recipe)
    (scene.bobs.parent / "evil").write_text(f"#!/bin/sh\ntouch {scene.bobs}/ran\n")
    (scene.bobs.parent / "evil").chmod(0o755)
    ran = scene.rebuild("--yes")
    assert ran.status == 125
    assert words in ran.err.splitlines()[-1]
    assert not (scene.bobs / "ran").exists()
    assert not (scene.bobs / "mine").exists()


def test_the_command_is_shown_as_it_is(scene: Scene) -> None:
    """What would move the cursor or hide the rest is spelled so that bash reads the same word."""
    script = "mkdir -p mine; printf 1 > mine/w # \x1b[2K\r\u202eit's\\n\nrm -rf x"
    recipe = Recipe(command=("sh", "-c", script), source=Source(), data=())
    attest(write_files(scene.published, {"w": b"1"}), scene.alice, recipe=recipe,
           equality=declared("bytes"), outcome=Outcome(0))  # fmt: skip
    ran = scene.rebuild()
    shown = ran.err.splitlines()[1].strip()
    assert shown.isprintable()
    told = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {shown}"],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C.UTF-8"},
    )
    assert told.stdout.decode().split("\0")[:-1] == ["sh", "-c", script]
    assert not (scene.bobs / "mine").exists()
