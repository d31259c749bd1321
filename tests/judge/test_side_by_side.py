from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from provenance.errors import UnreadableError
from provenance.weights.pairs import SideBySide
from tests.judge.models import side_by_side, write
from tests.weights.writing import archive, npy, simple

A = {"w": np.arange(1, 7, dtype="<f4"), "n": np.array([1, 2], "<i8"), "same": np.ones(2, "<f4")}
VECTORS = Path(__file__).parent / "vectors"


def test_files_and_tensors_of_two_folders(tmp_path: Path) -> None:
    b = {
        "w": A["w"] + np.float32(0.5),
        "n": np.array([1, 3], "<i8"),
        "same": A["same"],
        "new": A["w"],
    }
    left = write(tmp_path / "l", {"m.safetensors": A, "c.json": b"1", "x": b"x", "t": b"t"})
    right = write(tmp_path / "r", {"m.safetensors": b, "c.json": b"2", "y": b"y", "t": b"t"})
    compared = side_by_side(left, right)
    assert {file.name: file.state for file in compared} == {
        "m.safetensors": "changed",
        "c.json": "changed",
        "x": "missing-right",
        "y": "missing-left",
        "t": "equal",
    }
    (weights,) = [file for file in compared if file.tensors is not None]
    assert weights.tensors is not None
    states = {tensor.name: tensor.state for tensor in weights.tensors}
    assert states == {"w": "changed", "n": "changed", "same": "equal", "new": "missing-left"}
    (w,) = [tensor for tensor in weights.tensors if tensor.name == "w"]
    assert w.distance is not None
    assert (w.distance.differing, w.distance.linf, w.distance.outlying_share) == (6, 0.5, 0)
    assert w.distance.l2 == pytest.approx(0.5 * 6**0.5)
    assert w.distance.relative_l2_weights == pytest.approx(0.5 * 6**0.5 / 91**0.5)
    assert w.distance.max_ulp is not None


def test_what_few_elements_carry(tmp_path: Path) -> None:
    few = np.array([1] * 7 + [1000], "<f4")  # of which the base counts 16
    models = [write(tmp_path / f"{by}", {"m.safetensors": {"w": by * few}}) for by in (1, 2)]
    (compared,) = side_by_side(*models)
    assert compared.tensors is not None
    distance = compared.tensors[0].distance
    assert distance is not None
    assert distance.outlying_share == pytest.approx(1 - (7 + 16**2) / (7 + 1000**2))


def test_types_and_shapes(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(simple({"t": A["w"], "s": A["w"]}))
    (tmp_path / "b.safetensors").write_bytes(
        simple({"t": A["w"].astype("<f8"), "s": A["w"].reshape(2, 3)})
    )
    (compared,) = side_by_side(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert compared.name == "a.safetensors | b.safetensors"
    states = {tensor.name: tensor.state for tensor in compared.tensors or ()}
    assert states == {"t": "dtype", "s": "shape"}


def test_two_formats_of_the_same_tensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(simple(A))
    (tmp_path / "a.npz").write_bytes(archive({f"{k}.npy": npy(v) for k, v in A.items()}))
    (compared,) = side_by_side(tmp_path / "a.safetensors", tmp_path / "a.npz")
    assert (compared.state, compared.same_tensors, compared.same) == ("changed", True, True)
    assert {tensor.name: tensor.state for tensor in compared.tensors or ()} == dict.fromkeys(
        A, "equal"
    )


def test_single_files_are_compared_byte_by_byte(tmp_path: Path) -> None:
    for name, data in {"a": b"1", "b": b"1", "c": b"2", "d": b"11"}.items():
        (tmp_path / name).write_bytes(data)
    states = [side_by_side(tmp_path / "a", tmp_path / name)[0].state for name in "bcd"]
    assert states == ["equal", "changed", "changed"]
    with pytest.raises(UnreadableError):
        side_by_side(tmp_path / "a", tmp_path / "missing")


def test_a_weight_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.msgpack").write_bytes(b"1")
    (tmp_path / "b.msgpack").write_bytes(b"2")
    (compared,) = side_by_side(tmp_path / "a.msgpack", tmp_path / "b.msgpack")
    assert compared.state == "changed"
    assert "cannot be read by this version" in (compared.unread or "")


def test_real_rebuilds() -> None:
    (compared,) = side_by_side(VECTORS / "base_t1.safetensors", VECTORS / "t2.safetensors")
    changed = [tensor for tensor in compared.tensors or () if tensor.state == "changed"]
    assert len(changed) == 10
    worst = max(changed, key=lambda t: (t.distance and t.distance.relative_l2_weights) or 0)
    assert worst.name == "1.bias"


def test_equal_bytes_under_two_names_are_equal(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(simple(A))
    (compared,) = side_by_side(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (compared.same_tensors, compared.same) == (True, True)
    assert [effect.name for effect in compared.normalisers] == ["weight-file-name"]


def test_shards_that_are_equal_in_every_byte_are_equal(tmp_path: Path) -> None:
    index = b'{"metadata":{},"weight_map":{"w":"m-00001-of-00001.safetensors"}}'
    files = {
        "m.safetensors.index.json": index,
        "m-00001-of-00001.safetensors": simple({"w": A["w"]}),
    }
    for side in "ab":
        write(tmp_path / side, files)
    one, other = (tmp_path / side / "m.safetensors.index.json" for side in "ab")
    for pair in ((one, one), (one, other)):
        (compared,) = side_by_side(*pair)
        assert (compared.name, compared.state) == ("m.safetensors", "equal")


@pytest.mark.parametrize(
    ("left", "right", "paired"),
    [
        ("model.safetensors", "pytorch_model.bin", True),
        ("a/adapter_model.bin", "a/adapter_model.safetensors", True),
        ("a/adapter_model.bin", "a/model.safetensors", False),
        ("model.weights.npz", "model.weights.h5", True),
        ("weights.npz", "weights.pt", False),
        ("model.fp16.safetensors", "pytorch_model.bin", False),
        ("model.safetensors", "tf_model.h5", False),
        ("a/model.safetensors", "b/pytorch_model.bin", False),
        ("a/weights.npz", "b/weights.pt", False),
        ("encoder.npz", "decoder.pt", False),
        ("model.safetensors", "teacher.pt", False),
    ],
)
def test_weights_that_loaders_take_for_the_same_are_one_pair(
    tmp_path: Path, left: str, right: str, paired: bool
) -> None:
    sides = SideBySide(write(tmp_path / "l", {left: b""}), write(tmp_path / "r", {right: b""}))
    assert [pair.both is not None for pair in sides.pairs] == ([True] if paired else [False] * 2)


def test_files_that_only_fit_a_pattern_are_left_to_their_names(tmp_path: Path) -> None:
    names = ("a.safetensors", "b.safetensors")
    sides = SideBySide(*(write(tmp_path / name, {name: b""}) for name in names))
    assert ([pair.name for pair in sides.pairs], sides.apart) == ([*names], ())
