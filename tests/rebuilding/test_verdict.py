"""The signed outcome: what may be claimed of it, and what a forged one says wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from provenance.envelope import bundle
from provenance.equality import declaration
from provenance.errors import MalformedError, SignatureError
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import (
    BEST_FIRST,
    BYTES_PROPERTY,
    CONSISTENT_PROPERTY,
    ROUNDED_PROPERTY,
    TENSORS_PROPERTY,
    Verifier,
    from_statement,
    to_statement,
    worst,
)
from provenance.statement import intoto, uris
from provenance.statement.intoto import Statement
from tests.rebuilding.builds import CLOSE, TRAINED, files, padded
from tests.world import declared, edit_bundle, payload_of, sign_verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.rebuilding.verdict import Verdict
    from tests.rebuilding.builds import Builds
    from tests.world import Person

ROUNDED = b"""
format = 1
version = 1
name = "rounded"

[[any]]
[[any.all]]
equality = "rounded"
to = "F32"
reason = "made up"
"""

VERIFIER = Verifier("key/=", "0.1", "2026-01-01T00:00:00Z")


@pytest.fixture
def match(builds: Builds, alice: Person, bob: Person) -> Verdict:
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", bob)]
    return agree(models, independent=True)


@pytest.fixture
def consistent(builds: Builds, alice: Person, bob: Person) -> Verdict:
    return agree([builds("c", alice, equality=declared(CLOSE)), builds("d", bob, files(1e-4))])


def sent(verdict: Verdict) -> Statement:
    """Return *verdict* as a reader gets it."""
    return intoto.parse(intoto.format(to_statement(verdict, VERIFIER)))


def test_bit_equality_is_called_reproduced(match: Verdict) -> None:
    statement = sent(match)
    assert statement.predicate_type == uris.SLSA_VSA
    predicate = statement.predicate
    assert predicate["verifiedLevels"] == ["SLSA_BUILD_REPRODUCED"]
    assert predicate["verifier"]["id"] == f"{uris.VERIFIER}/key%2F%3D"
    assert predicate["policy"]["uri"] == f"{uris.EQUALITY}/sha256:{match.equality.sha256}"
    assert predicate["inputAttestations"] == [
        {"uri": f"{predicate['resourceUri']}/claims.jsonl", "digest": party.bundle}
        for party in match.parties  # the models are the same, and so are their names by digest
    ]
    assert from_statement(statement) == match


def test_bit_equality_of_builders_whom_nobody_knows_is_not(match: Verdict) -> None:
    verdict = msgspec.structs.replace(match, independent=False)
    statement = sent(verdict)
    assert statement.predicate_type == uris.IN_TOTO_SVR
    assert statement.predicate["properties"] == [BYTES_PROPERTY]
    assert b"REPRODUCED" not in intoto.format(statement)
    assert from_statement(statement) == verdict


def test_agreement_by_tolerance_never_is(consistent: Verdict) -> None:
    statement = sent(consistent)
    assert statement.predicate_type == uris.IN_TOTO_SVR
    assert statement.predicate["properties"] == [CONSISTENT_PROPERTY]
    assert b"REPRODUCED" not in intoto.format(statement)
    assert from_statement(statement) == consistent


def test_the_same_tensors_in_another_container(builds: Builds, alice: Person, bob: Person) -> None:
    text = CLOSE.replace(b'"bytes"', b'"tensors"')
    models = [
        builds("a", alice, equality=declared(text)),
        builds("b", bob, padded(files())),
    ]
    verdict = agree(models)
    statement = sent(verdict)
    assert statement.predicate["properties"] == [TENSORS_PROPERTY]
    assert from_statement(statement) == verdict


def test_the_same_tensors_once_they_are_rounded(builds: Builds, alice: Person, bob: Person) -> None:
    wide = TRAINED.astype(np.float64)
    shipped = {"model.safetensors": save({"w": TRAINED})}
    for more, conclusion, stated in (
        ({}, "consistent", CONSISTENT_PROPERTY),
        (shipped, "match", ROUNDED_PROPERTY),
    ):
        one, other = ({"master.safetensors": save({"w": wide * (1 + by)})} for by in (0, 1e-12))
        name = f"{conclusion}-a", f"{conclusion}-b"
        models = [
            builds(name[0], alice, one | more, equality=declared(ROUNDED)),
            builds(name[1], bob, other | more),
        ]
        verdict = agree(models)
        assert (verdict.conclusion, verdict.strongest) == (conclusion, "rounded")
        statement = sent(verdict)
        assert statement.predicate_type == uris.IN_TOTO_SVR
        assert statement.predicate["properties"] == [stated]
        assert b"REPRODUCED" not in intoto.format(statement)
        assert from_statement(statement) == verdict
    note = b'"note":"shipped",'
    assert note in intoto.format(statement)
    unshipped = intoto.parse(intoto.format(statement).replace(note, b""))
    with pytest.raises(MalformedError, match="a rebuild is called match by rounded"):
        from_statement(unshipped)


def test_the_worst_of_several_conclusions_is_that_of_all() -> None:
    order = ["match", "consistent", "plausible", "inconclusive", "mismatch"]
    assert list(BEST_FIRST) == order
    for number, conclusion in enumerate(BEST_FIRST):
        assert worst(BEST_FIRST[: number + 1]) == conclusion
        assert worst([conclusion, *BEST_FIRST[:number]]) == conclusion


def test_what_was_not_declared_beforehand_claims_nothing(
    builds: Builds, alice: Person, bob: Person
) -> None:
    models = [builds("a", alice), builds("b", bob)]
    verdict = agree(models, unsafe_equality=declaration.builtin("bytes"))
    statement = sent(verdict)
    assert verdict.conclusion == "match"
    assert statement.predicate_type == uris.VERDICT
    assert from_statement(statement) == verdict


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_refusals_are_signed_too(noise: float, builds: Builds, alice: Person, bob: Person) -> None:
    rebuilder = bob if noise else alice
    models = [builds("a", alice, equality=declared(CLOSE)), builds("b", rebuilder, files(noise))]
    verdict = agree(models)
    assert verdict.conclusion == ("mismatch" if noise else "inconclusive")
    statement = sent(verdict)
    assert statement.predicate_type == uris.VERDICT
    assert from_statement(statement) == verdict


# --- Forged ---------------------------------------------------------------------------------------


def test_an_edited_verdict_has_no_signature(match: Verdict, alice: Person) -> None:
    line = sign_verdict(to_statement(match, VERIFIER), alice)
    assert bundle.open_bundle(bundle.parse(line), [alice.key.public]).payload == payload_of(line)

    def edit(document: dict[str, Any]) -> None:
        document["dsseEnvelope"]["payload"] = document["dsseEnvelope"]["payload"].replace("a", "b")

    with pytest.raises(SignatureError):
        bundle.open_bundle(bundle.parse(edit_bundle(line, edit)), [alice.key.public])


def _body(statement: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = statement["predicate"]["provenance_verdict"]
    return body


def _as_reproduced(document: dict[str, Any]) -> None:
    document["predicateType"] = uris.SLSA_VSA
    document["predicate"] |= {
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_REPRODUCED"],
    }


def _as_a_match(document: dict[str, Any]) -> None:
    _body(document)["conclusion"] = "match"


def _as_a_match_throughout(document: dict[str, Any]) -> None:
    _body(document)["conclusion"] = "match"
    _body(document)["rebuilds"][0]["outcome"]["conclusion"] = "match"


def _as_plausible(document: dict[str, Any]) -> None:
    _body(document)["conclusion"] = "plausible"


def _another_subject(document: dict[str, Any]) -> None:
    document["subject"][0]["digest"] = {"sha256": "00" * 32}


def _another_property(document: dict[str, Any]) -> None:
    document["predicate"]["properties"] = ["SLSA_BUILD_REPRODUCED"]


def _another_equality(document: dict[str, Any]) -> None:
    _body(document)["equality"]["sha256"] = "00" * 32


def _parties(document: dict[str, Any]) -> list[dict[str, Any]]:
    body = _body(document)
    return [body["published"], *(rebuild["party"] for rebuild in body["rebuilds"])]


def _a_third_builder(document: dict[str, Any]) -> None:
    _body(document)["builders"].append("somebody")


def _a_builder_that_does_not_count(document: dict[str, Any]) -> None:
    _parties(document)[1]["counted"] = False


def _one_run_for_two(document: dict[str, Any]) -> None:
    for party in _parties(document):
        party["invocationId"] = "one"


def _one_key_for_two(document: dict[str, Any]) -> None:
    published, rebuilt = _parties(document)
    _body(document)["builders"] = [published["keyId"]]
    rebuilt["keyId"] = published["keyId"]


def _one_subject_for_two(document: dict[str, Any]) -> None:
    _body(document)["builders"] = ["CN=a"]
    for party in _parties(document):
        party["subject"] = "CN=a"


def _one_key_under_two_names(document: dict[str, Any]) -> None:
    published, rebuilt = _parties(document)
    rebuilt |= {"keyId": published["keyId"], "subject": "CN=a"}
    _body(document)["builders"] = [published["keyId"], "CN=a"]


def _a_key_by_anothers_name(document: dict[str, Any]) -> None:
    published, rebuilt = _parties(document)
    rebuilt["subject"] = published["keyId"]


def _another_answer(document: dict[str, Any]) -> None:
    _body(document)["rebuilds"][0]["recipe"] = "unknown"


def _an_unknown_recipe(document: dict[str, Any]) -> None:
    _body(document)["rebuilds"][0] |= {"recipe": "unknown", "recipeUnknown": ["perhaps"]}


def _said_to_be_the_same(document: dict[str, Any]) -> None:
    _body(document)["rebuilds"][0]["recipeUnknown"] = ["perhaps"]


def _without_the_bundle(document: dict[str, Any]) -> None:
    _parties(document)[1]["bundle"] = {}


def _a_builder_twice(document: dict[str, Any]) -> None:
    _body(document)["builders"] = [_body(document)["builders"][0]] * 2


def _too_few_builders(document: dict[str, Any]) -> None:
    _body(document)["builders"] = [_parties(document)[0]["keyId"]]
    _parties(document)[1]["counted"] = False


def _another_recipe(document: dict[str, Any]) -> None:
    difference = {"part": "seeds", "text": "the seed numpy is 1 instead of 0"}
    _body(document)["rebuilds"][0] |= {"recipe": "differs", "recipeDifferences": [difference]}


def _no_rebuild(document: dict[str, Any]) -> None:
    _body(document)["rebuilds"] = []


def _no_verdict(document: dict[str, Any]) -> None:
    del document["predicate"]["provenance_verdict"]


def _outcome(document: dict[str, Any]) -> dict[str, Any]:
    outcome: dict[str, Any] = _body(document)["rebuilds"][0]["outcome"]
    return outcome


def _no_alternative(document: dict[str, Any]) -> None:
    _outcome(document)["alternatives"] = []


def _held(document: dict[str, Any]) -> dict[str, Any]:
    """Return the alternative that holds by closeness."""
    (found,) = (each for each in _outcome(document)["alternatives"] if each["held"])
    alternative: dict[str, Any] = found
    return alternative


def _beyond_the_limit(document: dict[str, Any]) -> None:
    _held(document)["findings"][0]["value"] = 5.0


def _no_value(document: dict[str, Any]) -> None:
    _held(document)["findings"][0]["value"] = None


def _an_extra_file_that_holds(document: dict[str, Any]) -> None:
    finding = {"file": "evil.py", "measure": "presence", "held": True}
    _held(document)["findings"].append(finding)


def _a_finding_against_it(document: dict[str, Any]) -> None:
    finding = {"file": "evil.py", "measure": "presence", "held": False}
    _held(document)["findings"].append(finding)


def _something_missing(document: dict[str, Any]) -> None:
    _held(document)["missing"] = ["something"]


def _by_an_equality_that_no_alternative_has(document: dict[str, Any]) -> None:
    _outcome(document)["strongest"] = "metrics"


def _nothing_held(document: dict[str, Any]) -> None:
    _outcome(document).update(strongest=None, conclusion="mismatch")


def _one_attestation_for_two(document: dict[str, Any]) -> None:
    body = _body(document)
    body["rebuilds"][0]["party"]["attestation"] = body["published"]["attestation"]


FORGERIES: dict[Callable[[dict[str, Any]], None], str] = {
    _as_reproduced: "consistent is not stated as",
    _as_a_match: "its parts allow consistent at best",
    _as_a_match_throughout: "a rebuild is called match by close",
    _as_plausible: "a plausible is not stated as",
    _another_subject: "the subject is not the published model",
    _another_property: "its properties is not what follows",
    _another_equality: "compared by another equality",
    _a_third_builder: "not those of the attestations that count",
    _a_builder_that_does_not_count: "not those of the attestations that count",
    _a_builder_twice: "not those of the attestations that count",
    _one_run_for_two: "a run counts as two builders",
    _one_key_for_two: "a run counts as two builders",
    _one_subject_for_two: "a run counts as two builders",
    _one_key_under_two_names: "a run counts as two builders",
    _a_key_by_anothers_name: "not those of the attestations that count",
    _another_answer: "a recipe is called unknown",
    _said_to_be_the_same: "a recipe is called same",
    _an_unknown_recipe: "its parts allow inconclusive at best",
    _without_the_bundle: "digest",
    _too_few_builders: "its parts allow inconclusive at best",
    _another_recipe: "its parts allow mismatch at best",
    _no_alternative: "its strongest equality is called close",
    _beyond_the_limit: "its own numbers are against it",
    _no_value: "its own numbers are against it",
    _an_extra_file_that_holds: "its own numbers are against it",
    _a_finding_against_it: "what was found is against it",
    _something_missing: "what was found is against it",
    _by_an_equality_that_no_alternative_has: "its strongest equality is called metrics",
    _nothing_held: "no equality is said to",
    _one_attestation_for_two: "a run counts as two builders",
    _no_rebuild: "rebuilds",
    _no_verdict: "null",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_verdict_that_contradicts_itself(
    forge: Callable[[dict[str, Any]], None], consistent: Verdict
) -> None:
    statement = sent(consistent)
    document: dict[str, Any] = {
        "subject": [{"name": s.name, "digest": s.digest} for s in statement.subject],
        "predicateType": statement.predicate_type,
        "predicate": statement.predicate,
    }
    forge(document)
    forged = Statement(
        tuple(intoto.Subject(s["digest"], s["name"]) for s in document["subject"]),
        document["predicateType"],
        document["predicate"],
    )
    with pytest.raises(MalformedError, match=FORGERIES[forge]):
        from_statement(forged)


def _same(document: dict[str, Any]) -> dict[str, Any]:
    outcome: dict[str, Any] = document["rebuilds"][0]["outcome"]
    return outcome


def test_what_is_called_the_same_may_not_differ(match: Verdict, consistent: Verdict) -> None:
    statement = sent(match)
    body = statement.predicate["provenance_verdict"]
    body["rebuilds"][0]["party"]["rootDigest"] = {"sha256": "ab" * 32}
    with pytest.raises(MalformedError, match="whose root digests differ"):
        from_statement(statement)
    statement = sent(match)
    distances = _same(sent(consistent).predicate["provenance_verdict"])["distances"]
    _same(statement.predicate["provenance_verdict"])["distances"] = distances
    with pytest.raises(MalformedError, match="tensors differ that are called the same"):
        from_statement(statement)


def test_another_statement_is_no_verdict(match: Verdict) -> None:
    other = Statement(sent(match).subject, uris.SLSA_PROVENANCE, {})
    with pytest.raises(MalformedError, match="not a verdict"):
        from_statement(other)


@pytest.mark.parametrize("side", ["published", "rebuild"])
@pytest.mark.parametrize("field", ["rootDigest", "attestation"])
@pytest.mark.parametrize("digests", [{}, {"sha512": "ab" * 64}, {"sha256": "ab"}])
def test_a_party_without_a_sha256_is_malformed(
    side: str, field: str, digests: dict[str, str], match: Verdict
) -> None:
    statement = sent(match)
    body = statement.predicate["provenance_verdict"]
    party = body["published"] if side == "published" else body["rebuilds"][0]["party"]
    party[field] = digests
    with pytest.raises(MalformedError, match="digest"):
        from_statement(statement)
