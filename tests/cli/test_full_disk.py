"""A full disk: one clear line, status 4, nothing half-written, for every command that writes."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.world import PROGRAM, Ran, attest, make_log, refused, run_program, tree, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.world import Person

SIZE = 4 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place]
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root on Linux can mount a small file system")
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


def attempt(disk: Path, *arguments: str | Path) -> None:
    """Run what must write on the full *disk*, and check that it changed nothing there."""
    before = tree(disk)
    ran = run_program(*arguments, cwd=disk)
    status = 125 if arguments[0] == "record" else 4
    refused(ran, status, "cannot be written: no space left on device", "free some space")
    assert tree(disk) == before


def test_keygen(disk: Path) -> None:
    fill(disk)
    attempt(disk, "keygen", "key")
    attempt(disk, "keygen", disk / "key", "--json")


def test_sign_attest_and_record(disk: Path, alice: Person) -> None:
    root = attest(write_files(disk / "model"), alice)
    fill(disk)
    for command in ("sign", "attest"):
        attempt(disk, command, root, "--key", alice.private)
    assert run_program("verify", root, "--key", alice.public).status == 0
    (disk / "filler").unlink()
    assert run_program("attest", root, "--key", alice.private).status == 0


@pytest.mark.parametrize("full", ["the model's", "the run's", "both"])
def test_what_was_seen_of_a_run_is_not_lost(
    disk: Path, tmp_path: Path, alice: Person, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path if full == "the model's" else disk
    root = (tmp_path if full == "the run's" else disk) / "model"
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    fill_it = 'mkdir "$0"; echo 1 > "$0/w"; cat /dev/zero > "$1" 2> /dev/null; true'
    if full == "both":  # and something else is wrong
        fill_it = f'{fill_it}; mkfifo "$0/x"'
    options = ("--model", root, "--key", alice.private)
    ran = run_program("record", *options, "--", "sh", "-c", fill_it, root, disk / "filler")
    verify = ("verify", root, "--key", alice.public)
    if full == "the run's":  # then the model's disk has room, and nothing is missing
        assert ran.status == 0, ran
    else:
        assert ran.status == 125, ran
        if full == "both":
            (root / "x").unlink()
        else:
            assert "no space left on device (free some space" in ran.err
        (disk / "filler").unlink()
        run = ran.err.strip().removesuffix(")").rpartition(" ")[2]
        assert run_program("record", "--finish", run).status == 0
    assert "the command ended with status 0" in run_program(*verify).out
    assert not list((home / "state/provenance/runs").iterdir())


def test_a_run_whose_folder_cannot_be_written_is_not_started(
    disk: Path, tmp_path: Path, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(disk / "state"))
    monkeypatch.setenv("TMPDIR", str(disk))
    fill(disk)
    words = ("--", "touch", tmp_path / "ran")
    ran = run_program("record", "--model", tmp_path / "m", "--key", alice.private, *words)
    assert ran.status == 125
    assert "no space left on device" in ran.err
    assert not (tmp_path / "ran").exists()


def test_a_verdict(disk: Path, tmp_path: Path, model: Path, alice: Person, bob: Person) -> None:
    other = attest(write_files(tmp_path / "other"), bob)
    fill(disk)
    keys = ("--key", alice.public, "--key", bob.public)
    sign = ("--sign-with", bob.private, "--out", "verdict")
    attempt(disk, "agree", model, other, *keys, *sign)


def test_a_log_on_a_full_disk(disk: Path, model: Path, larry: Person) -> None:
    fill(disk)
    before = tree(model)
    ran = run_program("log", "init", disk / "log", "--origin", "x", "--key", larry.private)
    refused(ran, 4, "no space left on device")
    (disk / "filler").unlink()
    shutil.rmtree(disk / "log", ignore_errors=True)
    make_log(disk / "log", larry)
    fill(disk)
    refused(run_program("publish", model, "--log", disk / "log"), 4, "no space left on device")
    assert tree(model) == before
    (disk / "filler").unlink()
    assert run_program("publish", model, "--log", disk / "log").status == 0


def test_claims_on_a_full_disk_when_publishing(disk: Path, tmp_path: Path, alice: Person,
                                               larry: Person) -> None:  # fmt: skip
    root = attest(write_files(disk / "model"), alice)
    make_log(tmp_path / "log", larry)
    fill(disk)
    attempt(disk, "publish", root, "--log", tmp_path / "log")
    (disk / "filler").unlink()
    ran = run_program("publish", root, "--log", tmp_path / "log", "--json")
    assert ran.document["claims"] == [{"index": 0, "line": 1, "new": True}]


def test_a_limit_on_the_size_of_files(model: Path, alice: Person) -> None:
    # What anybody can have: a quota on files, whose signal Python ignores.
    before = tree(model)
    done = subprocess.run(
        [*PROGRAM, "attest", model, "--key", alice.private],
        capture_output=True,
        text=True,
        check=False,
        # Coverage would write its data at the end, which the limit forbids too.
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    refused(Ran(done.returncode, done.stdout, done.stderr), 4, "claims.jsonl", "file too large")
    assert tree(model) == before
