"""What an ONNX model says beside its tensors, and the names of the tensors in it.

Format: ``onnx.proto`` and ``docs/IR.md`` of onnx/onnx.

``docs/spec/equality.md`` section 7 has the names.

**The graph** is content: the digest of graph, functions, training and devices, which are
``ModelProto`` without its other fields and without the numbers of tensors, as the library
serialises it. The order of nodes is kept; sets and maps (:data:`SETS`) are sorted. The other fields
of the model are shown as text.
"""
# ruff: noqa: ANN401 - messages are those of the package onnx, which has no types

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from provenance.errors import MalformedError

SETS: Final = frozenset({
    "GraphProto.initializer", "GraphProto.value_info", "GraphProto.quantization_annotation",
    "TensorAnnotation.quant_parameter_tensor_names", "NodeProto.attribute",
    "FunctionProto.opset_import", "FunctionProto.value_info",
    "ModelProto.functions", "ModelProto.opset_import",
    "TrainingInfoProto.initialization_binding", "TrainingInfoProto.update_binding",
    "ModelProto.metadata_props", "GraphProto.metadata_props", "FunctionProto.metadata_props",
    "NodeProto.metadata_props", "TensorProto.metadata_props", "ValueInfoProto.metadata_props",
})  # fmt: skip
"""Repeated fields whose order means nothing: their members are found by a unique name or key."""

_FOUND_BY: Final = (
    {name.partition(".")[2]: "key" for name in SETS}
    | {"initializer": "name", "value_info": "name", "attribute": "name"}
    | {"quantization_annotation": "tensor_name", "external_data": "key"}
)
"""The field by which a member is found, except for operator sets and functions."""

_BODY: Final = ("graph", "functions", "training_info", "configuration")
_STANDARD: Final = ("", "ai.onnx")  # two names of one set of operators
_NUMBERS: Final = ("raw_data", "external_data", "data_location")  # fields that are dropped

NamedTensor = tuple[str, Any]
"""A name in the view, and a ``TensorProto``."""


def tensors(model: Any) -> Iterator[NamedTensor]:
    """Yield every tensor of *model*, those of inner graphs too, in the order of its fields."""
    yield from _graph(model.graph, "")
    for function in model.functions:
        yield from _nodes(function, f"function {_key('functions', function)}/")
    for index, training in enumerate(model.training_info):
        yield from _graph(training.initialization, f"training[{index}].initialization/")
        yield from _graph(training.algorithm, f"training[{index}].algorithm/")


def _graph(graph: Any, prefix: str) -> Iterator[NamedTensor]:
    for tensor in graph.initializer:
        yield prefix + tensor.name, tensor
    for sparse in graph.sparse_initializer:
        yield from _sparse(sparse, prefix + sparse.values.name)
    yield from _nodes(graph, prefix)


def _sparse(sparse: Any, name: str) -> Iterator[NamedTensor]:
    for key in ("values", "indices"):
        if sparse.HasField(key):
            yield f"{name}/{key}", getattr(sparse, key)


def _nodes(graph: Any, prefix: str) -> Iterator[NamedTensor]:
    """Yield the tensors in the nodes of *graph*, which may also be a function."""
    for index, node in enumerate(graph.node):
        output = next(filter(None, node.output), None)
        name = prefix + (f"node[{index}]" if output is None else output)
        is_constant = node.op_type == "Constant" and node.domain in _STANDARD
        for attribute in node.attribute:
            whole = is_constant and output is not None and attribute.name == "value"
            yield from _attribute(attribute, name if whole else f"{name}.{attribute.name}")
    for attribute in getattr(graph, "attribute_proto", ()):  # defaults of a function's attributes
        yield from _attribute(attribute, f"{prefix}default.{attribute.name}")


def _attribute(attribute: Any, name: str) -> Iterator[NamedTensor]:
    if attribute.HasField("t"):
        yield name, attribute.t
    yield from _sparse(attribute.sparse_tensor, name)
    yield from _graph(attribute.g, f"{name}/")
    for index, tensor in enumerate(attribute.tensors):
        yield f"{name}[{index}]", tensor
    for index, sparse in enumerate(attribute.sparse_tensors):
        yield from _sparse(sparse, f"{name}[{index}]")
    for index, inner in enumerate(attribute.graphs):
        yield from _graph(inner, f"{name}[{index}]/")


# --- Content --------------------------------------------------------------------------------------


def content(model: Any, *, where: str) -> tuple[dict[str, str], list[list[int]]]:
    """Return what *model* says, and of each list of :data:`SETS` which member stood where."""
    if not model.HasField("graph"):
        raise MalformedError("a model without a graph", where=where)
    whole = type(model)()
    whole.CopyFrom(model)
    orders: list[list[int]] = []
    _settle(whole, orders, where)
    for field, _ in whole.ListFields():
        if field.name not in _BODY:
            whole.ClearField(field.name)
    digest = hashlib.sha256(whole.SerializeToString(deterministic=True)).hexdigest()
    return {"graph": digest, **_head(model)}, orders


def _settle(message: Any, orders: list[list[int]], where: str) -> None:
    """Bring *message* to canonical form."""
    kind = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        if field.name in _FOUND_BY:
            _check_keys(message, field.name, value, where)
        if kind == "TensorProto" and field.name in _NUMBERS:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for inner in value if hasattr(value, "add") else [value]:
                _settle(inner, orders, where)
            if f"{kind}.{field.name}" in SETS:
                encoded = [inner.SerializeToString(deterministic=True) for inner in value]
                orders.append(sorted(range(len(encoded)), key=encoded.__getitem__))
                value.sort(key=lambda inner: inner.SerializeToString(deterministic=True))


def _check_keys(message: Any, name: str, values: Any, where: str) -> None:
    """Refuse maps with a duplicate key: which of the two is read is left to the reader."""
    keys = Counter(_key(name, value) for value in values)
    if name == "initializer":  # a sparse one is found in the same way
        keys += Counter(sparse.values.name for sparse in message.sparse_initializer)
    twice = next((key for key, times in keys.items() if times > 1), None)
    if twice is not None:
        raise MalformedError(f"{twice!r} is duplicated in {name}", where=where)


def _key(field: str, value: Any) -> str:
    """Return by what *value* is found among the others of *field*."""
    if field == "functions":
        return f"{value.domain}:{value.name}:{value.overload}"
    if field == "opset_import":
        return str(value.domain or "ai.onnx")
    return str(getattr(value, _FOUND_BY[field]))


def _head(model: Any) -> dict[str, str]:
    """Return the fields of *model* that are not its graph, as text."""
    found = {
        field.name: str(value) for field, value in model.ListFields() if field.message_type is None
    }
    for opset in model.opset_import:
        found[f"opset_import.{opset.domain or 'ai.onnx'}"] = str(opset.version)
    for entry in model.metadata_props:
        found[f"metadata_props.{entry.key}"] = entry.value
    return found
