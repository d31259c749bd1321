"""Files whose content is not what their names say."""

from __future__ import annotations

import gzip
import io
import pickle
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.kinds import kind_of
from provenance.weights.opening import open_tensors
from tests.weights import gguf_writing, hdf5_writing, torch_writing
from tests.weights.writing import simple, tensor_digests

if TYPE_CHECKING:
    from pathlib import Path

    from tests.weights.conftest import Opener

ARRAY = np.arange(3, dtype="<f4")


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=ARRAY)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ARRAY)
    return buffer.getvalue()


def of(samples: dict[str, bytes], suffix: str) -> bytes:
    return next(data for name, data in samples.items() if name.endswith(suffix))


RIGHT = {
    ".safetensors": simple({"w": ARRAY}),
    ".bin": torch_writing.linear(),
    ".gguf": of(gguf_writing.samples(), ".gguf"),
    ".h5": of(hdf5_writing.samples(), ".h5"),
    ".keras": of(hdf5_writing.samples(), ".keras"),
    ".npz": npz(),
    ".npy": npy(),
}
WORDS = {
    ".safetensors": "a safetensors file", ".bin": "a torch archive", ".gguf": "a GGUF file",
    ".h5": "an HDF5 file", ".keras": "a Keras archive", ".npz": "an archive of numpy arrays",
    ".npy": "an npy file",
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "name"), [*permutations(RIGHT, 2)])
def test_a_file_is_read_by_its_content_and_doubted(opened: Opener, suffix: str, name: str) -> None:
    digests = tensor_digests(opened(RIGHT[suffix], f"m{suffix}"))
    file = opened(RIGHT[suffix], f"m{name}")
    assert file.doubts == (
        f"m{name}: is {WORDS[suffix]} by its content, and loaders go by its name",
    )
    assert tensor_digests(file) == digests


@pytest.mark.parametrize("name", ["m.onnx", "m.safetensors.index.json", "m.ggml", "m"])
def test_so_it_is_under_a_name_of_another_kind(opened: Opener, name: str) -> None:
    file = opened(RIGHT[".safetensors"], name)
    assert list(file.tensors) == ["w"]
    assert len(file.doubts) == 1


@pytest.mark.parametrize(("suffix", "data"), RIGHT.items(), ids=RIGHT)
def test_what_its_name_says_is_not_doubted(opened: Opener, suffix: str, data: bytes) -> None:
    assert opened(data, f"m{suffix}").doubts == ()
    assert opened(data, f"M{suffix.upper()}").doubts == ()


def test_a_shard_of_another_kind_makes_the_whole_doubtful(tmp_path: Path) -> None:
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(
        '{"weight_map": {"weight": "m-1-of-1.safetensors", "bias": "m-1-of-1.safetensors"}}'
    )
    (tmp_path / "m-1-of-1.safetensors").write_bytes(torch_writing.linear())
    with open_tensors(index) as file:
        assert len(file.doubts) == 1
        assert "m-1-of-1.safetensors: is a torch archive by its content" in file.doubts[0]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4\n"
OTHERS = {
    "LFS": (POINTER, r"is a Git LFS pointer \(run 'git lfs pull'\)"),
    "Xet": (b"# xet version 0\nfilesize = 4\nhash = '0'\n", "is a Xet pointer"),
    "annex": (b"/annex/objects/SHA256E-s4--0.bin\n", "is a git-annex pointer"),
    "HTML": (b"\n<!DOCTYPE html>\n<html>404</html>", "is an HTML page"),
    "HTML without a type": (b"<html><body>", "is an HTML page"),
    "empty": (b"", "is empty"),
    "gzip": (gzip.compress(b"x"), "is compressed by gzip"),
    "pickle": (pickle.dumps({"w": 1}), "is a pickle"),
    "another archive": (
        torch_writing.zipped({"a.txt": b"x"}), "is a ZIP archive|not in one folder",
    ),
    "before 1.6": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", r"before 1\.6",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["m.safetensors", "m.bin", "m.h5", "m.gguf", "m.onnx"])
@pytest.mark.parametrize(("data", "what"), OTHERS.values(), ids=OTHERS)
def test_what_cannot_be_read_is_named(opened: Opener, data: bytes, what: str, name: str) -> None:
    with pytest.raises((UnreadableError, MalformedError), match=what):
        opened(data, name)


def test_an_index_that_is_a_pointer_is_named(opened: Opener) -> None:
    with pytest.raises(UnreadableError, match="is a Git LFS pointer"):
        opened(POINTER, "m.safetensors.index.json")


def test_any_beginning_is_of_some_kind_or_none() -> None:
    for data, _ in OTHERS.values():
        for end in range(len(data)):
            kind = kind_of(data[:end], end)
            assert kind is None or kind.words
