from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from provenance.errors import MalformedError, ProvenanceError, UnavailableError
from provenance.weights.onnx import protobuf
from tests.weights.onnx_writing import (
    WEIGHT,
    block,
    branches,
    field,
    model,
    nested,
    samples,
    tensor,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.weights.conftest import Opener

SAMPLES = samples()


def content(file: Any, name: str, elements: int = 256) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


TYPES = {
    TensorProto.FLOAT: ("F32", np.dtype("<f4")),
    TensorProto.DOUBLE: ("F64", np.dtype("<f8")),
    TensorProto.FLOAT16: ("F16", np.dtype("<f2")),
    TensorProto.BFLOAT16: ("BF16", np.dtype(ml_dtypes.bfloat16)),
    TensorProto.UINT8: ("U8", np.dtype("u1")),
    TensorProto.INT8: ("I8", np.dtype("i1")),
    TensorProto.UINT16: ("U16", np.dtype("<u2")),
    TensorProto.INT16: ("I16", np.dtype("<i2")),
    TensorProto.UINT32: ("U32", np.dtype("<u4")),
    TensorProto.INT32: ("I32", np.dtype("<i4")),
    TensorProto.UINT64: ("U64", np.dtype("<u8")),
    TensorProto.INT64: ("I64", np.dtype("<i8")),
    TensorProto.BOOL: ("BOOL", np.dtype("?")),
    TensorProto.COMPLEX64: ("C64", np.dtype("<c8")),
    TensorProto.COMPLEX128: ("C128", np.dtype("<c16")),
    TensorProto.FLOAT8E4M3FN: ("F8_E4M3", np.dtype(ml_dtypes.float8_e4m3fn)),
    TensorProto.FLOAT8E5M2: ("F8_E5M2", np.dtype(ml_dtypes.float8_e5m2)),
}


@pytest.mark.parametrize("number", TYPES, ids=lambda number: TYPES[number][0])
def test_a_typed_field_and_raw_data_are_one_tensor(
    opened: Opener, number: TensorProto.DataType
) -> None:
    name, dtype = TYPES[number]
    sign = -1 if dtype.kind in "ifc" else 1
    array = (np.arange(6).reshape(2, 3) * sign).astype(dtype)
    raw = model([numpy_helper.from_array(array, "w")])
    typed = model([helper.make_tensor("w", number, [2, 3], array.flatten().tolist())])
    facts, said = [], []
    for proto in (raw, typed):
        file = opened(written(proto), "m.onnx")
        assert (file.tensors["w"].dtype.name, file.tensors["w"].shape) == (name, (2, 3))
        assert content(file, "w") == array.tobytes()
        facts.append(dict(file.container))
        said.append(dict(file.metadata))
    assert said[0] == said[1]
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == {"layout"}


def test_packed_elements_keep_their_order(opened: Opener) -> None:
    array = np.array([1, -2, 3, -4], ml_dtypes.int4)
    file = opened(written(model([numpy_helper.from_array(array, "w")])), "m.onnx")
    assert (file.tensors["w"].dtype.name, content(file, "w")) == ("I4", b"\xe1\xc3")


def test_packed_elements_that_end_inside_a_byte_are_content(opened: Opener) -> None:
    def one(data: bytes) -> bytes:
        odd = TensorProto(name="z", data_type=TensorProto.INT4, dims=[1], raw_data=data)
        return written(model([tensor("w", WEIGHT), odd]))

    file = opened(one(b"\x07"), "m.onnx")
    assert list(file.tensors) == ["w"]
    assert file.metadata["tensor z"] == "I4 [1] 07"
    with pytest.raises(MalformedError, match="bits behind the last element"):
        opened(one(b"\x17"), "m.onnx")


def test_integers_of_variable_length_are_decoded_in_parts(opened: Opener) -> None:
    array = np.random.default_rng(0).integers(-(2**62), 2**62, 70_000)
    array[:1000] = np.arange(1000)
    made = helper.make_tensor("w", TensorProto.INT64, [70_000], array.tolist())
    file = opened(written(model([made])), "m.onnx")
    assert not file.direct
    assert content(file, "w", 1024) == array.tobytes()
    chunks = [bytes(chunk) for chunk in file.chunks("w", 512, 1024, 4096)]
    assert [len(chunk) for chunk in chunks] == [4096] * 6
    assert b"".join(chunks) == array[1024:4096].tobytes()


def test_tensors_of_inner_graphs_and_functions_have_paths(opened: Opener) -> None:
    file = opened(written(branches()), "m.onnx")
    assert set(file.tensors) == {
        "w", "limit", "y.then_branch/inner", "y.then_branch/out", "y.else_branch/inner",
        "y.else_branch/out", "function own:f:/k",
    }  # fmt: skip
    assert content(file, "y.else_branch/out") == np.array([2], "<f4").tobytes()


def test_a_sparse_tensor_is_two(opened: Opener) -> None:
    proto = model([tensor("w", WEIGHT)])
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(tensor("s", np.ones(2, "<f4")))
    sparse.indices.CopyFrom(tensor("", np.array([1, 3], "<i8")))
    assert set(opened(written(proto), "m.onnx").tensors) == {"w", "s/values", "s/indices"}


def changed(field_name: str, value: Any) -> bytes:  # noqa: ANN401
    proto = branches()
    match field_name:
        case "operator":
            proto.graph.node[1].op_type = value
        case "attribute":
            proto.graph.node[1].attribute.add(name="extra", i=value, type=2)
        case "node order":
            nodes = list(proto.graph.node)[::value]
            del proto.graph.node[:]
            proto.graph.node.extend(nodes)
        case _:
            setattr(proto, field_name, value)
    return written(proto)


CHANGES = {
    "operator": ("Loop", "graph"),
    "attribute": (3, "graph"),
    "node order": (-1, "graph"),
    "producer_name": ("other", "producer_name"),
    "ir_version": (9, "ir_version"),
    "doc_string": ("new", "doc_string"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_model_says_is_content(opened: Opener, what: str) -> None:
    value, key = CHANGES[what]
    before = dict(opened(written(branches()), "m.onnx").metadata)
    after = dict(opened(changed(what, value), "m.onnx").metadata)
    assert {k for k in {*before, *after} if before.get(k) != after.get(k)} == {key}


def test_texts_are_content(opened: Opener) -> None:
    def said(text: str) -> str:
        made = helper.make_tensor("s", TensorProto.STRING, [1], [text])  # type: ignore[list-item] # it takes texts too
        return opened(written(model([tensor("w", WEIGHT), made])), "m.onnx").metadata["graph"]

    assert said("a") != said("b")


def test_orders_that_mean_nothing_are_facts(opened: Opener) -> None:
    def facts(proto: onnx.ModelProto) -> tuple[dict[str, str], dict[str, str]]:
        file = opened(written(proto), "m.onnx")
        assert content(file, "v") == WEIGHT[0].tobytes()
        return dict(file.metadata), dict(file.container)

    proto = model([tensor("w", WEIGHT), tensor("v", WEIGHT[0])])
    helper.set_model_props(proto, {"a": "1", "b": "2"})
    before = facts(proto)
    for repeated, fact in (
        (proto.graph.initializer, "order"),
        (proto.metadata_props, "order"),
    ):
        turned = list(repeated)[::-1]
        del repeated[:]
        repeated.extend(turned)
        after = facts(proto)
        assert after[0] == before[0]
        assert {key for key in after[1] if after[1][key] != before[1][key]} == {fact}
        before = after


def test_another_spelling_of_one_message_is_a_fact(opened: Opener) -> None:
    plain = written(model([tensor("w", WEIGHT)]))
    ir = field(1, 0, b"\x08")
    assert plain.startswith(ir)
    spellings = [plain, plain[len(ir) :] + ir, field(1, 0, b"\x88\x00") + plain[len(ir) :]]
    files = []
    for data in spellings:
        assert onnx.ModelProto.FromString(data) == onnx.ModelProto.FromString(plain)
        file = opened(data, "m.onnx")
        files.append((dict(file.metadata), file.container["spelling"]))
    assert files[0][0] == files[1][0] == files[2][0]
    assert files[0][1] == "plain"
    assert len({spelling for _, spelling in files}) == 3


def raw(name: str = "w", **fields: Any) -> TensorProto:  # noqa: ANN401
    made = TensorProto(name=name, data_type=1, dims=[2], raw_data=bytes(8))
    for key, value in fields.items():
        if key == "dims":
            del made.dims[:]
            made.dims.extend(value)
        elif key.endswith("_data") and isinstance(value, list):
            getattr(made, key).extend(value)
        else:
            setattr(made, key, value)
    return made


def broken(**fields: Any) -> bytes:  # noqa: ANN401
    return written(model([raw(**fields)]))


def annotated(proto: onnx.ModelProto, *scales: str) -> None:
    annotation = proto.graph.quantization_annotation.add(tensor_name="w")
    for scale in scales:
        annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=scale)


def bound(proto: onnx.ModelProto, binding: str) -> None:
    training = proto.training_info.add()
    for value in "ab":
        getattr(training, binding).add(key="w", value=value)


def sparsely(proto: onnx.ModelProto) -> None:
    sparse = proto.graph.sparse_initializer.add(dims=[2])
    sparse.values.CopyFrom(raw())
    sparse.indices.CopyFrom(tensor("", np.arange(2)))


ADDED: dict[str, Callable[[onnx.ModelProto], object]] = {
    "metadata_props": lambda proto: proto.metadata_props.add(key="a", value="1"),
    "opset_import": lambda proto: proto.opset_import.add(domain="ai.onnx", version=9),
    "attribute": lambda proto: proto.graph.node[0].attribute.add(name="a", i=1, type=2),
    "value_info": lambda proto: proto.graph.value_info.append(
        helper.make_tensor_value_info("m", 1, [len(proto.graph.value_info)])
    ),
    "quantization_annotation": lambda proto: annotated(proto, "a"),
    "quant_parameter_tensor_names": lambda proto: annotated(proto, "a", "b"),
    "initialization_binding": lambda proto: bound(proto, "initialization_binding"),
    "update_binding": lambda proto: bound(proto, "update_binding"),
    "initializer": sparsely,
}


def twice_in(repeated: str, times: int = 2) -> bytes:
    """Return a model with two of one key in the field *repeated*."""
    proto = model([tensor("w", WEIGHT)])
    for _ in range(times):
        ADDED[repeated](proto)
    return written(proto)


GOOD = SAMPLES["raw.onnx"]
MALFORMED: dict[str, tuple[bytes, str]] = {
    "no graph": (field(1, 0, b"\x08"), "without a graph"),
    "unknown field": (GOOD + field(15, 0, b"\x01"), "no known field 15"),
    "field twice": (GOOD + field(1, 0, b"\x08"), "ir_version is duplicated"),
    "graph twice": (GOOD + block(7, b""), "graph is duplicated"),
    "other wire type": (GOOD + field(5, 5, bytes(4)), "has the wire type 5"),
    "group": (GOOD + field(5, 3, b""), "has the wire type 3"),
    "cut off": (GOOD[:-1], "longer than what holds it|cut off"),
    "integer too long": (field(1, 0, b"\xff" * 11), "cut off or too long"),
    "integer beyond 64 bits": (field(1, 0, b"\xff" * 9 + b"\x02"), "cut off or too long"),
    "text not UTF-8": (block(6, b"\xff") + GOOD, "doc_string is not UTF-8"),
    "data type beyond 32 bits": (
        block(7, block(5, field(2, 0, b"\x80\x80\x80\x80\x10"))),
        "no integer of 32 bits",
    ),
    "two of a oneof": (
        block(7, block(11, block(2, block(1, b"") + block(4, b"")))),
        "sequence_type is duplicated",
    ),
    "too deep": (nested(40), "100 messages inside each other"),
    "unpacked numbers": (block(7, block(5, field(4, 5, bytes(4)))), "has the wire type 5"),
    "numbers twice": (block(7, block(5, block(9, b"a") + block(9, b"a"))), "raw_data is dup"),
    "too few bytes": (broken(raw_data=bytes(7)), "take 7 bytes, its type and shape 8"),
    "too many bytes": (broken(raw_data=bytes(9)), "take 9 bytes"),
    "no bytes": (broken(raw_data=b""), "take 0 bytes"),
    "two fields": (broken(float_data=[1.0, 2.0]), "in two fields"),
    "field of another type": (
        broken(raw_data=b"", int64_data=[1, 2]), "int64_data of the element type F32"
    ),
    "type unknown": (broken(data_type=99), "element type 99"),
    "no type": (broken(data_type=0), "element type 0"),
    "negative dimension": (broken(dims=[-1]), "is not a dimension"),
    "huge shape": (broken(dims=[2**40, 2**40]), "too large"),
    "number out of range": (
        broken(raw_data=b"", data_type=TensorProto.INT8, int32_data=[1, 128]),
        "not of the type I8",
    ),
    "boolean of two": (
        broken(raw_data=b"", data_type=TensorProto.BOOL, int32_data=[1, 2]), "the type BOOL"
    ),
    "no name": (broken(name=""), "without a name"),
    "control character": (broken(name="a\nb"), "control character"),
    "one name twice": (written(model([raw(), raw()])), "'w' is duplicated in initializer"),
    "one name for two tensors": (
        written(model([raw()], [helper.make_node("Constant", [], ["w"], value=raw())])),
        "duplicate tensor name 'w'",
    ),
    "dense and sparse": (twice_in("initializer", 1), "'w' is duplicated in initializer"),
    "information twice": (twice_in("value_info"), "'m' is duplicated in value_info"),
    "annotation twice": (
        twice_in("quantization_annotation"), "'w' is duplicated in quantization_annotation"
    ),
    "parameter of an annotation twice": (
        twice_in("quant_parameter_tensor_names", 1), "'SCALE_TENSOR' is duplicated"
    ),
    "initialised twice": (twice_in("initialization_binding"), "'w' is duplicated in initiali"),
    "updated twice": (twice_in("update_binding"), "'w' is duplicated in update_binding"),
    "very many dimensions of packed elements": (
        broken(data_type=TensorProto.INT4, dims=[2**53 - 1] * 20_000), "more than 64 dimensions"
    ),
    "property twice": (twice_in("metadata_props"), "'a' is duplicated in metadata_props"),
    "attribute twice": (twice_in("attribute"), "'a' is duplicated in attribute"),
    "operator set twice": (twice_in("opset_import"), "'ai.onnx' is duplicated"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.onnx")
    assert str(caught.value).startswith("m.onnx")


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        (b"\x01\x80\x00", "not in its shortest encoding"),
        (b"\x01\x80", "cut off"),
        (b"\x80" * 10 + b"\x01", "not in its shortest encoding"),
        (b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "not in its shortest encoding"),
    ],
)
def test_numbers_have_one_spelling(opened: Opener, numbers: bytes, what: str) -> None:
    typed = block(8, b"w") + field(2, 0, b"\x07") + field(1, 0, b"\x02") + block(7, numbers)
    with pytest.raises(MalformedError, match=what):
        opened(block(7, block(5, typed)), "m.onnx")


def test_limits(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(protobuf, "MAX_FIELDS", 10)
        with pytest.raises(MalformedError, match="more than 10 fields"):
            opened(GOOD, "m.onnx")
    monkeypatch.setattr(protobuf, "MAX_FILE", 10)
    with pytest.raises(MalformedError, match="longer than 10 bytes"):
        opened(GOOD, "m.onnx")


def test_without_the_package_the_mend_is_said(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx.onnx_ml_pb2", None)
    with pytest.raises(UnavailableError) as caught:
        opened(GOOD, "m.onnx")
    assert str(caught.value).endswith(
        "m.onnx: reading ONNX needs onnx (pip install 'training-provenance[onnx]')"
    )


def test_opening_loads_no_extra() -> None:
    code = (
        "import sys, provenance.weights.opening; "
        "sys.exit(bool({'onnx', 'h5py', 'onnxruntime'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_damaged_model_raises_only_our_errors(opened: Opener, name: str, data: Any) -> None:  # noqa: ANN401
    good = SAMPLES[name]
    place = data.draw(st.integers(0, len(good) - 1))
    if data.draw(st.booleans()):
        damaged = good[:place]
    else:
        damaged = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    try:
        file = opened(damaged, "m.onnx")
        for key in file.tensors:
            content(file, key)
    except ProvenanceError:
        pass


@given(st.binary(max_size=64))
def test_no_bytes_raise_another_error(opened: Opener, data: bytes) -> None:
    with contextlib.suppress(ProvenanceError):
        opened(data, "m.onnx")
