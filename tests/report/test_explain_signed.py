"""What is signed is explained: claims, verdicts, statements; a fault in one hides no other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.envelope import bundle, dsse
from provenance.errors import MalformedError
from provenance.files.manifest import FileEntry
from provenance.folder import attach
from provenance.rebuilding.verdict import verifier_uri
from provenance.report.explain import explain
from provenance.statement import intoto, training
from provenance.statement.training import (
    ChangedInput,
    Collected,
    Outcome,
    ProgramFile,
    Source,
)
from tools.schemas.examples import TRAINER, example_key, training_example, valid_examples

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import World

KEY = example_key(TRAINER)


def text_of(path: Path) -> str:
    return "\n".join(explain(path).lines)


def test_a_claim_tells_how_the_model_was_made(world: World) -> None:
    text = text_of(world.model / "claims.jsonl")
    for expected in (
        "python3 train.py --data '${data:train}' --out '${model}'",
        "git tree " + "2" * 40 + ", with uncommitted changes",
        "on commit " + "1" * 40,
        "train: digits.npz  1 file, 270,000 bytes",
        "numpy=7",
        "digits-close",
        "run          2026-01-01T00:00:00Z to 2026-01-01T00:10:00Z",
        "outcome      recorded: the command ended with status 0",
        "absent       gpus: no NVML library\n",
        "drift        software numpy=pkg:pypi/numpy@2.4.0→null",
        "    0  example.org/log  hashedrekord 0.0.2          1",
    ):
        assert expected in text


def test_the_key_is_what_the_bundle_says(world: World) -> None:
    content = explain(world.model / "claims.jsonl").content
    assert content["bundles"][0]["hint"] in text_of(world.root / "builder.pub")


@pytest.mark.parametrize("conclusion", ["consistent", "mismatch", "inconclusive", "same-tensors"])
def test_a_verdict_of_each_conclusion(tmp_path: Path, conclusion: str) -> None:
    path = tmp_path / "verdict"
    path.write_bytes(valid_examples()[f"verdict/{conclusion}.json"])
    word = {"same-tensors": "match"}.get(conclusion, conclusion)
    assert f"verdict   {word}" in text_of(path)
    assert "\x1b" not in text_of(path)


@pytest.mark.parametrize("key_id", [KEY.public.key_id, "another"])
def test_a_verdict_signed_by_another_than_its_verifier(tmp_path: Path, key_id: str) -> None:
    document = json.loads(valid_examples()["verdict/consistent.json"])
    document["predicate"]["verifier"]["id"] = verifier_uri(key_id)
    path = tmp_path / "verdict"
    path.write_bytes(attach.sign_payload(json.dumps(document).encode(), KEY))
    text = "but the verifier that it names is not the key that signed it"
    assert (text in text_of(path)) == (key_id == "another")


def statement_with(**changes: object) -> intoto.Statement:
    made = training.to_statement(training_example())
    return msgspec.structs.replace(made, **changes)


def write_claims(path: Path, *statements: intoto.Statement) -> Path:
    lines = [attach.sign_payload(intoto.format(statement), KEY) + b"\n" for statement in statements]
    path.write_bytes(b"".join(lines))
    return path


def test_a_text_can_neither_forge_a_line_nor_move_the_cursor(tmp_path: Path) -> None:
    name = "digits\nverified: all is well\x1b[2J\u202e\x9b"
    forged = statement_with(subject=(intoto.Subject(training_root(), name),))
    lines = explain(write_claims(tmp_path / "claims.jsonl", forged)).lines
    assert all(line.isprintable() for line in lines)
    assert not any(line.strip().startswith("verified") for line in lines)


def training_root() -> dict[str, str]:
    return {"sha256": training_example().manifest.root_digest}


def test_a_claim_that_is_not_understood_does_not_hide_the_others(tmp_path: Path) -> None:
    predicate = training.to_statement(training_example()).predicate
    build = predicate["buildDefinition"]
    parameters = {**build["externalParameters"], "learningRate": 0.1}
    bad = {**predicate, "buildDefinition": {**build, "externalParameters": parameters}}
    path = write_claims(tmp_path / "claims.jsonl", statement_with(predicate=bad), statement_with())
    explained = explain(path)
    text = "\n".join(explained.lines)
    [problem] = explained.problems
    assert isinstance(problem, MalformedError)
    assert str(problem).startswith(f"{path}:1: ")
    assert "learningRate" in str(problem)
    assert "problem" in text
    assert "python3 train.py" in text
    first, second = explained.content["bundles"]
    assert "learningRate" in first["problem"]
    assert second["problem"] is None


@pytest.mark.parametrize(
    ("predicate_type", "predicate"),
    [
        ("https://example.org/other/v1", {"a": 1}),
        ("https://slsa.dev/provenance/v1", {"buildDefinition": {"buildType": "other"}}),
        ("https://slsa.dev/verification_summary/v1", {"verificationResult": "PASSED"}),
    ],
)
def test_a_statement_of_another_tool(
    tmp_path: Path, predicate_type: str, predicate: dict[str, object]
) -> None:
    other = statement_with(predicate_type=predicate_type, predicate=predicate)
    explained = explain(write_claims(tmp_path / "claims.jsonl", other))
    assert explained.problems == ()
    assert explained.content["bundles"][0]["what"] == "another statement"
    assert predicate_type in "\n".join(explained.lines)


def test_a_payload_that_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "x.sigstore.json"
    envelope = dsse.sign("text/plain", b"hello", KEY)
    path.write_bytes(bundle.format(envelope, hint=""))
    assert "5 bytes of text/plain" in text_of(path)


def test_a_damaged_log_entry_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "claims.jsonl"
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, intoto.format(statement_with()), KEY)
    path.write_bytes(bundle.format(envelope, hint="", log_entries=[{"logIndex": "1"}]) + b"\n")
    explained = explain(path)
    assert "not a log entry: Object missing required field 'logId'" in "\n".join(explained.lines)
    assert len(explained.problems) == 1


def test_a_payload_that_only_says_that_it_is_a_statement(tmp_path: Path) -> None:
    path = tmp_path / "claims.jsonl"
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, b"{}", KEY)
    path.write_bytes(bundle.format(envelope, hint=""))
    explained = explain(path)
    assert isinstance(explained.problems[0], MalformedError)
    assert explained.content["bundles"][0]["statement"] is None


@pytest.mark.parametrize(
    ("keyid", "material", "text"),
    [
        ("", {"publicKey": {}}, "not named"),
        ("one", {"publicKey": {"hint": "two"}}, "but the signature names the key one"),
        ("", {"certificate": {"rawBytes": ""}}, "who the certificate says: not a certificate"),
    ],
)
def test_how_the_signer_is_named(
    tmp_path: Path, keyid: str, material: dict[str, object], text: str
) -> None:
    path = tmp_path / "claims.jsonl"
    envelope = dsse.sign(dsse.IN_TOTO_PAYLOAD, intoto.format(statement_with()), KEY, keyid=keyid)
    document = json.loads(bundle.format(envelope, hint=""))
    document["verificationMaterial"] = material
    path.write_text(json.dumps(document))
    assert text in text_of(path)


def test_a_claim_that_says_little(tmp_path: Path) -> None:
    path = tmp_path / "statement"
    path.write_bytes(valid_examples()["training-statement/attested-afterwards.json"])
    text = text_of(path)
    for expected in (
        "not stated   command, code, data",
        "none declared",
        "the run itself was not observed",
    ):
        assert expected in text


def test_long_texts_and_lists_are_cut(tmp_path: Path) -> None:
    subjects = tuple(intoto.Subject(training_root(), str(n)) for n in range(30))
    other = statement_with(subject=subjects, predicate_type="x" * 3000, predicate={})
    text = text_of(write_claims(tmp_path / "claims.jsonl", other))
    assert "and 10 more" in text
    assert "… (2,000 more characters)" in text


# --- What a claim says of its run -----------------------------------------------------------------

CACHE = FileEntry("labels.cache", 3, "44" * 32)
READ = tuple(ProgramFile(f"util{n}.py", "55" * 32) for n in range(7))


def stated(
    outcome: Outcome, code: Source | None = None, **collectors: Collected
) -> training.TrainingStatement:
    """Return a statement of a run with *outcome*, the source *code* and these *collectors*."""
    made = training_example()
    recipe = msgspec.structs.replace(made.recipe, source=code)
    environment = msgspec.structs.replace(
        made.build.internal_parameters, collectors=dict(collectors)
    )
    build = msgspec.structs.replace(
        made.build, external_parameters=recipe, internal_parameters=environment
    )
    run = msgspec.structs.replace(made.run, provenance_outcome=outcome)
    return msgspec.structs.replace(made, build=build, run=run)


def shown(path: Path, statement: training.TrainingStatement) -> str:
    return text_of(write_claims(path / "claims.jsonl", training.to_statement(statement)))


def test_what_a_run_did_not_make_or_leave_is_in_words(tmp_path: Path) -> None:
    added = ChangedInput("data:train", added=(CACHE,))
    text = shown(tmp_path, stated(Outcome(0, "", (added,), ("a",), ("b",), ("c",) * 9)))
    for expected in (
        "attested: the command ended with status 0, but was not seen to make all of these files",
        "inputs       data:train: added labels.cache",
        "1 file there before and not written by the run: a",
        "1 file there before and written by the run with equal bytes: b",
        "9 files that the run was not seen to make: c, c, c, c, c, and 4 more",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(3), "outcome      the training command ended with status 3"),
        (Outcome(None, "SIGKILL"), "outcome      the training command was killed by SIGKILL"),
        (Outcome(), "outcome      unknown: the run began and its end was not seen"),
    ],
)
def test_how_a_run_ended(tmp_path: Path, outcome: Outcome, words: str) -> None:
    assert words in shown(tmp_path, stated(outcome))


@pytest.mark.parametrize(
    ("source", "collected", "words", "not_words"),
    [
        (
            None,
            Collected("absent", reason="not in a git repository"),
            "no repository",
            "could not be",
        ),
        (
            None,
            Collected("denied", reason="of another owner"),
            "code         it could not be read: of another owner",
            "no repository",
        ),
        (Source(tree="2" * 40), Collected("ok"), "git tree 2222", "could not be"),
        (
            Source(tree="2" * 40),
            Collected("error", reason="lib: damaged"),
            "a part of it could not be read: lib: damaged",
            "no repository",
        ),
        (Source(files=READ[:1]), None, "util0.py sha256 5555", "repository"),
    ],
)
def test_code_that_could_not_be_read_is_not_no_repository(
    tmp_path: Path, source: Source | None, collected: Collected | None, words: str, not_words: str
) -> None:
    collectors = {"source": collected} if collected else {}
    text = shown(tmp_path, stated(Outcome(0), source, **collectors)).partition("environment")[0]
    assert words in text
    assert not_words not in text


def test_untracked_files_and_what_nobody_saw_are_counted(tmp_path: Path) -> None:
    collectors = {
        "untracked": Collected("ok", {"count": 12, "files": {}, "digest": "66" * 32}),
        "interpreter": Collected("ok", {"saidBy": "the program"}),
        "packages": Collected("error", reason="no answer"),
    }
    text = shown(tmp_path, stated(Outcome(0), Source(tree="2" * 40, read=READ), **collectors))
    for expected in (
        "7 untracked files read: util0.py, util1.py, util2.py, util3.py, util4.py, and 2 more",
        "12 untracked files beside it, read or not",
        "software     interpreter as the program said",
        "packages not known: no answer",
    ):
        assert expected in text
