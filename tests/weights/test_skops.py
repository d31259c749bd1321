from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from tests.weights.writing import archive, node, npy, skops, small_skops, tensor_digests

if TYPE_CHECKING:
    from tests.weights.conftest import Opener

ONE = node("NdArrayNode", file="1.npy")
TWO = node("NdArrayNode", file="2.npy")
SPARSE = node("SparseMatrixNode", file="1.npz")
VECTORS = Path(__file__).with_name("vectors") / "skops"


@pytest.mark.parametrize("version", ["", "-0.9"])
def test_two_runs_hold_the_same(opened: Opener, version: str) -> None:
    def read(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
        file = opened((VECTORS / f"{name}{version}.skops").read_bytes(), "m.skops")
        return tensor_digests(file), dict(file.metadata), dict(file.container)

    tensors, said, facts = read("first")
    others, the_same, differing = read("second")
    assert (tensors, said) == (others, the_same)
    assert tensors.keys() >= {"scaler/mean_", "tree/tree_/nodes"}
    assert said["tree/classes_"] == '<U3 [2] ["cat", "dog"]'
    changed = {key for key in facts if facts[key] != differing[key]}
    # Deflated, other addresses take another number of bytes.
    assert changed - {"compression"} == {"object-ids", "archive-fields"}
    assert ("compression" in changed) == (version == "-0.9")


def test_a_sparse_matrix_is_its_arrays(opened: Opener) -> None:
    file = opened((VECTORS / "first.skops").read_bytes(), "m.skops")
    parts = {name: info.shape for name, info in file.tensors.items() if name.startswith("sparse/")}
    assert parts == {
        "sparse/data": (3,), "sparse/indices": (3,), "sparse/indptr": (4,), "sparse/shape": (2,),
    }  # fmt: skip
    assert file.metadata["sparse/format"] == '|S3 [] ["csr"]'
    raw = b"".join(map(bytes, file.chunks("sparse/data", 256)))
    assert raw == np.ones(3).tobytes()


def test_addresses_are_facts_and_which_objects_are_one_is_content(opened: Opener) -> None:
    file = opened(small_skops(), "m.skops")
    schema = json.loads(file.metadata["schema.json"])["content"]["content"]
    named = {key: (each["__id__"], each["file"]) for key, each in schema.items()}
    assert named == {"coef_": (1, "coef_"), "again": (1, "coef_"), "classes_": (2, "classes_")}
    assert list(file.tensors) == ["coef_"]
    said, facts = dict(file.metadata), dict(file.container)
    other = opened(small_skops(50, 60), "m.skops")
    assert dict(other.metadata) == said
    assert {k for k in facts if other.container[k] != facts[k]} == {"object-ids"}


def changed(old: str, new: str) -> bytes:
    """Return the small model with another schema."""
    with zipfile.ZipFile(io.BytesIO(small_skops())) as file:
        members = {name: file.read(name) for name in file.namelist()}
    text = members.pop("schema.json").decode()
    assert old in text
    return skops(text.replace(old, new, 1).encode(), members)


@pytest.mark.parametrize("nodes", [["BytesNode"], ["NdArrayNode", "BytesNode"]])
def test_what_a_node_takes_as_bytes_is_no_array(opened: Opener, nodes: list[str]) -> None:
    schema = node("ListNode", [node(each, file="1.npy") for each in nodes])
    said = []
    for data in (npy(np.ones(1)), npy(np.ones(1), (2, 0))):
        file = opened(skops(schema, {"1.npy": data}), "m.skops")
        assert not file.tensors
        said.append(file.metadata["0"])
    assert said[0] != said[1]


CONTENT = {
    "one object less is shared": changed('"__id__": 71', '"__id__": 72'),
    "an object without a number": changed('"__id__": 71', '"other": 71'),
    "0, by which skops remembers nothing": changed('"__id__": 9', '"__id__": 0'),
    "a number that is none": changed('"__id__": 9', '"__id__": 9.0'),
    "another class": changed('"__class__": "object"', '"__class__": "system"'),
    "another module": changed('"__module__": "m"', '"__module__": "os"'),
    "another loader": changed('"NdArrayNode"', '"FunctionNode"'),
    "another protocol": changed('"protocol": 2', '"protocol": 1'),
    "another file": changed('"file": "71.npy"', '"file": "9.npy"'),
    "a key more": changed('"protocol": 2', '"protocol": 2, "x": 1'),
}


@pytest.mark.parametrize("data", CONTENT.values(), ids=CONTENT)
def test_what_the_schema_says_is_content(opened: Opener, data: bytes) -> None:
    before = opened(small_skops(), "m.skops").metadata["schema.json"]
    assert opened(data, "m.skops").metadata["schema.json"] != before


def test_bytes_are_content_by_digest(opened: Opener) -> None:
    def saved(name: str, data: bytes) -> dict[str, str]:
        schema = node("DictNode", {"raw": node("BytesNode", file=name)})
        return dict(opened(skops(schema, {name: data}), "m.skops").metadata)

    assert saved("0-a.bin", b"x") == saved("0-b.bin", b"x")
    assert saved("0-a.bin", b"x") != saved("0-a.bin", b"y")


ARRAY = {"1.npy": npy(np.ones(1))}
NAMES = {
    "array": ONE,
    "a": node("DictNode", {"a": ONE}),
    "1/0": node("ListNode", [1, [ONE]]),
    "other/a": node("Node", 1, other={"a": ONE}),
}


@pytest.mark.parametrize(("name", "schema"), NAMES.items())
def test_an_array_is_called_by_the_way_to_it(
    opened: Opener, name: str, schema: dict[str, Any]
) -> None:
    assert list(opened(skops(schema, ARRAY), "m.skops").tensors) == [name]


REFUSED: dict[str, tuple[bytes, type[ProvenanceError], str]] = {
    "no schema": (archive({"a.npy": npy(np.ones(1))}), MalformedError, "schema.json is missing"),
    "no JSON": (skops(b"{"), MalformedError, "not JSON"),
    "no UTF-8": (skops(b"\xff"), MalformedError, "UTF-8"),
    "a key twice": (skops(b'{"__loader__": 1, "__loader__": 2}'), MalformedError, "duplicated"),
    "a member that no node names": (
        skops(node("N"), {"x.npy": b""}), MalformedError, "no node names the member 'x.npy'"
    ),
    "a node that names no member": (
        skops(node("N", file="x.npy")), MalformedError, "'x.npy' is missing"
    ),
    "two arrays of one name": (
        skops(
            {"a": {"b": ONE}, "a/b": TWO},
            {"1.npy": npy(np.ones(1)), "2.npy": npy(np.ones(2))},
        ),
        MalformedError, "two members of one name",
    ),
    "a control character": (
        skops({"a\n": ONE}, ARRAY),
        MalformedError, "control character",
    ),
    "a long way": (
        skops({"a" * 1001: ONE}, ARRAY), MalformedError, "than 1000 characters"
    ),
    "very deep": (skops(b"[" * 600 + b"]" * 600), MalformedError, "nested deeper"),
    "an object array": (
        skops(
            ONE,
            {"1.npy": npy(np.ones(1)).replace(b"<f8", b"|O8")},
        ),
        MalformedError, "the element type",
    ),
    "a compressed sparse matrix": (
        skops(
            SPARSE, {"1.npz": archive({"data.npy": npy(np.ones(1))})},
            method=zipfile.ZIP_DEFLATED,
        ),
        UnreadableError, "a compressed archive in an archive",
    ),
    "a sparse matrix that is none": (
        skops(SPARSE, {"1.npz": b"x" * 99}), MalformedError, "does not end as"
    ),
    "a matrix's array that is another": (
        skops(
            {"m": SPARSE, "m/data": TWO},
            {"1.npz": archive({"data.npy": npy(np.ones(1))}), "2.npy": npy(np.ones(1))},
        ),
        MalformedError, "two arrays named 'm/data'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "error", "what"), REFUSED.values(), ids=REFUSED)
def test_refuses(opened: Opener, data: bytes, error: type[ProvenanceError], what: str) -> None:
    with pytest.raises(error, match=what) as caught:
        opened(data, "m.skops")
    assert str(caught.value).startswith("m.skops")


@pytest.mark.parametrize("member", ["71.npy", "schema.json"])
def test_another_checksum_is_malformed(opened: Opener, member: str) -> None:
    data = small_skops()
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        info = file.getinfo(member)
    last = info.header_offset + 30 + len(member) + info.file_size - 2
    with pytest.raises(MalformedError, match="CRC-32"):
        tensor_digests(opened(data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :], "m.skops"))
