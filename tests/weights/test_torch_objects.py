from __future__ import annotations

import collections
import contextlib
import enum
import functools
import hashlib
import operator
import pathlib
import pickle
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights.source import Source
from provenance.weights.torch import objects
from provenance.weights.torch import values as torch_values
from provenance.weights.torch.objects import plain_values
from provenance.weights.torch.pickle_program import read_program
from tests.weights.torch_writing import (
    RECORDS,
    checkpoint,
    floats,
    made,
    members,
    ordered,
    pickled,
    storage,
    tensor,
    zipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.loaders.keys import Path

    Read = Callable[[bytes], dict[Path, str]]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(str, enum.Enum):  # noqa: UP042 - as frameworks have them
    LINEAR = "linear"


@dataclass
class Arguments:
    output_dir: str = "out"
    colour: Colour = Colour.RED
    betas: tuple[float, float] = (0.9, 0.999)
    report_to: list[str] = field(default_factory=list)
    inner: Any = None


@dataclass(slots=True)
class Slotted:
    a: int = 1


class Sequence(list[int]):
    pass


@pytest.fixture
def values_of(tmp_path: pathlib.Path) -> Read:
    def read(data: bytes) -> dict[Path, str]:
        path = tmp_path / "values"
        path.write_bytes(data)
        with Source(path, name="p") as source:
            return plain_values(source)[0]

    return read


HERE = __name__


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_attributes_of_an_object_have_their_names_as_paths(
    values_of: Read, protocol: int
) -> None:
    found = values_of(pickle.dumps(Arguments(report_to=["wandb"], inner=Arguments()), protocol))
    assert {path: text for path, text in found.items() if path[:1] != ("inner",)} == {
        (): f'{{"{HERE}.Arguments":{{"arguments":[],"state":{{"attributes":[]}}}}}}',
        ("output_dir",): '"out"',
        ("colour",): f'{{"{HERE}.Colour()":["red"]}}',
        ("betas",): '{"tuple":[]}',
        ("betas", 0): "0.9",
        ("betas", 1): "0.999",
        ("report_to",): '{"list":[]}',
        ("report_to", 0): '"wandb"',
    }
    assert found["inner", "output_dir"] == '"out"'


TEXTS: dict[str, tuple[object, str | None]] = {
    "set": ({"b", "a"}, '{"set":["a","b"]}'),
    "frozenset": (frozenset({2, 1}), '{"frozenset":[1,2]}'),
    "empty set": (set(), '{"set":[]}'),
    "path": (pathlib.PurePosixPath("a/b"), None),
    "partial": (
        functools.partial(print, 1, end=""),
        (
            '{"functools.partial()":{"arguments":[{"global":"builtins.print"}],"state":{"tuple":['
            '{"global":"builtins.print"},{"tuple":[1]},{"dict":[{"tuple":["end",""]}]},null]}}}'
        ),
    ),
    "wide integer": (1 << 9000, '{"int":"0x1' + "0" * 2250 + '"}'),
    "bytearray": (bytearray(b"a"), '{"builtins.bytearray()":[{"bytes":"61"}]}'),
    "long bytes": (
        b"\0" * 1025,
        f'{{"bytes":"1025 bytes, sha256 {hashlib.sha256(bytes(1025)).hexdigest()}"}}',
    ),
    "scalar of numpy": (np.float64(1.5), '{"numpy.float64":1.5}'),
    "not a number": (float("nan"), '{"float":"nan 0x7ff8000000000000"}'),
    "a class": (Arguments, f'{{"global":"{HERE}.Arguments"}}'),
}


@pytest.mark.parametrize(("value", "text"), TEXTS.values(), ids=TEXTS)
def test_what_has_no_parts_is_one_text(values_of: Read, value: object, text: str | None) -> None:
    found = values_of(pickle.dumps(value, 4))
    assert list(found) == [()]
    assert text is None or found[()] == text


def test_what_holds_others_has_their_places(values_of: Read) -> None:
    value = {
        "counts": collections.defaultdict(list, {"a": [1]}),
        "odd": {3: "x", (1, 2): "y", Word.LINEAR: "z", None: "n", True: "t"},
        "queue": collections.deque([7], maxlen=2),
        "list": Sequence([8]),
    }
    found = values_of(pickle.dumps(value, 4))
    assert found["counts",] == (
        '{"collections.defaultdict()":{"arguments":[{"global":"builtins.list"}],"keys":["a"]}}'
    )
    assert found["counts", "a", 0] == "1"
    word = f'{{"{HERE}.Word()":["linear"]}}'
    assert found["odd",] == f'{{"dict":[3,{{"tuple":[1,2]}},{word},null,true]}}'
    assert found["odd", "3"] == '"x"'
    assert found["odd", '{"tuple":[1,2]}'] == '"y"'
    assert found["odd", word] == '"z"'
    assert found["queue", 0] == "7"
    assert found["list", 0] == "8"


def test_every_name_that_would_be_imported_is_returned(tmp_path: pathlib.Path) -> None:
    (tmp_path / "p").write_bytes(pickle.dumps([Colour.RED, operator.itemgetter(1)], 4))
    with Source(tmp_path / "p") as source:
        assert plain_values(source)[1] == {f"{HERE}.Colour", "operator.itemgetter"}


def elements(*names: bytes) -> bytes:
    """A set that is spelled in the order *names*."""
    texts = b"".join(b"\x8c" + bytes([len(name)]) + name for name in names)
    return b"\x80\x04\x8f(" + texts + b"\x90."


def test_what_differs_in_no_value_is_the_same(values_of: Read) -> None:
    assert values_of(elements(b"a", b"b")) == values_of(elements(b"b", b"a"))
    for one, other in (
        (pickle.dumps(Arguments(), 2), pickle.dumps(Arguments(), 5)),
        (pickle.dumps({"a": 1, "b": 2}), pickle.dumps({"b": 2, "a": 1})),
        (pickle.dumps([s := [1], s]), pickle.dumps([[1], [1]])),
    ):
        assert values_of(one) == values_of(other)


class Reduced:
    """What a pickle would do by a call of its choice."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple(iter(part) if isinstance(part, list) else part for part in self.parts)


def body(program: bytes) -> bytes:
    return b"\x80\x04" + program + b"."


DIFFERENT: dict[str, tuple[object, object]] = {
    "an argument of a call": (Reduced(print, ("a",)), Reduced(print, ("b",))),
    "what is called": (Reduced(print, ("a",)), Reduced(repr, ("a",))),
    "a state": (Reduced(Colour, ("red",), 1), Reduced(Colour, ("red",), 2)),
    "no state and an empty one": (Reduced(dict, ()), Reduced(dict, (), {})),
    "a state of slots": (Slotted(1), Slotted(2)),
    "an attribute": (Arguments("a"), Arguments("b")),
    "an item": (Reduced(list, (), None, [1]), Reduced(list, (), None, [2])),
    "an entry": (
        Reduced(dict, (), None, None, [("a", 1)]),
        Reduced(dict, (), None, None, [("a", 2)]),
    ),
    "an entry and an attribute": (
        Reduced(dict, (), {"b": 1}, None, [("a", 1)]),
        Reduced(dict, (), {"a": 1}, None, [("b", 1)]),
    ),
    "a name and an object of it": (Colour, Reduced(Colour, ())),
    "a tuple and a list": ((1,), [1]),
    "a set and a list": ({1}, [1]),
    "a set and a frozen one": ({1}, frozenset({1})),
    "a text that looks like a list": ('{"list":[]}', []),
    "a key that is text": ({"0": 1}, {0: 1}),
    "which key is text": ({"0": 1, 1: 1}, {0: 1, "1": 1}),
    "a key that looks like a tuple": ({'{"tuple":[1]}': 1}, {(1,): 1}),
    "one and true": ([1], [True]),
    "one and 1.0": ([1], [1.0]),
    "bytes and bytearray": (b"a", bytearray(b"a")),
    "the end of long bytes": (b"a" * 2000 + b"b", b"a" * 2000 + b"c"),
    "the order of keys that may be equal": (
        {Word.LINEAR: 1, (1,): 2},
        {(1,): 2, Word.LINEAR: 1},
    ),
    "the order of elements that may be equal": (
        Reduced(set, ([1, True],)),
        Reduced(set, ([True, 1],)),
    ),
    "called or not": (Reduced(Colour, ("red",)), Reduced(pickle.PickleError, ())),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(("left", "right"), DIFFERENT.values(), ids=DIFFERENT)
def test_nothing_is_dropped(values_of: Read, left: object, right: object, protocol: int) -> None:
    one = values_of(pickle.dumps(left, protocol))
    assert one != values_of(pickle.dumps(right, protocol))


def test_a_class_that_is_called_is_not_one_that_is_not(values_of: Read) -> None:
    made_new = body(b"cos\nsystem\n)\x81")
    assert values_of(made_new) == {(): '{"os.system":[]}'}
    assert values_of(body(b"cos\nsystem\n)R")) == {(): '{"os.system()":[]}'}
    nested = body(b"\x8c\1a\x8c\3b.c\x93")
    assert values_of(nested) == {(): '{"global":"a:b.c"}'}
    assert values_of(body(b"\x8c\3a.b\x8c\1c\x93")) == {(): '{"global":"a.b.c"}'}
    keywords = body(b"cos\nsystem\n)}\x8c\1aK\1s\x92")
    assert values_of(keywords)[()].startswith('{"copyreg.__newobj_ex__()":[{"global":"os.system"}')


def archive(value: object, content: bytes = floats(1, 2), **records: bytes) -> bytes:
    return checkpoint(value, {"0": content}, records={**RECORDS, **records})


def test_tensors_are_told_by_their_storages(values_of: Read) -> None:
    value = {"state": ordered({"w": tensor(storage("0", 2), (2,))}), "step": 7}
    found = values_of(archive(value))
    assert found["step",] == "7"
    text = found["state", "w"]
    assert '{"global":"torch.FloatStorage"},"little-endian sha256 ' in text
    for other in (
        archive(value, floats(1, 3)),
        archive({**value, "state": ordered({"w": tensor(storage("0", 2), (1, 2))})}),
        archive(value, byteorder=b"big"),
    ):
        assert values_of(other)["state", "w"] != text
    renamed = {"state": ordered({"w": tensor(storage("5", 2), (2,))}), "step": 7}
    assert values_of(checkpoint(renamed, {"5": floats(1, 2)})) == found


def test_a_tensor_of_any_kind_is_a_value(values_of: Read) -> None:
    given = made("torch._utils _rebuild_wrapper_subclass", tensor(storage("0", 2), (2,)), "meta")
    (text,) = values_of(archive(given)).values()
    assert text.startswith('{"torch._utils._rebuild_wrapper_subclass()":[')


def test_a_file_must_hold_what_its_pickle_asks_for_and_no_more(values_of: Read) -> None:
    value = tensor(storage("0", 2), (2,))
    with pytest.raises(UnreadableError, match="refers to what the file does not hold"):
        values_of(pickled(value))
    with pytest.raises(UnreadableError, match="refers to what the file does not hold"):
        values_of(checkpoint(value, {"1": floats(1, 2)}))
    with pytest.raises(MalformedError, match="nothing asks for the member 'data/1'"):
        values_of(checkpoint(value, {"0": floats(1, 2), "1": b""}))
    inside = members(pickled(value), {"0": floats(1, 2)})
    with pytest.raises(MalformedError, match="nothing asks for the member 'hidden'"):
        values_of(zipped({f"a/{k}": v for k, v in {**inside, "hidden": b""}.items()}))
    damaged = bytearray(archive(value))
    damaged[damaged.index(floats(1, 2))] ^= 1
    with pytest.raises(MalformedError, match="the CRC-32 is wrong"):
        values_of(bytes(damaged))


def recursive() -> Arguments:
    value = Arguments()
    value.inner = value
    return value


def deep() -> object:
    value: object = None
    for _ in range(40):
        value = [value]
    return value


def doubled() -> object:
    value: list[object] = ["x" * 50]
    for _ in range(30):
        value = [value, value]
    return value


REFUSED: dict[str, tuple[bytes, str]] = {
    "recursive": (pickle.dumps(recursive()), "in itself"),
    "deep": (pickle.dumps(deep()), "deeper than 32"),
    "shared text": (pickle.dumps([t := "x" * 2**20] + [t] * 65), "names and texts of more than"),
    "set of a text that is shared": (
        pickle.dumps([Reduced(set, ([t := "x" * 2**20] * 100_000,))] * 100),
        "more than 1000000 values|names and texts of more than",
    ),
    "shared bytes": (pickle.dumps([b := b"x" * 2**20] + [b] * 65), "names and texts of more than"),
    "extension": (body(b"\x82\x01"), "operation EXT1 is not read"),
    "dropped": (body(b"K\1K\x020"), "operation POP is not read"),
    "out of band": (b"\x80\x05\x97.", "operation NEXT_BUFFER is not read"),
    "persistent": (body(b"K\1Q"), "refers to what the file does not hold"),
    "protocol 0": (pickle.dumps(1, 0), "operation INT is not read"),
    "call of what is made": (body(b"cos\nsystem\n)R)R"), "calls what is not a global"),
    "object of what is made": (body(b"cos\nsystem\n)R)\x81"), "object of what is not a global"),
    "arguments that are no tuple": (body(b"cos\nsystem\nN\x81"), "object of what is not a global"),
    "name of no module": (b"\x80\x04\x8c\3a b\x8c\1c\x93.", "name is not plain"),
    "added to a list": (body(b"](K\1\x90"), "adds to what is not a set"),
    "added to the set of a list": (
        body(b"cbuiltins\nset\n]\x85R(K\1\x90"),
        "adds to what is not a set",
    ),
    "set that is filled later": (
        body(b"cos\nsystem\n\x8f\x94\x85Rh\0(K\1\x90\x86"),
        "changes what it gave to a call",
    ),
    "items after entries": (body(b"cos\nsystem\n)R(K\1K\1u(K\1e"), "after it set entries"),
    "entries after a state": (body(b"cos\nsystem\n)R}bK\1K\1s"), "an item after the state"),
    "one key in two spellings": (body(b"}K\1K\1s\x88K\1s"), "duplicate key True"),
    "entry and attribute": (
        body(b"cos\nsystem\n)R(\x8c\1aK\1u}\x8c\1aK\1sb"),
        "two values at a",
    ),
    "control character": (pickle.dumps({"a\n": 1}), "control character"),
    "before 1.6": (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        r"written by torch before 1\.6",
    ),
    "empty": (b"", "exhausted"),
    "other": (b"{}", "not a pickle that is read"),
}


@pytest.mark.parametrize(("data", "what"), REFUSED.values(), ids=REFUSED)
def test_refuses(values_of: Read, data: bytes, what: str) -> None:
    with pytest.raises(ProvenanceError, match=what):
        values_of(data)


def test_what_is_shared_counts_each_time(values_of: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_values, "MAX_VALUES", 10_000)
    with pytest.raises(MalformedError, match="more than 10000 values"):
        values_of(pickle.dumps(doubled()))


def test_keys_that_collide_take_no_time(values_of: Read) -> None:
    """Integers of one hash, which Python's dictionaries compare each with each."""
    keys = b"".join(
        b"\x8a\x11" + (n * (2**61 - 1) << 56).to_bytes(17, "little", signed=True) + b"N"
        for n in range(1, 30_000)
    )
    with contextlib.suppress(ProvenanceError):
        values_of(b"\x80\x02}(" + keys + b"u.")


KEYS = st.sampled_from(["a", "0", 0, 1, None, b"a", 1.5, (1,), ("a",)])
LEAVES = st.sampled_from([None, True, 1, 1.0, -0.0, "1", "", b"1", bytearray(b"1"), Colour.RED])
VALUES = st.recursive(
    LEAVES | st.sets(st.sampled_from(["a", "b", 3])) | st.frozensets(st.sampled_from(["a", 3])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.builds(Arguments, inner=inner)
    ),
    max_leaves=6,
)


def exactly(value: Any) -> object:  # noqa: ANN401 - of any kind
    """Return what is equal for what means the same, types and all."""
    kind = type(value).__name__
    if isinstance(value, dict):
        entries = [(exactly(key), exactly(entry)) for key, entry in value.items()]
        return kind, sorted(entries, key=repr) if all(type(k) is str for k in value) else entries
    if isinstance(value, list | tuple):
        return kind, [exactly(each) for each in value]
    if isinstance(value, Arguments):
        return kind, exactly(vars(value))
    return kind, repr(sorted(value, key=repr) if isinstance(value, set | frozenset) else value)


@given(VALUES, VALUES, st.sampled_from([2, 4, 5]))
def test_equal_values_are_those_that_mean_the_same(
    left: object, right: object, protocol: int
) -> None:
    def said(value: object) -> object:
        program = read_program(pickle.dumps(value, protocol), None, where="p")
        walk = objects._Values("p", {})  # noqa: SLF001
        try:
            walk.visit(program.value, ())
        except MalformedError:  # keys of one text
            return exactly(value)
        return walk.values

    assert (said(left) == said(right)) == (exactly(left) == exactly(right))


@given(st.data())
def test_damaged_pickles_raise_only_our_errors(data: st.DataObject) -> None:
    value = [Arguments(), {"a", 1}, {1: (2, 3)}, functools.partial(print, 1), np.arange(3)]
    damaged = bytearray(pickle.dumps(value, data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProvenanceError):
        program = read_program(bytes(damaged), None, where="p")
        objects._Values("p", {}).visit(program.value, ())  # noqa: SLF001


def test_a_number_that_is_wider_than_python_spells(values_of: Read) -> None:
    raw = (1 << 100_000).to_bytes(12_501, "little", signed=True)
    (text,) = values_of(b"\x80\x02\x8b" + struct.pack("<i", len(raw)) + raw + b".").values()
    assert text == '{"int":"0x1' + "0" * 25_000 + '"}'


@pytest.mark.parametrize("make", [lambda it: {it}, lambda it: frozenset({it, "a"})])
def test_a_wide_number_in_a_set_is_read_too(values_of: Read, make: Callable[[int], object]) -> None:
    (text,) = values_of(pickle.dumps(make(1 << 30_000), 4)).values()
    assert '{"int":"0x1' in text


def test_no_attributes_are_not_the_text_attributes(values_of: Read) -> None:
    made = b"\x80\x04cm\nC\n)\x81"
    assert values_of(made + b"}b.") != values_of(made + b"\x8c\x0aattributesb.")
