from __future__ import annotations

import pytest

from provenance.encoding import strict_json
from provenance.errors import MalformedError
from provenance.files.manifest import Manifest, root_digest
from provenance.statement import intoto, training
from provenance.statement.intoto import Statement, Subject
from provenance.statement.training import Outcome
from provenance.statement.uris import BUILD_TYPE, SLSA_PROVENANCE

from .examples import DATA, MISSING, MODEL, TRAINING, altered, manifest, sha256

STATEMENT = intoto.parse(intoto.format(training.to_statement(TRAINING)))

EXTERNAL = "buildDefinition.externalParameters"
FILE = "provenance_manifest.0"

REFUSED: dict[str, tuple[str, object, str]] = {
    "another build type": ("buildDefinition.buildType", "https://x", "the build type is 'https"),
    "no build definition": ("buildDefinition", MISSING, "buildDefinition"),
    "no run details": ("runDetails", MISSING, "runDetails"),
    "no builder": ("runDetails.builder", MISSING, "builder"),
    "no recipe": (EXTERNAL, MISSING, "externalParameters"),
    "a recipe that is a list": (EXTERNAL, [], "externalParameters"),
    "an unknown external parameter": (f"{EXTERNAL}.lottery", 1, "unknown field 'lottery'"),
    "one in another spelling": (f"{EXTERNAL}.base_model", None, "unknown field 'base_model'"),
    "one unknown in an input": (f"{EXTERNAL}.data.0.url", "x", "unknown field 'url'"),
    "one unknown in the source": (f"{EXTERNAL}.source.branch", "x", "unknown field 'branch'"),
    "one unknown in the equality": (f"{EXTERNAL}.equality.uri", "x", "unknown field 'uri'"),
    "one unknown in a program": (f"{EXTERNAL}.source.files.0.x", "", "unknown field 'x'"),
    "a command that is a text": (f"{EXTERNAL}.command", "python train.py", "command"),
    "a seed that is a number": (f"{EXTERNAL}.seeds", {"numpy": 1}, "seeds"),
    "an input without a digest": (f"{EXTERNAL}.data.0.digest", {}, "a digest is missing"),
    "data without a sha256": (
        f"{EXTERNAL}.data.0.digest",
        {"sha1": "ab" * 20},
        "has no sha256 digest",
    ),
    "a configuration without a sha256": (
        f"{EXTERNAL}.config.0.digest",
        {"gitTree": "b" * 40},
        "has no sha256 digest",
    ),
    "a base model without a sha256": (
        f"{EXTERNAL}.baseModel.digest",
        {"sha512": "ab" * 64},
        "has no sha256 digest",
    ),
    "an environment that was never looked at": (
        "buildDefinition.internalParameters.observed",
        MISSING,
        "observed",
    ),
    "an input's digest in upper case": (
        f"{EXTERNAL}.data.0.digest",
        {"sha256": "A" * 64},
        "not a sha256 digest",
    ),
    "an input's manifest digest": (f"{EXTERNAL}.data.0.manifest", "00", "not a sha256 digest"),
    "a configuration's digest": (f"{EXTERNAL}.config.0.digest", {"sha256": ""}, "not a sha256"),
    "the base model's digest": (f"{EXTERNAL}.baseModel.digest", {"sha256": "x"}, "not a sha256"),
    "an input of a negative size": (f"{EXTERNAL}.data.0.size", -1, ">= 0"),
    "an input of a negative number of files": (f"{EXTERNAL}.data.0.files", -1, ">= 0"),
    "a program's digest": (f"{EXTERNAL}.source.files.0.sha256", "zz", "not a sha256 digest"),
    "a commit": (f"{EXTERNAL}.source.commit", "HEAD", "not a gitCommit digest"),
    "a tree": (f"{EXTERNAL}.source.tree", "../..", "not a gitTree digest"),
    "an equality's digest": (f"{EXTERNAL}.equality.sha256", "AB" * 32, "not a sha256 digest"),
    "a dependency's digest": (
        "buildDefinition.resolvedDependencies.0.digest",
        {"gitTree": "b" * 39},
        "not a gitTree digest",
    ),
    "a byproduct that leaves the folder": (
        "runDetails.byproducts.0.digest",
        {"sha256": "../../etc/passwd"},
        "not a sha256 digest",
    ),
    "a collector's status": (
        "buildDefinition.internalParameters.collectors.cpu.status",
        "fine",
        "Invalid enum value 'fine'",
    ),
    "no manifest": ("provenance_manifest", MISSING, "provenance_manifest"),
    "an empty manifest": ("provenance_manifest", [], "names no file"),
    "a manifest that is an object": ("provenance_manifest", {}, "provenance_manifest"),
    "a file without a size": (f"{FILE}.size", MISSING, "size"),
    "a negative size": (f"{FILE}.size", -1, ">= 0"),
    "a size that is a float": (f"{FILE}.size", 2.5, "size"),
    "a size beyond 2^53": (f"{FILE}.size", 2.0**53, "size"),
    "a size that is a text": (f"{FILE}.size", "2", "size"),
    "a digest in upper case": (f"{FILE}.sha256", sha256(b"{}").upper(), "not a sha256 digest"),
    "a digest that is short": (f"{FILE}.sha256", "ab", "not a sha256 digest"),
    "a digest of another file": (f"{FILE}.sha256", sha256(b"x"), "not the root digest"),
    "a name that leaves": (f"{FILE}.name", "../config.json", "leaves the folder"),
    "a name that is absolute": (f"{FILE}.name", "/etc/passwd", "is absolute"),
    "a name with NUL": (f"{FILE}.name", "a\0", "control character"),
    "a name with an escape": (f"{FILE}.name", "\x1b[2J", "control character"),
    "a name with a backslash": (f"{FILE}.name", "..\\x", "backslash"),
    "a name twice": (f"{FILE}.name", "weights.bin", "'weights.bin' is duplicated"),
    "an empty name": (f"{FILE}.name", "", "empty part"),
}


def test_round_trip() -> None:
    assert training.from_statement(STATEMENT) == TRAINING
    again = training.to_statement(training.from_statement(STATEMENT))
    assert intoto.format(again) == intoto.format(STATEMENT)
    assert TRAINING.recipe is TRAINING.build.external_parameters


def test_the_document_has_slsas_names() -> None:
    assert STATEMENT.predicate_type == SLSA_PROVENANCE
    assert STATEMENT.subject == (Subject({"sha256": MODEL.root_digest}, "digits"),)
    assert STATEMENT.predicate.keys() == {"buildDefinition", "runDetails", "provenance_manifest"}
    build, run = STATEMENT.predicate["buildDefinition"], STATEMENT.predicate["runDetails"]
    assert build.keys() == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    assert run["metadata"].keys() == {"invocationId", "startedOn", "finishedOn"}
    assert "mediaType" in run["byproducts"][0]


def test_what_is_absent_is_not_written() -> None:
    bare = training.to_statement(
        training.TrainingStatement(
            "m",
            MODEL,
            training.BuildDefinition(
                BUILD_TYPE, training.Recipe(), training.Environment(observed=("end",)), ()
            ),
            training.RunDetails(training.Builder("b")),
        )
    )
    assert bare.predicate["buildDefinition"]["externalParameters"] == {}
    assert bare.predicate["buildDefinition"]["internalParameters"] == {"observed": ("end",)}
    assert bare.predicate["runDetails"] == {"builder": {"id": "b"}}
    assert training.from_statement(intoto.parse(intoto.format(bare))).manifest == MODEL


@pytest.mark.parametrize(("path", "value", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(MalformedError, match=message) as caught:
        training.from_statement(altered(STATEMENT, path, value), where="claims.jsonl:2")
    assert caught.value.where == "claims.jsonl:2"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "path", ["new", "buildDefinition.new", "runDetails.new", "buildDefinition.internalParameters.x"]
)
def test_outside_the_recipe_what_is_unknown_is_ignored(path: str) -> None:
    assert training.from_statement(altered(STATEMENT, path, {"x": 1})) == TRAINING


SUBJECTS = {
    "none of ours": (Subject({"sha256": sha256(b"other")}, "digits"),),
    "by another algorithm alone": (Subject({"sha512": "ab" * 64}, "digits"),),
    "two, one of them ours": (*STATEMENT.subject, Subject({"sha256": sha256(b"")}, "other")),
    "ours twice": STATEMENT.subject * 2,
    "none": (),
}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_the_subject_is_the_root_digest_alone(subject: tuple[Subject, ...]) -> None:
    statement = Statement(subject, SLSA_PROVENANCE, STATEMENT.predicate)
    with pytest.raises(MalformedError, match=r"exactly one subject|not the root digest"):
        training.from_statement(statement)


def test_another_predicate_type_is_refused() -> None:
    for kind in ("https://slsa.dev/provenance/v0.2", "", "https://model_signing/signature/v1.0"):
        statement = Statement(STATEMENT.subject, kind, STATEMENT.predicate)
        with pytest.raises(MalformedError, match="not a training statement"):
            training.from_statement(statement)


def test_a_manifest_in_another_order_is_the_same_manifest() -> None:
    reordered = list(reversed(STATEMENT.predicate["provenance_manifest"]))
    found = training.from_statement(altered(STATEMENT, "provenance_manifest", reordered))
    assert found == TRAINING
    # ... and a subject over another order is not its root digest.
    wrong = root_digest(entry.sha256 for entry in reversed(MODEL.entries))
    statement = Statement(
        (Subject({"sha256": wrong}, "digits"),), SLSA_PROVENANCE, STATEMENT.predicate
    )
    with pytest.raises(MalformedError, match="not the root digest"):
        training.from_statement(statement)


def test_a_manifest_digest_binds_names_which_the_root_digest_does_not() -> None:
    one, other = manifest({"a": b"1", "b": b"2"}), manifest({"a": b"1", "c": b"2"})
    assert one.root_digest == other.root_digest
    rows = [["a", 1, sha256(b"1")], ["b", 1, sha256(b"2")]]
    described, listed = training.describe_input("data", one)
    assert listed == strict_json.format(rows)
    assert described.manifest == sha256(listed)
    assert described.manifest != training.describe_input("data", other)[0].manifest
    assert training.describe_input("data", Manifest(()))[1] == b"[]"


def test_an_input_is_described_by_content() -> None:
    found, listed = training.describe_input("data", DATA, role="train")
    assert (found.name, found.role, found.files, found.size) == ("data", "train", 2, 3)
    assert found.digest == {"sha256": DATA.root_digest}
    assert found.manifest == sha256(listed)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(), False),
        (Outcome(exit_status=0), False),
        (Outcome(exit_status=1), True),
        (Outcome(exit_status=-1), True),
        (Outcome(signal="SIGKILL"), True),
        (Outcome(exit_status=0, signal="SIGKILL"), True),
    ],
)
def test_an_outcome_has_failed_if_it_is_known_to(outcome: Outcome, failed: bool) -> None:
    assert outcome.failed == failed
