"""What an ONNX model says beside its tensors, and the names of the tensors in it.

Format: ``onnx.proto`` and ``docs/IR.md`` of onnx/onnx. The schema is the installed ``onnx``
package's: a model with fields that it does not know is refused.

**Names.** An initialiser has its own name, and the tensor of a ``Constant`` node that of the node's
output: they stand for the same value. Another tensor in an attribute is ``node.attribute``, where a
node is called by its first output that is not empty, or ``node[3]``; of several,
``node.attribute[0]``. Before the names of an inner graph stands ``node.attribute/``, before those
of a function ``function DOMAIN:NAME:OVERLOAD/``, before those of training
``training[0].initialization/`` or ``training[0].algorithm/``. A sparse tensor is two: its name with
``/values`` and ``/indices``.

**The graph** is content: the digest of the canonical form of graph, functions, training and
devices, which are ``ModelProto`` without its other fields and without the numbers of tensors. The
order of nodes is kept; what is a set or a map is sorted (:data:`SETS`). The other fields of the
model are shown as text.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.onnx.protobuf import Message, Rules, Schemas, encode, schemas_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA_FIELDS: Final = frozenset(
    {"raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data"}
)
"""Where a ``TensorProto`` may hold its numbers."""

LEFT: Final = frozenset(f"TensorProto.{name}" for name in DATA_FIELDS)
"""The fields whose bytes are left in the file."""

_INITIALISERS: Final = "GraphProto.initializer"

SETS: Final = frozenset(
    {
        _INITIALISERS,
        "GraphProto.value_info",
        "GraphProto.quantization_annotation",
        "TensorAnnotation.quant_parameter_tensor_names",
        "NodeProto.attribute",
        "FunctionProto.opset_import",
        "FunctionProto.value_info",
        "ModelProto.functions",
        "ModelProto.opset_import",
        "TrainingInfoProto.initialization_binding",
        "TrainingInfoProto.update_binding",
    }
    | {
        f"{message}.metadata_props"
        for message in (
            "ModelProto", "GraphProto", "FunctionProto", "NodeProto", "TensorProto",
            "ValueInfoProto",
        )
    }
)  # fmt: skip
"""Repeated fields whose order means nothing: what is in them is found by name or key, which stands
once."""

_FOUND_BY: Final = MappingProxyType(
    {name.partition(".")[2]: "key" for name in SETS}
    | {"initializer": "name", "value_info": "name", "attribute": "name"}
    | {"quantization_annotation": "tensor_name", "external_data": "key"}
)
"""By which field of it a member of such a field is found, but for operator sets and functions."""

_BODY: Final = ("graph", "functions", "training_info", "configuration")
_STANDARD: Final = ("", "ai.onnx")  # two names of one set of operators
_TEXTS: Final = ("producer_name", "producer_version", "domain", "doc_string")


@cache
def schemas() -> Schemas:
    """Return the schema of every message of ONNX.

    Raises:
        UnreadableError: the package ``onnx`` is not installed.
    """
    try:
        generated = import_module("onnx.onnx_ml_pb2").DESCRIPTOR
        file = import_module("google.protobuf.descriptor_pb2").FileDescriptorProto()
    except ImportError as error:
        raise UnreadableError(
            "reading ONNX needs the package onnx", hint="pip install training-provenance[onnx]"
        ) from error
    generated.CopyToProto(file)
    return schemas_of(file)


# --- Names ----------------------------------------------------------------------------------------


class NamedTensor(NamedTuple):
    """A ``TensorProto`` and its name in the view."""

    name: str
    message: Message


def tensors(model: Message) -> Iterator[NamedTensor]:
    """Yield every tensor of *model*, those of inner graphs too, in the order of its fields."""
    graph = model.one("graph")
    if graph is not None:
        yield from _graph(graph, "")
    for function in model.all("functions"):
        parts = [function.one(key, "") for key in ("domain", "name", "overload")]
        yield from _nodes(function, f"function {':'.join(parts)}/")
    for index, training in enumerate(model.all("training_info")):
        for key in ("initialization", "algorithm"):
            if (inner := training.one(key)) is not None:
                yield from _graph(inner, f"training[{index}].{key}/")


def _graph(graph: Message, prefix: str) -> Iterator[NamedTensor]:
    for tensor in graph.all("initializer"):
        yield NamedTensor(prefix + tensor.one("name", ""), tensor)
    for sparse in graph.all("sparse_initializer"):
        yield from _sparse(sparse, prefix + _name_of(sparse))
    yield from _nodes(graph, prefix)


def _name_of(sparse: Message) -> str:
    values = sparse.one("values")
    return "" if values is None else str(values.one("name", ""))


def _sparse(sparse: Message, name: str) -> Iterator[NamedTensor]:
    for key in ("values", "indices"):
        if (tensor := sparse.one(key)) is not None:
            yield NamedTensor(f"{name}/{key}", tensor)


def _nodes(graph: Message, prefix: str) -> Iterator[NamedTensor]:
    """Yield the tensors in the nodes of *graph*, which may also be a function."""
    for index, node in enumerate(graph.all("node")):
        output = next(filter(None, node.all("output")), None)
        name = prefix + (f"node[{index}]" if output is None else output)
        is_constant = node.one("op_type") == "Constant" and node.one("domain", "") in _STANDARD
        for attribute in node.all("attribute"):
            whole = is_constant and output is not None and attribute.one("name") == "value"
            yield from _attribute(attribute, name, "" if whole else f".{attribute.one('name', '')}")
    for attribute in graph.all("attribute_proto"):  # defaults of a function's attributes
        yield from _attribute(attribute, f"{prefix}default", f".{attribute.one('name', '')}")


def _attribute(attribute: Message, node: str, suffix: str) -> Iterator[NamedTensor]:
    base = node + suffix
    if (tensor := attribute.one("t")) is not None:
        yield NamedTensor(base, tensor)
    if (sparse := attribute.one("sparse_tensor")) is not None:
        yield from _sparse(sparse, base)
    if (inner := attribute.one("g")) is not None:
        yield from _graph(inner, f"{base}/")
    for index, tensor in enumerate(attribute.all("tensors")):
        yield NamedTensor(f"{base}[{index}]", tensor)
    for index, sparse in enumerate(attribute.all("sparse_tensors")):
        yield from _sparse(sparse, f"{base}[{index}]")
    for index, inner in enumerate(attribute.all("graphs")):
        yield from _graph(inner, f"{base}[{index}]/")


# --- Content --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Content:
    """What a model says beside its tensors' numbers."""

    metadata: Mapping[str, str]
    initialiser_orders: list[list[int]]
    """For each graph, which of the sorted initialisers stood where."""
    other_orders: list[tuple[str, list[int]]]
    """The same for every other list whose order means nothing."""


def content(model: Message, *, where: str) -> Content:
    """Return what *model* says.

    Raises:
        MalformedError: it has no graph, or a key stands twice.
    """
    if model.one("graph") is None:
        raise MalformedError("a model without a graph", where=where)
    _check_keys(model, where)
    rules = Rules(
        schemas(),
        SETS,
        LEFT | {"TensorProto.external_data", "TensorProto.data_location"},
    )
    orders: list[tuple[str, list[int]]] = []
    body: dict[str, list[Any]] = {
        name: model.fields[name] for name in _BODY if name in model.fields
    }
    head = {name: values for name, values in model.fields.items() if name not in body}
    digest = hashlib.sha256(encode(Message(model.kind, body), rules, orders)).hexdigest()
    encode(Message(model.kind, head), rules, orders)
    return Content(
        {"graph": digest, **_head(model)},
        [order for name, order in orders if name == _INITIALISERS],
        [pair for pair in orders if pair[0] != _INITIALISERS],
    )


def _head(model: Message) -> dict[str, str]:
    """Return the fields of *model* that are not its graph, as text."""
    found: dict[str, str] = {}
    for name in ("ir_version", "model_version"):
        number = model.one(name)
        if number is not None:
            found[name] = str(number - 2**64 if number >= 2**63 else number)
    found |= {name: model.one(name) for name in _TEXTS if name in model.fields}
    for opset in model.all("opset_import"):
        version = opset.one("version", 0)
        found[f"opset_import.{opset.one('domain', '') or 'ai.onnx'}"] = str(version)
    for entry in model.all("metadata_props"):
        found[f"metadata_props.{entry.one('key', '')}"] = entry.one("value", "")
    return found


def _check_keys(message: Message, where: str) -> None:
    """Refuse maps in which a key stands twice: which of the two is read is left to the reader."""
    for name, values in message.fields.items():
        if name in _FOUND_BY:
            keys = Counter(_key(name, value) for value in values if isinstance(value, Message))
            if name == "initializer":  # a sparse one is found in the same way
                keys += Counter(_name_of(other) for other in message.all("sparse_initializer"))
            twice = next((key for key, times in keys.items() if times > 1), None)
            if twice is not None:
                raise MalformedError(f"{twice!r} stands twice in {name}", where=where)
        for value in values:
            if isinstance(value, Message):
                _check_keys(value, where)


def _key(field: str, value: Message) -> str:
    """Return by what *value* is found among the others of *field*."""
    if field == "functions":
        return ":".join(value.one(part, "") for part in ("domain", "name", "overload"))
    if field == "opset_import":
        return str(value.one("domain", "") or "ai.onnx")
    return str(value.one(_FOUND_BY[field], ""))
