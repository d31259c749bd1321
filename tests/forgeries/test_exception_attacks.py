"""Behind each spelling of an exception, a value by which a loader goes: it is never admitted.

The declarations are as somebody could sign them who edits the canonical form: what the parser
refuses in TOML is not in the way. Each has a sound counterpart under the same declaration.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import from_document, parse
from provenance.weights.beside import is_within, stated_value, tree_differences
from tests.judge.models import both_ways
from tests.weights.gguf_writing import KEYS, TENSORS, File, scalar
from tests.weights.writing import archive, entry, npy, safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.measure.findings import Outcome
    from tests.judge.models import Content

    Files = dict[str, Content]

HEAD = b'format = 1\nname = "x"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "tensors"\n'
W_ARRAY = np.arange(4, dtype="<f4")
W: Files = {"model.safetensors": {"w": W_ARRAY}}
RUNTIME = "log_history[].train_runtime"


@pytest.fixture
def judge(tmp_path: Path) -> Any:  # noqa: ANN401 - the function below
    """Judge two models of equal weights, both ways, under exceptions that nobody checked."""
    made = iter(range(1000))

    def judge(exceptions: list[dict[str, Any]], published: Files, rebuilt: Files) -> Outcome:
        document = parse(HEAD).document
        for each in exceptions:
            stated = {"reason": "harmless", "optional": False} | each
            table = "unsafe_except" if stated.pop("unsafe", False) else "except"
            document.setdefault(table, []).append(stated)
        declared = from_document(document)
        folder = tmp_path / str(next(made))
        return both_ways(folder, declared, {**W, **published}, {**W, **rebuilt})

    return judge


def text(value: object) -> bytes:
    return json.dumps(value).encode()


def lora(**metadata: str) -> bytes:
    return safetensors({"__metadata__": metadata, "w": entry("F32", [2], 0, 8)}, b"\0" * 8)


def value(path: str, last: object) -> object:
    """Return the object in which *last* is at *path*; a step of ``[]`` is a list of one."""
    for step in reversed(path.split(".")):
        last = [last] if step == "[]" else {step: last}
    return last


OBEYED = {
    "code": ("config.json", "auto_map.*", "auto_map.AutoModel"),
    "architecture": ("config.json", "*[]", "architectures.[]"),
    "any key": ("config.json", "*", "hidden_size"),
    "quantisation": ("config.json", "quantization_config.*", "quantization_config.quant_method"),
    "any file": ("*.json", "chat_template", "chat_template"),
    "template": ("tokenizer_config.json", "chat_template", "chat_template"),
    "tokenizer": ("tokenizer_config.json", "tokenizer_class", "tokenizer_class"),
    "base": ("adapter_config.json", "base_model_name_or_path", "base_model_name_or_path"),
    "pipeline": ("model_index.json", "_class_name", "_class_name"),
    "sub-folder": ("unet/config.json", "_class_name", "_class_name"),
    "other case": ("CONFIG.json", "auto_map.*", "auto_map.AutoModel"),
    "unknown file": ("notes.json", "a", "a"),
    "state": ("trainer_state.json", "*", "global_step"),
    "hyperparameters": ("hparams.yaml", "*", "lr"),
}


@pytest.mark.parametrize(("file", "key", "path"), OBEYED.values(), ids=OBEYED)
def test_what_loaders_obey(judge: Any, file: str, key: str, path: str) -> None:  # noqa: ANN401
    name = file.replace("*", "tokenizer_config")
    mine, theirs = (text(value(path, it)) for it in ("a", "b"))
    if name.endswith(".yaml"):
        mine, theirs = b"lr: a\n", b"lr: b\n"
    exception = {"file": file, "keys": [key]}
    for more in ({}, {"optional": True}, {"as": "set"}, {"as": "base-model"}):
        found = judge([exception | more], {name: mine}, {name: theirs})
        assert found.conclusion == "mismatch"
        assert found.exceptions == ()
    opened = judge([exception | {"unsafe": True}], {name: mine}, {name: theirs})
    assert opened.conclusion == "match"
    assert all(each.unsafe for each in opened.exceptions)


@pytest.mark.parametrize(
    ("name", "mine", "theirs"),
    [
        ("tokenizer.json", b"{}", b'{"a":1}'),
        ("chat_template.jinja", b"a", b"b"),
        ("vocab.txt", b"a", b"b"),
        ("modeling_x.py", b"a", b"b"),
        ("x.unknown", b"a", b"b"),
        ("training_args.bin", b"\x80\x02N.", b"\x80\x02K\x01."),
    ],
)
def test_whole_files(judge: Any, name: str, mine: bytes, theirs: bytes) -> None:  # noqa: ANN401
    for file in (name, "*"):
        for more in ({}, {"optional": True}):
            exception = {"file": file} | more
            assert judge([exception], {name: mine}, {name: theirs}).conclusion == "mismatch"
            assert judge([exception], {name: mine}, {}).conclusion == "mismatch"


@pytest.mark.parametrize("name", ["modeling_x.py", "model.joblib", "more.safetensors", "a.pkl"])
def test_weights_and_code_whatever_is_said(judge: Any, name: str) -> None:  # noqa: ANN401
    for file in (name, "*"):
        exception = {"file": file, "unsafe": True, "optional": True}
        for theirs in ({name: b"b"}, {}):
            assert judge([exception], {name: b"a"}, theirs).conclusion in (
                "mismatch",
                "inconclusive",
            )


def log(entry: object) -> object:
    return {"log_history": [entry]}


SPELLED: dict[str, tuple[object, object]] = {
    "case": (log({"Train_runtime": 1}), log({"Train_runtime": 2})),
    "look-alike": (log({"tr\u0430in_runtime": 1}), log({"tr\u0430in_runtime": 2})),
    "width": (log({"\uff54rain_runtime": 1}), log({"\uff54rain_runtime": 2})),
    "space": (log({"train_runtime ": 1}), log({"train_runtime ": 2})),
    "end of line": (log({"train_runtime\n": 1}), log({"train_runtime\n": 2})),
    "one key for two": ({"log_history[].train_runtime": 1}, {"log_history[].train_runtime": 2}),
    "key for a place": (
        value("log_history.0.train_runtime", 1),
        value("log_history.0.train_runtime", 2),
    ),
    "deeper": (log({"train_runtime": {"a": 1}}), log({"train_runtime": {"a": 2}})),
    "deeper list": (log([{"train_runtime": 1}]), log([{"train_runtime": 2}])),
    "less deep": ({"train_runtime": 1}, {"train_runtime": 2}),
    "elsewhere": ({"a": log({"train_runtime": 1})}, {"a": log({"train_runtime": 2})}),
    "another type": (log({"train_runtime": 1}), log({"train_runtime": "1"})),
    "truth": (log({"train_runtime": 1}), log({"train_runtime": True})),
    "nothing": (log({"train_runtime": 1}), log({"train_runtime": None})),
    "object": (log({"train_runtime": 1}), log({"train_runtime": {}})),
    "absent": (log({"train_runtime": 1}), log({})),
    "more entries": (log({}), {"log_history": [{}, {"train_runtime": 1}]}),
    "long": (log({"train_runtime": "a"}), log({"train_runtime": "{% evil %}" * 1000})),
    "beside": (log({"train_runtime": 1, "a": 1}), log({"train_runtime": 2, "a": 2})),
}


@pytest.mark.parametrize(("mine", "theirs"), SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize("unsafe", [False, True])
def test_a_value_that_only_looks_like_the_excepted_one(
    judge: Any,  # noqa: ANN401
    mine: object,
    theirs: object,
    *,
    unsafe: bool,
) -> None:
    exception = [{"file": "trainer_state.json", "keys": [RUNTIME], "unsafe": unsafe}]
    name = "trainer_state.json"
    assert judge(exception, {name: text(mine)}, {name: text(theirs)}).conclusion == "mismatch"
    sound = [text({"log_history": [{"train_runtime": time}]}) for time in (1, 2)]
    assert judge(exception, {name: sound[0]}, {name: sound[1]}).conclusion == "match"


@pytest.mark.parametrize(
    "name",
    [
        "unet/trainer_state.json",
        "trainer_state.json/trainer_state.json",
        "TRAINER_STATE.json",
        "trainer_state.json ",
        "trainer_stat\u0435.json",
        "trainer_state.jsonl",
        "atrainer_state.json",
    ],
)
def test_a_file_that_only_looks_like_the_excepted_one(judge: Any, name: str) -> None:  # noqa: ANN401
    exception = [{"file": "trainer_state.json", "keys": [RUNTIME], "unsafe": True}]
    mine, theirs = (text({"log_history": [{"train_runtime": time}]}) for time in (1, 2))
    assert judge(exception, {name: mine}, {name: theirs}).conclusion == "mismatch"


def test_duplicate_keys_hide_nothing(judge: Any) -> None:  # noqa: ANN401
    exception = [{"file": "trainer_state.json", "keys": [RUNTIME]}]
    mine = b'{"log_history": [{"train_runtime": 1}], "a": 1}'
    for theirs in (
        b'{"log_history": [{"train_runtime": 2}], "a": 2, "a": 1}',
        b'{"log_history": [{"train_runtime": 2, "train_runtime": 1}], "a": 1}',
        b'\xef\xbb\xbf{"log_history": [{"train_runtime": 2}], "a": 1}',
        b'{"log_history": [{"train_runtime": 2}], "a": 1}\0',
        b'{"log_history": [{"train_runtime": 1e999}], "a": 1}',
        b"[" * 100_000,
    ):
        found = judge(exception, {"trainer_state.json": mine}, {"trainer_state.json": theirs})
        assert found.conclusion == "mismatch"


@pytest.mark.parametrize(
    ("keys", "mine", "theirs"),
    [
        (["format"], {"format": "pt", "a": "1"}, {"format": "evil", "a": "1"}),
        (["*"], {"a": "1"}, {"a": "2"}),
        (["ss_session_id"], {"SS_session_id": "1"}, {"SS_session_id": "2"}),
        (["ss_session_id"], {"ss_session_id": "1"}, {"ss_session_id": "x" * 5000}),
        (["ss_session_id"], {"ss_session_id": "1"}, {}),
        (["ss_*"], {"ss_network_module": "a"}, {"ss_network_module": "b"}),
    ],
)
def test_metadata_of_weights(
    judge: Any,  # noqa: ANN401
    keys: list[str],
    mine: dict[str, str],
    theirs: dict[str, str],
) -> None:
    exception = [{"file": "*.safetensors", "keys": keys}]

    def judged(left: dict[str, str], right: dict[str, str]) -> str:
        files = [{"lora.safetensors": lora(**metadata)} for metadata in (left, right)]
        conclusion: str = judge(exception, *files).conclusion
        return conclusion

    assert judged(mine, theirs) == "mismatch"
    sound = judged({"ss_session_id": "1"}, {"ss_session_id": "2"})
    assert sound == ("mismatch" if keys == ["format"] else "match")


def test_keys_of_gguf(judge: Any) -> None:  # noqa: ANN401
    def gguf(**strings: str) -> Files:
        keys = [scalar(f"general.{name}", "str", said) for name, said in strings.items()]
        return {"m.gguf": File((*KEYS, *keys), TENSORS).written()}

    about = [{"file": "*.gguf", "keys": ['"general.author"', "*"]}]
    assert judge(about, gguf(author="a"), gguf(author="b")).conclusion == "match"
    assert judge(about, gguf(author="a"), gguf(author="b" * 2000)).conclusion == "mismatch"
    assert judge(about, gguf(name="a"), gguf(name="b")).conclusion == "mismatch"
    keys = (*KEYS[:3], scalar("tokenizer.ggml.add_bos_token", "bool", 0), *KEYS[4:])
    other: Files = {"m.gguf": File(keys, TENSORS).written()}
    assert judge(about, gguf(), other).conclusion == "mismatch"


def test_tensors_whatever_is_said(judge: Any) -> None:  # noqa: ANN401
    everything = [{"file": "*", "keys": ["*", "*.*"], "unsafe": True, "optional": True}]
    for name, array in (
        ("w", np.ones(4, "<f4")),
        ("w", np.arange(5, dtype="<f4")),
        ("w", np.arange(4, dtype="<f8")),
        ("v", np.arange(4, dtype="<f4")),
    ):
        files = {"model.safetensors": {name: array}}
        assert judge(everything, {}, files).conclusion == "mismatch"
        mine, theirs = archive({"w.npy": npy(W_ARRAY)}), archive({f"{name}.npy": npy(array)})
        assert judge(everything, {"a.npz": mine}, {"a.npz": theirs}).conclusion == "mismatch"


class Args:
    """What a pickle of arguments describes."""


def pickled(protocol: int = 2, **values: object) -> bytes:
    args = Args()
    args.__dict__ |= values
    return pickle.dumps(args, protocol=protocol)


def test_a_pickle_beside_weights_is_compared_value_by_value(judge: Any) -> None:  # noqa: ANN401
    exception = [{"file": "training_args.bin", "keys": ["output_dir"]}]

    def judged(mine: bytes, theirs: bytes) -> str:
        found = judge(exception, {"training_args.bin": mine}, {"training_args.bin": theirs})
        conclusion: str = found.conclusion
        return conclusion

    mine = pickled(output_dir="a", seed=1)
    assert judged(mine, pickled(output_dir="b", seed=1)) == "match"
    assert judged(mine, pickled(4, output_dir="b", seed=1)) == "match"
    assert judged(mine, pickled(output_dir="b", seed=2)) == "mismatch"
    assert judged(mine, pickled(output_dir="b", seed=1, more=1)) == "mismatch"
    assert judged(mine, pickled(output_dir=pytest.approx, seed=1)) == "mismatch"
    assert judged(mine, pickled(output_dir=1, seed=1)) == "mismatch"
    names = pickled(output_dir=print, other=len), pickled(output_dir=len, other=print)
    assert judged(*names) == "mismatch"
    assert judged(mine, pickled(output_dir="b", seed=1) + b"N.") == "mismatch"
    assert judged(pickled(output_dir=print), pickled(output_dir=print, a=1)) == "mismatch"


def test_weights_that_are_called_state_are_compared_byte_for_byte(judge: Any) -> None:  # noqa: ANN401
    mine, theirs = (lora(ss_session_id=number) for number in ("1", "2"))
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth"):
        assert judge([], {name: mine}, {name: theirs}).conclusion == "mismatch"
        every = [{"file": name, "keys": ["*"]}]
        assert judge(every, {name: mine}, {name: theirs}).conclusion == "mismatch"
    for one, other in (("model.bin", "training_args.bin"), ("training_args.bin", "model.bin")):
        assert judge([], {one: mine}, {other: mine}).conclusion == "mismatch"


def test_the_order_of_keys_is_never_a_spelling(judge: Any) -> None:  # noqa: ANN401
    """PEFT scales by the first pattern that fits a module."""

    def config(first: str, *, patterns: dict[str, int]) -> bytes:
        return text({"target_modules": [first, "k", "q"], "alpha_pattern": patterns})

    name = "adapter_config.json"
    exception = [{"file": name, "keys": ["target_modules"], "as": "set"}]
    mine = config("v", patterns={"q": 1, ".*": 64})
    reordered = mine.replace(b'["v", "k", "q"]', b'["q", "v", "k"]')
    assert reordered != mine
    assert judge(exception, {name: mine}, {name: reordered}).conclusion == "match"
    swapped = config("v", patterns={".*": 64, "q": 1})
    assert judge(exception, {name: mine}, {name: swapped}).conclusion == "mismatch"


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        ("pytorch_model.bin.index.json", "./README.md"),
        ("pytorch_model.bin.index.json", "sub/../README.md"),
        ("sub/model.safetensors.index.json", "../README.md"),
    ],
)
def test_a_file_that_an_index_names_by_a_way_is_not_excepted(
    judge: Any,  # noqa: ANN401
    index: str,
    shard: str,
) -> None:
    same = {index: text({"weight_map": {"w": shard}})}
    exception = [{"file": "README.md"}]
    files = ({"README.md": b"a", **same}, {"README.md": b"b", **same})
    assert judge(exception, *files).conclusion == "mismatch"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer_config.json", {"vocab_file": "README.md"}),
        ("sub/tokenizer_config.json", {"vocab_file": "../readme.MD"}),
        ("config.json", {"files": [{"class_info": "./README.md"}], "limit": float("inf")}),
        ("config.json", {"class_info": "READM\u0045.md"}),
    ],
)
def test_a_file_that_settings_name_is_not_excepted(
    judge: Any,  # noqa: ANN401
    name: str,
    value: dict[str, object],
) -> None:
    same: Files = {**W, name: json.dumps(value).encode()}
    files = ({"README.md": b"a", **same}, {"README.md": b"b", **same})
    assert judge([{"file": "README.md"}], *files).conclusion == "mismatch"
    others: Files = {**W, name: json.dumps({"limit": float("inf"), "x": "READ ME.md"}).encode()}
    files = ({"README.md": b"a", **others}, {"README.md": b"b", **others})
    assert judge([{"file": "README.md"}], *files).conclusion == "match"


def test_an_array_in_hexadecimal_is_no_number() -> None:
    ten, forty = (stated_value(f"float32 [] 0000{it}", "hdf5") for it in ("2041", "2042"))
    assert not is_within(ten, forty, 1)


def test_what_one_side_lacks_is_spelled_once_however_deep() -> None:
    nested: object = "x" * 10_000
    for _ in range(50):
        nested = {"a": nested}
    found = [it.left.text for it in tree_differences({"b": nested}, {}) if it.left is not None]
    assert len(found) == 51
    assert len("".join(found)) < 11_000
