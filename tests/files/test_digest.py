from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from provenance.errors import UnreadableError
from provenance.files.digest import CHUNK_BYTES, hash_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = [0, 1, 55, 64, 4096, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES]

BOTH = [1000, 2 * CHUNK_BYTES]
"""A size of each of the two ways in which a file is read."""


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Give a function that has its argument called once, when the first bytes were read."""

    def arrange(change: Callable[[], object]) -> None:
        pending = [change]
        real_read, real_readv = os.read, os.readv

        def read(descriptor: int, size: int) -> bytes:
            data = real_read(descriptor, size)
            if pending:
                pending.pop()()
            return data

        def readv(descriptor: int, buffers: list[memoryview]) -> int:
            count = real_readv(descriptor, buffers)
            if pending:
                pending.pop()()
            return count

        monkeypatch.setattr(os, "read", read)
        monkeypatch.setattr(os, "readv", readv)

    return arrange


def stir(path: Path) -> None:
    """Move the file's times, which have the tick of the file system's clock."""
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("size", SIZES)
def test_digest_and_size(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    counts: list[int] = []
    assert hash_file(path, counts.append) == (hashlib.sha256(data).hexdigest(), size)
    assert sum(counts) == size
    assert hash_file(str(path)) == (hashlib.sha256(data).hexdigest(), size)


@pytest.mark.parametrize("most", [1, 7, 999])
def test_a_file_system_that_gives_less_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    data = os.urandom(1000)
    (tmp_path / "file").write_bytes(data)
    real = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: real(descriptor, min(size, most)))
    assert hash_file(tmp_path / "file") == (hashlib.sha256(data).hexdigest(), 1000)


@pytest.mark.parametrize("size", BOTH)
@pytest.mark.parametrize("how", ["grow", "shrink", "rewrite", "replace", "delete", "empty"])
def test_a_file_that_changes_is_refused(
    tmp_path: Path, during: Callable[[Callable[[], object]], None], size: int, how: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    stir(path)
    other = tmp_path / "other"
    other.write_bytes(b"b" * size)

    def append() -> None:
        with path.open("ab") as file:
            file.write(b"b")

    changes: dict[str, Callable[[], object]] = {
        "grow": append,
        "shrink": lambda: os.truncate(path, size - 1),
        "rewrite": lambda: path.write_bytes(b"b" * size),
        "replace": lambda: other.replace(path),
        "delete": path.unlink,
        "empty": lambda: os.truncate(path, 0),
    }
    during(changes[how])
    with pytest.raises(UnreadableError, match="changed while it was read") as caught:
        hash_file(path)
    assert caught.value.where == str(path)


def test_a_file_that_grows_without_end_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * CHUNK_BYTES)
    reads = []

    def endless(_descriptor: int, buffers: list[memoryview]) -> int:
        reads.append(1)
        return len(buffers[0])

    monkeypatch.setattr(os, "readv", endless)
    with pytest.raises(UnreadableError, match="changed"):
        hash_file(path)
    assert len(reads) == 2


def test_a_real_writer_meanwhile_gives_a_moment_or_our_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    versions = [bytes([letter]) * (CHUNK_BYTES + letter) for letter in range(1, 5)]
    path.write_bytes(versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                path.write_bytes(version)

    writer = threading.Thread(target=write)
    writer.start()
    refused = 0
    deadline = time.monotonic() + 600
    try:
        while refused < 3 and time.monotonic() < deadline:
            try:
                _, size = hash_file(path)
            except UnreadableError:
                refused += 1
            else:
                assert size <= max(map(len, versions))
    finally:
        stop.set()
        writer.join()
    assert refused == 3


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    cases = {
        fifo: "is a FIFO, not a file",
        tmp_path: "is a folder, not a file",
        link: "is a symbolic link",
        loop: "is a symbolic link",
        tmp_path / "missing": "no such file",
        tmp_path / "file" / "below": "not a directory",
        tmp_path / "a\0b": "null byte",
        tmp_path / ("a" * 300): "file name too long",
    }
    for path, message in cases.items():
        with pytest.raises(UnreadableError, match=message) as caught:
            hash_file(path)
        assert caught.value.where == str(path)
    with pytest.raises(UnreadableError, match="is a character device"):
        hash_file("/dev/null")


def test_a_socket_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(UnreadableError, match="is a socket, not a file"):
            hash_file("socket")


@pytest.mark.parametrize("size", BOTH)
def test_a_failing_disk_is_our_error_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    closed: list[int] = []
    real = os.close

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        patch.setattr(os, "readv", fail)
        patch.setattr(os, "close", close)
        with pytest.raises(UnreadableError, match="cannot be read: input/output error"):
            hash_file(path)
    assert len(closed) == 1


def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"secret")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file (root)")
    with pytest.raises(UnreadableError, match="permission denied"):
        hash_file(path)


def test_permission_denied_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "file"
    path.write_bytes(b"secret")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(UnreadableError, match="cannot be read: permission denied"):
            hash_file(path)


def test_a_link_planted_after_the_walk_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    inside = tmp_path / "weights"
    inside.symlink_to(outside)
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        hash_file(inside)
