from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from provenance.errors import MalformedError, UnreadableError
from provenance.files.reading import read_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(UnreadableError, match="is longer than 4 bytes") as caught:
        read_file(path, 4)
    assert caught.value.where == str(path)
    path.write_bytes(b"")
    assert read_file(path, 0) == b""


def test_the_named_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 1) == b"1"


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    cases = {
        "fifo": "is a FIFO, not a file",
        "dangling": "no such file",
        "missing": "no such file",
        "loop": "cannot be read: too many levels of symbolic links",
        "a\0b": "null byte",
        "a" * 300: "file name too long",
        ".": "is a folder, not a file",
    }
    for name, message in cases.items():
        with pytest.raises(UnreadableError, match=message):
            read_file(tmp_path / name, 10)


def test_a_device_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to("/dev/zero")
    with pytest.raises(UnreadableError, match="is a character device"):
        read_file(tmp_path / "key", 10)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    real = os.fstat

    def fstat_then_change(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        os.truncate(path, 5 + change)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fstat_then_change)
        with pytest.raises(UnreadableError, match="changed while it was read"):
            read_file(path, 100)


def test_a_failing_disk_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> os.stat_result:
        raise OSError(5, "Input/output error")

    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        with pytest.raises(UnreadableError, match="cannot be read: input/output error"):
            read_file(path, 100)


def test_a_link_is_refused_where_it_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "file", 1, follow=False) == b"1"
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        read_file(tmp_path / "link", 1, follow=False)


def test_the_caller_names_the_error_of_a_file_too_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12")
    with pytest.raises(MalformedError, match="is longer than 1 bytes"):
        read_file(tmp_path / "file", 1, too_long=MalformedError)
