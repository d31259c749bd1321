from __future__ import annotations

import contextlib
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.weights.torch import pickle_program
from provenance.weights.torch.pickle_program import Global, Made, Reference, read_program
from tests.weights.torch_writing import made, named, pickled

ALLOWED = frozenset({"collections.OrderedDict", "torch.Size"})
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 2**40), inner)
    ),
    max_leaves=8,
)


def read(data: bytes) -> Any:  # noqa: ANN401 - any value
    return read_program(data, ALLOWED, where="p").value


@given(PLAIN, st.integers(3, 5))
def test_plain_values_are_read_as_pickle_writes_them(value: object, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@given(PLAIN, st.sampled_from([2, 4]))
def test_our_writer_writes_what_pickle_reads(value: object, protocol: int) -> None:
    data = pickled(value, protocol)
    assert pickle.loads(data) == read(data) == value  # noqa: S301 - written here


def test_calls_and_references_are_described_and_nothing_happens() -> None:
    entry = read(pickled({"a": made("torch Size", (1, 2)), "b": Reference(("storage", "0"))}))
    assert entry["a"].function == Global("torch", "Size")
    assert str(entry["a"].function) == "torch.Size"
    assert entry["a"].arguments == ((1, 2),)
    assert entry["b"].identifier == ("storage", "0")


def test_entries_and_state_are_set_on_what_a_call_made() -> None:
    state = {"_metadata": 1}
    value = Made(named("collections OrderedDict"), (), {"k": 1}, [state])
    found = read(pickled(value, 4))
    assert (found.entries, found.state) == ({"k": 1}, [state])


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_global_that_is_not_allowed_is_refused_by_its_name(protocol: int) -> None:
    with pytest.raises(UnreadableError, match=r"asks for os\.system, and nothing is imported"):
        read(pickled(made("os system", "true"), protocol))


def test_a_global_is_not_allowed_by_another_division_of_its_name() -> None:
    allowed = frozenset({"torch._utils.f"})
    assert read_program(pickled(named("torch._utils f")), allowed, where="p").value
    with pytest.raises(UnreadableError, match=r"asks for torch:_utils\.f"):
        read_program(pickled(named("torch _utils.f")), allowed, where="p")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_an_attack_is_not_executed(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnreadableError, match=r"builtin(s|__)\.print"):
        read(pickle.dumps(Attack(), protocol))
    assert capsys.readouterr().out == ""


def body(data: bytes) -> bytes:
    return b"\x80\x02" + data


UNREAD = {
    "POP": body(b"N0N."),
    "DUP": body(b"N2."),
    "INST": body(b"(ios\nsystem\n."),
    "OBJ": body(b"(o."),
    "NEWOBJ": body(b"ctorch\nSize\n)\x81."),
    "PERSID": body(b"Pid\n."),
    "EXT1": body(b"\x82\x01."),
    "STRING": body(b"S'a'\n."),
    "EMPTY_SET": b"\x80\x04\x8f.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
}


@pytest.mark.parametrize(("name", "data"), UNREAD.items(), ids=UNREAD)
def test_an_operation_that_is_not_read_is_named(name: str, data: bytes) -> None:
    with pytest.raises(UnreadableError, match=f"operation {name} is not read"):
        read(data)


def test_keys_whose_hashes_collide_are_not_read() -> None:
    assert read(pickled({-(2**63): 1, 2**63 - 1: 2})) == {-(2**63): 1, 2**63 - 1: 2}
    for key in (2**63, -(2**63) - 1):
        with pytest.raises(UnreadableError, match="a key is wider than 64 bits"):
            read(pickled({key: 1}))


def test_what_is_shared_may_change_until_a_call_is_given_it() -> None:
    shared = body(b"(]q\1}q\2h\1Nah\2K\1Nst.")
    assert read(shared) == ([None], {1: None}, [None], {1: None})
    filled = body(b"ctorch\nSize\n]q\1Na\x85R.")
    found = read(filled)
    assert isinstance(found, Made)
    assert found.arguments == ([None],)


def test_what_is_asked_of_the_container_is_listed_in_its_order() -> None:
    program = read_program(pickled([Reference("b"), Reference("a")]), ALLOWED, where="p")
    assert [found.identifier for found in program.references] == ["b", "a"]


def test_a_key_that_is_a_tuple_is_not_read() -> None:
    with pytest.raises(UnreadableError, match="neither text nor an integer"):
        read(pickle.dumps({(1, 2): 3}, 2))
    with pytest.raises(UnreadableError, match="neither text nor an integer"):
        read(pickle.dumps({True: 3}, 2))


MALFORMED = {
    "empty": (b"", "exhausted before"),
    "no protocol": (b"\x80", "not enough data"),
    "protocol 1": (b"\x80\x01N.", "protocol from 2 to 5"),
    "protocol 6": (b"\x80\x06N.", "protocol from 2 to 5"),
    "protocol twice": (body(b"\x80\x02N."), "protocol from 2 to 5"),
    "cut off": (body(b"X\x05\0\0\0abc"), "but only 3 remain"),
    "text of 2^64 bytes": (body(b"\x8d" + b"\xff" * 8 + b"."), "unicodestring8 byte count"),
    "frame beyond the end": (b"\x80\x04\x95" + struct.pack("<Q", 9) + b"N.", "cut off"),
    "no such operation": (body(b"\xff."), r"opcode b'\\xff' unknown"),
    "bytes after the end": (body(b"N.N"), "does not end with one value"),
    "two values": (body(b"NN."), "does not end with one value"),
    "mark left": (body(b"N(."), "takes what is not on its stack"),
    "no value": (body(b"."), "takes what is not on its stack"),
    "tuple below a mark": (body(b"N(\x85."), "takes what is not on its stack"),
    "no mark": (body(b"Nt."), "no mark where it needs one"),
    "memo empty": (body(b"h\1."), "place 1 of the memo is empty"),
    "memo taken": (body(b"Nq\1q\1."), "place 1 of the memo is taken"),
    "append to none": (body(b"NNa."), "appends to what is not a list"),
    "append to tuple": (body(b")(Ne."), "appends to what is not a list"),
    "item of a list": (body(b"]K\1Ns."), "sets an item of what is not a dictionary"),
    "items that are odd": (body(b"}(K\1u."), "sets an item of what is not a dictionary"),
    "key twice": (body(b"}K\1NsK\1Ns."), "duplicate key 1"),
    "call of a text": (body(b"X\1\0\0\0a)R."), "calls what is not a global"),
    "call without tuple": (body(b"ctorch\nSize\n]R."), "calls what is not a global"),
    "state of a list": (body(b"]}b."), "sets the state of what has none"),
    "state twice": (body(b"ctorch\nSize\n)R}b}b."), "sets the state of what has none"),
    "argument filled after the call": (
        body(b"ctorch\nSize\n}q\1\x85Rq\2h\1K\1K\2s\x86."),
        "changes what it gave to a call",
    ),
    "list in an argument": (
        body(b"ctorch\nSize\n]q\1\x85\x85Rh\1Na\x86."),
        "changes what it gave to a call",
    ),
    "argument that is built after the call": (
        body(b"ctorch\nSize\nctorch\nSize\n)Rq\1\x85Rh\1}b\x86."),
        "changes what it gave to a call",
    ),
    "argument that is filled, made before": (
        body(b"ctorch\nSize\nctorch\nSize\n)Rq\1\x85Rh\1K\1Ns\x86."),
        "changes what it gave to a call",
    ),
    "state filled after it was set": (
        body(b"ctorch\nSize\n)R}q\1bh\1K\1Ns\x86."),
        "changes what it gave to a call",
    ),
    "identifier filled afterwards": (
        body(b"]q\1\x85Qh\1Na\x86."),
        "changes what it gave to a call",
    ),
    "global of numbers": (b"\x80\x04K\1K\2\x93.", "name of a global is not text"),
    "global cut off": (body(b"ctorch\nSize"), "no newline found"),
    "global with an escape": (body(b"ctorch\n\\x53ize\n."), "name is not plain"),
    "global with a space": (body(b"ctorch Size\nx\n."), "name is not plain"),
    "not UTF-8": (body(b"X\2\0\0\0\xed\xa0."), "'utf-8' codec can't decode"),
    "lone surrogate": (body(b"X\3\0\0\0\xed\xa0\x80."), "surrogates not allowed"),
}


@pytest.mark.parametrize(("data", "what"), MALFORMED.values(), ids=MALFORMED)
def test_refuses(data: bytes, what: str) -> None:
    with pytest.raises(MalformedError, match=what) as caught:
        read(data)
    assert caught.value.where == "p"


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickled([None] * 9)
    assert read(data) == [None] * 9
    monkeypatch.setattr(pickle_program, "MAX_OPERATIONS", 10)
    with pytest.raises(MalformedError, match="more than 10 operations"):
        read(data)
    monkeypatch.setattr(pickle_program, "MAX_PROGRAM", len(data) - 1)
    with pytest.raises(MalformedError, match="is longer than"):
        read(data)


def spelling(data: bytes) -> str:
    return read_program(data, ALLOWED, where="p").spelling


def test_the_spelling_is_that_of_the_program_and_not_of_its_values() -> None:
    assert spelling(pickled({"a": 1.0})) == spelling(pickled({"b": 2.0}))
    assert spelling(pickled({"a": 1})) != spelling(pickled({"a": 256}))
    assert spelling(pickled({"a": 1})) != spelling(pickled({"a": 1}, 4))
    assert spelling(body(b"Nq\1.")) != spelling(body(b"Nq\2."))
    assert spelling(pickled(named("torch Size"))) != spelling(
        pickled(named("collections OrderedDict"))
    )


@given(st.data())
def test_damaged_programs_raise_only_our_errors(data: st.DataObject) -> None:
    value = {"a": made("torch Size", (1, 2)), "b": [1.5, None, "x"], 3: (2**70, b"raw")}
    damaged = bytearray(pickled(value, data.draw(st.sampled_from([2, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProvenanceError):
        read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
