"""Killing an append at every step, and filling the disk at every step."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.errors import UnavailableError
from provenance.keys import write_pair
from provenance.transparency import audit, checkpoint
from provenance.transparency import log as logs

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.transparency.note import SignerKey

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

WRITES = ("open", "fsync", "replace", "mkdir")
"""The calls of ``os`` that need room on the disk; of ``open``, those that make a file."""

STEPS = (*WRITES, "unlink", "rmdir")
"""The calls through which the files of a log change."""

OLD = [b"old %d" % number for number in range(250)]
NEW = [b"new %d" % number for number in range(20)]
"""From 250 to 270 entries: a tile is filled, the next begins, and partial tiles go."""


def at_every_step(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], act: Callable[[int], None]
) -> None:
    """Call *act* with 1, 2, … before each call of *names*."""
    count = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any call of os
            nonlocal count
            if real is not open_file or args[1] & os.O_CREAT:
                count += 1
                act(count)
            return real(*args, **kwargs)

        return call

    open_file = os.open
    for name in names:
        monkeypatch.setattr(os, name, counting(getattr(os, name)))


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run *work* in a child that is killed before its call number *step*; tell whether it was."""
    child = os.fork()
    if child == 0:

        def kill(count: int) -> None:
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                at_every_step(patch, STEPS, kill)
                work()
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    assert result in (0, signal.SIGKILL)
    return result != 0


@pytest.fixture
def grown(log: Path, signer: SignerKey) -> Path:
    logs.append(log, OLD[:100], signer)
    logs.append(log, OLD[100:], signer)
    return log


def check(log: Path, signer: SignerKey) -> None:
    """The log is whole, and takes what the killed append wanted to add."""
    promised = (log / "checkpoint").read_bytes()
    report = audit.audit(log, signer.verifier)
    assert report.checkpoint.size in (250, 270)
    for index in (0, 100, 249):
        assert logs.prove(log, [index], signer.verifier)[0].body == OLD[index]
    assert logs.append(log, [b"another"], signer) in ((250,), (270,))
    after = audit.audit(log, signer.verifier, older=promised)
    assert not after.interrupted
    indices = logs.append(log, NEW, signer)
    assert sorted(indices) in (list(range(250, 270)), list(range(251, 271)))
    assert audit.audit(log, signer.verifier, older=promised).checkpoint.size == 271
    for number, entry in enumerate(OLD):
        assert number % 50 or logs.append(log, [entry], signer) == (number,)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote, so nothing needs to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(autouse=True)
def _entries_with_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let short entries be proven; their kind is not what is tested here."""
    monkeypatch.setattr("provenance.transparency.rekor.parse_kind", lambda _body: ("", ""))


def test_an_append_may_be_killed_at_every_step(
    grown: Path, signer: SignerKey, tmp_path: Path
) -> None:
    interrupted = 0
    for step in range(1, 1000):
        copy = tmp_path / "copy"
        shutil.copytree(grown, copy)
        killed = killed_at(step, lambda: logs.append(copy, NEW, signer))  # noqa: B023
        interrupted += audit.audit(copy, signer.verifier).interrupted
        check(copy, signer)
        shutil.rmtree(copy)
        if not killed:
            break
    assert step > 30, "the steps are not counted"
    assert interrupted > 20, "no killed append left anything to undo"


def test_the_recovery_may_be_killed_at_every_step(
    grown: Path, signer: SignerKey, tmp_path: Path
) -> None:
    for first in (12, 30):
        broken = tmp_path / f"broken {first}"
        shutil.copytree(grown, broken)
        assert killed_at(first, lambda: logs.append(broken, NEW, signer))  # noqa: B023
        for step in range(1, 1000):
            copy = tmp_path / "copy"
            shutil.copytree(broken, copy)
            killed = killed_at(step, lambda: logs.append(copy, NEW[:3], signer))  # noqa: B023
            audit.audit(copy, signer.verifier)
            indices = logs.append(copy, NEW[:3], signer)
            assert indices == (250, 251, 252)
            audit.audit(copy, signer.verifier)
            shutil.rmtree(copy)
            if not killed:
                break


def test_making_a_log_may_be_killed_at_every_step(tmp_path: Path, signer: SignerKey) -> None:
    write_pair(signer.private, tmp_path / "log.key")
    for step in range(1, 1000):
        log = tmp_path / f"log {step}"
        key = tmp_path / "log.key"
        killed = killed_at(step, lambda: logs.init(log, signer.name, key))  # noqa: B023
        if not (log / "checkpoint").exists():
            logs.init(log, signer.name, key)
        assert logs.append(log, [b"x"], signer) == (0,)
        audit.audit(log, signer.verifier)
        if not killed:
            break
    assert step > 20, "the steps are not counted"


def test_the_disk_may_be_full_at_every_step(grown: Path, signer: SignerKey, tmp_path: Path) -> None:
    for step in range(1, 1000):
        copy = tmp_path / "copy"
        shutil.copytree(grown, copy)

        def fill(count: int) -> None:
            if count >= step:  # noqa: B023 - from here on nothing more fits
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.MonkeyPatch.context() as patch:
            at_every_step(patch, WRITES, fill)
            try:
                logs.append(copy, NEW, signer)
            except UnavailableError as error:
                failure: UnavailableError | None = error
            else:
                failure = None
        signed = checkpoint.open_checkpoint((copy / "checkpoint").read_bytes(), signer.verifier)
        if failure:
            assert "no space left" in str(failure)
        else:
            assert signed.size == 270
        assert signed.size in (250, 270)
        check(copy, signer)
        shutil.rmtree(copy)
        if not failure:
            break
    assert step > 30, "the steps are not counted"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_every_file_is_on_the_disk_before_the_next_depends_on_it(
    grown: Path, signer: SignerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the power may take is no more than what a kill may take."""
    events: list[tuple[str, str]] = []
    fsync, replace, mkdir = os.fsync, os.replace, os.mkdir

    def note_fsync(descriptor: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        events.append(("replace", f"{source} {target}"))
        replace(source, target)

    def note_mkdir(path: Path, mode: int = 0o777) -> None:
        events.append(("mkdir", str(path)))
        mkdir(path, mode)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "mkdir", note_mkdir)
    logs.append(grown, NEW, signer)

    order = []
    for place, (kind, what) in enumerate(events):
        if kind == "replace":
            source, target = (Path(text) for text in what.split(" "))
            assert events[place - 1] == ("fsync", str(source))
            assert events[place + 1] == ("fsync", str(target.parent))
            order.append(str(target.relative_to(grown)))
        if kind == "mkdir":
            assert events[place + 1] == ("fsync", str(Path(what).parent))
    tiles = [name for name in order if name.startswith("tile/")]
    assert len(tiles) == 5  # two bundles, two tiles of level 0, one of level 1
    assert order == [
        ".state/pending",
        *tiles,
        ".state/treeState",
        "checkpoint",
        ".state/gcState",
    ]
