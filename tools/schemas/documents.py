"""The shape of the documents whose parsers are written by hand, for their schemas only.

A parser of ours checks more than a shape (that the hint names the signing key, that a note is one),
so it does not read these types; ``tests/test_schemas.py`` holds both to the same examples.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from provenance.envelope.bundle import MAX_LOG_ENTRIES, MEDIA_TYPE
from provenance.envelope.dsse import IN_TOTO_PAYLOAD
from provenance.judge.coverage import Selection
from provenance.judge.side_by_side import FileComparison
from provenance.measure.findings import Outcome
from provenance.rebuilding.verdict import CONSISTENT_PROPERTY, TENSORS_PROPERTY, Verdict
from provenance.report.explain_equality import EqualityFile
from provenance.statement import uris
from provenance.statement.intoto import Subject
from provenance.statement.model_signature import ModelSignaturePredicate
from provenance.statement.training import Recipe, RunDetails, TrainingPredicate
from provenance.transparency import rekor
from provenance.transparency.entry import MAX_PROOF_HASHES
from provenance.trust.verification import Step


def _constant(value: str) -> msgspec.Meta:
    return msgspec.Meta(extra_json_schema={"const": value})


def _camel(name: str) -> str:
    """Return the JSON name of a field: an extension field keeps its own."""
    if name == "provenance_verdict":
        return name
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


_BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

Base64 = Annotated[str, msgspec.Meta(pattern=_BASE64)]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]
Decimal = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,18})$")]
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


class VerifierId(msgspec.Struct, frozen=True):
    """Who judged: this program, and its version."""

    id: Annotated[str, _constant(uris.VERIFIER)]
    version: dict[str, str]


class AppliedPolicy(msgspec.Struct, frozen=True):
    """The equality that was applied, by the digest of its text."""

    name: str
    digest: dict[str, str]
    uri: str = uris.EQUALITY


class JudgingVerifier(msgspec.Struct, frozen=True):
    """Who judged, and by which equality."""

    id: Annotated[str, _constant(uris.VERIFIER)]
    version: dict[str, str]
    policies: tuple[AppliedPolicy, ...]


class Attestation(msgspec.Struct, frozen=True):
    """A training statement that was judged, by the SHA-256 of its signed payload."""

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
    """in-toto simple verification result v0.2: the same tensors, or close ones."""

    verifier: JudgingVerifier
    time_created: str
    properties: tuple[
        Annotated[
            str, msgspec.Meta(extra_json_schema={"enum": [CONSISTENT_PROPERTY, TENSORS_PROPERTY]})
        ]
    ]
    provenance_verdict: Verdict


class ReproducedStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """A verdict of match by the equality ``bytes``, declared beforehand."""

    type: StatementType
    subject: OneSubject
    predicate_type: Annotated[str, _constant(uris.SLSA_VSA)]
    predicate: ReproducedPredicate


class AgreedStatement(msgspec.Struct, frozen=True, rename=_FRAME):
    """A verdict of match by ``tensors``, or of consistent, declared beforehand."""

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


class LogId(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The log, by the hash of its verifier key."""

    key_id: Hash


class KindVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What kind of body is logged. Ours are ``hashedrekord`` 0.0.2."""

    kind: Annotated[str, msgspec.Meta(examples=[rekor.KIND])]
    version: Annotated[str, msgspec.Meta(examples=[rekor.VERSION])]


class InclusionPromise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A promise of Rekor v1; read, and proves nothing here."""

    signed_entry_timestamp: Base64


class SignedNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The checkpoint: a signed note, as text."""

    envelope: str


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The path from the entry to the root that the log signed."""

    root_hash: Hash
    tree_size: Decimal
    checkpoint: SignedNote
    log_index: Decimal = "0"
    hashes: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_PROOF_HASHES)] = ()


class LogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An entry of a transparency log with its proof: Sigstore's TransparencyLogEntry."""

    log_id: LogId
    kind_version: KindVersion
    inclusion_proof: Proof
    canonicalized_body: Base64
    log_index: Decimal = "0"
    integrated_time: Decimal = "0"
    inclusion_promise: InclusionPromise | msgspec.UnsetType = msgspec.UNSET


class NamedKey(msgspec.Struct, frozen=True):
    """A hint that tells which key signed: its key id, or the digest of its PEM text."""

    hint: str = ""


class Material(msgspec.Struct, frozen=True, rename="camel"):
    """What is needed to verify, beside the signer's key."""

    public_key: NamedKey
    tlog_entries: Annotated[tuple[LogEntry, ...], msgspec.Meta(max_length=MAX_LOG_ENTRIES)] = ()


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """A signature over the DSSE pre-authentication encoding of payload and type."""

    sig: Base64
    keyid: str = ""


class DsseEnvelope(msgspec.Struct, frozen=True, rename="camel"):
    """A signed payload: mostly an in-toto Statement."""

    payload: Base64
    payload_type: Annotated[str, msgspec.Meta(examples=[IN_TOTO_PAYLOAD])]
    signatures: Annotated[tuple[EnvelopeSignature, ...], msgspec.Meta(min_length=1, max_length=1)]


class Bundle(msgspec.Struct, frozen=True, rename="camel"):
    """A signed statement and what is needed to verify it: a Sigstore bundle v0.3, as written here.

    One bundle is one line of claims.jsonl; model.sig and a signed verdict are one bundle each.
    """

    media_type: Annotated[str, _constant(MEDIA_TYPE)]
    dsse_envelope: DsseEnvelope
    verification_material: Material


class Failure(msgspec.Struct, frozen=True):
    """Why something was refused, in one line."""

    message: str


class Refused(msgspec.Struct, frozen=True):
    """What ``verify --json`` prints where a step does not hold; ``steps`` are those that held."""

    error: Failure
    steps: tuple[Step, ...]
    verified: Literal[False]


class Held(msgspec.Struct, frozen=True, rename="camel"):
    """What ``verify --json`` prints where every step held.

    ``keyId``, ``recipe`` and ``run`` are null where only an OpenSSF model signature says anything.
    """

    verified: Literal[True]
    model: str
    root_digest: dict[str, str]
    key_id: str | None
    recipe: Recipe | None
    run: RunDetails | None
    equality: str | None
    log_index: int | None
    steps: tuple[Step, ...]


class Compared(msgspec.Struct, frozen=True):
    """What ``compare --json`` prints. ``outcome`` is null without ``--equality``."""

    files: tuple[FileComparison, ...]
    outcome: Outcome | None


class EqualitiesListed(msgspec.Struct, frozen=True):
    """What ``equality list --json`` prints."""

    declarations: tuple[EqualityFile, ...]


class EqualityShown(msgspec.Struct, frozen=True):
    """What ``equality show --json`` prints; ``toml`` is the declaration as it is written."""

    declaration: EqualityFile
    toml: str


class EqualityChecked(msgspec.Struct, frozen=True):
    """What ``equality check --json`` prints; ``selections`` is empty without a model."""

    declaration: EqualityFile
    consequences: tuple[str, ...]
    selections: tuple[Selection, ...]


class Judged(msgspec.Struct, frozen=True):
    """What ``agree --json`` prints; ``models`` are the folders in the order of the verdict."""

    verdict: Verdict
    models: tuple[str, ...]
