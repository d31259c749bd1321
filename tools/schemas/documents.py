"""The shape of the documents whose parsers are written by hand, for their schemas only.

A parser of ours checks more than a shape (that the hint names the signing key, that a note is one),
so it does not read these types; ``tests/test_schemas.py`` holds both to the same examples.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from provenance.doctor.diagnosis import Advice
from provenance.doctor.twice import Repetition
from provenance.judge.coverage import Reached, Selection
from provenance.judge.side_by_side import FileComparison
from provenance.judge.suggestion import Suggestion
from provenance.measure.findings import Outcome
from provenance.rebuilding.verdict import (
    BYTES_PROPERTY,
    CONSISTENT_PROPERTY,
    ROUNDED_PROPERTY,
    TENSORS_PROPERTY,
    Verdict,
)
from provenance.report.explain_equality import EqualityFile
from provenance.statement import uris
from provenance.statement.intoto import Subject
from provenance.statement.model_signature import ModelSignaturePredicate
from provenance.statement.training import Environment, Recipe, RunDetails, TrainingPredicate
from provenance.trust.outcome import Word
from provenance.trust.verification import Answer, Step

_PROPERTIES = (BYTES_PROPERTY, CONSISTENT_PROPERTY, ROUNDED_PROPERTY, TENSORS_PROPERTY)


def _constant(value: str) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema={"const": value})


def _camel(name: str) -> str:
    """Return the JSON name of a field: an extension field keeps its own."""
    if name == "provenance_verdict":
        return name
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


OneSubject = Annotated[tuple[Subject, ...], msgspec.Meta(min_length=1, max_length=1)]

StatementType = Annotated[str, _constant(uris.STATEMENT)]

_FRAME = {"type": "_type", "predicate_type": "predicateType"}


class TrainingStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """How a model was made: an in-toto Statement v1 with SLSA Provenance v1 of our buildType.

    The subject's sha256 is the OpenSSF root digest over the files in provenance_manifest.
    """

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.SLSA_PROVENANCE)]
    predicate: TrainingPredicate


class ModelSignatureStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """Which files a model has: an in-toto Statement v1 with the OpenSSF model signature v1.0."""

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.MODEL_SIGNATURE)]
    predicate: ModelSignaturePredicate


VerifierUri = Annotated[str, msgspec.Meta(pattern=rf"^{re.escape(uris.VERIFIER)}/.")]
"""The id of the key that signed the verdict, in a URI."""


class VerifierId(msgspec.Struct, frozen=True):
    """Who judged, and the version of this program."""

    id: VerifierUri
    version: dict[str, str]


class AppliedPolicy(msgspec.Struct, frozen=True):
    """The equality that was applied, by the digest of its canonical form."""

    uri: str
    name: str
    digest: dict[str, str]


class JudgingVerifier(msgspec.Struct, frozen=True):
    """Who judged, and by which equality."""

    id: VerifierUri
    version: dict[str, str]
    policies: tuple[AppliedPolicy, ...]


class Attestation(msgspec.Struct, frozen=True):
    """A training statement that was judged, by the SHA-256 of its bundle, as it was published."""

    uri: str
    digest: dict[str, str]


class ReproducedPredicate(msgspec.Struct, frozen=True, rename=_camel):
    """SLSA verification summary v1: independent builders made the same bytes."""

    verifier: VerifierId
    time_verified: str
    resource_uri: str
    policy: AppliedPolicy
    input_attestations: tuple[Attestation, ...]
    verification_result: Literal["PASSED"]
    verified_levels: tuple[Literal["SLSA_BUILD_REPRODUCED"]]
    slsa_version: str
    provenance_verdict: Verdict


class AgreedPredicate(msgspec.Struct, frozen=True, rename=_camel):
    """in-toto simple verification result v0.2: the same files or tensors, or close ones."""

    verifier: JudgingVerifier
    time_created: str
    properties: tuple[Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(_PROPERTIES)})]]
    provenance_verdict: Verdict


class ReproducedStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """A match by ``bytes``, declared beforehand, of builders who are said to be independent."""

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.SLSA_VSA)]
    predicate: ReproducedPredicate


class AgreedStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """Any other match, or consistent, declared beforehand."""

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.IN_TOTO_SVR)]
    predicate: AgreedPredicate


class VerdictStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """A verdict that claims nothing of the model: mismatch, inconclusive, or not declared."""

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.VERDICT)]
    predicate: Verdict


class Failure(msgspec.Struct, frozen=True):
    """Why something was refused, in one line."""

    message: str


class Refused(msgspec.Struct, frozen=True):
    """What ``verify --json`` prints where a step does not hold; ``steps`` are those that held.

    With ``--trust``, ``policy`` has the answer to each rule, if all steps held.
    """

    error: Failure
    steps: tuple[Step, ...]
    verified: Literal[False]
    policy: tuple[Answer, ...] = ()


class Held(msgspec.Struct, frozen=True, rename="camel"):
    """What ``verify --json`` prints where every step held.

    ``name`` is what the signer calls the model. ``keyId`` (of the claim), ``recipe``,
    ``environment`` and ``run`` are null where only an OpenSSF model signature says anything.
    ``levels`` has each signer's word, and that of the signer of a verdict. ``policy`` has the
    answers of a trust policy; null without ``--trust``.
    """

    verified: Literal[True]
    model: str
    name: str
    root_digest: dict[str, str]
    key_id: str | None
    levels: tuple[Word, ...]
    recipe: Recipe | None
    environment: Environment | None
    run: RunDetails | None
    equality: str | None
    log_index: int | None
    not_covered: dict[str, int]
    warnings: tuple[str, ...]
    policy: tuple[Answer, ...] | None
    steps: tuple[Step, ...]


class Compared(msgspec.Struct, frozen=True):
    """What ``compare --json`` prints. ``outcome`` is null without ``--equality``."""

    files: tuple[FileComparison, ...]
    outcome: Outcome | None
    not_compared: tuple[str, ...]


class Diagnosed(msgspec.Struct, frozen=True):
    """What ``doctor --json`` prints. ``twice`` is null without ``--twice``."""

    advice: tuple[Advice, ...]
    volatile: tuple[str, ...]
    twice: Repetition | None


class EqualitiesListed(msgspec.Struct, frozen=True):
    """What ``equality list --json`` prints."""

    declarations: tuple[EqualityFile, ...]


class EqualityShown(msgspec.Struct, frozen=True):
    """What ``equality show --json`` prints; ``toml`` is the declaration as it is written."""

    declaration: EqualityFile
    toml: str


class EqualityChecked(msgspec.Struct, frozen=True):
    """What ``equality check --json`` prints; without a model, the last three are empty.

    ``excepted`` has an entry for each exception, those of ``except`` first; ``unread`` are the
    weight files that no rule can read, and why.
    """

    declaration: EqualityFile
    consequences: tuple[str, ...]
    selections: tuple[Selection, ...]
    excepted: tuple[Reached, ...]
    unread: tuple[str, ...]


class EqualitySuggested(msgspec.Struct, frozen=True):
    """What ``equality suggest --json`` prints; ``toml`` is the declaration that is proposed."""

    suggestion: Suggestion
    toml: str


class Judged(msgspec.Struct, frozen=True):
    """What ``agree --json`` prints; ``models`` are the folders in the order of the verdict."""

    verdict: Verdict
    models: tuple[str, ...]
