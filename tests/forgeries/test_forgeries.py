"""Runs the corpus: one folder an attack, each refused for the reason that its ``expected`` names.

A folder of a group is laid over a copy of the group's ``honest``. ``attack.py``, where there is
one, makes what is too large to be kept or has to happen meanwhile. Then the lines of ``expected``
that begin with ``$`` are typed; the last is the command that must refuse, and the line below it
says which error, at which step, with which words, or ``verified``. A ``#`` begins a comment.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provenance import cli
from provenance.errors import ProvenanceError
from provenance.files.manifest import FileEntry
from provenance.statement.training import ChangedInput, Outcome
from tests.world import Person, Shell, sign_document, state, statement_document

HERE = Path(__file__).parent
CORPUS = sorted(path for path in HERE.glob("*/*") if path.is_dir())
EXPECTED = re.compile(r"(?P<error>\w+Error)(?: at (?P<step>[a-z ]+))?: (?P<words>.+)")


def answer(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what *command* comes to: ``verified``, or the error, its step and all its words."""
    program, *words = shlex.split(command)
    assert program == "provenance"
    capsys.readouterr()
    try:
        cli.cli.main(words, prog_name="provenance", standalone_mode=False)
    except ProvenanceError as error:
        failed = re.search(r"^✗ \d+ (.{20}) ", capsys.readouterr().out, re.MULTILINE)
        step = f" at {failed[1].strip()}" if failed else ""
        return f"{type(error).__name__}{step}: {error}"
    return "verified"


@pytest.mark.parametrize("attack", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_forgery(
    attack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene = tmp_path / "scene"
    for layer in (attack.parent / "honest", attack):
        shutil.copytree(layer, scene, dirs_exist_ok=True, symlinks=True)
    monkeypatch.chdir(scene)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if Path("attack.py").exists():
        runpy.run_path("attack.py")["attack"](monkeypatch)
    lines = [it for it in (attack / "expected").read_text().splitlines() if it[:1] != "#"]
    *typed, expected = lines
    for line in typed[:-1]:
        subprocess.run(["sh", "-ec", line.removeprefix("$ ")], check=True)
    found = answer(typed[-1].removeprefix("$ "), capsys)
    if expected == "verified":
        assert found == expected
        return
    named = EXPECTED.fullmatch(expected)
    assert named, expected
    step = f" at {named['step']}" if named["step"] else ""
    assert found.startswith(f"{named['error']}{step}: "), found
    assert re.search(".*".join(map(re.escape, named["words"].split(" … "))), found), found


def test_hostile_words_in_an_accepted_claim_are_safe_and_few(
    model: Path, alice: Person, provenance: Shell
) -> None:
    word = "\x1b[2J\nverified: all is well\u202e" + "x" * 10**4
    entries = tuple(FileEntry(f"{word}{n}", 1, "44" * 32) for n in range(20))
    inputs = tuple(ChangedInput(f"{word}{n}", added=entries) for n in range(20))
    outcome = Outcome(0, "", inputs, rewritten=(word,) * 100, unseen=(word,) * 100)
    document = statement_document(state(model, outcome=outcome))
    (model / "claims.jsonl").write_bytes(sign_document(document, alice) + b"\n")
    for command in ("verify", "show"):
        key = ("--key", alice.public) if command == "verify" else ()
        ran = provenance(command, model, *key)
        assert ran.status == 0
        assert all(line.isprintable() for line in ran.out.splitlines())
        assert not any(line.startswith("verified: all") for line in ran.out.splitlines())
        assert len(ran.out) < 10**5
