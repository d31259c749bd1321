"""Exceptions admit the values that they name, and nothing beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import from_document, parse
from provenance.errors import MalformedError
from tests.judge.judging import TENSORS, close, declaration
from tests.judge.models import both_ways, compare_models
from tests.weights.onnx_writing import external, model, written
from tests.weights.torch_writing import checkpoint
from tests.weights.writing import entry, node, safetensors, skops

if TYPE_CHECKING:
    from provenance.measure.findings import Outcome
    from tests.judge.models import Content

    Files = dict[str, Content]

HEAD = 'format = 1\nname = "x"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "tensors"\n'
W: Files = {"model.safetensors": {"w": np.arange(4, dtype="<f4")}}
TIMES = """
[[except]]
file = "trainer_state.json"
keys = ["log_history[].train_runtime"]
reason = "wall time"
"""
SESSION = """
[[unsafe_except]]
file = "lora.safetensors"
keys = ["ss_*_id", "a*"]
reason = "a number"
"""


@pytest.fixture
def judge(tmp_path: Path) -> Any:  # noqa: ANN401 - the function below
    """Judge two models of equal weights, both ways, under a declaration with exceptions."""
    made = iter(range(1000))

    def judge(exceptions: str, published: Files, rebuilt: Files, head: str = HEAD) -> Outcome:
        declared = parse((head + exceptions).encode())
        assert from_document(declared.document) == declared
        folder = tmp_path / str(next(made))
        return both_ways(folder, declared, {**W, **published}, {**W, **rebuilt})

    return judge


def state(value: object) -> Files:
    return {"trainer_state.json": json.dumps(value).encode()}


def test_values_may_differ_where_an_exception_names_them(judge: Any) -> None:  # noqa: ANN401
    mine, theirs = (
        {"log_history": [{"step": 1, "train_runtime": s}, {"step": 2, "train_runtime": s}]}
        for s in (3, 4.5)
    )
    found = judge(TIMES, state(mine), state(theirs))
    assert (found.conclusion, found.strongest) == ("match", "tensors")
    (excepted,) = found.exceptions
    assert (excepted.file, excepted.key) == ("trainer_state.json", "log_history[].train_runtime")
    assert (excepted.left, excepted.right, excepted.places) == ("3", "4.5", 2)
    assert (excepted.reason, excepted.unsafe, excepted.set) == ("wall time", False, None)
    assert judge("", state(mine), state(theirs)).conclusion == "mismatch"


@pytest.mark.parametrize(
    "theirs",
    [
        {"log_history": [{"step": 2, "train_runtime": 4}]},
        {"log_history": [{"step": 1}]},
        {"log_history": [{"step": 1, "train_runtime": "4"}]},
        {"log_history": [{"step": 1, "train_runtime": None}]},
        {"log_history": [{"step": 1, "train_runtime": {"a": 1}}]},
        {"log_history": [{"step": 1, "train_runtime": [4]}]},
        {"log_history": [{"step": 1, "train_runtime": 4}, {"train_runtime": 4}]},
        {"log_history": [{"step": 1, "train_runtime": 4}], "more": 1},
        {"log_history": {"0": {"step": 1, "train_runtime": 4}}},
        {"log_history": [{"step": 1, "Train_runtime": 4}]},
        {"log_history": [{"step": 1, "train_runtime": 4, "train_runtime ": 4}]},
    ],
)
def test_all_else_must_be_equal(judge: Any, theirs: object) -> None:  # noqa: ANN401
    mine = {"log_history": [{"step": 1, "train_runtime": 3}]}
    found = judge(TIMES, state(mine), state(theirs))
    assert found.conclusion == "mismatch"
    against = [each for each in found.alternatives[0].findings if not each.held]
    assert all(each.measure.startswith("value: ") for each in against)
    assert found.same_weights


@pytest.mark.parametrize(
    "text",
    ['{"log": [{"a": 3}, ]}', '{"a":1,"a":2}', '\ufeff{"log": []}', '{"log": []} x', "NaN", "\0"],
)
def test_what_is_not_read_strictly_must_be_equal(judge: Any, text: str) -> None:  # noqa: ANN401
    found = judge(TIMES, {"trainer_state.json": text.encode()}, state({"log_history": []}))
    assert found.conclusion == "mismatch"
    (against,) = found.alternatives[0].findings
    assert (against.measure, against.note) == ("bytes", "not-read")


def lora(**metadata: str) -> Files:
    header = {"__metadata__": metadata, "w": entry("F32", [2], 0, 8)}
    return {"lora.safetensors": safetensors(header, b"\0" * 8)}


def test_metadata_of_weights_may_differ_where_an_exception_names_them(judge: Any) -> None:  # noqa: ANN401
    found = judge(SESSION, lora(ss_session_id="1", n="1"), lora(ss_session_id="2", n="1"))
    assert (found.conclusion, found.strongest) == ("match", "tensors")
    assert [(e.key, e.left, e.right, e.unsafe) for e in found.exceptions] == [
        ("ss_session_id", "1", "2", True)
    ]
    for other in (lora(ss_session_id="2", n="2"), lora(n="1"), lora(ss_session_id="2")):
        assert judge(SESSION, lora(ss_session_id="1", n="1"), other).conclusion == "mismatch"


def test_a_key_beyond_those_that_are_listed_counts(judge: Any) -> None:  # noqa: ANN401
    many = {f"a{number}": "x" for number in range(1200)}
    other = dict.fromkeys(many, "y")
    assert judge(SESSION, lora(**many), lora(**other)).conclusion == "mismatch"
    few, others = dict(list(many.items())[:900]), dict(list(other.items())[:900])
    assert judge(SESSION, lora(**few), lora(**others)).conclusion == "match"
    assert judge(SESSION, lora(**few, z="1"), lora(**others, z="2")).conclusion == "mismatch"


def test_files_with_an_exception_are_never_equal_by_bytes(judge: Any) -> None:  # noqa: ANN401
    mine, theirs = (state({"log_history": [{"train_runtime": time}]}) for time in (1, 2))
    head = HEAD.replace('"tensors"', '"bytes"\nfiles = ["*.safetensors"]')
    found = judge(TIMES, mine, theirs, head)
    assert (found.conclusion, found.strongest) == ("match", "tensors")
    assert found.alternatives[0].strength == "tensors"
    spelled = judge(TIMES, state({"a": 1}), {"trainer_state.json": b'{ "a":1}'}, head)
    assert (spelled.conclusion, spelled.strongest) == ("match", "tensors")
    assert [each.name for each in spelled.normalisers] == ["spelling"]
    assert judge(TIMES, mine, theirs, HEAD.replace('"tensors"', '"bytes"')).conclusion == "mismatch"


def test_a_list_that_is_a_set_may_have_another_order(judge: Any) -> None:  # noqa: ANN401
    def adapter(*modules: object) -> Files:
        return {"adapter_config.json": json.dumps({"target_modules": modules}).encode()}

    order = TIMES.replace("trainer_state", "adapter_config")
    order = order.replace("log_history[].train_runtime", "target_modules") + 'as = "set"\n'
    assert judge(order, adapter("q", "v", "v"), adapter("v", "q", "v")).conclusion == "match"
    for other in (("q", "v"), ("q", "q", "v"), ("q", "v", "k"), ("q", "v", ["v"])):
        assert judge(order, adapter("q", "v", "v"), adapter(*other)).conclusion == "mismatch"
    plain = order.replace('as = "set"', "").replace("[except]", "[unsafe_except]")
    assert judge(plain, adapter("q", "v"), adapter("v", "q")).conclusion == "mismatch"


@pytest.mark.parametrize(("other", "conclusion"), [(1.00009, "match"), (1.0002, "mismatch")])
def test_a_number_may_differ_within_its_tolerance(
    judge: Any,  # noqa: ANN401
    other: float,
    conclusion: str,
) -> None:
    within = TIMES + "tolerance = 1e-4\n"
    mine, theirs = (state({"log_history": [{"train_runtime": time}]}) for time in (1, other))
    assert judge(within, mine, theirs).conclusion == conclusion
    text = state({"log_history": [{"train_runtime": "1"}]})
    assert judge(within, text, state({"log_history": [{"train_runtime": "2"}]})).conclusion == (
        "mismatch"
    )


def test_a_value_may_be_absent_where_the_exception_says_so(judge: Any) -> None:  # noqa: ANN401
    optional = TIMES + "optional = true\n"
    with_it = state({"log_history": [{"step": 1, "train_runtime": 1}]})
    without = state({"log_history": [{"step": 1}]})
    assert judge(optional, with_it, without).conclusion == "match"
    assert judge(TIMES, with_it, without).conclusion == "mismatch"
    assert judge(optional, with_it, state({"log_history": []})).conclusion == "mismatch"
    more = state({"log_history": [{"step": 1, "train_runtime": {}}]})
    assert judge(optional, with_it, more).conclusion == "mismatch"


def test_training_state_is_compared_byte_for_byte_and_leaves_the_weights_decided(
    judge: Any,  # noqa: ANN401
) -> None:
    mine, theirs = {"training_args.bin": b"\x80\x02]q\0."}, {"training_args.bin": b"\x80\x02}q\0."}
    found = judge("", mine, theirs)
    assert (found.conclusion, found.same_weights) == ("mismatch", True)
    assert [each.measure for each in found.alternatives[0].findings] == ["bytes"]
    whole = '[[unsafe_except]]\nfile = "training_args.bin"\nreason = "a path"\n'
    assert judge(whole, mine, theirs).conclusion == "match"
    assert judge(whole, mine, {}).conclusion == "mismatch"
    assert judge(whole + "optional = true\n", mine, {}).conclusion == "match"
    named = HEAD + 'files = ["training_args.bin", "model.safetensors"]\n'
    assert judge("", mine, theirs, named).conclusion == "inconclusive"


def saved(**said: object) -> Files:
    schema = node("ObjectNode", node("DictNode", {}, __id__=3), protocol=2, **said)
    return {"m.skops": skops(schema)}


def test_a_member_of_an_archive_may_differ_by_its_keys(judge: Any) -> None:  # noqa: ANN401
    by_key = """
[[except]]
file = "m.skops"
member = "schema.json"
keys = ["_skops_version"]
reason = "another version saved it"
"""
    found = judge(by_key, saved(_skops_version="1"), saved(_skops_version="2"))
    assert (found.conclusion, found.strongest) == ("match", "tensors")
    (excepted,) = found.exceptions
    assert (excepted.member, excepted.key) == ("schema.json", "_skops_version")
    for other in (saved(_skops_version="1", a=1), saved(), saved(_skops_version=1)):
        against = judge(by_key, saved(_skops_version="1"), other)
        assert against.conclusion == "mismatch"
        assert against.alternatives[0].findings[0].measure.startswith("metadata: schema.json: ")
    whole = '[[unsafe_except]]\nfile = "m.skops"\nmember = "schema.json"\nreason = "all of it"'
    (excepted,) = judge(whole, saved(a=1), saved(a=2)).exceptions
    assert (excepted.member, excepted.key, excepted.unsafe) == ("schema.json", None, True)
    safe = whole.replace("unsafe_except", "except")
    with pytest.raises(MalformedError, match="obeyed by skops"):
        judge(safe, saved(), saved())


def test_an_exception_about_a_member_is_about_archives_alone(judge: Any) -> None:  # noqa: ANN401
    inside = '[[unsafe_except]]\nfile = "a.json"\nmember = "a"\nreason = "no archive"'
    with pytest.raises(MalformedError, match=r"which 'a.json' is not"):
        judge(inside, {"a.json": b'{"a":1}'}, {"a.json": b'{"a":"2"}'})


STORED = Path(__file__).parent / "vectors" / "container-says-when"
"""Two runs of a trainer of LoRAs that writes session and time, and of the general checkpoint of
PyTorch's tutorial, whose weights differ by 1e-6."""


@pytest.mark.parametrize(
    ("file", "rule", "exception", "conclusion"),
    [
        (
            "lora.safetensors",
            TENSORS,
            'keys = ["ss_session_id", "ss_training_started_at"]',
            "match",
        ),
        ("lora.safetensors", TENSORS, 'keys = ["ss_session_id"]', "mismatch"),
        ("checkpoint.pt", close(), 'keys = ["loss"]\ntolerance = 1e-6', "consistent"),
        ("checkpoint.pt", close(), 'keys = ["loss"]\ntolerance = 1e-7', "mismatch"),
        ("checkpoint.pt", close(), 'keys = ["epoch"]\ntolerance = 1.0', None),
    ],
)
def test_a_container_says_when_it_was_made(
    file: str, rule: str, exception: str, conclusion: str | None
) -> None:
    text = declaration(rule).decode() + f'[[except]]\nfile = "{file}"\n{exception}\nreason = "runs"'
    if conclusion is None:
        with pytest.raises(MalformedError, match="obeyed by"):
            parse(text.encode())
        return
    found = compare_models(
        STORED / "published" / file, STORED / "rebuilt" / file, parse(text.encode())
    )
    assert found.conclusion == conclusion
    assert bool(found.exceptions) is (conclusion != "mismatch" or file == "lora.safetensors")


def test_a_checkpoint_that_says_more_has_another_structure(judge: Any) -> None:  # noqa: ANN401
    checkpoints = [
        {"a.pt": checkpoint({"model": {"w": 1.0}, **more}, {})} for more in ({}, {"loss": 1.0})
    ]
    optional = '[[except]]\nfile = "a.pt"\nkeys = ["loss"]\noptional = true\nreason = "x"\n'
    found = judge(optional, *checkpoints)
    assert found.conclusion == "mismatch"
    (against,) = found.alternatives[0].findings
    assert against.measure == "metadata: _structure"


CARD = """
[[except]]
file = "README.md"
reason = "a text for people"
"""
ELSEWHERE = written(model([external("w", [1], location="README.md")]))
INDEX = {"weight_map": {"w": "Readme.md", "v": "pytorch_model-00002-of-00002.bin"}}


@pytest.mark.parametrize(
    "weights",
    [
        {"model.onnx": ELSEWHERE},
        {"pytorch_model.bin.index.json": json.dumps(INDEX).encode()},
        {"model.onnx": b"\x80\x02\1" + ELSEWHERE},  # an unknown field: seems to be a pickle
        {"model.onnx": b"read by no reader here, so it may name any file"},
        {"a.weights.json": json.dumps({"weight_map": {"w": ["README.md"]}}).encode()},
        {".metadata": b"a pickle that names files"},
    ],
    ids=["onnx", "index", "like-a-pickle", "unreadable", "keras", "distributed"],
)
def test_no_exception_reaches_a_file_in_which_equal_weights_keep_tensors(
    judge: Any,  # noqa: ANN401
    weights: Files,
) -> None:
    mine, theirs = ({"README.md": text} for text in (b"\0\0\x80?", b"\0\0\0@"))
    assert judge(CARD, mine, theirs).conclusion == "match"
    assert judge(CARD, {**mine, **weights}, {**theirs, **weights}).conclusion == "mismatch"
