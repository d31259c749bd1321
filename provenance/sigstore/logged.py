"""An entry of a log about one signature: body, proof, and the log's word for its time.

Of a body everything is rebuilt from the signature and compared, but the digest of the envelope as
it was uploaded: its JSON is not kept. Rekor v1 writes ``hashedrekord`` 0.0.1, ``dsse`` 0.0.1 and
``intoto`` 0.0.2, Rekor v2 ``hashedrekord`` and ``dsse`` 0.0.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from provenance.encoding import strict_base64, strict_json
from provenance.errors import LogProofError, SignatureError
from provenance.keys import PublicKey
from provenance.sigstore.root import Log
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import entry as entries
from provenance.transparency import note, rekor
from provenance.transparency.entry import LogEntry
from provenance.transparency.note import VerifierKey

_HASHES = "sha256", "sha384", "sha512"

_KINDS = (
    ("hashedrekord", "0.0.1"), ("dsse", "0.0.1"), ("intoto", "0.0.2"),
    ("hashedrekord", "0.0.2"), ("dsse", "0.0.2"),
)  # fmt: skip

_LABELS = "CERTIFICATE", "PUBLIC KEY"

_NO_PROOF = {"rootHash": "A" * 43 + "=", "treeSize": "0", "checkpoint": {"envelope": ""}}

_LAST_TIME = 253402300799
"""The end of the year 9999, in seconds."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What an entry must be about: a signature and who made it, over what.

    ``certificate`` is the signer's in DER; empty where the key is known. ``digest`` gives that of
    what was signed by a hash's name. ``payload`` is that of an envelope.
    """

    signature: bytes
    key: PublicKey
    certificate: bytes
    digest: Callable[[str], bytes]
    payload: bytes | None = None
    payload_type: str = ""


def parse(value: dict[str, Any], version: str) -> tuple[LogEntry, bool]:
    """Return the entry *value* of a bundle of *version*, and whether it has a proof.

    Until bundles of version 0.2 a promise of inclusion was enough.
    """
    given = {name: item for name, item in value.items() if item is not None}
    proof = given.get("inclusionProof")
    whole = isinstance(proof, dict) and proof.get("checkpoint") is not None
    if not whole:
        if version != "0.1":
            what = "checkpoint" if isinstance(proof, dict) else "proof of inclusion"
            raise LogProofError(f"the log entry has no {what}")
        if "inclusionPromise" not in given:
            raise LogProofError("the log entry has neither a proof of inclusion nor a promise")
        given["inclusionProof"] = _NO_PROOF
    return entries.parse_entry(given, "log entry"), whole


def check_body(entry: LogEntry, signed: Signed) -> None:
    """Return if the body of *entry* is about *signed*."""
    found = strict_json.parse(entry.body, where="log entry: body")
    kind = rekor.parse_kind(entry.body, where="log entry: body")
    if kind != (entry.kind, entry.version):
        raise LogProofError(f"the log entry is not of the kind {entry.kind} {entry.version}")
    if kind not in _KINDS or (signed.payload is None and kind[0] != "hashedrekord"):
        raise LogProofError(f"a log entry of the kind {kind[0]} {kind[1]}, which is not supported")
    spec = _spec(kind, _at(found, "spec"), signed)
    expected = {"apiVersion": kind[1], "kind": kind[0], "spec": spec}
    if place := _difference(expected, found):
        raise LogProofError(f"the log entry is about something else: {place} differs")


def _spec(kind: tuple[str, str], found: object, signed: Signed) -> object:
    """Return what a body of this *kind* says; *found* has what cannot be known, and spellings."""
    sig, payload = _b64(signed.signature), hashlib.sha256(signed.payload or b"")
    whole = {"algorithm": "sha256", "value": payload.hexdigest()}
    if kind == ("hashedrekord", "0.0.1"):
        name = _at(found, "data", "hash", "algorithm")
        value = signed.digest(name).hex() if isinstance(name, str) and name in _HASHES else None
        verifier = _pem(_at(found, "signature", "publicKey", "content"), signed)
        signature = {"content": sig, "publicKey": {"content": verifier}}
        return {"data": {"hash": {"algorithm": name, "value": value}}, "signature": signature}
    if kind == ("dsse", "0.0.1"):
        uploaded = _uploaded(_at(found, "envelopeHash"))
        verifier = _pem(_at(found, "signatures", 0, "verifier"), signed)
        made = [{"signature": sig, "verifier": verifier}]
        return {"envelopeHash": uploaded, "payloadHash": whole, "signatures": made}
    if kind == ("intoto", "0.0.2"):
        there = _at(found, "content", "envelope", "signatures", 0)
        # Clients upload it encoded twice.
        made = [{"publicKey": _pem(_at(there, "publicKey"), signed), "sig": _b64(sig.encode())}]
        envelope = {"payloadType": signed.payload_type, "signatures": made}
        uploaded = _uploaded(_at(found, "content", "hash"))
        return {"content": {"envelope": envelope, "hash": uploaded, "payloadHash": whole}}
    spec = rekor.spec_of(signed.digest, signed.signature, signed.key, signed.certificate)
    if kind[0] == "hashedrekord":
        return spec
    digest = {"algorithm": "SHA2_256", "digest": _b64(payload.digest())}
    made = [spec["hashedRekordV002"]["signature"]]
    return {"dsseV002": {"payloadHash": digest, "signatures": made}}


def _uploaded(found: object) -> object:
    """Return *found* if it is a SHA-256 of something: nobody can say of what."""
    value = _at(found, "value")
    fits = isinstance(value, str) and len(value) == 64  # noqa: PLR2004 - in hexadecimal
    return {"algorithm": "sha256", "value": value if fits else None}


def _pem(found: object, signed: Signed) -> object:
    """Return *found* if it is PEM, in base64, of the signer's certificate or key."""
    label, der = _LABELS[not signed.certificate], signed.certificate or signed.key.spki
    try:
        text = base64.b64decode(str(found), validate=True).decode("ascii").strip()
        begin, *lines, end = text.splitlines()
        inner = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError):
        return None
    ends = [f"-----BEGIN {label}-----", f"-----END {label}-----"]
    return found if [begin, end] == ends and inner == der else None


def _at(value: object, *path: str | int) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _difference(expected: object, found: object) -> str:
    """Return where *found* first is not as *expected*; "" if nowhere."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            if name not in expected or name not in found:
                return str(name)
            if place := _difference(expected[name], found[name]):
                return f"{name}.{place}".rstrip(".")
        return ""
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return next(filter(None, map(_difference, expected, found)), "")
    return "" if type(expected) is type(found) and expected == found else "."


def check_promise(entry: LogEntry, log: Log) -> datetime:
    """Return when *log* promised to take *entry*."""
    if entry.time is None or entry.time > _LAST_TIME:
        raise LogProofError("the log's promise is for no time")
    said = {"body": _b64(entry.body), "integratedTime": entry.time, "logIndex": entry.index}
    said["logID"] = entry.log_id.hex()
    try:
        log.key.verify(entry.promise, strict_json.format(said))
    except SignatureError as error:
        raise LogProofError("the log did not sign this promise of inclusion (SET)") from error
    return datetime.fromtimestamp(entry.time, UTC)


def check_inclusion(entry: LogEntry, log: Log) -> None:
    """Return if *entry* is in the tree of a checkpoint that *log* signed."""
    data, where = entry.proof.checkpoint, "checkpoint"
    origin = data.decode().partition("\n")[0]
    # Rekor v1 signs for several trees by one key: "name - number of the tree".
    name = origin.partition(" - ")[0]
    ids = {hashlib.sha256(log.key.spki).digest()}
    if log.key.algorithm == "ed25519":
        ids.add(VerifierKey(name, log.key).log_id)
    if log.log_id not in ids:
        raise LogProofError(f"the checkpoint is of another log, {origin[:100]}")
    key = VerifierKey(name, log.key, log.log_id)
    signed = checkpoints.parse(note.open_note(data, key, where=where), where=where)
    entries.check_inclusion(entry, signed)


_b64 = strict_base64.format
