"""A log entry with its proof: the ``TransparencyLogEntry`` of a Sigstore bundle v0.3.

In JSON, as in ``verificationMaterial.tlogEntries`` (sigstore/protobuf-specs,
``sigstore_rekor.proto``; 64-bit integers are decimal strings, bytes are base64). The proof is
checked offline, in :data:`STEPS`; the error of a step names it in its ``where``. Time and promise
come from Rekor v1, and prove nothing here.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.encoding.strict_base64 import Base64
from provenance.errors import LogProofError, MalformedError
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import merkle, rekor
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.note import VerifierKey
from provenance.transparency.tiles import MAX_ENTRY_BYTES

MAX_PROOF_HASHES = 64
"""Most hashes in an inclusion proof: one for each level of a tree below 2^63 leaves."""

STEPS = ("log", "body", "checkpoint", "tree", "inclusion")
"""The steps of :func:`check_entry`, in order:

1. log: the entry is of this log, and names one index;
2. body: the entry's body is the given one, and of the declared kind and version;
3. checkpoint: this log's key signed the checkpoint, under this log's name;
4. tree: the proof is for the checkpoint's size and root;
5. inclusion: the body's leaf hash leads to that root by a path of the right length.
"""

Hash = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{43}=$")]
Decimal = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,18})$")]


class LogId(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The log, by the hash of its verifier key."""

    key_id: Hash


class KindVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What kind of body is logged. Ours are ``hashedrekord`` 0.0.2."""

    kind: Annotated[str, msgspec.Meta(examples=[rekor.KIND])]
    version: Annotated[str, msgspec.Meta(examples=[rekor.VERSION])]


class InclusionPromise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A promise of Rekor v1; it proves nothing here."""

    signed_entry_timestamp: Base64


class SignedNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The checkpoint: a signed note, as text."""

    envelope: str


class ProofDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The path from the entry to the root that the log signed."""

    root_hash: Hash
    tree_size: Decimal
    checkpoint: SignedNote
    log_index: Decimal = "0"
    hashes: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=MAX_PROOF_HASHES)] = ()


class EntryDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An entry of a transparency log with its proof: Sigstore's TransparencyLogEntry.

    Protobuf's JSON leaves out integers that are zero and lists that are empty.
    """

    log_id: LogId
    kind_version: KindVersion
    inclusion_proof: ProofDocument
    canonicalized_body: Base64
    log_index: Decimal = "0"
    integrated_time: Decimal | msgspec.UnsetType = msgspec.UNSET
    inclusion_promise: InclusionPromise | msgspec.UnsetType = msgspec.UNSET


class InclusionProof(msgspec.Struct, frozen=True):
    """The audit path of leaf *index* in the tree of *size*, and the note that signs its *root*."""

    index: int
    root: bytes
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the log *log_id* (32 bytes), as it came: nothing of it is verified.

    Rekor v1 gives a ``time`` (seconds since 1970) and a signature over it and all but the proof.
    """

    index: int
    log_id: bytes
    kind: str
    version: str
    body: bytes
    proof: InclusionProof
    time: int | None = None
    promise: bytes = b""


def check_entry(entry: LogEntry, *, body: bytes, vkey: VerifierKey) -> Checkpoint:
    """Return the checkpoint that covers *body* as the leaf of *entry* in the log of *vkey*."""
    proof = entry.proof
    if entry.log_id != vkey.log_id:
        raise _refusal("log", f"the entry is of another log than {vkey.name}")
    if entry.index != proof.index:
        raise _refusal("log", f"the entry has index {entry.index}, and its proof {proof.index}")
    if entry.body != body:
        raise _refusal("body", "the entry is not about this envelope")
    if rekor.parse_kind(body, where=_place("body")) != (entry.kind, entry.version):
        raise _refusal("body", f"the entry is not of the kind {entry.kind} {entry.version}")
    signed = checkpoints.open_checkpoint(proof.checkpoint, vkey, where=_place("checkpoint"))
    check_inclusion(entry, signed)
    return signed


def check_inclusion(entry: LogEntry, signed: Checkpoint) -> None:
    """Return if the tree of *signed* has *entry*: the last two steps."""
    proof = entry.proof
    if proof.size != signed.size:
        raise _refusal("tree", f"the proof is for size {proof.size}, not {signed.size}")
    if proof.root != signed.root:
        raise _refusal("tree", "the proof and the checkpoint have different roots")
    try:
        leaf, root = merkle.hash_leaf(entry.body), signed.root
        merkle.check_inclusion(leaf, proof.hashes, index=proof.index, size=signed.size, root=root)
    except LogProofError as error:
        raise _refusal("inclusion", error.what) from error


def parse_entry(value: object, where: str | None = None) -> LogEntry:
    """Return the log entry that *value*, a JSON object read strictly, spells."""
    document = strict_json.convert(value, EntryDocument, where=where, what="a log entry")
    proof, promise = document.inclusion_proof, document.inclusion_promise
    body = strict_base64.parse(document.canonicalized_body, where=_inside(where, "body"))
    if len(body) > MAX_ENTRY_BYTES:
        raise MalformedError(f"a log entry has at most {MAX_ENTRY_BYTES} bytes", where=where)
    return LogEntry(
        index=_integer(document.log_index, "logIndex", where),
        log_id=_hash(document.log_id.key_id, "logId", where),
        kind=document.kind_version.kind,
        version=document.kind_version.version,
        body=body,
        proof=InclusionProof(
            index=_integer(proof.log_index, "inclusionProof.logIndex", where),
            root=_hash(proof.root_hash, "rootHash", where),
            size=_integer(proof.tree_size, "treeSize", where),
            hashes=tuple(_hash(item, "hashes", where) for item in proof.hashes),
            checkpoint=proof.checkpoint.envelope.encode(),
        ),
        time=_integer(document.integrated_time or "0", "integratedTime", where) or None,
        promise=strict_base64.parse(promise.signed_entry_timestamp if promise else "", where=where),
    )


def format_entry(entry: LogEntry) -> dict[str, Any]:
    """Return *entry* as a JSON object."""
    proof, text = entry.proof, strict_base64.format
    document = EntryDocument(
        log_id=LogId(text(entry.log_id)),
        kind_version=KindVersion(entry.kind, entry.version),
        inclusion_proof=ProofDocument(
            root_hash=text(proof.root),
            tree_size=str(proof.size),
            checkpoint=SignedNote(proof.checkpoint.decode()),
            log_index=str(proof.index),
            hashes=tuple(map(text, proof.hashes)),
        ),
        canonicalized_body=text(entry.body),
        log_index=str(entry.index),
    )
    return dict(msgspec.json.decode(msgspec.json.encode(document)))


def _integer(text: str, name: str, where: str | None) -> int:
    return checkpoints.parse_size(text, where=_inside(where, name))


def _hash(text: str, name: str, where: str | None) -> bytes:
    return strict_base64.parse(text, where=_inside(where, name))


def _inside(where: str | None, name: str) -> str:
    return f"{where}: {name}" if where else name


def _place(step: str) -> str:
    return f"log proof, step {STEPS.index(step) + 1} ({step})"


def _refusal(step: str, what: str) -> LogProofError:
    return LogProofError(what, where=_place(step))
