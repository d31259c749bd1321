from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.torch import values as torch_values
from provenance.weights.torch.pickle_program import Made
from provenance.weights.torch.values import Content, read_content
from tests.weights.torch_writing import made, named, ordered, scalar, storage, tensor, versions

ONE = tensor(storage("0", 1), (1,))


def content(value: object) -> Content:
    return read_content(value, where="p")


def text(value: object) -> str:
    return content(value).metadata["value"]


def structure(value: object) -> str | None:
    return content(value).metadata.get("_structure")


def plain(found: Content) -> dict[str, str]:
    """Return the metadata less the structure."""
    return {key: said for key, said in found.metadata.items() if key != "_structure"}


TEXTS: dict[str, tuple[object, str]] = {
    "none": (None, "null"),
    "true": (True, "true"),
    "one": (1, "1"),
    "one as a float": (1.0, "1.0"),
    "minus zero": (-0.0, "-0.0"),
    "small": (1e-05, "1e-05"),
    "beyond 2^53": (2**70 + 1, "1180591620717411303425"),
    "infinity": (math.inf, '{"float":"inf"}'),
    "minus infinity": (-math.inf, '{"float":"-inf"}'),
    "NaN": (math.nan, '{"float":"nan 0x7ff8000000000000"}'),
    "NaN of x86": (
        struct.unpack("<d", struct.pack("<Q", 0xFFF8 << 48))[0],
        '{"float":"nan 0xfff8000000000000"}',
    ),
    "text": ('"é\n', '"\\"é\\n"'),
    "bytes": (b"\0\xff", '{"bytes":"00ff"}'),
    "bytes of protocol 2": (made("_codecs encode", "\0ÿ", "latin1"), '{"bytes":"00ff"}'),
    "no bytearray": (made("builtins bytearray"), '{"bytes":""}'),
    "bytearray": (made("__builtin__ bytearray", b"\1"), '{"bytes":"01"}'),
    "complex": (made("builtins complex", 1.0, -0.0), '{"complex":[1.0,-0.0]}'),
    "type": (named("torch float32"), '{"torch.dtype":"float32"}'),
    "device": (made("torch device", "cpu"), '{"torch.device":"cpu"}'),
    "device with a number": (made("torch device", "cuda", 1), '{"torch.device":"cuda:1"}'),
    "float64": (scalar("f8", "<", struct.pack("<d", 0.1)), '{"numpy.float64":0.1}'),
    "float32": (scalar("f4", ">", struct.pack(">f", 1.5)), '{"numpy.float32":1.5}'),
    "int64": (scalar("i8", "<", struct.pack("<q", -9)), '{"numpy.int64":-9}'),
    "numpy bool": (scalar("b1", "|", b"\1"), '{"numpy.bool":true}'),
    "no entries": ({}, "{}"),
    "no elements": ((), "[]"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), TEXTS.values(), ids=TEXTS)
def test_a_plain_value_is_one_text(value: object, expected: str) -> None:
    assert text(value) == expected


def test_paths_are_the_keys_from_the_outermost_inwards() -> None:
    value = {
        "model": ordered({"w": ONE}),
        "args": [1, ("a", {7: None})],
        "none": made("torch Size", ()),
    }
    found = content(value)
    assert [stored.info.name for stored in found.tensors] == ["model/w"]
    assert plain(found) == {
        "args/0": "1",
        "args/1/0": '"a"',
        "args/1/1/7": "null",
        "none": "[]",
    }
    assert structure(value) == '{"args":[*,[*,{7:*}]],"model":{"w":*},"none":[]}'


def test_a_tensor_alone_has_a_name() -> None:
    (stored,) = content(ONE).tensors
    assert stored.info.name == "value"


def facts(found: Content) -> dict[str, object]:
    trained = [(stored.info.name, stored.trained, stored.parameter) for stored in found.tensors]
    return {"order": list(found.paths), "types": found.types, "trained": sorted(trained)}


def differing(left: object, right: object) -> set[str]:
    one, two = content(left), content(right)
    assert one.metadata == two.metadata
    return {name for name, fact in facts(one).items() if facts(two)[name] != fact}


def test_what_is_no_content_is_a_fact() -> None:
    other = tensor(storage("1", 1), (1,))
    trained = tensor(storage("0", 1), (1,), trained=True)
    parameter = Made(named("torch._utils _rebuild_parameter"), (ONE, True, ordered({})))
    assert differing({"a": ONE, "b": other}, {"b": other, "a": ONE}) == {"order"}
    assert differing({"a": ONE}, ordered({"a": ONE})) == {"types"}
    assert differing([ONE], (ONE,)) == {"types"}
    assert differing([ONE], made("torch Size", (ONE,))) == {"types"}
    assert differing([ONE], [trained]) == {"trained"}
    assert differing([parameter], [trained]) == {"trained"}
    assert differing(ordered({}, versions(a=1)), ordered({}, versions(a=2))) == {"types"}


def test_what_is_no_version_in_the_attribute_of_a_state_dict_is_content() -> None:
    state = {"_metadata": ordered({"conv": {"version": 2, "scale": 3}, "": {"version": 1}})}
    found = content({"model": ordered({"w": ONE}, state)})
    assert plain(found) == {"model/_metadata/conv/scale": "3"}
    assert found.metadata["_structure"] == '{"model":{"w":*}@{"conv":{"scale":*}}}'


# --- The structure --------------------------------------------------------------------------------

TWO = tensor(storage("1", 1), (1,))
STATE = {"_metadata": ordered({"conv": {"scale": 3}})}

SAME_PATHS: dict[str, tuple[object, object]] = {
    "a key with a slash": (
        {"model": {"w": ONE}, "ema": {"w": TWO}},
        {"model": {"w": ONE}, "ema/w": TWO},
    ),
    "nested and flat": ({"model": {"w": ONE}}, {"model/w": ONE}),
    "another split": ({"a": {"b/c": ONE}}, {"a/b": {"c": ONE}}),
    "two split crosswise": (
        {"a": {"b": {"c": ONE}}, "a/b": {"d": TWO}},
        {"a": {"b": {"d": TWO}}, "a/b": {"c": ONE}},
    ),
    "list and dictionary": ([ONE], {0: ONE}),
    "list and dictionary of texts": ([ONE], {"0": ONE}),
    "integer and text": ({0: ONE}, {"0": ONE}),
    "integer and text, crosswise": ({0: ONE, "1": TWO}, {"0": ONE, 1: TWO}),
    "no entries and no elements": ({"a": {}}, {"a": []}),
    "alone and in a dictionary": (ONE, {"value": ONE}),
    "a value alone": (1, {"value": 1}),
    "nothing in a dictionary": ({}, {"value": {}}),
    "a Counter, which gives 0 for what it has not": (
        [made("collections Counter", {"a": 1})],
        [{"a": 1}],
    ),
    "attribute and entry": (
        ordered({"w": ONE}, STATE),
        ordered({"w": ONE, "_metadata/conv/scale": 3}),
    ),
    "attribute and entries": (
        ordered({"w": ONE}, STATE),
        ordered({"w": ONE, "_metadata": {"conv": {"scale": 3}}}),
    ),
}


@pytest.mark.parametrize(("left", "right"), SAME_PATHS.values(), ids=SAME_PATHS)
def test_how_a_checkpoint_is_nested_is_content(left: object, right: object) -> None:
    one, two = content(left), content(right)
    assert {t.info.name for t in one.tensors} == {t.info.name for t in two.tensors}
    assert plain(one).keys() == plain(two).keys()
    assert one.metadata != two.metadata


@pytest.mark.parametrize("kind", [dict, ordered])
def test_a_flat_dictionary_is_as_its_names_say(kind: Any) -> None:  # noqa: ANN401
    found = content(kind({"a/b": ONE, "epoch": 3, "0": None}))
    assert dict(found.metadata) == {"epoch": "3", "0": "null"}
    assert structure(ordered({"w": ONE}, versions(a=1))) is None
    assert structure({}) is None


def test_the_structure_is_canonical_whatever_the_order() -> None:
    one: dict[Any, object] = {"b": [ONE], "a": TWO, 10: 1, '"': 2}
    other = dict(reversed(one.items()))
    assert structure(one) == structure(other) == r'{"\"":*,"a":*,"b":[*],10:*}'


def test_values_in_another_order_are_another_structure() -> None:
    """Of hyperparameters a module may make its layers one after the other."""
    one = {"w": ONE, "hyper_parameters": {"layers": {"b": 1, "a": 2}}}
    other = {"hyper_parameters": {"layers": {"a": 2, "b": 1}}, "w": ONE}
    assert structure(one) == r'{"hyper_parameters":{"layers":{"b":*,"a":*}},"w":*}'
    assert structure(other) == r'{"hyper_parameters":{"layers":{"a":*,"b":*}},"w":*}'


@given(
    st.recursive(
        st.none() | st.sampled_from([1, "_structure", 1.5]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("a/0*", max_size=3), inner),
        max_leaves=6,
    ),
    st.recursive(
        st.none() | st.sampled_from([1, "_structure", 1.5]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("a/0*", max_size=3), inner),
        max_leaves=6,
    ),
)
def test_equal_metadata_mean_equal_values(left: object, right: object) -> None:
    def said(value: object) -> object:
        try:
            return dict(content(value).metadata)
        except MalformedError:  # two values of one path
            return repr(value)

    assert (said(left) == said(right)) == (left == right)


def test_later_versions_of_modules_are_content() -> None:
    """Observers of quantisation load other tensors by version 3 than by version 1."""
    found = content(ordered({"w": ONE}, versions(observer=3)))
    assert plain(found) == {"_metadata/observer/version": "3"}
    assert plain(content(ordered({"w": ONE}, versions(observer=1)))) == {}


def test_a_module_without_a_version_is_in_the_fact() -> None:
    silent = ordered({}, {"_metadata": ordered({"a": {}})})
    assert differing(silent, ordered({}, {"_metadata": ordered({})})) == {"types"}


def nest(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


def doubled(times: int) -> object:
    value: object = [None, None]
    for _ in range(times):
        value = [value, value]
    return value


MALFORMED = {
    "nested too deep": (nest(1, 33), "nested deeper than 32 levels"),
    "in itself": (cycle(), "or in itself"),
    "a path twice": ({"a": {"b": ONE}, "a/b": 1}, "duplicate path 'a/b'"),
    "a number and its text": ({1: None, "1": None}, "duplicate path '1'"),
    "a value called as the structure": (
        {"_structure": 1, "a": {"b": 1}},
        "duplicate path '_structure'",
    ),
    "control character": ({"a\0": ONE}, "control character"),
    "scalar of another size": (scalar("f8", "<", b"\0"), "size of a numpy scalar is wrong"),
}


@pytest.mark.parametrize(("value", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(value: object, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        content(value)


def test_what_is_shared_very_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_values, "MAX_VALUES", 1000)
    assert len(plain(content(doubled(7)))) == 256
    for value in (doubled(9), [None] * 1001, doubled(30)):
        with pytest.raises(MalformedError, match="more than 1000 values"):
            content(value)


def test_32_levels_are_read() -> None:
    assert list(plain(content(nest(1, 32))).values()) == ["1"]


def test_a_text_that_is_shared_very_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_values, "MAX_TEXT", 1000)
    assert len(plain(content(["x" * 100] * 4))) == 4
    for value in (["x" * 100] * 9, {"k" * 300: [1, 2, 3]}, [b"x" * 999]):
        with pytest.raises(MalformedError, match="names and texts of more than 1000"):
            content(value)


UNREAD = {
    "storage": (storage("0", 1), "a storage without a tensor is not read"),
    "function": (named("collections OrderedDict"), "OrderedDict is not read"),
    "attributes": (ordered({}, {"other": 1}), "attributes other than _metadata"),
    "attribute that is none": (ordered({}, [1]), "attributes other than _metadata"),
    "_metadata of a number": (ordered({}, {"_metadata": 5}), "not that of a state dict"),
    "module of a number": (ordered({}, {"_metadata": {"m": 5}}), "not that of a state dict"),
    "OrderedDict with arguments": (made("collections OrderedDict", {}), "is not read"),
    "Counter of a list": (made("collections Counter", [1]), "is not read"),
    "Size of a dictionary": (made("torch Size", {}), "is not read"),
    "Size with entries": (Made(named("torch Size"), ((),), {1: 2}), "is not read"),
    "text that is no bytes": (made("_codecs encode", "\u0100", "latin1"), "is not read"),
    "another encoding": (made("_codecs encode", "a", "rot13"), "is not read"),
    "scalar of objects": (scalar("O8", "|", b"\0" * 8), "is not read"),
    "scalar without order": (scalar("f8", "=", b"\0" * 8), "is not read"),
    "scalar of a text": (made("numpy._core.multiarray scalar", "f8", b""), "is not read"),
    "dtype": (made("numpy dtype", "f8", False, True), "is not read"),  # noqa: FBT003
    "bytearrays in bytearrays": (
        made("builtins bytearray", made("builtins bytearray")), "is not read",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "what"), UNREAD.values(), ids=UNREAD)
def test_what_is_not_read_is_named(value: object, what: str) -> None:
    with pytest.raises(UnreadableError, match=what):
        content({"a": value})


# --- Scores of Lightning's ModelCheckpoint, whose keys are absolute paths -------------------------


def scored(folder: object, scores: dict[str, float]) -> dict[str, str]:
    return dict(content({"dirpath": folder, "best_k_models": scores}).metadata)


def test_a_score_has_one_name_wherever_the_folder_lay() -> None:
    one, other = (scored(folder, {f"{folder}/e.ckpt": 0.5}) for folder in ("/home/a", "/mnt/b/c"))
    assert one["best_k_models/${dirpath}/e.ckpt"] == "0.5"
    assert {name for name in one if one[name] != other[name]} == {"dirpath"}


@pytest.mark.parametrize(
    ("folder", "key"),
    [("/a", "/ab/e.ckpt"), ("/a", "/b/e.ckpt"), ("/a", "/a"), ("", "/e.ckpt"), (None, "/a/e.ckpt")],
)
def test_other_paths_are_as_they_are(folder: object, key: str) -> None:
    assert f"best_k_models/{key}" in scored(folder, {key: 0.5})


def test_a_name_stands_for_one_key() -> None:
    """Nobody writes a key that a path would become: then all keys are as they are."""
    forged = {"${dirpath}/e.ckpt": 0.5, "/a/f.ckpt": 1.0}
    assert set(scored("/a", forged)) == {
        "_structure", "dirpath", "best_k_models/${dirpath}/e.ckpt", "best_k_models//a/f.ckpt"
    }  # fmt: skip
