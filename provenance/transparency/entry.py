"""A log entry with its proof: the ``TransparencyLogEntry`` of a Sigstore bundle v0.3.

In JSON, as in ``verificationMaterial.tlogEntries`` (sigstore/protobuf-specs,
``sigstore_rekor.proto``; 64-bit integers are decimal strings, bytes are base64)::

    {"logIndex": "5", "logId": {"keyId": …},
     "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
     "integratedTime": "0",                                          absent in ours
     "inclusionPromise": {"signedEntryTimestamp": …},                absent in ours
     "inclusionProof": {"logIndex": "5", "rootHash": …, "treeSize": "9", "hashes": […],
                        "checkpoint": {"envelope": "<signed note>"}},
     "canonicalizedBody": …}

``logId.keyId`` is the 32-byte hash of the log's vkey, as in Rekor v2. The proof is checked without
the network; :data:`STEPS` are its steps, and the error of a step names it in its ``where``. Time
and promise come from Rekor v1; they are read and kept, and prove nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.encoding import strict_base64
from provenance.encoding.fields import as_closed_object, as_text
from provenance.errors import LogProofError, MalformedError
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import merkle, rekor
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.tiles import MAX_ENTRY_BYTES

if TYPE_CHECKING:
    from provenance.transparency.note import VerifierKey

MAX_PROOF_HASHES = 64
"""Most hashes in an inclusion proof: one for each level of a tree below 2^63 leaves."""

STEPS = ("log", "body", "checkpoint", "tree", "inclusion")
"""The steps of :func:`check_entry`, in order."""


class InclusionProof(msgspec.Struct, frozen=True):
    """The audit path of leaf *index* in the tree of *size*, and the note that signs its *root*."""

    index: int
    root: bytes
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the log *log_id* (32 bytes), as it came: nothing of it is verified.

    *integrated_time* (seconds since 1970, 0: none) and *promise* (empty: none) are Rekor v1's.
    """

    index: int
    log_id: bytes
    kind: str
    version: str
    body: bytes
    proof: InclusionProof
    integrated_time: int = 0
    promise: bytes = b""


class VerifiedEntry(msgspec.Struct, frozen=True):
    """What is proven: the *checkpoint* that the log signed covers *body* as its leaf *index*."""

    index: int
    body: bytes
    checkpoint: Checkpoint


def check_entry(entry: LogEntry, *, body: bytes, vkey: VerifierKey) -> VerifiedEntry:
    """Return the proof that *body* is in the log of *vkey*.

    Steps:

    1. log: the entry is of this log, and names one index;
    2. body: the entry's body is *body*, and of the declared kind and version;
    3. checkpoint: this log's key signed the checkpoint, under this log's name;
    4. tree: the proof is for the checkpoint's size and root;
    5. inclusion: the leaf hash of *body* leads to that root by a path of the right length.

    Raises:
        LogProofError: a step fails; ``where`` names it.
        MalformedError: the checkpoint is not one, or the body is not JSON.
    """
    proof = entry.proof
    if entry.log_id != vkey.log_id:
        raise _refusal("log", f"the entry is of another log than {vkey.name}")
    if entry.index != proof.index:
        raise _refusal("log", f"the entry has index {entry.index}, and its proof {proof.index}")
    if entry.body != body:
        raise _refusal("body", "the entry is about something else")
    if rekor.parse_kind(body, where=_place("body")) != (entry.kind, entry.version):
        raise _refusal("body", f"the entry is not of the kind {entry.kind} {entry.version}")
    signed = checkpoints.open_checkpoint(proof.checkpoint, vkey, where=_place("checkpoint"))
    if proof.size != signed.size:
        raise _refusal("tree", f"the proof is for size {proof.size}, not {signed.size}")
    if proof.root != signed.root:
        raise _refusal("tree", "the proof is for another root than the checkpoint's")
    try:
        merkle.check_inclusion(
            merkle.hash_leaf(body),
            proof.hashes,
            index=proof.index,
            size=signed.size,
            root=signed.root,
        )
    except LogProofError as error:
        raise _refusal("inclusion", error.what) from error
    return VerifiedEntry(proof.index, body, signed)


def parse_entry(value: object, where: str | None = None) -> LogEntry:
    """Return the log entry that *value*, a JSON object read strictly, spells.

    Raises:
        MalformedError: it is not one, has unknown fields, or holds no inclusion proof.
    """
    document = as_closed_object(value, "log entry", where, _ENTRY_FIELDS, _ENTRY_OPTIONAL)
    log_id = as_closed_object(document["logId"], "logId", where, ("keyId",))
    kind = as_closed_object(document["kindVersion"], "kindVersion", where, ("kind", "version"))
    promise = b""
    if "inclusionPromise" in document:
        names = ("signedEntryTimestamp",)
        holder = as_closed_object(document["inclusionPromise"], "inclusionPromise", where, names)
        promise = _bytes(holder["signedEntryTimestamp"], "signedEntryTimestamp", where)
    body = _bytes(document["canonicalizedBody"], "canonicalizedBody", where)
    if len(body) > MAX_ENTRY_BYTES:
        raise MalformedError(f"a log entry has at most {MAX_ENTRY_BYTES} bytes", where=where)
    return LogEntry(
        index=_integer(document.get("logIndex", "0"), "logIndex", where),
        log_id=_hash(log_id["keyId"], "logId", where),
        kind=as_text(kind["kind"], "kind", where),
        version=as_text(kind["version"], "version", where),
        body=body,
        proof=_parse_proof(document["inclusionProof"], where),
        integrated_time=_integer(document.get("integratedTime", "0"), "integratedTime", where),
        promise=promise,
    )


def format_entry(entry: LogEntry) -> dict[str, Any]:
    """Return *entry* as a JSON object."""
    proof = entry.proof
    document: dict[str, Any] = {
        "canonicalizedBody": strict_base64.format(entry.body),
        "inclusionProof": {
            "checkpoint": {"envelope": proof.checkpoint.decode()},
            "hashes": [strict_base64.format(item) for item in proof.hashes],
            "logIndex": str(proof.index),
            "rootHash": strict_base64.format(proof.root),
            "treeSize": str(proof.size),
        },
        "kindVersion": {"kind": entry.kind, "version": entry.version},
        "logId": {"keyId": strict_base64.format(entry.log_id)},
        "logIndex": str(entry.index),
    }
    if entry.integrated_time:
        document["integratedTime"] = str(entry.integrated_time)
    if entry.promise:
        document["inclusionPromise"] = {"signedEntryTimestamp": strict_base64.format(entry.promise)}
    return document


# Protobuf's JSON leaves out integers that are zero and lists that are empty.
_ENTRY_FIELDS = ("logId", "kindVersion", "inclusionProof", "canonicalizedBody")
_ENTRY_OPTIONAL = ("logIndex", "integratedTime", "inclusionPromise")
_PROOF_FIELDS = ("rootHash", "treeSize", "checkpoint")
_PROOF_OPTIONAL = ("logIndex", "hashes")


def _parse_proof(value: object, where: str | None) -> InclusionProof:
    document = as_closed_object(value, "inclusionProof", where, _PROOF_FIELDS, _PROOF_OPTIONAL)
    hashes = document.get("hashes", [])
    if not isinstance(hashes, list) or len(hashes) > MAX_PROOF_HASHES:
        raise MalformedError(f"hashes must be a list of at most {MAX_PROOF_HASHES}", where=where)
    holder = as_closed_object(document["checkpoint"], "checkpoint", where, ("envelope",))
    return InclusionProof(
        index=_integer(document.get("logIndex", "0"), "inclusionProof.logIndex", where),
        root=_hash(document["rootHash"], "rootHash", where),
        size=_integer(document["treeSize"], "treeSize", where),
        hashes=tuple(_hash(item, "hashes", where) for item in hashes),
        checkpoint=as_text(holder["envelope"], "checkpoint", where).encode(),
    )


def _integer(value: object, name: str, where: str | None) -> int:
    return checkpoints.parse_size(as_text(value, name, where), where=_inside(where, name))


def _bytes(value: object, name: str, where: str | None) -> bytes:
    return strict_base64.parse(as_text(value, name, where), where=_inside(where, name))


def _hash(value: object, name: str, where: str | None) -> bytes:
    data = _bytes(value, name, where)
    if len(data) != merkle.HASH_BYTES:
        raise MalformedError(f"{name} has {len(data)} bytes, not 32", where=where)
    return data


def _inside(where: str | None, name: str) -> str:
    return f"{where}: {name}" if where else name


def _place(step: str) -> str:
    return f"log proof, step {STEPS.index(step) + 1} ({step})"


def _refusal(step: str, what: str) -> LogProofError:
    return LogProofError(what, where=_place(step))
