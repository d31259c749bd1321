from __future__ import annotations

from typing import Any

import pytest

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.torch.pickle_program import Made, Reference
from provenance.weights.torch.tensors import rebuild
from tests.weights.torch_writing import REBUILD, made, named, ordered, storage, tensor, typed

RAW = storage("0", 8, "torch.storage UntypedStorage")


def changed(place: int, value: object) -> Made:
    """A sound description of a tensor with another argument at *place*."""
    arguments: list[Any] = list(tensor(storage("0", 6), (2, 3)).arguments)
    arguments[place] = value
    return Made(named(REBUILD), tuple(arguments))


def referring(place: int, value: object) -> Made:
    """A sound description with another part of its storage's identifier at *place*."""
    identifier: list[Any] = ["storage", named("torch FloatStorage"), "0", "cpu", 6]
    identifier[place] = value
    return changed(0, Reference(tuple(identifier)))


def test_a_tensor_is_what_the_call_says() -> None:
    stored = rebuild(tensor(storage("7", 9), (2, 3), offset=1, trained=True), "w", where="p")
    assert (stored.info.dtype.name, stored.info.shape, stored.info.nbytes) == ("F32", (2, 3), 24)
    assert (stored.storage.key, stored.storage.nbytes) == ("7", 36)
    assert (stored.view.begin, stored.view.strides) == (4, (3, 1))
    assert stored.trained
    assert not stored.parameter


def test_the_oldest_call_is_read() -> None:
    given = (storage("0", 2), 0, (2,), (1,))
    assert rebuild(made("torch._utils _rebuild_tensor", *given), "w", where="p").info.shape == (2,)


def test_a_size_may_be_a_size_of_torch() -> None:
    assert rebuild(changed(2, made("torch Size", (2, 3))), "w", where="p").info.shape == (2, 3)


def test_a_parameter_says_itself_whether_it_is_trained() -> None:
    name = "torch._utils _rebuild_parameter"
    stored = rebuild(
        Made(named(name), (tensor(storage("0", 1), ()), True, ordered({}))), "w", where="p"
    )
    assert stored.trained
    assert stored.parameter


def test_two_elements_in_a_byte_are_counted_as_safetensors_does() -> None:
    stored = rebuild(typed(RAW, "float4_e2m1fn_x2", (8,)), "w", where="p")
    assert (stored.info.dtype.name, stored.info.shape, stored.info.nbytes) == ("F4", (16,), 8)
    with pytest.raises(MalformedError, match="without a dimension"):
        rebuild(typed(RAW, "float4_e2m1fn_x2", ()), "w", where="p")


V3 = "torch._utils _rebuild_tensor_v3"
PARAMETER = named("torch._utils _rebuild_parameter")
MALFORMED = {
    "too few arguments": (made(REBUILD, storage("0", 1)), "described as torch does not"),
    "entries": (Made(named(REBUILD), changed(4, value=False).arguments, {1: 1}), "torch does not"),
    "no storage": (changed(0, None), "has no storage"),
    "identifier of a text": (changed(0, Reference("0")), "has no storage"),
    "other tag": (referring(0, "module"), "has no storage"),
    "class by its name": (referring(1, "torch.FloatStorage"), "has no storage"),
    "a function as class": (referring(1, named("torch Size")), "has no storage"),
    "key with a path": (referring(2, "../0"), "key of a storage is not a number"),
    "key of a number": (referring(2, 0), "key of a storage is not a number"),
    "device": (referring(3, "http://a"), "unknown storage device"),
    "device without bytes": (referring(3, "meta"), "unknown storage device"),
    "device without number": (referring(3, "cuda:"), "unknown storage device"),
    "count of a float": (referring(4, 6.0), "storage size out of range"),
    "count of a truth": (referring(4, True), "storage size out of range"),  # noqa: FBT003
    "negative count": (referring(4, -1), "storage size out of range"),
    "huge count": (referring(4, 2**60), "storage size out of range"),
    "offset beyond": (changed(1, 1), "reaches byte 28 of a storage of 24 bytes"),
    "offset of a text": (changed(1, "0"), "is not an integer"),
    "sizes of a list": (changed(2, [2, 3]), "is not an integer"),
    "sizes of truths": (changed(2, (True, True)), "is not an integer"),
    "negative size": (changed(2, (-1, 3)), "is not a dimension"),
    "size of 2^40": (changed(2, (2**40, 3)), "reaches byte"),
    "more than 2^53 elements": (changed(2, (2**30, 2**30)), "shape is too large"),
    "strides missing": (changed(3, (1,)), "sizes and strides differ"),
    "negative stride": (changed(3, (-3, 1)), "negative or too large"),
    "trained by a number": (changed(4, 1), "neither true nor false"),
    "type of a text": (
        made(V3, *changed(0, RAW).arguments, "float32"), "no element type",
    ),
    "type beside a storage's": (
        made(V3, *changed(0, storage("0", 6, "torch DoubleStorage")).arguments,
             named("torch float32")),
        "an element type beside that of its storage",
    ),
    "65 dimensions": (changed(2, (1,) * 65), "more than 64 dimensions"),
    "parameter of a list": (Made(PARAMETER, ([], True, ordered({}))), "data are not a tensor"),
    "parameter cut off": (Made(PARAMETER, ([],)), "described as torch does not"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(call: Made, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        rebuild(call, "w", where="p")


def test_what_changes_the_meaning_of_the_bytes_is_not_read() -> None:
    conjugated = made(REBUILD, *changed(4, value=False).arguments, {"conj": True})
    with pytest.raises(UnreadableError, match="lazily conjugated or negated"):
        rebuild(conjugated, "w", where="p")
    plain = made(REBUILD, *changed(4, value=False).arguments, {})
    assert rebuild(plain, "w", where="p").info.shape == (2, 3)
    others: list[object] = [[], ordered({"h": 1}), "hook"]
    for hooks in others:
        with pytest.raises(UnreadableError, match="has hooks"):
            rebuild(changed(5, hooks), "w", where="p")
