"""The verdict: the signed outcome of comparing rebuilds (docs/spec/verdict.md).

All conclusions are signed; which predicate carries the verdict follows from what may be claimed:

======================================  =======================================================
conclusion                              predicate
======================================  =======================================================
match by ``bytes``                      SLSA VSA v1, ``SLSA_BUILD_REPRODUCED``
match by ``tensors``, consistent        in-toto SVR v0.2 with a property of ours
mismatch, inconclusive                  our own ``verdict/v1``
======================================  =======================================================

The verdict itself is the same object in all three: the field ``provenance_verdict`` of the first
two, the whole predicate of the last. Agreement by tolerance is never called reproduced, and neither
is agreement by an equality that was not declared beforehand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from provenance.equality.findings import STRENGTHS, Outcome
from provenance.errors import MalformedError
from provenance.statement import intoto, uris
from provenance.statement.intoto import Statement, Subject

Conclusion = Literal["match", "consistent", "mismatch", "inconclusive"]

TENSORS_PROPERTY = "TRAINING_PROVENANCE_SAME_TENSORS"
CONSISTENT_PROPERTY = "TRAINING_PROVENANCE_CONSISTENT"


class AppliedEquality(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The equality that was applied: its name, the SHA-256 of its text, and whether the published
    attestation declared it beforehand.
    """

    name: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    declared: bool


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One attested model: its root digest, the SHA-256 of the signed payload, and the key."""

    name: str
    root_digest: dict[str, str]
    attestation: dict[str, str]
    key_id: str


class Rebuild(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One rebuild against the published model."""

    party: Party
    outcome: Outcome
    recipe_differences: tuple[str, ...]
    environment_differences: tuple[str, ...]


class Diameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The largest distances between any two of the models; null: none could be computed."""

    relative_l2_update: float | None
    linf: float | None


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """The judgement over rebuilds of one published model.

    ``builders`` are the key ids that count as distinct: by their keys alone, of which one person
    can make many. ``reasons`` say why it is no more than it is.
    """

    conclusion: Conclusion
    equality: AppliedEquality
    published: Party
    rebuilds: Annotated[tuple[Rebuild, ...], msgspec.Meta(min_length=1)]
    builders: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    quorum: Annotated[int, msgspec.Meta(ge=2)]
    reasons: tuple[str, ...] = ()
    diameter: Diameter | None = None

    @property
    def strongest(self) -> str | None:
        """The strongest equality that every rebuild met; None where one met none."""
        held = [rebuild.outcome.strongest for rebuild in self.rebuilds]
        met = [strength for strength in held if strength is not None]
        return min(met, key=STRENGTHS.index) if len(met) == len(held) else None


class Verifier(msgspec.Struct, frozen=True):
    """Who judged, and when: the version of this program, and the time (RFC 3339, UTC)."""

    version: str
    time: str


def to_statement(verdict: Verdict, verifier: Verifier) -> Statement:
    """Return *verdict* as the statement that may be made of it."""
    subject = (Subject(verdict.published.name, verdict.published.root_digest),)
    body: dict[str, Any] = msgspec.to_builtins(verdict)
    policy = {"name": verdict.equality.name, "digest": {"sha256": verdict.equality.sha256}}
    version = {"training-provenance": verifier.version}
    agreed = verdict.conclusion in ("match", "consistent") and verdict.equality.declared
    if agreed and verdict.conclusion == "match" and verdict.strongest == "bytes":
        vsa = {
            "verifier": {"id": uris.VERIFIER, "version": version},
            "timeVerified": verifier.time,
            "resourceUri": f"{uris.BASE}/model/sha256:{verdict.published.root_digest['sha256']}",
            "policy": {"uri": uris.EQUALITY, **policy},
            "inputAttestations": [
                {"digest": party.attestation}
                for party in (verdict.published, *(r.party for r in verdict.rebuilds))
            ],
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_BUILD_REPRODUCED"],
            "slsaVersion": "1.2",
            "provenance_verdict": body,
        }
        return Statement(subject, uris.SLSA_VSA, vsa)
    if agreed:
        exact = verdict.conclusion == "match"
        svr = {
            "verifier": {"id": uris.VERIFIER, "version": version, "policies": [policy]},
            "timeCreated": verifier.time,
            "properties": [TENSORS_PROPERTY if exact else CONSISTENT_PROPERTY],
            "provenance_verdict": body,
        }
        return Statement(subject, uris.IN_TOTO_SVR, svr)
    return Statement(subject, uris.VERDICT, body)


def from_statement(statement: Statement, *, where: str | None = None) -> Verdict:
    """Return the verdict that *statement* carries.

    Raises:
        MalformedError: it carries none.
    """
    body: object = statement.predicate
    if statement.predicate_type in (uris.SLSA_VSA, uris.IN_TOTO_SVR):
        body = statement.predicate.get("provenance_verdict")
    elif statement.predicate_type != uris.VERDICT:
        raise MalformedError(f"not a verdict but {statement.predicate_type}", where=where)
    return intoto.convert(body, Verdict, where=where)
