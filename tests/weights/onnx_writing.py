"""ONNX models written by the ``onnx`` package, and by hand where every byte can be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from provenance.measure.onnx_runner import outputs_of
from provenance.weights.opening import open_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from provenance.weights.isolated import Limits

WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3)


def run(
    path: Path,
    probes: Mapping[str, np.ndarray[Any, Any]],
    *,
    name: str | None = None,
    sha256: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the outputs of the model at *path*, which errors call *name*."""
    with open_tensors(path, name=name, sha256=sha256) as file:
        return outputs_of(file, probes, where=name or str(path), limits=limits)


def tensor(name: str, array: np.ndarray[Any, Any]) -> TensorProto:
    """Return *array* as an initialiser with ``raw_data``."""
    return numpy_helper.from_array(array, name)


def model(
    initialisers: Sequence[TensorProto],
    nodes: Sequence[onnx.NodeProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """Return a model that adds its first initialiser to its input, by default."""
    added = nodes or [helper.make_node("Add", ["x", initialisers[0].name], ["y"])]
    shape: list[str | int | None] = ["batch", 3]
    graph = helper.make_graph(
        list(added),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        list(initialisers),
    )
    return helper.make_model(
        graph,
        producer_name="tests",
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        functions=functions,
    )


def written(proto: onnx.ModelProto) -> bytes:
    """Return *proto* in the plain spelling."""
    return bytes(proto.SerializeToString(deterministic=True))


def external(name: str, dims: list[int], **entries: str) -> TensorProto:
    """Return a float32 initialiser in a file beside the model."""
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
    found.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        found.external_data.add(key=key, value=value)
    return found


def branches() -> onnx.ModelProto:
    """Return a model with constants in both branches of a condition, and a function."""
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])

    def branch(number: float) -> onnx.GraphProto:
        array = np.array([number], "<f4")
        node = helper.make_node("Constant", [], ["out"], value=tensor("t", array))
        return helper.make_graph([node], "b", [], [value], [tensor("inner", array + 1)])

    nodes = [
        helper.make_node("Constant", [], ["limit"], value=tensor("", np.ones(2, "<i8"))),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch(1), else_branch=branch(2), name="choice"
        ),
    ]
    function = helper.make_function(
        "own",
        "f",
        ["a"],
        ["b"],
        [helper.make_node("Constant", [], ["k"], value=tensor("", np.ones(3, "<f4")))],
        [helper.make_opsetid("", 17)],
    )
    return model([tensor("w", WEIGHT)], nodes, functions=[function])


def field(number: int, wire: int, data: bytes) -> bytes:
    """Return a field by hand; its number is at most 15."""
    return bytes([number << 3 | wire]) + data


def block(number: int, data: bytes) -> bytes:
    """Return a field of bytes by hand, of at most 16,383 of them."""
    size = len(data)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return field(number, 2, length + data)


def nested(depth: int) -> bytes:
    """Return a model of graphs inside each other, three messages to each."""
    data = b""
    for _ in range(depth):
        data = block(1, block(5, block(6, data)))  # node, attribute, g
    return block(7, data)


def samples() -> dict[str, bytes]:
    """Return one model for each thing that the reader knows, as seeds of fuzzing."""
    typed = helper.make_tensor("w", TensorProto.INT8, [3], [1, -2, 3])
    half = helper.make_tensor("h", TensorProto.FLOAT16, [2], [1.0, -2.0])
    texts = helper.make_tensor("s", TensorProto.STRING, [2], ["a", "b"])  # type: ignore[list-item] # it takes texts too
    return {
        "raw.onnx": written(model([tensor("w", WEIGHT), tensor("v", WEIGHT[0])])),
        "typed.onnx": written(model([typed, half])),
        "texts.onnx": written(model([tensor("w", WEIGHT), texts])),
        "branches.onnx": written(branches()),
        "properties.onnx": written(_with_properties()),
    }


def _with_properties() -> onnx.ModelProto:
    proto = model([tensor("w", WEIGHT)])
    helper.set_model_props(proto, {"b": "2", "a": "1"})
    proto.graph.value_info.add(name="v")
    proto.graph.value_info.add(name="u")
    return proto
