from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from provenance.errors import UnreadableError
from provenance.weights import names, opening
from provenance.weights.names import carries_tensors, is_readable
from provenance.weights.opening import open_tensors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["m.ggml", "m.pkl", "m.txt", "safetensors"])
def test_formats_without_a_reader_are_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"other")
    with pytest.raises(UnreadableError, match="cannot be read by this version"):
        open_tensors(tmp_path / name)


def test_what_carries_tensors_is_told_by_the_name() -> None:
    assert is_readable("a/b.SAFETENSORS")
    assert not is_readable("m.ggml")
    assert carries_tensors("m.ggml")
    assert carries_tensors("x.npz")
    assert not carries_tensors("config.json")


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="no such file"):
        open_tensors(tmp_path / "m.npz")


def test_a_folder_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "m.npz").mkdir()
    with pytest.raises(UnreadableError, match="is a folder, not a file"):
        open_tensors(tmp_path / "m.npz")


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.npy")
    with pytest.raises(UnreadableError, match="is a FIFO, not a file"):
        open_tensors(tmp_path / "m.npy")


def test_a_name_with_nul_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="the path holds a null byte"):
        open_tensors(tmp_path / "a\0b.npy")


def test_what_is_called_readable_has_a_reader() -> None:
    assert opening._READERS.keys() | {names.ONNX} == names.READABLE  # noqa: SLF001
    assert not names.READABLE & names.UNREAD
