"""``demo``: the whole job, as a user sees it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from provenance.cli import demo
from tests.world import Shell, refused, run_program, tree

if TYPE_CHECKING:
    from pathlib import Path

needs = pytest.mark.skipif(
    shutil.which("git") is None or importlib.util.find_spec("sklearn") is None,
    reason="needs git and the extra 'demo'",
)


@needs
def test_the_demo_is_what_it_says(tmp_path: Path) -> None:
    ran = run_program("demo", "--folder", tmp_path / "demo")
    assert (ran.status, ran.err.count("provenance: recorded")) == (0, 4), ran.err[-2000:]
    for words in (
        "match: same model by bytes",
        "consistent: within the declared tolerance by close",
        "mismatch",
        "model.safetensors was changed",
        "the claim was changed after it was signed",
        "entry 0 of demo.example/log, proven offline",
        "Every step ended as it should.",
    ):
        assert words in ran.out, words
    assert ran.out.count("(exit status 1, as it should be)") == 3
    shown = [line.split()[-1] for line in ran.out.splitlines() if "provenance show " in line]
    assert len(shown) == 3
    for path in shown:
        assert run_program("show", path).status == 0
    verdict = json.loads((tmp_path / "demo" / "verdict.json").read_bytes())
    assert verdict["mediaType"].startswith("application/vnd.dev.sigstore.bundle")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, provenance: Shell) -> None:
    (tmp_path / "mine").write_text("x")
    before = tree(tmp_path)
    refused(provenance("demo", "--folder", tmp_path), 2, "was not made by the demo", "--folder")
    assert tree(tmp_path) == before


def test_without_the_extra(
    tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    ran = provenance("demo", "--folder", tmp_path / "demo")
    refused(ran, 2, "the demo needs sklearn", "training-provenance[demo]")
    assert not (tmp_path / "demo").exists()


def test_without_git(tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(provenance("demo", "--folder", tmp_path / "demo"), 2, "the demo needs git")


def test_a_step_that_ends_otherwise(
    tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps").write_text("## One\n1 . A=1 python3 -c 'raise SystemExit(3)'\n")
    monkeypatch.setattr(demo, "STEPS", tmp_path / "steps")
    monkeypatch.setattr(demo, "_check_requirements", lambda: None)
    ran = provenance("demo", "--folder", tmp_path / "demo")
    refused(ran, 1, "ended with status 3, and should have with 1")
    assert sys.executable not in ran.out
    # Made by the demo, the folder may be made anew.
    assert provenance("demo", "--folder", tmp_path / "demo").status == 1
