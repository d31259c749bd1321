"""The verdict: the signed outcome of comparing rebuilds (docs/spec/verdict.md).

All conclusions are signed; the conclusion decides which predicate carries the verdict, the same
object in all. Agreement by tolerance, or by an equality that was not declared beforehand, is never
called reproduced; nor is a match whose builders nobody says to be independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import msgspec

from provenance.encoding import strict_json
from provenance.envelope import bundle as bundles
from provenance.equality.declaration import from_document
from provenance.equality.exceptions import Except
from provenance.equality.lattice import AGREES, STRENGTHS, Conclusion, Strength
from provenance.errors import MalformedError, PolicyError, SignatureError
from provenance.files.names import CLAIMS
from provenance.folder.claims import read_bundles
from provenance.loaders.keys import example
from provenance.measure.findings import NEVER_HELD, NEVER_HELD_OF, Excepted, Finding, Outcome
from provenance.rebuilding.recipe import Answer, Difference, answer
from provenance.statement import intoto, uris
from provenance.statement.intoto import Statement, Subject
from provenance.trust.verification import declaration_of

if TYPE_CHECKING:
    from provenance.envelope.bundle import Trusted
    from provenance.envelope.dsse import Opened
    from provenance.trust.opening import Claim
    from provenance.trust.verification import Verified

BEST_FIRST: tuple[Conclusion, ...] = (
    "match", "consistent", "plausible", "inconclusive", "mismatch",
)  # fmt: skip
"""The conclusion over several parts is the one that comes last in this order."""

SMALLEST_AGREEMENT = 2
"""Fewest models that can agree, and smallest quorum of builders."""

BYTES_PROPERTY = "TRAINING_PROVENANCE_SAME_BYTES"
TENSORS_PROPERTY = "TRAINING_PROVENANCE_SAME_TENSORS"
ROUNDED_PROPERTY = "TRAINING_PROVENANCE_SAME_ROUNDED_TENSORS"
CONSISTENT_PROPERTY = "TRAINING_PROVENANCE_CONSISTENT"

_PROPERTIES: dict[Strength | None, str] = {
    "bytes": BYTES_PROPERTY,
    "tensors": TENSORS_PROPERTY,
    "rounded": ROUNDED_PROPERTY,
}
"""The property of a match, by the equality that held."""

_STATED_AS_AGREEMENT: tuple[Conclusion, ...] = ("match", "consistent")
"""The conclusions carried by a standard predicate; curves alone do not suffice."""


class AppliedEquality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The equality that was applied: name, version and SHA-256 of the declaration.

    ``declared`` says whether the published attestation declared it beforehand. ``declaration`` is
    its canonical form, where it has exceptions.
    """

    name: str
    version: Annotated[int, msgspec.Meta(ge=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    declared: bool
    declaration: dict[str, Any] | None = None


class Party(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"
):
    """One attested model.

    ``attestation`` is the SHA-256 of the signed payload, and ``bundle`` that of the line of
    ``claims.jsonl`` that carries it. ``subject`` is whom the key was trusted to be: an identity,
    with who vouches for it in parentheses, or a certificate's subject; absent where the key was
    trusted itself. ``invocation_id`` names the run. ``counted`` says whether it counts as a
    builder.
    """

    name: str
    root_digest: dict[str, str]
    attestation: dict[str, str]
    bundle: dict[str, str]
    key_id: str
    invocation_id: str
    level: Literal["attested", "recorded"]
    counted: bool
    subject: str = ""

    @property
    def signer(self) -> str:
        """Who signed, as whoever judged trusts them: by name, else by key."""
        return self.subject or self.key_id


class Rebuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One rebuild against the published model, and its recipe against the published one.

    ``recipe_unknown`` says what nobody can tell of the recipe.
    """

    party: Party
    outcome: Outcome
    recipe: Answer
    recipe_differences: tuple[Difference, ...]
    recipe_unknown: tuple[str, ...]
    environment_differences: tuple[str, ...]


class Diameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The largest distances between any two of the models; null if none could be computed."""

    relative_l2_update: float | None
    linf: float | None


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The judgement over rebuilds of one published model.

    ``builders`` are the distinct signers: subjects, else key ids; one person can be several.
    ``independent``: whoever signs the verdict says that the builders are independently operated.
    ``reasons`` say why the conclusion is not better, and what to bear in mind.
    """

    conclusion: Conclusion
    equality: AppliedEquality
    published: Party
    rebuilds: Annotated[tuple[Rebuild, ...], msgspec.Meta(min_length=1)]
    builders: tuple[str, ...]
    quorum: Annotated[int, msgspec.Meta(ge=2)]
    independent: bool = False
    reasons: tuple[str, ...] = ()
    diameter: Diameter | None = None

    @property
    def parties(self) -> tuple[Party, ...]:
        """The published model and the rebuilds."""
        return (self.published, *(rebuild.party for rebuild in self.rebuilds))

    @property
    def built(self) -> tuple[Party, ...]:
        """Those that count as builders."""
        return tuple(party for party in self.parties if party.counted)

    @property
    def strongest(self) -> Strength | None:
        """The strongest equality that every rebuild met; None if one met none."""
        held = [rebuild.outcome.strongest for rebuild in self.rebuilds]
        met = [strength for strength in held if strength is not None]
        return min(met, key=STRENGTHS.index) if len(met) == len(held) else None

    @property
    def recipe(self) -> Answer:
        """Whether all rebuilds followed the published recipe."""
        found = {rebuild.recipe for rebuild in self.rebuilds}
        return next((each for each in _WORST_FIRST if each in found), "same")


_WORST_FIRST: tuple[Answer, ...] = ("differs", "unknown")


class Verifier(msgspec.Struct, frozen=True):
    """Who judged (the id of the signing key), the version of this program, and the time.

    The time is RFC 3339, UTC.
    """

    key_id: str
    version: str
    time: str


def verifier_uri(key_id: str) -> str:
    """Return what the signer with the key *key_id* is called as a verifier."""
    return f"{uris.VERIFIER}/{quote(key_id, safe='')}"


def to_statement(verdict: Verdict, verifier: Verifier) -> Statement:
    """Return the statement that carries *verdict*."""
    subject = (Subject(verdict.published.root_digest, verdict.published.name),)
    body: dict[str, Any] = msgspec.to_builtins(verdict)
    policy = {
        "uri": f"{uris.EQUALITY}/sha256:{verdict.equality.sha256}",
        "name": verdict.equality.name,
        "digest": {"sha256": verdict.equality.sha256},
    }
    version = {"training-provenance": verifier.version}
    who = {"id": verifier_uri(verifier.key_id), "version": version}
    agreed = verdict.conclusion in _STATED_AS_AGREEMENT and verdict.equality.declared
    by, matched = verdict.strongest, verdict.conclusion == "match"
    if agreed and matched and by == "bytes" and verdict.independent:
        vsa = {
            "verifier": who,
            "timeVerified": verifier.time,
            "resourceUri": _model_uri(verdict.published),
            "policy": policy,
            "inputAttestations": [
                {"uri": f"{_model_uri(party)}/{CLAIMS}", "digest": party.bundle}
                for party in verdict.parties
            ],
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_BUILD_REPRODUCED"],
            "slsaVersion": "1.2",
            "provenance_verdict": body,
        }
        return Statement(subject, uris.SLSA_VSA, vsa)
    if agreed:
        svr = {
            "verifier": {**who, "policies": [policy]},
            "timeCreated": verifier.time,
            "properties": [_PROPERTIES.get(by if matched else None, CONSISTENT_PROPERTY)],
            "provenance_verdict": body,
        }
        return Statement(subject, uris.IN_TOTO_SVR, svr)
    return Statement(subject, uris.VERDICT, body)


def _model_uri(party: Party) -> str:
    return f"{uris.BASE}/model/sha256:{party.root_digest['sha256']}"


def from_statement(statement: Statement, *, where: str | None = None) -> Verdict:
    """Return the verdict that *statement* carries; it follows from its own numbers."""
    body: object = statement.predicate
    if statement.predicate_type in (uris.SLSA_VSA, uris.IN_TOTO_SVR):
        body = statement.predicate.get("provenance_verdict")
    elif statement.predicate_type != uris.VERDICT:
        raise MalformedError(f"not a verdict but {statement.predicate_type}", where=where)
    verdict = strict_json.convert(body, Verdict, where=where)
    for party in verdict.parties:
        intoto.require_sha256(party.root_digest, f"rootDigest of {party.name!r}", where=where)
        intoto.require_sha256(party.attestation, f"attestation of {party.name!r}", where=where)
        intoto.require_sha256(party.bundle, f"bundle of {party.name!r}", where=where)
    if problem := next(_contradictions(verdict), None) or _other_predicate(statement, verdict):
        raise MalformedError(f"the verdict contradicts itself: {problem}", where=where)
    return verdict


def check_rebuilt(
    path: Path, model: Verified, keys: Sequence[Trusted], counts: Callable[[Claim], bool]
) -> tuple[Opened, Verdict]:
    """Return the verdict in *path*, and what one of *keys* signed.

    It must say of a claim about *model* that *counts* that the quorum of distinct builders matched
    it, under the equality that it declared.
    """
    where = str(path)
    documents = read_bundles(path)
    if len(documents) > 1:
        raise MalformedError("holds several documents, not one verdict", where=where)
    try:
        opened = bundles.open_bundle(documents[0], keys)
    except SignatureError as error:
        raise error.inside(where) from error
    statement = intoto.from_opened(opened, where=where)
    verdict = from_statement(statement, where=where)
    verifier = statement.predicate.get("verifier", {"id": verifier_uri(opened.key.key_id)})
    if not isinstance(verifier, dict) or verifier.get("id") != verifier_uri(opened.key.key_id):
        raise SignatureError("names another verifier than the key that signed it", where=where)
    published, applied = verdict.published, verdict.equality
    about = published.key_id, published.attestation["sha256"]
    made = ((it, it.opened.key.key_id, hashlib.sha256(it.opened.payload)) for it in model.claims)
    same = (claim for claim, key_id, sha256 in made if (key_id, sha256.hexdigest()) == about)
    claim = next(filter(counts, same), None)
    if (root := published.root_digest["sha256"]) != model.manifest.root_digest:
        what = f"is about another model: {published.name}, root sha256 {root[:16]}…"
        raise PolicyError(what, where=where)
    if claim is None:
        raise PolicyError("is about another claim than the one by which it counts", where=where)
    if verdict.conclusion != "match":
        raise PolicyError(f"concludes {verdict.conclusion}, not a match", where=where)
    declared = declaration_of((claim,), claim)
    if not applied.declared or declared is None or applied.sha256 != declared.digest:
        raise PolicyError("applied another equality than the claim declares", where=where)
    return opened, verdict


def allowed_by(rebuild: Rebuild) -> Conclusion:
    """Return the best conclusion that *rebuild* allows, by its model and by its recipe.

    The same files are the same model however they were made; of any other likeness nothing follows
    unless it is known how the two were made.
    """
    if rebuild.recipe == "differs":
        return "mismatch"
    if rebuild.recipe == "unknown" and rebuild.outcome.strongest != "bytes":
        return worst(["inconclusive", rebuild.outcome.conclusion])
    return rebuild.outcome.conclusion


def worst(conclusions: Iterable[Conclusion]) -> Conclusion:
    """Return the conclusion over several parts: the last in :data:`BEST_FIRST`."""
    return max(conclusions, key=BEST_FIRST.index)


def told_apart(parties: Sequence[Party], changes: Iterable[tuple[str, str]] = ()) -> list[int]:
    """Return a number for each of *parties*, the same where one signed: by a name, or by a key.

    *changes* are ids of keys of which one follows the other.
    """
    known: dict[str, set[str]] = {}
    for pair in (*((party.signer, party.key_id) for party in parties), *changes):
        fewer, more = sorted((known.setdefault(name, {name}) for name in pair), key=len)
        if fewer is not more:
            more |= fewer
            known |= dict.fromkeys(fewer, more)
    return [id(known[party.key_id]) for party in parties]


def _contradictions(verdict: Verdict) -> Iterator[str]:
    """Yield why *verdict* cannot follow from its own parts."""
    counted = verdict.built
    if {party.signer for party in counted} != set(verdict.builders):
        yield "the builders are not those of the attestations that count"
    runs = [party.invocation_id for party in counted if party.invocation_id]
    attestations = [party.attestation["sha256"] for party in counted]
    people = zip(verdict.parties, told_apart(verdict.parties), strict=True)
    signers = [number for party, number in people if party.counted]
    if any(len({*it}) != len(it) for it in (verdict.builders, signers, attestations, runs)):
        yield "a signer, an attestation or a run counts as two builders"
    for rebuild in verdict.rebuilds:
        if rebuild.outcome.declaration != verdict.equality.sha256:
            yield "a rebuild was compared by another equality"
        same = rebuild.party.root_digest == verdict.published.root_digest
        if rebuild.outcome.strongest == "bytes" and not same:
            yield "files are called the same whose root digests differ"
        if rebuild.recipe != answer(rebuild.recipe_differences, rebuild.recipe_unknown):
            yield f"a recipe is called {rebuild.recipe}, and what was found is against it"
        yield from _unfounded(rebuild.outcome)
    yield from _undeclared(verdict)
    parts = [allowed_by(rebuild) for rebuild in verdict.rebuilds]
    if len(verdict.builders) < max(verdict.quorum, SMALLEST_AGREEMENT) or not verdict.rebuilds:
        parts.append("inconclusive")
    if BEST_FIRST.index(verdict.conclusion) < BEST_FIRST.index(worst(parts)):
        yield f"it concludes {verdict.conclusion}, and its parts allow {worst(parts)} at best"


def _undeclared(verdict: Verdict) -> Iterator[str]:
    """Yield which exceptions were used that the declaration has not."""
    applied, declared = verdict.equality, tuple[Except, ...]()
    if applied.declaration is not None:
        declaration = from_document(applied.declaration)
        declared = declaration.exceptions
        if declaration.digest != applied.sha256:
            yield "its declaration is not the one that was applied"
    for used in (each for rebuild in verdict.rebuilds for each in rebuild.outcome.exceptions):
        if not any(_is_of(used, each) for each in declared):
            yield f"an exception was used that is not declared: {used.file}"


def _is_of(used: Excepted, each: Except) -> bool:
    """Tell whether *used* is an effect of the exception *each*."""
    path = None if used.key is None else example(used.key)
    said = (used.member, used.reason, used.set, used.unsafe)
    return (
        said == (each.member, each.reason, each.set, each.unsafe)
        and all(map(each.selects_file, used.file.split(" | ")))
        and each.selects(path)
    )


def _unfounded(outcome: Outcome) -> Iterator[str]:
    """Yield why the conclusion of *outcome* does not follow from its alternatives."""
    strongest, conclusion = outcome.strongest, outcome.conclusion
    # Equal files satisfy every equality: all alternatives hold, and ``bytes`` is the strongest.
    equal = strongest == "bytes" and all(each.held for each in outcome.alternatives)
    holding = [each for each in outcome.alternatives if each.held]
    allowed = {each.concludes for each in holding if each.strength == strongest}
    for alternative in outcome.alternatives:
        if any(finding.held and not _may_hold(finding) for finding in alternative.findings):
            yield "a finding is called held, and its own numbers are against it"
        against = any(not finding.held for finding in alternative.findings)
        if alternative.held and (against or alternative.missing):
            yield "an alternative holds, and what was found is against it"
    held = {each.strength for each in holding}
    if not outcome.alternatives or not (equal or strongest in held or strongest is None):
        yield f"its strongest equality is called {strongest}"
    agreed = conclusion in AGREES
    unfounded = conclusion not in allowed and not (equal and conclusion == "match")
    if agreed != (strongest is not None) or (agreed and unfounded):
        yield f"a rebuild is called {conclusion} by {strongest or 'no equality'}"
    if strongest is None and held:
        yield "an alternative holds, and no equality is said to"
    called_same = strongest in ("bytes", "tensors") or outcome.same_weights
    if called_same and (outcome.distances or outcome.first):
        yield "tensors differ that are called the same"
    if outcome.exceptions and "bytes" in (strongest, *held):
        yield "files are called the same that differ in what was excepted"


def _may_hold(finding: Finding) -> bool:
    """Tell whether a finding with these numbers can hold."""
    if finding.measure in NEVER_HELD or finding.measure.startswith(NEVER_HELD_OF):
        return False
    if finding.limit is None:
        return True
    return finding.value is not None and finding.value <= finding.limit


def _other_predicate(statement: Statement, verdict: Verdict) -> str | None:
    """Return what in the predicate around *verdict* does not follow from it, if anything."""
    expected = to_statement(verdict, Verifier("", "", ""))
    if statement.predicate_type != expected.predicate_type:
        return f"a {verdict.conclusion} is not stated as {statement.predicate_type}"
    if statement.subject != expected.subject:
        return "the subject is not the published model"
    if statement.predicate_type == uris.VERDICT:
        return None
    for name in expected.predicate.keys() - _OF_THE_VERIFIER:
        if statement.predicate.get(name) != expected.predicate[name]:
            return f"its {name} is not what follows from it"
    return None


_OF_THE_VERIFIER = {"verifier", "timeVerified", "timeCreated", "provenance_verdict"}
"""Fields of the wrapping predicates about the verifier, and the verdict itself."""
