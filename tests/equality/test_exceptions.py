"""What can be written as an exception, and what is refused before any model is compared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provenance.equality.declaration import BUILT_IN, builtin, from_document, parse
from provenance.errors import MalformedError

HEAD = 'format = 1\nname = "x"\nversion = 1\n[[any]]\n[[any.all]]\nequality = "tensors"\n'
STATE: dict[str, Any] = {
    "file": "trainer_state.json",
    "keys": ["log_history[].train_runtime"],
    "reason": "wall time",
}


def written(*, unsafe: bool = False, **stated: Any) -> bytes:  # noqa: ANN401 - TOML values
    table = "unsafe_except" if unsafe else "except"
    lines = [f"{key.rstrip('_')} = {json.dumps(value)}" for key, value in stated.items()]
    return (HEAD + "\n".join([f"[[{table}]]", *lines])).encode()


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"optional": True},
        {"tolerance": 0.5},
        {"file": "checkpoint-*/trainer_state.json"},
        {"file": "README.md", "keys": None},
        {"file": "events.out.tfevents.*", "keys": None},
        {"file": "adapter_config.json", "keys": ["target_modules"], "as_": "set"},
        {"file": "adapter_config.json", "keys": ["base_model_name_or_path"], "as_": "base-model"},
        {"file": "lora.safetensors", "keys": ["ss_session_id", '"modelspec.date"']},
        {"file": "m.keras", "member": "metadata.json", "keys": ["date_saved"]},
        {"file": "config.json", "keys": ["auto_map.*", "a[].*.b"], "unsafe": True},
        {"file": "training_args.bin", "keys": None, "unsafe": True},
    ],
)
def test_it_is_read_and_its_canonical_form_holds_it(stated: dict[str, Any]) -> None:
    stated = {key: value for key, value in (STATE | stated).items() if value is not None}
    declared = parse(written(**stated))
    (form,) = declared.document["unsafe_except" if "unsafe" in stated else "except"]
    unwritten = {"optional": False}
    expected = {key.rstrip("_"): value for key, value in stated.items() if key != "unsafe"}
    assert form == unwritten | expected
    assert from_document(declared.document) == declared


def test_without_exceptions_the_canonical_form_is_as_it_was() -> None:
    assert b"except" not in parse(HEAD.encode()).canonical


@pytest.mark.parametrize(
    ("stated", "what"),
    [
        ({"reason": ""}, "the reason is empty"),
        ({"reason": " \n"}, "the reason is empty"),
        ({"reason": None}, "missing key `reason`"),
        ({"reason": "x" * 2001}, "length"),
        ({"file": "**/trainer_state.json"}, "no glob within one folder"),
        ({"file": "*/trainer_state.json"}, "is for any folder"),
        ({"file": "../trainer_state.json"}, "empty part, '.' or '..'"),
        ({"file": "/trainer_state.json"}, "is no exact name"),
        ({"file": "!trainer_state.json"}, "is no exact name"),
        ({"file": ""}, "length"),
        ({"keys": []}, "length"),
        ({"keys": ["a["]}, "is not keys joined by dots"),
        ({"keys": ["log_history[0].train_runtime"]}, "is not keys joined by dots"),
        ({"keys": ["log_history[].**"]}, "has '**', which only the table may have"),
        ({"keys": ["**"]}, "has '**', which only the table may have"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": -1}, "tolerance"),
        ({"tolerance": True}, "tolerance"),
        ({"as_": "list"}, "unknown value 'list'"),
        ({"as_": "set"}, "no loader is known to take"),
        ({"as_": "base-model"}, "no loader is known to take"),
        ({"as_": "set", "tolerance": 1}, "have no use with 'as'"),
        ({"as_": "set", "optional": True}, "have no use with 'as'"),
        ({"keys": None, "tolerance": 1}, "need 'keys'"),
        ({"file": "README.md", "keys": None, "as_": "set"}, "need 'keys'"),
        ({"member": "../x"}, "is not the name of a member"),
        ({"set": "hf-trainer 1"}, "not an exception of the set"),
        ({"set": "nothing 1"}, "no equality 'nothing' is built in"),
        ({"more": 1}, "unknown key"),
    ],
)
def test_it_is_refused(stated: dict[str, Any], what: str) -> None:
    stated = {key: value for key, value in (STATE | stated).items() if value is not None}
    with pytest.raises(MalformedError) as caught:
        parse(written(**stated))
    assert what in str(caught.value)


OBEYED = [
    ("config.json", ["auto_map.AutoModel"]),
    ("config.json", ["*"]),
    ("config.json", None),
    ("unet/config.json", ["architectures[]"]),
    ("Config.json", ["architectures[]"]),
    ("adapter_config.json", ["base_model_name_or_path"]),
    ("adapter_config.json", ["target_modules[]"]),
    ("tokenizer_config.json", ["chat_template"]),
    ("tokenizer.json", None),
    ("chat_template.jinja", None),
    ("trainer_state.json", ["*"]),
    ("trainer_state.json", None),
    ("unknown.json", ["a"]),
    ("unknown.txt", None),
    ("*.json", ["log_history[].train_runtime"]),
    ("model.gguf", ['"tokenizer.chat_template"']),
    ("model.safetensors", ["format"]),
    ("model.ckpt", ["hyper_parameters.*"]),
    ("model.keras", ['"config.json"']),
    ("train.py", None),
    ("model.safetensors", None),
    ("training_args.bin", None),
]


@pytest.mark.parametrize(("file", "keys"), OBEYED)
def test_a_safe_exception_is_about_nothing_that_a_loader_may_obey(
    file: str, keys: list[str] | None
) -> None:
    stated: dict[str, Any] = {
        "file": file,
        "reason": "x",
        **({} if keys is None else {"keys": keys}),
    }
    with pytest.raises(MalformedError, match=r"obeye?[sd]|as a whole"):
        parse(written(**stated))


@pytest.mark.parametrize(
    "file",
    [
        "model.safetensors",
        "*.safetensors",
        "model.joblib",
        "train.py",
        "model.safetensors.index.json",
    ],
)
def test_no_exception_is_about_weights_or_code_as_a_whole(file: str) -> None:
    with pytest.raises(MalformedError, match="as a whole"):
        parse(written(unsafe=True, file=file, reason="x"))


def test_a_set_is_taken_in_full_and_cannot_be_changed() -> None:
    declared = parse(('exceptions = ["hf-trainer"]\n' + HEAD).encode())
    entries = builtin("hf-trainer").except_
    assert [each.file for each in declared.except_] == [each.file for each in entries]
    assert {each.set for each in declared.except_} == {"hf-trainer 1"}
    assert "exceptions" not in declared.document
    document = declared.document
    document["except"][0]["keys"] = ["*"]
    with pytest.raises(MalformedError, match="not an exception of the set 'hf-trainer 1'"):
        from_document(document)
    with pytest.raises(MalformedError, match="not in its canonical form"):
        from_document(parse(HEAD.encode()).document | {"exceptions": ["hf-trainer"]})


def test_a_set_without_exceptions_is_none() -> None:
    with pytest.raises(MalformedError, match="'tensors' has no exceptions"):
        parse(('exceptions = ["tensors"]\n' + HEAD).encode())


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_declaration_excepts_nothing_unsafe(name: str) -> None:
    declared = builtin(name)
    assert declared.unsafe_except == ()
    assert all(each.reason and each.set is None for each in declared.except_)


def test_a_signed_exception_that_the_table_is_against_is_read_and_judged_value_by_value() -> None:
    """Its table was another one: to refuse it would make the whole claim unreadable."""
    document = parse(written(**STATE)).document
    document["except"][0] |= {"file": "config.json", "keys": ["auto_map.*"]}
    declared = from_document(document)
    (each,) = declared.except_
    assert not each.reaches("config.json", ("auto_map", "AutoModel"), ())
