from __future__ import annotations

import hashlib
import io
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from provenance.errors import (
    ContentError,
    MalformedError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.measure import onnx_runner
from provenance.measure.onnx_runner import probes_of
from provenance.weights import isolated
from provenance.weights.isolated import Limits
from provenance.weights.opening import open_tensors
from tests.weights.onnx_writing import WEIGHT, external, model, run, tensor, written

if TYPE_CHECKING:
    from pathlib import Path

PROBES = {"x": np.random.default_rng(0).standard_normal((5, 1, 3)).astype("<f4")}
ROW = WEIGHT[1]


def save(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(written(proto))
    return path


@pytest.fixture
def adder(tmp_path: Path) -> Path:
    """Return a model that adds a row to its input."""
    return save(tmp_path, model([tensor("w", ROW)]))


def test_each_probe_is_run_by_itself(adder: Path) -> None:
    outputs = run(adder, PROBES)
    assert list(outputs) == ["y"]
    assert outputs["y"].dtype == np.float32
    assert np.array_equal(outputs["y"], PROBES["x"] + ROW)


def test_the_same_model_gives_the_same_bits(adder: Path) -> None:
    assert run(adder, PROBES)["y"].tobytes() == run(adder, PROBES)["y"].tobytes()


def test_the_order_of_bytes_of_probes_means_nothing(adder: Path) -> None:
    turned = {"x": PROBES["x"].astype(">f4")}
    assert np.array_equal(run(adder, turned)["y"], PROBES["x"] + ROW)


def test_scalars_are_probes(tmp_path: Path) -> None:
    proto = model([tensor("w", np.array(2, "<i8"))])
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.INT64
        value.type.tensor_type.shape.Clear()
    outputs = run(save(tmp_path, proto), {"x": np.arange(3)})
    assert outputs["y"].tolist() == [2, 3, 4]


def test_files_beside_the_model_are_used(tmp_path: Path) -> None:
    (tmp_path / "m.data").write_bytes(ROW.tobytes())
    path = save(tmp_path, model([external("w", [3], location="m.data")]))
    assert np.array_equal(run(path, PROBES)["y"], PROBES["x"] + ROW)
    digests = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tmp_path.iterdir()}
    assert np.array_equal(run(path, PROBES, sha256=digests)["y"], PROBES["x"] + ROW)
    (tmp_path / "m.data").write_bytes(WEIGHT[0].tobytes())
    with pytest.raises(ContentError, match=r"m\.data"):
        run(path, PROBES, sha256=digests)


@pytest.mark.parametrize(
    ("probes", "what"),
    [
        ({}, "whose first axis is the probe"),
        ({"x": np.float32(1) * np.ones(())}, "whose first axis is the probe"),
        ({"x": np.zeros((0, 3), "f4")}, "different numbers of probes, or none"),
        ({"x": np.zeros((1, 3)), "z": np.zeros((2, 3))}, "different numbers of probes"),
        ({"x": np.array(["a"])}, "probes of the type <U1"),
    ],
)
def test_probes_that_are_none_are_a_mistake_of_the_caller(
    adder: Path, probes: dict[str, np.ndarray[Any, Any]], what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        run(adder, probes)


@pytest.mark.parametrize(
    ("probes", "what"),
    [
        ({"other": PROBES["x"]}, r"its inputs are \['x'\], the probes' \['other'\]"),
        ({"x": PROBES["x"].astype("<f8")}, r"its input 'x' is tensor\(float\)"),
        ({"x": PROBES["x"][:, 0]}, "does not run"),
    ],
)
def test_probes_that_do_not_fit_the_model(
    adder: Path, probes: dict[str, np.ndarray[Any, Any]], what: str
) -> None:
    with pytest.raises(UnreadableError, match=what) as caught:
        run(adder, probes, name="m.onnx")
    assert str(caught.value).startswith("m.onnx: does not run: ")


def unknown_operator() -> onnx.ModelProto:
    return model([tensor("w", ROW)], [helper.make_node("Unheard", ["x", "w"], ["y"])])


def own_library() -> onnx.ModelProto:
    proto = model([tensor("w", ROW)], [helper.make_node("Mine", ["x", "w"], ["y"], domain="own")])
    proto.opset_import.add(domain="own", version=1)
    return proto


def outputs_of_many_shapes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["y"], to=1),
    ]
    return model([tensor("w", ROW)], nodes)


CANNOT_RUN = {
    "operator unknown": (unknown_operator(), "Unheard"),
    "operators of another library": (own_library(), "own"),
    "outputs of many shapes": (outputs_of_many_shapes(), "another shape for each probe"),
}


@pytest.mark.parametrize("case", CANNOT_RUN)
def test_a_model_that_does_not_run_is_unreadable(tmp_path: Path, case: str) -> None:
    proto, what = CANNOT_RUN[case]
    probes = {"x": np.eye(3, dtype="<f4")[[0, 1], None]}
    probes["x"][1] = 1
    with pytest.raises(UnreadableError, match=f"does not run: .*{what}"):
        run(save(tmp_path, proto), probes)


def test_a_model_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    def value(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["given"], ["keep"]),
            helper.make_node("Identity", ["before"], ["after"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("given", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [1, 3]),
        ],
        [value("keep", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [1, 3])],
    )
    nodes = [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)]
    path = save(tmp_path, model([tensor("yes", np.array(1, "?"))], nodes))
    with pytest.raises(UnreadableError, match="processor time"):
        run(path, PROBES, limits=Limits(seconds=1, memory=2**34))


def test_too_little_memory_is_one_clear_error(adder: Path) -> None:
    with pytest.raises((UnreadableError, MalformedError), match=r"m\.onnx"):
        run(adder, PROBES, limits=Limits(seconds=60, memory=2**26))


def test_nothing_is_left_by_a_caller_that_is_killed(
    adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    class Watched(isolated.Isolated):
        def answer(self, request: bytes | None = None) -> bytearray:
            assert list(temporary.iterdir()) == []  # while the model runs
            return super().answer(request)

    monkeypatch.setattr(onnx_runner, "Isolated", Watched)
    assert np.array_equal(run(adder, PROBES)["y"], PROBES["x"] + ROW)


def test_a_small_model_gets_little_memory(adder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Limits] = []

    def started(*arguments: Any, limits: Limits, **named: Any) -> isolated.Isolated:  # noqa: ANN401
        given.append(limits)
        return isolated.Isolated(*arguments, limits=limits, **named)

    monkeypatch.setattr(onnx_runner, "Isolated", started)
    run(adder, PROBES)
    assert given == [Limits(600, 2**32 + 4 * adder.stat().st_size)]


def test_a_malformed_model_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08")
    with pytest.raises(MalformedError, match="without a graph"):
        run(path, PROBES)


def test_without_onnxruntime_the_hint_names_the_extra(
    adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"pip install 'training-provenance\[onnx\]'"):
        run(adder, PROBES)


def test_the_caller_does_not_load_onnxruntime(adder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # whoever imports it fails
    assert list(run(adder, PROBES)) == ["y"]


# --- Probes ---------------------------------------------------------------------------------------


def test_probes_are_read_from_a_file(tmp_path: Path) -> None:
    arrays = {"x": PROBES["x"], "n": np.arange(5), "flag": np.ones(5, "?")}
    np.savez(tmp_path / "p.npz", allow_pickle=False, **arrays)
    with open_tensors(tmp_path / "p.npz") as file:
        probes = probes_of(file, where="p.npz")
    assert {name: array.dtype for name, array in probes.items()} == {
        name: array.dtype for name, array in arrays.items()
    }
    assert all(np.array_equal(probes[name], arrays[name]) for name in arrays)


def test_probes_of_other_types_are_unreadable(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, x=np.ones(2, "<c8"))
    (tmp_path / "p.npz").write_bytes(buffer.getvalue())
    with (
        open_tensors(tmp_path / "p.npz") as file,
        pytest.raises(UnreadableError, match=r"p\.npz: x: probes of the type C64"),
    ):
        probes_of(file, where="p.npz")


def test_more_probes_than_are_run(
    adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "p.npz", allow_pickle=False, **PROBES)
    monkeypatch.setattr(onnx_runner, "MAX_PROBES", PROBES["x"].nbytes - 1)
    with (
        open_tensors(tmp_path / "p.npz") as file,
        pytest.raises(UnreadableError, match=r"p\.npz: probes of more than 59 bytes"),
    ):
        probes_of(file, where="p.npz")
    with pytest.raises(UsageError, match="probes of more than 59 bytes"):
        run(adder, PROBES)
