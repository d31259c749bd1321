"""Ctrl-C, SIGTERM and kill -9 at the recorder; what was promised before stays."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.files.names import RESERVED
from provenance.files.walking import walk
from provenance.folder import claims
from tests.world import (
    PROGRAM,
    edit_lines,
    refused,
    run_program,
    sign_document,
    state,
    statement_document,
    tree,
)

if TYPE_CHECKING:
    from tests.world import Person


def record(alice: Person, *script: str) -> list[str]:
    key = str(alice.private)
    return [*PROGRAM, "record", "--model", "model", "--key", key, "--", "sh", "-c", *script]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_recorder_ends_the_training_and_is_recorded(
    number: signal.Signals, tmp_path: Path, alice: Person
) -> None:
    script = "mkdir model; echo 1 > model/w; touch ready; exec sleep 60"
    process = subprocess.Popen(
        record(alice, script),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_listen,  # noqa: PLW1509 - no threads here
    )
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + number, err
    assert f"the training command was killed by {number.name}" in err
    refused(
        run_program("verify", tmp_path / "model", "--key", alice.public),
        1,
        f"killed by {number.name}",
    )


def test_control_c_at_a_terminal(tmp_path: Path, alice: Person) -> None:
    # The command catches it, saves, and ends well, as trainers do.
    script = "trap 'echo 2 > model/w; exit 0' INT; mkdir model; touch ready; while :; do :; done"
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        record(alice, script),
        cwd=tmp_path,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=_take_the_terminal,  # noqa: PLW1509 - no threads here
    )
    os.close(follower)
    wait_for(tmp_path / "ready")
    os.write(leader, b"\x03")
    written = b""
    with contextlib.suppress(OSError):
        while part := os.read(leader, 4096):
            written += part
    os.close(leader)
    assert process.wait(300) == 0, written
    assert b"recorded 1 file" in written
    assert run_program("verify", tmp_path / "model", "--key", alice.public).status == 0


def wait_for_hashing(pid: int, path: Path) -> None:
    """Wait until the process *pid* has *path* open; where that cannot be seen, a second."""
    folder = Path(f"/proc/{pid}/fd")
    if not folder.exists():
        time.sleep(1)
        return
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for link in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if link.readlink() == path:
                    return
        time.sleep(0.01)
    pytest.fail(f"{path} is never opened")


def _listen() -> None:
    """Undo what a shell does to what it starts in the background: SIGINT is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _take_the_terminal() -> None:
    _listen()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_ends_the_recorder_after_the_run_says_how_to_go_on(
    tmp_path: Path, alice: Person, number: signal.Signals, runs: Path
) -> None:
    # Sparse, it takes minutes to hash; not called as weights are, which are hashed in the run too.
    script = "mkdir model; truncate -s 200G model/large"
    options = ["--model", "model", "--key", str(alice.private)]
    process = subprocess.Popen(
        [*PROGRAM, "record", *options, "--", "sh", "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=_listen,  # noqa: PLW1509 - no threads here
    )
    wait_for_hashing(process.pid, tmp_path / "model/large")
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    (run,) = runs.iterdir()
    assert process.returncode == 130, err
    assert err.rstrip().endswith(f"to go on: provenance record --finish {run.name}")
    (tmp_path / "model/large").write_text("small")
    assert run_program("record", "--finish", run.name, cwd=tmp_path).status == 0


def test_control_c_while_hashing(model: Path, alice: Person) -> None:
    with (model / "large.bin").open("wb") as file:
        file.truncate(200 * 2**30)  # sparse: it takes minutes to hash, and no disk
    before = set(tree(model / "tokenizer"))
    document = statement_document(state(model / "tokenizer"))
    document["predicate"]["provenance_manifest"] = [
        {"name": name, "sha256": "00" * 32, "size": (model / name).stat().st_size}
        for name in walk(model, ignore=RESERVED)
    ]
    listed = len(document["predicate"]["provenance_manifest"])
    digest = hashlib.sha256(bytes(32) * listed).hexdigest()
    document["subject"][0]["digest"]["sha256"] = digest
    edit_lines(model, lambda _: [sign_document(document, alice)])
    (model / "model.sig").unlink()
    for command in (
        ["verify", model, "--key", alice.public],
        ["sign", model, "--key", alice.private],
        ["attest", model, "--key", alice.private],
    ):
        claims_before = (model / "claims.jsonl").read_bytes()
        process = subprocess.Popen(
            [*PROGRAM, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_listen,  # noqa: PLW1509 - no threads here
        )
        wait_for_hashing(process.pid, model / "large.bin")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
        assert time.monotonic() - began < 60
        assert (process.returncode, err.strip()) == (130, "provenance: interrupted"), command
        assert (model / "claims.jsonl").read_bytes() == claims_before
        assert set(tree(model / "tokenizer")) == before
    (model / "large.bin").unlink()
    (model / "claims.jsonl").unlink()
    assert run_program("attest", model, "--key", alice.private).status == 0
    assert run_program("verify", model, "--key", alice.public).status == 0


def test_killed_at_random_moments(model: Path, alice: Person) -> None:
    # The weights stay, so whatever a killed recorder leaves must still be verified.
    moments = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen(
            [*PROGRAM, "attest", model, "--key", str(alice.private), "--equality", "bytes"],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(0.2, 0.8))
        process.kill()
        process.wait()
        assert claims.read_bundles(model / "claims.jsonl")
        ran = run_program("verify", model, "--key", alice.public)
        assert ran.status == 0, ran
    assert run_program("attest", model, "--key", alice.private).status == 0
    assert not list(model.rglob("*.tmp"))


def test_killed_between_writing_and_renaming(model: Path, alice: Person) -> None:
    code = (
        "import os, sys, signal, pathlib\n"
        "from provenance import cli\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "cli.run(sys.argv[1:])\n"
    )
    before = claims.read_bundles(model / "claims.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", code, "attest", model, "--key", alice.private],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (model / "claims.jsonl.tmp").exists()
    assert claims.read_bundles(model / "claims.jsonl") == before
    ran = run_program("verify", model, "--key", alice.public)
    assert ran.status == 0
    assert "not covered: claims.jsonl.tmp" in ran.out
    assert run_program("sign", model, "--key", alice.private).status == 0
    assert run_program("attest", model, "--key", alice.private).status == 0
    assert not (model / "claims.jsonl.tmp").exists()


def test_two_recorders_at_once_lose_no_claim(model: Path, alice: Person) -> None:
    running = [
        subprocess.Popen(
            [*PROGRAM, "attest", model, "--key", alice.private], stderr=subprocess.DEVNULL
        )
        for _ in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert len(claims.read_bundles(model / "claims.jsonl")) == 5
