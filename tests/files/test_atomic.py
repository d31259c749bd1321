from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.errors import UnavailableError, UnreadableError, UsageError
from provenance.files import atomic
from provenance.files.atomic import create_file, flush_folder, locked, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRITERS: dict[str, Callable[..., None]] = {"write": write_file, "create": create_file}


@pytest.fixture(params=list(WRITERS.values()), ids=list(WRITERS))
def writer(request: pytest.FixtureRequest) -> Callable[..., None]:
    chosen: Callable[..., None] = request.param
    return chosen


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_write_puts_and_replaces(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"one")
    assert listing(tmp_path) == {"file": b"one"}
    write_file(tmp_path / "file", b"")
    assert listing(tmp_path) == {"file": b""}


def test_create_puts_and_never_replaces(tmp_path: Path) -> None:
    create_file(tmp_path / "file", b"one")
    with pytest.raises(UsageError, match="exists already") as caught:
        create_file(tmp_path / "file", b"two")
    assert caught.value.where == str(tmp_path / "file")
    assert listing(tmp_path) == {"file": b"one"}


def test_create_replaces_neither_a_folder_nor_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("folder", "dangling"):
        with pytest.raises(UsageError, match="exists already"):
            create_file(tmp_path / name, b"two")
    assert not (tmp_path / "nowhere").exists()


def test_create_does_not_replace_what_appears_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        if not (tmp_path / "file").exists():
            (tmp_path / "file").write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UsageError, match="exists already"):
        create_file(tmp_path / "file", b"ours")
    assert listing(tmp_path) == {"file": b"theirs"}


def test_write_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "file").symlink_to("target")
    write_file(tmp_path / "file", b"new")
    assert not (tmp_path / "file").is_symlink()
    assert listing(tmp_path) == {"target": b"target", "file": b"new"}


def test_a_leftover_of_a_killed_write_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").write_bytes(b"half")
    write_file(tmp_path / "file", b"new")
    assert listing(tmp_path) == {"file": b"new"}


def test_a_new_file_leaves_those_of_the_user_alone(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").write_bytes(b"mine")
    create_file(tmp_path / "file", b"new")
    assert listing(tmp_path) == {"file": b"new", "file.tmp": b"mine"}


def test_a_planted_temporary_is_neither_followed_nor_opened(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    folder = tmp_path / "folder"
    for plant in (
        lambda path: path.symlink_to(outside),
        lambda path: path.symlink_to("dangling"),
        os.mkfifo,
        lambda path: os.link(outside, path),
    ):
        folder.mkdir()
        plant(folder / "file.tmp")
        write_file(folder / "file", b"ours")
        assert listing(folder) == {"file": b"ours"}
        assert outside.read_bytes() == b"theirs"
        (folder / "file").unlink()
        folder.rmdir()


def test_a_temporary_planted_after_the_old_one_was_removed(
    tmp_path: Path, writer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    folder = tmp_path / "folder"
    folder.mkdir()
    real = os.open

    def open_after_the_planting(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            Path(path).symlink_to(outside)
        return real(path, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_after_the_planting)
        with pytest.raises(UnavailableError, match="cannot be written: file exists"):
            writer(folder / "file", b"ours")
    assert outside.read_bytes() == b"theirs"
    assert not (folder / "file").exists()


def test_a_folder_at_the_temporary_name(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").mkdir()
    with pytest.raises(UnavailableError, match="cannot be written"):
        write_file(tmp_path / "file", b"new")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("number", "hint"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"), (errno.EIO, None)],
)
@pytest.mark.parametrize("call", ["fsync", "open", "replace/link"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, hint: str | None
) -> None:
    write_file(tmp_path / "file", b"old")
    with monkeypatch.context() as patch:
        if call == "replace/link":
            patch.setattr("pathlib.Path.replace", fail_with(number))
            patch.setattr(os, "link", fail_with(number))
        else:
            patch.setattr(os, call, fail_with(number))
        for path, put in ((tmp_path / "file", write_file), (tmp_path / "new", create_file)):
            with pytest.raises(UnavailableError, match="cannot be written") as caught:
                put(path, b"new")
            assert caught.value.where == str(path)
            assert (caught.value.hint or "").startswith(hint or "")
    assert listing(tmp_path) == {"file": b"old"}


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Give a function that makes the kernel refuse files above a size, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [4097, 2**20])
def test_a_file_that_does_not_fit(
    tmp_path: Path, file_limit: Callable[[int], None], size: int
) -> None:
    write_file(tmp_path / "file", b"old")
    file_limit(4096)
    try:
        for path, put in ((tmp_path / "file", write_file), (tmp_path / "new", create_file)):
            with pytest.raises(UnavailableError, match="cannot be written: file too large"):
                put(path, bytes(size))
    finally:
        file_limit(2**40)
    assert listing(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", fail_with(number))
    with pytest.raises(UnavailableError, match="has no hard links"):
        create_file(tmp_path / "file", b"new")
    assert listing(tmp_path) == {}


def test_a_folder_that_is_none(tmp_path: Path, writer: Callable[..., None]) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing" / "a", tmp_path / "file" / "a", tmp_path / ("a" * 300)):
        with pytest.raises(UnavailableError, match="cannot be written"):
            writer(path, b"new")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UnreadableError, match="cannot be locked"), locked(folder):
            pytest.fail("locked what is no folder")


def test_a_file_system_without_locks_is_our_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", fail_with(errno.ENOLCK))
    with pytest.raises(UnreadableError, match="cannot be locked"), locked(tmp_path):
        pytest.fail("went on without a lock")


def test_a_lock_is_waited_for_with_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "MAX_WAIT_SECONDS", 0.1)
    with locked(tmp_path):
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="is locked by another process") as caught:
            locked(tmp_path).__enter__()
        assert time.monotonic() - start >= 0.1
        assert caught.value.where == str(tmp_path)
        create_file(tmp_path / "file", b"needs no lock")
    with locked(tmp_path):
        pass


def test_an_error_of_the_caller_passes_through_a_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path):
        (tmp_path / "missing").read_bytes()


@pytest.mark.parametrize(
    ("mask", "mode", "expected"),
    [
        (0o022, 0o644, 0o644),
        (0o077, 0o644, 0o600),
        (0o000, 0o600, 0o600),
        (0o000, 0o644, 0o644),
        (0o022, 0o600, 0o600),
    ],
)
def test_the_mode_is_never_wider_than_asked(
    tmp_path: Path,
    writer: Callable[..., None],
    umask: Callable[[int], int],
    monkeypatch: pytest.MonkeyPatch,
    mask: int,
    mode: int,
    expected: int,
) -> None:
    umask(mask)
    seen: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            seen.append(stat.S_IMODE(status.st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    writer(tmp_path / "file", b"secret", mode=mode)
    assert seen == [expected]  # from the start: nothing widens or narrows it later
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_file_and_folder_are_flushed_in_that_order(
    tmp_path: Path, writer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, list[str]]] = []

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        flushed.append((kind, sorted(path.name for path in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", fsync)
    writer(tmp_path / "file", b"new")
    (kind, (temporary,)), last = flushed
    assert (kind, last) == ("file", ("folder", ["file"]))
    assert temporary.endswith(".tmp")
    flush_folder(tmp_path)
    assert len(flushed) == 3


def test_a_lock_excludes_threads_and_ends_with_an_error(tmp_path: Path) -> None:
    inside: list[str] = []
    entered = threading.Event()

    def hold() -> None:
        with locked(tmp_path):
            inside.append("first in")
            entered.set()
            time.sleep(0.05)
            inside.append("first out")

    def fail() -> None:
        with locked(tmp_path):
            inside.append("second in")
            raise KeyError

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with pytest.raises(KeyError):
        fail()
    thread.join()
    assert inside == ["first in", "first out", "second in"]
    with locked(tmp_path):
        pass
