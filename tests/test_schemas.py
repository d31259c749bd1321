"""The schemas are current, and schema and parser agree on the examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from provenance.encoding import strict_json
from provenance.envelope import bundle
from provenance.equality import declaration
from provenance.errors import MalformedError
from provenance.rebuilding import verdict
from provenance.statement import intoto, model_signature, training
from provenance.statement.uris import BASE
from provenance.transparency import checkpoint, entry, note, rekor
from provenance.trust import policy
from tools.schemas import __main__ as schemas
from tools.schemas.examples import TRAINER, example_key

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent.parent / "schemas"

PARSERS: dict[str, Callable[[bytes], object]] = {
    "training-statement": lambda data: training.from_statement(intoto.parse(data)),
    "model-signature": lambda data: model_signature.from_statement(intoto.parse(data)),
    "verdict": lambda data: verdict.from_statement(intoto.parse(data)),
    "bundle": bundle.parse,
    "log-entry": lambda data: entry.parse_entry(strict_json.parse(data)),
    "equality": declaration.parse,
    "trust-policy": lambda data: policy.parse(data, Path("policy.toml")),
}
"""Of what the program only prints, there is no parser."""

PARSER_ONLY = {
    "training-statement/bytes-after-the-end.json": "JSON Schema sees a parsed value",
    "training-statement/key-twice.json": "JSON Schema sees a parsed value",
    "training-statement/integer-too-large.json": "a collector's values have no schema",
    "training-statement/file-twice.json": "uniqueness of one field of the items",
    "training-statement/subject-is-not-the-root.json": "a digest is computed",
    "model-signature/file-twice.json": "uniqueness of one field of the items",
    "model-signature/subject-is-not-the-root.json": "a digest is computed",
    "verdict/consistent-called-reproduced.json": "what follows from the parts is computed",
    "verdict/of-another-model.json": "the subject is compared with the published model",
    "verdict/quorum-not-met.json": "builders are counted",
    "verdict/one-identity-counts-twice.json": "builders are counted",
    "bundle/payload-with-loose-bits.json": "a pattern cannot see the unused bits of base64",
    "bundle/no-signer.json": "one of three fields is there, and each may be null",
    "bundle/signer-named-twice.json": "unknown fields are read over, as Sigstore adds some",
    "log-entry/tree-size-too-large.json": "a decimal text has no order",
    "equality/limit-not-a-number.toml": "NaN is no JSON value: no schema can judge it",
    "equality/axis-twice.toml": "left to the parser: its message names the axis",
    "equality/behaviour-without-limit.toml": "one of several keys is enough",
    "equality/values-have-no-top-answer.toml": "which keys have a use depends on another",
    "equality/reason-of-spaces.toml": "left to the parser, which strips it",
    "trust-policy/party-unknown.toml": "left to the parser, which knows the parties",
    "trust-policy/more-organisations-than-there-are.toml": "what can never hold is computed",
    "equality/no-initial.toml": "needed only for relative_to = update",
    "equality/initial-above-the-model.toml": "left to the parser, which knows names of files",
}
"""Where the parser is stricter than the schema, and why."""


def example_files(kind: str) -> list[str]:
    folder = FOLDER / "examples" / kind
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.*"))


@cache
def validator(document: str) -> Any:  # noqa: ANN401 - jsonschema has no types
    content = json.loads((FOLDER / f"{document}.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def fits(name: str, kind: str) -> bool:
    path = FOLDER / "examples" / kind / name
    load = tomllib.loads if path.suffix == ".toml" else json.loads
    try:
        value = load(path.read_text("utf-8"))
    except json.JSONDecodeError:
        return True  # nothing that a schema could judge
    return bool(validator(path.parent.name).is_valid(value))


def test_the_folder_is_current() -> None:
    assert schemas.find_stale(FOLDER) is None


def test_every_schema_has_its_own_address_under_ours() -> None:
    ids = [schemas.schema(document)["$id"] for document in schemas.DOCUMENTS]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith(f"{BASE}/schemas/") for name in ids)


@pytest.mark.parametrize("document", schemas.DOCUMENTS, ids=lambda document: document.name)
def test_every_schema_says_what_it_is(document: schemas.Document) -> None:
    made = schemas.schema(document)
    jsonschema.Draft202012Validator.check_schema(made)
    assert made["title"]
    assert made["description"]
    for name, definition in made["$defs"].items():
        if name != "_Document":  # private; the schema's own description says what it is
            assert definition.get("description"), name
    assert "\\Z" not in json.dumps(made)


def test_every_refinement_is_applied() -> None:
    applied = {
        (name, field)
        for document in schemas.DOCUMENTS
        for name, definition in schemas.schema(document)["$defs"].items()
        for field in definition.get("properties", {})
    }
    assert schemas.REFINEMENTS.keys() <= applied


@pytest.mark.parametrize("name", example_files("valid"))
def test_valid_examples(name: str) -> None:
    document = name.partition("/")[0]
    assert fits(name, "valid"), list(
        validator(document).iter_errors(json.loads((FOLDER / "examples/valid" / name).read_text()))
    )
    if document in PARSERS:
        PARSERS[document]((FOLDER / "examples/valid" / name).read_bytes())


@pytest.mark.parametrize("name", example_files("invalid"))
def test_invalid_examples(name: str) -> None:
    with pytest.raises(MalformedError):
        PARSERS[name.partition("/")[0]]((FOLDER / "examples/invalid" / name).read_bytes())
    assert fits(name, "invalid") == (name in PARSER_ONLY)


def test_the_list_of_what_only_parsers_refuse_is_of_examples() -> None:
    assert PARSER_ONLY.keys() <= set(example_files("invalid"))


def test_every_document_with_a_parser_has_examples_of_both_kinds() -> None:
    for kind in ("valid", "invalid"):
        assert {name.partition("/")[0] for name in example_files(kind)} >= PARSERS.keys()


def test_the_signatures_and_proofs_of_the_examples_hold() -> None:
    published = (FOLDER / "examples/valid/bundle/published-claim.json").read_bytes()
    parsed = bundle.parse(published)
    key = example_key(TRAINER).public
    opened = bundle.open_bundle(parsed, [key])
    body = rekor.format_body(parsed.envelope.pae, opened.signature, key)
    log_entry = entry.parse_entry(parsed.log_entries[0])
    log = note.VerifierKey(
        "example.org/log", example_key("training-provenance example: log").public
    )
    assert entry.check_entry(log_entry, body=body, vkey=log).size == 2
    assert checkpoint.open_checkpoint(log_entry.proof.checkpoint, log).size == 2


# --- The command ----------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.schemas", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=FOLDER.parent)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # a hundred files, soon gone
    schemas.write(tmp_path)
    return tmp_path


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    assert run("--write", str(tmp_path)).returncode == 0
    assert run("--check", str(tmp_path)).returncode == 0


@pytest.mark.parametrize("change", ["edit", "remove", "add"])
def test_the_check_names_what_is_stale(folder: Path, change: str) -> None:
    path = folder / "bundle.schema.json"
    if change == "edit":
        path.write_bytes(path.read_bytes() + b" ")
    elif change == "remove":
        path.unlink()
    else:
        path = folder / "examples/valid/bundle/old.json"
        path.write_text("{}")
    result = run("--check", str(folder))
    assert result.returncode == 1
    assert result.stderr.startswith(f"{path}: is not current")
    assert result.stderr.count("\n") == 1
    schemas.write(folder)
    assert schemas.find_stale(folder) is None


def test_the_check_of_a_missing_folder_fails(tmp_path: Path) -> None:
    assert schemas.main(["--check", str(tmp_path / "none")]) == 1
