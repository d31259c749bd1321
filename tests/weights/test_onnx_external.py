from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.weights.onnx.model import external_files, is_data_name
from provenance.weights.opening import companions, open_tensors
from tests.weights.onnx_writing import WEIGHT, external, model, tensor, written

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import TensorProto


def content(file: Any, name: str, elements: int = 256) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


FIRST, SECOND = WEIGHT.tobytes(), WEIGHT[0].tobytes()


def beside(folder: Path, *tensors: TensorProto, data: bytes = FIRST + SECOND) -> Path:
    (folder / "m.data").write_bytes(data)
    path = folder / "m.onnx"
    path.write_bytes(written(model(tensors)))
    return path


def test_files_beside_the_model_are_read(tmp_path: Path) -> None:
    path = beside(
        tmp_path,
        external("w", [2, 3], location="m.data", length="24"),
        external("v", [3], location="m.data", offset="64"),
        data=FIRST + bytes(40) + SECOND,
    )
    assert external_files(path) == companions(path) == ("m.data",)
    inside = tmp_path / "inside.onnx"
    inside.write_bytes(written(model([tensor("w", WEIGHT), tensor("v", WEIGHT[0])])))
    with open_tensors(path) as file, open_tensors(inside) as other:
        assert list(file.tensors) == ["w", "v"]
        assert (content(file, "w"), content(file, "v")) == (FIRST, SECOND)
        assert file.metadata == other.metadata
        differing = {k for k, v in file.container.items() if other.container[k] != v}
        assert differing == {"layout"}
        file.check_unchanged()
        os.utime(tmp_path / "m.data", ns=(1, 1))
        with pytest.raises(UnreadableError, match=r"m\.data: changed while"):
            file.check_unchanged()


def test_tied_weights_share_their_bytes(tmp_path: Path) -> None:
    tied = [external(name, [2, 3], location="m.data") for name in ("b", "a")]
    with open_tensors(beside(tmp_path, *tied, data=FIRST)) as file:
        assert file.aliases == (("a", "b"),)


W = external("w", [2, 3], location="m.data")
EXTERNAL = {
    "parent": ([external("w", [6], location="../m.data")], FIRST, "not a plain path"),
    "absolute": ([external("w", [6], location="/m.data")], FIRST, "not a plain path"),
    "no location": ([external("w", [6], offset="0")], FIRST, "not a plain path"),
    "backslash": ([external("w", [6], location="a\\b")], FIRST, "not a plain path"),
    "negative": ([external("w", [6], location="m.data", offset="-1")], FIRST, "is no number"),
    "spelled twice": ([external("w", [6], location="m.data", offset="00")], FIRST, "is no number"),
    "unknown key": ([external("w", [6], location="m.data", x="")], FIRST, "keys that are not"),
    "other length": ([external("w", [6], location="m.data", length="23")], FIRST, "takes 23 bytes"),
    "beyond": ([external("w", [6], location="m.data", offset="1")], FIRST, "lie beyond its end"),
    "overlap": ([W, external("v", [6], location="m.data", offset="4")], FIRST * 2, "overlap"),
    "gap": ([external("w", [6], location="m.data", offset="4")], b"\1" * 28, "between the tensors"),
    "trailing": ([W], FIRST + b"\0", "1 bytes after the last tensor"),
    "both": ([external("w", [6], location="m.data")], FIRST, "in two places"),
}


@pytest.mark.parametrize("case", EXTERNAL)
def test_refuses_files_beside_the_model(tmp_path: Path, case: str) -> None:
    tensors, data, what = EXTERNAL[case]
    if case == "both":
        tensors[0].raw_data = FIRST
    with pytest.raises(MalformedError, match=what):
        open_tensors(beside(tmp_path, *tensors, data=data))


NAMES = {
    "model.onnx.data": True,
    "model.onnx_data": True,
    "model.onnx_data_1": True,
    "model.data": True,
    "model.onnx.bin": True,
    "weights.pb": True,
    "data": True,
    "part/weights.raw": True,
    "2e8ab9de-34f1-11ef-9454-0242ac120002": True,
    "onnx__MatMul_1": True,  # the tensor's own name, as a file can have it
    "onnx__MatMul_2": False,
    "config.json": False,
    "m.onnx.json": False,  # as a voice has its configuration
    "conftest.py": False,
    "model.safetensors": False,
    "pytorch_model.bin": False,
    "tokenizer.model": False,
    "m": False,
    "metadata": False,
}


@pytest.mark.parametrize("location", NAMES)
def test_only_what_is_called_as_data_is_data(tmp_path: Path, location: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(written(model([external("onnx::MatMul_1", [6], location=location)])))
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(FIRST)
    if NAMES[location]:
        open_tensors(path).close()
        assert companions(path) == (location,)
        return
    for read in (open_tensors, companions):
        with pytest.raises(MalformedError, match="not a name for such files"):
            read(path)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("fc.weight", True), ("a.in_proj_bias", True), ("bn.running_var", True), ("cls_token", True),
     ("config.json", False), ("setup.py", False), ("merges.txt", False), ("a.weight.py", False)],
)  # fmt: skip
def test_the_name_of_a_tensor_is_that_of_its_file_where_it_looks_like_one(
    name: str, *, accepted: bool
) -> None:
    assert is_data_name(name, name) == accepted
    assert not is_data_name(name, "other")


def test_a_link_or_a_missing_file_beside_the_model_is_unreadable(tmp_path: Path) -> None:
    path = beside(tmp_path, W, data=FIRST)
    (tmp_path / "m.data").rename(tmp_path / "real")
    with pytest.raises(UnreadableError, match=r"m\.data: no such file"):
        open_tensors(path)
    (tmp_path / "m.data").symlink_to("real")
    with pytest.raises(UnreadableError, match="through a symbolic link"):
        open_tensors(path)


def test_files_beside_the_model_have_their_digest(tmp_path: Path) -> None:
    path = beside(tmp_path, W, data=FIRST)
    digests = {name: _sha256(tmp_path / name) for name in ("m.onnx", "m.data")}
    open_tensors(path, sha256=digests).close()
    with pytest.raises(ContentError, match="not among the files"):
        open_tensors(path, sha256={"m.onnx": digests["m.onnx"]})
    (tmp_path / "m.data").write_bytes(FIRST[::-1])
    with pytest.raises(ContentError, match=r"m\.data: is no longer the file"):
        open_tensors(path, sha256=digests)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
