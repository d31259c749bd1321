from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights import view
from provenance.weights.opening import open_tensors
from tests.weights.writing import archive, entry, npy, safetensors, simple

if TYPE_CHECKING:
    from pathlib import Path

    from tests.weights.conftest import Opener

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8).filter(
    lambda name: name != "__metadata__"
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


def content(file: Any, name: str, elements: int = 8) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.dictionaries(NAMES, NAMES, max_size=2))
def test_reads_what_the_library_writes(
    opened: Opener, arrays: dict[str, np.ndarray[Any, Any]], metadata: dict[str, str]
) -> None:
    file = opened(save(arrays, metadata or None), "m.safetensors")
    assert file.tensors.keys() == arrays.keys()
    assert dict(file.metadata) == metadata
    assert file.container["spelling"] == "compact"
    for name, array in arrays.items():
        assert file.tensors[name].shape == array.shape
        assert content(file, name) == array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (ml_dtypes.bfloat16, "BF16"),
        (ml_dtypes.float8_e4m3fn, "F8_E4M3"),
        (ml_dtypes.float8_e5m2, "F8_E5M2"),
        (ml_dtypes.float8_e8m0fnu, "F8_E8M0"),
    ],
)
def test_narrow_types_have_the_librarys_names(opened: Opener, dtype: Any, name: str) -> None:  # noqa: ANN401
    array = np.ones(3, dtype=dtype)
    file = opened(save({"a": array}), "m.safetensors")
    assert file.tensors["a"].dtype.name == name
    assert content(file, "a") == array.tobytes()


def test_packed_elements_end_on_a_byte(opened: Opener) -> None:
    file = opened(safetensors({"a": entry("F6_E2M3", [3, 4], 0, 9)}, b"x" * 9), "m.safetensors")
    assert [len(chunk) for chunk in file.chunks("a", 8)] == [6, 3]
    with pytest.raises(MalformedError, match="whole"):
        opened(safetensors({"a": entry("F4", [3], 0, 1)}, b"x"), "m.safetensors")


F32 = entry("F32", [1], 0, 4)
MALFORMED: dict[str, tuple[bytes, str]] = {
    "length only": (b"\0" * 7, "too short"),
    "no header": (b"\0" * 8, "one object"),
    "header beyond the file": (b"\xff\0\0\0\0\0\0\0{}", "longer than the file"),
    "header too long": (b"\xff" * 8 + b"{}", "longer than 100000000"),
    "header not JSON": (safetensors(b"{]}"), "not JSON"),
    "header a list": (safetensors([]), "one object"),
    "header begins with a space": (safetensors(b" {}"), "one object"),
    "padded with line breaks": (safetensors(b"{}\n\n"), "one object"),
    "padded with NUL": (safetensors(b"{}\0"), "one object"),
    "key twice": (
        safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(F32).encode(),) * 2), b"abcd"),
        "is duplicated",
    ),
    "metadata not text": (safetensors({"__metadata__": {"a": 1}}), "object of strings"),
    "metadata null": (safetensors({"__metadata__": None}), "object of strings"),
    "metadata twice": (safetensors(b'{"__metadata__":{},"__metadata__":{}}'), "is duplicated"),
    "gap at the start": (safetensors({"a": entry("F32", [1], 4, 8)}, b"x" * 8), "a gap"),
    "gap": (
        safetensors({"a": F32, "b": entry("F32", [1], 8, 12)}, b"x" * 12),
        "a gap",
    ),
    "overlap": (safetensors({"a": F32, "b": F32}, b"x" * 4), "overlaps"),
    "overlap in part": (
        safetensors({"a": F32, "b": entry("F32", [1], 2, 6)}, b"x" * 6),
        "overlaps",
    ),
    "trailing byte": (safetensors({"a": F32}, b"x" * 5), "the file has 5"),
    "trailing byte without tensors": (safetensors({}, b"x"), "the file has 1"),
    "cut off": (safetensors({"a": F32}, b"x" * 3), "the file has 3"),
    "size not of the shape": (safetensors({"a": entry("F32", [2], 0, 4)}, b"x" * 4), "takes 4"),
    "begin after end": (safetensors({"a": entry("F32", [1], 4, 0)}, b""), "takes -4"),
    "negative begin": (safetensors({"a": entry("F32", [1], -4, 0)}, b""), "takes 4"),
    "shape overflows": (
        safetensors({"a": entry("F32", [2**32, 2**32], 0, 0)}),
        "too large",
    ),
    "negative dimension": (safetensors({"a": entry("F32", [-1, -1], 0, 4)}, b"x" * 4), "dimension"),
    "boolean dimension": (safetensors({"a": entry("F32", [True], 0, 4)}, b"x" * 4), "dimension"),
    "float dimension": (safetensors({"a": entry("F32", [1.0], 0, 4)}, b"x" * 4), "dimension"),
    "65 dimensions": (safetensors({"a": entry("F32", [1] * 65, 0, 4)}, b"x" * 4), "dimensions"),
    "unknown type": (safetensors({"a": entry("F33", [1], 0, 4)}, b"x" * 4), "unknown element type"),
    "type not text": (safetensors({"a": {**F32, "dtype": 4}}, b"x" * 4), "dtype is a string"),
    "shape not a list": (safetensors({"a": {**F32, "shape": 4}}, b"x" * 4), "shape a list"),
    "one offset": (safetensors({"a": {**F32, "data_offsets": [0]}}, b"x" * 4), "two integers"),
    "float offset": (safetensors({"a": {**F32, "data_offsets": [0, 4.0]}}, b"x" * 4), "integers"),
    "further key": (safetensors({"a": {**F32, "x": 1}}, b"x" * 4), "has the keys"),
    "entry not an object": (safetensors({"a": 1}), "has the keys"),
    "NUL in a name": (safetensors({"a\0b": F32}, b"x" * 4), "control character"),
    "line break in a name": (safetensors({"a\nb": F32}, b"x" * 4), "control character"),
    "lone surrogate in a name": (
        safetensors(b'{"\\ud800":%s}' % json.dumps(F32).encode(), b"x" * 4),
        "surrogate",
    ),
    "deep": (safetensors(b'{"a":' + b"[" * 99 + b"]" * 99 + b"}"), "nested"),
}


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.safetensors")
    assert str(caught.value).startswith("m.safetensors")


def test_the_librarys_worked_example_is_read(opened: Opener) -> None:
    # safetensors/src/tensor.rs, test_empty_shapes_allowed: padding is optional.
    data = b'8\0\0\0\0\0\0\0{"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}\0\0\0\0'
    file = opened(data, "m.safetensors")
    assert file.tensors["test"].shape == ()
    assert content(file, "test") == b"\0\0\0\0"


HEADERS = st.permutations(["a", "b", "__metadata__"]).flatmap(
    lambda names: st.tuples(
        st.just(names),
        st.permutations(["a", "b"]),
        st.permutations(["x", "y"]),
        st.sampled_from([(",", ":"), (", ", ": "), (",", " : ")]),
        st.integers(0, 2),
        st.permutations(["dtype", "shape", "data_offsets"]),
    )
)


@given(HEADERS, HEADERS)
def test_equal_content_and_facts_mean_equal_bytes(opened: Opener, one: Any, two: Any) -> None:  # noqa: ANN401
    def write(choice: Any) -> bytes:  # noqa: ANN401
        names, order, metadata, separators, padding, keys = choice
        begin = {name: 4 * index for index, name in enumerate(order)}
        header: dict[str, Any] = {}
        for name in names:
            if name == "__metadata__":
                header[name] = {key: key for key in metadata}
            else:
                full = entry("F32", [1], begin[name], begin[name] + 4)
                header[name] = {key: full[key] for key in keys}
        text = json.dumps(header, separators=separators).encode()
        return safetensors(text, b"".join(name.encode() * 4 for name in order), padding=padding)

    left, right = write(one), write(two)
    facts = dict(opened(left, "m.safetensors").container)
    assert (facts == dict(opened(right, "m.safetensors").container)) == (left == right)


VALID = simple({"w": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.zeros(2, "<f2")}, a="b")


@given(st.data())
def test_damaged_files_raise_only_our_errors(opened: Opener, data: st.DataObject) -> None:
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    damaged = (
        damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    )
    with contextlib.suppress(ProvenanceError):
        file = opened(bytes(damaged), "m.safetensors")
        for name in file.tensors:
            content(file, name)


@given(st.binary(max_size=64))
def test_random_headers_raise_only_our_errors(opened: Opener, header: bytes) -> None:
    with contextlib.suppress(ProvenanceError):
        opened(safetensors(b"{" + header + b"}"), "m.safetensors")


def test_a_file_that_shrinks_is_an_error_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(simple({"a": np.zeros(1000, "<f4")}))
    with open_tensors(path) as file:
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(UnreadableError, match="shrank"):
            list(file.chunks("a", 8))
        with pytest.raises(UnreadableError, match="changed"):
            file.check_unchanged()


def test_the_number_of_tensors_has_a_bound(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MAX_TENSORS", 2)
    header = {"__metadata__": {}, **{name: entry("F32", [0], 0, 0) for name in "ab"}}
    assert list(opened(safetensors(header), "m.safetensors").tensors) == ["a", "b"]
    with pytest.raises(MalformedError, match="more than 2 tensors"):
        opened(safetensors(header | {"c": entry("F32", [0], 0, 0)}), "m.safetensors")
    with pytest.raises(MalformedError, match="more than 2 tensors"):
        opened(archive({f"{name}.npy": npy(np.ones(0)) for name in "abc"}), "m.npz")
