from __future__ import annotations

import contextlib
import hashlib
import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights import view
from provenance.weights.dtypes import DTYPES, codes
from provenance.weights.gguf import reader as gguf
from provenance.weights.normalisers import Normaliser
from tests.weights.gguf_writing import (
    KEYS,
    TENSORS,
    TYPES,
    File,
    Tensor,
    array,
    filled,
    items,
    key,
    plain,
    samples,
    scalar,
    text,
)
from tests.weights.writing import tensor_digests

if TYPE_CHECKING:
    from types import ModuleType

    from tests.weights.conftest import Opener

SAMPLES = samples()
PLAIN = File(KEYS, TENSORS)


def content(file: Any, name: str, elements: int = 256) -> bytes:  # noqa: ANN401
    return b"".join(map(bytes, file.chunks(name, elements)))


def value(opened: Opener, raw: bytes) -> str:
    """Return the text of the one value of a file."""
    return opened(File([raw]).written(), "m.gguf").metadata["k"]


@pytest.mark.parametrize("name", SAMPLES)
def test_reads_every_sample(opened: Opener, name: str) -> None:
    file = opened(SAMPLES[name], name)
    assert file.format == "gguf"
    assert file.container.keys() <= set(Normaliser)
    for tensor, info in file.tensors.items():
        assert len(content(file, tensor)) == info.nbytes


def test_tensors_have_their_names_types_shapes_and_bytes(opened: Opener) -> None:
    file = opened(SAMPLES["plain.gguf"], "m.gguf")
    assert [(i.name, i.dtype.name, i.shape) for i in file.tensors.values()] == [
        ("token_embd.weight", "Q8_0", (3, 64)),
        ("blk.0.attn_norm.weight", "F32", (5,)),
        ("blk.0.attn_q.weight", "Q4_K", (2, 256)),
    ]
    for tensor in TENSORS:
        assert content(file, str(tensor.name)) == tensor.data


def test_a_matrix_is_what_numpy_has(opened: Opener) -> None:
    matrix = np.arange(6, dtype="<f4").reshape(2, 3)
    file = opened(File(tensors=[Tensor("w", [3, 2], matrix.tobytes())]).written(), "m.gguf")
    assert file.tensors["w"].shape == matrix.shape
    assert content(file, "w") == matrix.tobytes()


def test_a_part_of_a_tensor_in_whole_blocks(opened: Opener) -> None:
    tensor = filled("w", "Q4_0", [512, 2])
    file = opened(File(tensors=[tensor]).written(), "m.gguf")
    part = b"".join(map(bytes, file.chunks("w", 256, 256, 768)))
    assert part == tensor.data[8 * 18 : 24 * 18]


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_blocks_whose_parts_are_all_of_their_bytes(
    opened: Opener, name: str
) -> None:
    dtype = DTYPES[name]
    file = opened(SAMPLES["every-type.gguf"], "m.gguf")
    assert file.tensors[f"t.{name}"].dtype is dtype
    if dtype.block == 1:
        assert not dtype.parts
        return
    assert dtype.kind == "exact"
    assert 256 % dtype.block == 0
    ends = [0, *(part.stop for part in dtype.parts)]
    assert [part.start for part in dtype.parts] == ends[:-1]
    assert ends[-1] * 8 == dtype.bits
    assert "codes" in {part.name for part in dtype.parts}
    raw = content(file, f"t.{name}")
    assert codes(raw, dtype).shape == (512 // dtype.block, dtype.bits // 8)


def test_the_parts_of_a_block_are_where_the_arithmetic_takes_them(opened: Opener) -> None:
    # ggml-quants.c, dequantize_row_q5_1: d, m, a fifth bit of each of 32 codes, then nibbles.
    block = struct.pack("<ee", 0.5, -1.0) + struct.pack("<I", 0b10) + bytes([0xA3] * 16)
    file = opened(File(tensors=[Tensor("w", [32], block, "Q5_1")]).written(), "m.gguf")
    raw = content(file, "w")
    part = {part.name: raw[part.start : part.stop] for part in DTYPES["Q5_1"].parts}
    scale, least = (np.frombuffer(part[name], "<f2")[0] for name in ("scales", "mins"))
    fifth = np.unpackbits(np.frombuffer(part["high-bits"], np.uint8), bitorder="little")
    nibbles = np.frombuffer(part["codes"], np.uint8)
    whole = np.concatenate([nibbles & 15, nibbles >> 4]) | (fifth << 4)
    assert (whole * scale + least)[[0, 1, 16]].tolist() == [0.5, 8.5, 4.0]


def test_values_say_their_type(opened: Opener) -> None:
    file = opened(SAMPLES["plain.gguf"], "m.gguf")
    assert dict(file.metadata) == {
        "general.architecture": 'str "llama"',
        "llama.block_count": "u32 2",
        "llama.rope.freq_base": "f32 100000.0",
        "tokenizer.ggml.add_bos_token": "bool true",
        "tokenizer.ggml.tokens": digested("str", "<s>", "Ġ", 'a"b', ""),
        "tokenizer.ggml.scores": digested("f32", -1.5, 0.0),
        "tokenizer.ggml.token_type": digested("i32", 1, 3),
    }


def digested(kind: str, *values: Any) -> str:  # noqa: ANN401 - what struct packs
    raw = plain(kind, *values)
    digest = hashlib.sha256(raw).hexdigest()
    return f"arr[{kind}] {len(values)} values, {len(raw)} bytes, sha256 {digest}"


def test_numbers_keep_every_bit(opened: Opener) -> None:
    quiet, other = struct.pack("<I", 0x7FC00000), struct.pack("<I", 0x7F800001)
    assert value(opened, key("k", "f32", quiet)) == "f32 nan:7fc00000"
    assert value(opened, key("k", "f32", other)) == "f32 nan:7f800001"
    assert value(opened, scalar("k", "f32", -0.0)) == "f32 -0.0"
    assert value(opened, scalar("k", "f64", math.inf)) == "f64 inf"
    assert value(opened, scalar("k", "u64", 2**64 - 1)) == "u64 18446744073709551615"
    assert value(opened, scalar("k", "i64", -(2**63))) == "i64 -9223372036854775808"


def test_a_long_value_is_its_digest(opened: Opener) -> None:
    template = "{{ x }}" * 200
    digest = hashlib.sha256(template.encode()).hexdigest()
    assert value(opened, scalar("k", "str", template)) == f"str 1400 bytes, sha256 {digest}"
    tokens = [f"token {i}" for i in range(1000)]
    assert value(opened, array("k", "str", *tokens)) == digested("str", *tokens)
    # A string that reads like a digest is quoted, so no two values have one text.
    assert value(opened, scalar("k", "str", f"1400 bytes, sha256 {digest}")).startswith('str "1400')


SCALARS = st.one_of(
    st.tuples(st.just("str"), st.text(max_size=4)),
    st.tuples(st.just("bool"), st.integers(0, 1)),
    st.tuples(st.just("u8"), st.integers(0, 255)),
    st.tuples(st.just("i64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("f32"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("f64"), st.floats(allow_nan=False)),
)
VALUES = st.one_of(
    SCALARS.map(lambda pair: scalar("k", *pair)),
    SCALARS.flatmap(
        lambda pair: st.integers(0, 3).map(lambda n: array("k", pair[0], *[pair[1]] * n))
    ),
)


@given(VALUES, VALUES)
def test_two_values_have_one_text_only_if_their_bytes_are_the_same(
    opened: Opener, left: bytes, right: bytes
) -> None:
    assert (value(opened, left) == value(opened, right)) == (left == right)


def test_a_header_that_is_longer_than_one_read(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "_WINDOW", 16)
    file = opened(SAMPLES["plain.gguf"], "m.gguf")
    assert len(file.metadata) == len(KEYS)
    assert content(file, "blk.0.attn_norm.weight") == TENSORS[1].data


ALIGNED = (scalar("general.alignment", "u32", 64), *KEYS)


@pytest.mark.parametrize(
    ("left", "right", "facts"),
    [
        (PLAIN, replace(PLAIN, version=2), {"version"}),
        (PLAIN, replace(PLAIN, keys=KEYS[::-1]), {"order"}),
        (PLAIN, replace(PLAIN, tensors=TENSORS[::-1]), {"order"}),
        (PLAIN, replace(PLAIN, order=(1, 2, 0)), {"order"}),
        (PLAIN, replace(PLAIN, keys=ALIGNED, alignment=64), {"layout"}),
        (
            replace(PLAIN, tensors=TENSORS[:2]),
            replace(PLAIN, tensors=TENSORS[:2], end=False),
            {"layout"},
        ),
    ],
    ids=["version", "keys", "tensors", "bytes", "alignment", "end"],
)
def test_what_reaches_no_tensor_is_one_fact(
    opened: Opener, left: File, right: File, facts: set[str]
) -> None:
    one = opened(left.written(), "m.gguf")
    first = (dict(one.container), dict(one.metadata), tensor_digests(one))
    other = opened(right.written(), "m.gguf")
    assert {name for name in first[0] if first[0][name] != other.container[name]} == facts
    assert (dict(other.metadata), tensor_digests(other)) == first[1:]


def test_where_the_alignment_is_stated_is_a_fact(opened: Opener) -> None:
    statement = scalar("general.alignment", "u32", 32)
    texts = [
        opened(replace(PLAIN, keys=keys).written(), "m.gguf").container["layout"]
        for keys in (KEYS, (statement, *KEYS), (*KEYS, statement))
    ]
    assert [text.removesuffix(", padded") for text in texts] == [
        "32 by default",
        "32 stated after 0 keys",
        "32 stated after 7 keys",
    ]


F32 = Tensor("a", [1], b"abcd")
NEXT = Tensor("b", [1], b"efgh")


def with_keys(*keys: bytes) -> bytes:
    return File(keys).written()


def with_tensors(*tensors: Tensor) -> bytes:
    return File((), tensors).written()


def nested(depth: int) -> bytes:
    raw = items("u8", 1, b"\0")
    for _ in range(depth - 1):
        raw = items("arr", 1, raw)
    return key("k", "arr", raw)


MALFORMED: dict[str, tuple[bytes, str]] = {
    "magic only": (b"GGUF", "cut off"),
    "other magic": (File(magic=b"GGML").written(), "does not begin"),
    "version 4": (File(version=4).written(), "no GGUF version 4"),
    "version 0": (File(version=0).written(), "no GGUF version 0"),
    "tensors counted beyond limits": (File(counts=(2**63, None)).written(), "more than 100000"),
    "keys counted beyond limits": (File(counts=(None, 2**64 - 1)).written(), "more than 65536"),
    "more keys than there are": (File(KEYS, counts=(None, 8)).written(), "cut off"),
    "more tensors than there are": (
        File((), [F32], counts=(3, None)).written(),
        "name of a tensor is longer",
    ),
    "fewer tensors than there are": (File((), [F32, NEXT], counts=(1, None)).written(), "not zero"),
    "key twice": (with_keys(KEYS[0], KEYS[0]), "general.architecture: duplicate key"),
    "alignment twice": (with_keys(ALIGNED[0], ALIGNED[0]), "duplicate key"),
    "key empty": (with_keys(scalar("", "u8", 1)), "not a key"),
    "key with NUL": (with_keys(scalar("a\0", "u8", 1)), "not a key"),
    "key with a space": (with_keys(scalar("a b", "u8", 1)), "not a key"),
    "key not ASCII": (with_keys(scalar("é", "u8", 1)), "not a key"),
    "key not UTF-8": (with_keys(key(b"\xff", "u8", b"\1")), "not UTF-8"),
    "key too long": (with_keys(scalar("a" * 65_536, "u8", 1)), "longer than 65535"),
    "key of a length beyond the file": (with_keys(b"\xff\xff\0\0\0\0\0\0k"), "cut off"),
    "string not UTF-8": (with_keys(key("k", "str", text(b"\xed\xa0\x80"))), "not UTF-8"),
    "string in an array not UTF-8": (
        with_keys(key("k", "arr", items("str", 1, text(b"\xff")))),
        "not UTF-8",
    ),
    "string of absurd length": (with_keys(key("k", "str", b"\xff" * 8)), "longer than 16777216"),
    "string cut off": (with_keys(key("k", "str", b"\5\0\0\0\0\0\0\0abc")), "cut off"),
    "unknown type": (with_keys(text("k") + struct.pack("<I", 13)), "unknown type of value 13"),
    "unknown type in an array": (
        with_keys(key("k", "arr", struct.pack("<IQ", 99, 0))),
        "unknown type of value 99",
    ),
    "boolean of 2": (with_keys(scalar("k", "bool", 2)), "neither 0 nor 1"),
    "booleans, one of 2": (with_keys(array("k", "bool", 0, 1, 2)), "neither 0 nor 1"),
    "array of absurd count": (with_keys(key("k", "arr", items("u64", 2**64 - 1, b""))), "cut off"),
    "strings of absurd count": (
        with_keys(key("k", "arr", items("str", 2**64 - 1, b""))),
        "more than 4194304",
    ),
    "arrays of absurd count": (
        with_keys(key("k", "arr", items("arr", 2**40, b""))),
        "more than 4194304",
    ),
    "arrays too deep": (with_keys(nested(5)), "deeper than 4"),
    "alignment not u32": (with_keys(scalar("general.alignment", "u64", 32)), "not of type u32"),
    "alignment 0": (with_keys(scalar("general.alignment", "u32", 0)), "power of two"),
    "alignment 4": (with_keys(scalar("general.alignment", "u32", 4)), "power of two"),
    "alignment 24": (with_keys(scalar("general.alignment", "u32", 24)), "power of two"),
    "alignment absurd": (with_keys(scalar("general.alignment", "u32", 2**31)), "power of two"),
    "tensor twice": (with_tensors(F32, replace(NEXT, name="a")), "duplicate tensor name"),
    "name too long": (with_tensors(replace(F32, name="a" * 65)), "longer than 64"),
    "name with NUL": (with_tensors(replace(F32, name="a\0b")), "control character"),
    "name not UTF-8": (with_tensors(replace(F32, name=b"\xff")), "not UTF-8"),
    "no dimension": (with_tensors(replace(F32, dims=[])), "has 0 dimensions"),
    "5 dimensions": (with_tensors(replace(F32, dims=[1] * 5)), "has 5 dimensions"),
    "a dimension of size 0": (with_tensors(replace(F32, dims=[1, 0])), "size 0"),
    "shape overflows": (with_tensors(replace(F32, dims=[2**32, 2**32])), "too large"),
    "dimension overflows": (with_tensors(replace(F32, dims=[2**64 - 1])), "not a dimension"),
    "unknown element type": (with_tensors(replace(F32, dtype=43)), "type 43 is not known"),
    "a type that ggml gave up": (with_tensors(replace(F32, dtype=4)), "type 4 is not known"),
    "rows not whole blocks": (
        with_tensors(Tensor("a", [16, 2], b"x" * 18, "Q4_0")),
        "not whole blocks of 32",
    ),
    "gap": (with_tensors(F32, replace(NEXT, offset=64)), "not where the one before ends"),
    "gap at the start": (with_tensors(replace(F32, offset=32)), "not where"),
    "overlap": (with_tensors(F32, replace(NEXT, offset=0)), "overlaps"),
    "offset not aligned": (with_tensors(F32, replace(NEXT, offset=4)), "not where"),
    "offset absurd": (with_tensors(F32, replace(NEXT, offset=2**64 - 32)), "not where"),
    "cut off": (File((), [F32], end=False).written()[:-1], "cut off"),
    "trailing byte": (with_tensors(F32) + b"\0", "29 bytes follow"),
    "trailing byte without tensors": (File(KEYS[:1]).written() + b"\0", "1 bytes follow"),
    "padding in part": (with_tensors(F32)[:-1], "27 bytes follow"),
    "padding not zero": (File((), [F32, NEXT], padding=b"\1").written(), "not zero"),
    "padding at the end not zero": (with_tensors(F32)[:-1] + b"\1", "not zero"),
}


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(opened: Opener, data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        opened(data, "m.gguf")
    assert str(caught.value).startswith("m.gguf")


def test_arrays_may_be_nested(opened: Opener) -> None:
    text = value(opened, nested(4))
    assert text.startswith("arr[arr] 1 values, 37 bytes, sha256 ")


def test_big_endian_and_version_1_are_unreadable(opened: Opener) -> None:
    with pytest.raises(UnreadableError, match="big-endian"):
        opened(b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "m.gguf")
    with pytest.raises(UnreadableError, match="version 1"):
        opened(b"GGUF" + struct.pack("<III", 1, 0, 0), "m.gguf")


def test_limits_hold_for_all_arrays_together(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "MAX_ITEMS", 4)
    keys = [array("a", "str", "x", "y"), array("b", "str", "x", "y")]
    assert len(opened(with_keys(*keys), "m.gguf").metadata) == 2
    with pytest.raises(MalformedError, match="more than 4 strings"):
        opened(with_keys(*keys, array("c", "str", "x")), "m.gguf")


def test_arrays_in_arrays_count_for_several_strings(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = struct.pack("<IQ", 0, 0)
    data = [with_keys(key("k", "arr", items("arr", n, n * inner))) for n in (2, 3)]
    monkeypatch.setattr(gguf, "MAX_ITEMS", 8)
    assert opened(data[0], "m.gguf").metadata
    with pytest.raises(MalformedError, match="more than 8 strings and arrays"):
        opened(data[1], "m.gguf")


@pytest.mark.parametrize(
    ("module", "limit", "what"),
    [(gguf, "MAX_HEADER", "longer than 2"), (gguf, "MAX_KEYS", "more than 2 keys")],
)
def test_limits(
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    limit: str,
    what: str,
) -> None:
    monkeypatch.setattr(module, limit, 2)
    with pytest.raises(MalformedError, match=what):
        opened(PLAIN.written(), "m.gguf")


def test_too_many_tensors(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MAX_TENSORS", 2)
    with pytest.raises(MalformedError, match="more than 2 tensors"):
        opened(PLAIN.written(), "m.gguf")


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_changed_byte_is_refused_or_read(opened: Opener, name: str, data: st.DataObject) -> None:
    raw = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProvenanceError):
        file = opened(bytes(raw), "m.gguf")
        assert sum(info.nbytes for info in file.tensors.values()) <= len(raw)
        tensor_digests(file)


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_file_that_is_cut_off_is_refused(opened: Opener, name: str, data: st.DataObject) -> None:
    whole = SAMPLES[name]
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    complete = opened(whole, "m.gguf").container
    try:
        file = opened(cut, "m.gguf")
    except MalformedError:
        return
    # What is left is the same file without the padding of its last tensor.
    assert file.container == {
        **complete,
        "layout": complete["layout"].replace(", padded", ", unpadded"),
    }


@given(
    st.lists(
        st.tuples(st.sampled_from(["F32", "F16", "Q4_0", "I8"]), st.integers(1, 3)), max_size=5
    ),
    st.sampled_from([8, 32, 128]),
    st.data(),
)
def test_reads_what_is_written(
    opened: Opener, described: list[tuple[str, int]], alignment: int, data: st.DataObject
) -> None:
    tensors = [
        filled(f"t{place}", dtype, [32, rows], place)
        for place, (dtype, rows) in enumerate(described)
    ]
    keys = data.draw(st.permutations([*KEYS, scalar("general.alignment", "u32", alignment)]))
    order = data.draw(st.permutations(range(len(tensors))))
    raw = File(keys, tensors, alignment=alignment, order=order).written()
    file = opened(raw, "m.gguf")
    assert [*file.tensors] == [f"t{place}" for place in order]
    assert {name: content(file, name) for name in file.tensors} == {
        tensor.name: tensor.data for tensor in tensors
    }
