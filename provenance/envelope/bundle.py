"""The Sigstore bundle v0.3 (JSON) that carries one DSSE envelope.

Written is the form for self-managed keys::

    {"dsseEnvelope": {…}, "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": KEYID}, "tlogEntries": [ENTRY, …]}}

with exactly one signature, whose ``keyid`` equals the hint (sigstore/protobuf-specs,
``sigstore_bundle.proto``), in JCS. Read are also the older media types, and OpenSSF model
signatures, whose hint is the digest of the PEM text while their ``keyid`` is empty. A signer or
``keyid`` of ``null`` is one that is not there, as protobuf's JSON has it.

``claims.jsonl`` holds one bundle a line. Received bytes are kept as they came; a log entry stays an
opaque object here (:mod:`provenance.transparency` reads it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.encoding.fields import as_object, as_text
from provenance.envelope.dsse import Envelope, Signature, open_envelope
from provenance.errors import MalformedError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.envelope.dsse import Opened
    from provenance.keys import PublicKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

READ_MEDIA_TYPES = frozenset(
    {MEDIA_TYPE} | {f"application/vnd.dev.sigstore.bundle+json;version=0.{n}" for n in (1, 2, 3)}
)

_SIGNERS = ("publicKey", "certificate", "x509CertificateChain")

MAX_LINES = 10_000
"""Most bundles in one ``claims.jsonl``."""

MAX_LOG_ENTRIES = 16
"""Most log entries in one bundle."""

MAX_VALUES = 100_000
"""Most JSON values in one bundle. The payload and a log entry's body are one each, and a proof has
at most 64 hashes; a Sigstore bundle of the public log has about 100."""


class Bundle(msgspec.Struct, frozen=True):
    """One envelope and what is needed to verify it.

    ``material`` says how the signer is named: ``publicKey``, ``certificate`` or
    ``x509CertificateChain``. ``hint`` is the public key's hint, empty where there is none.
    ``log_entries`` are the JSON objects of ``tlogEntries``. ``raw`` is the bundle as received.
    """

    envelope: Envelope
    material: str
    hint: str
    log_entries: tuple[dict[str, Any], ...]
    raw: bytes


def format(envelope: Envelope, *, hint: str, log_entries: Sequence[dict[str, Any]] = ()) -> bytes:  # noqa: A001
    """Return the bundle around *envelope*, in JCS, without a line end.

    The payload can be most of a document of tens of megabytes: it is encoded once.
    """
    return strict_json.format(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}, "tlogEntries": list(log_entries)},
            "dsseEnvelope": {
                "payload": strict_base64.format(envelope.payload),
                "payloadType": envelope.payload_type,
                "signatures": [
                    {"keyid": signature.keyid, "sig": strict_base64.format(signature.sig)}
                    for signature in envelope.signatures
                ],
            },
        }
    )


def parse(data: bytes, *, where: str | None = None) -> Bundle:
    """Return the bundle that *data* spells.

    Raises:
        MalformedError: it is not a bundle with one signed DSSE envelope.
    """
    document = as_object(
        strict_json.parse(data, where=where, max_values=MAX_VALUES), "the bundle", where
    )
    media_type = document.get("mediaType")
    if not isinstance(media_type, str) or media_type not in READ_MEDIA_TYPES:
        raise MalformedError(
            f"not a Sigstore bundle: the media type is {media_type!r}", where=where
        )
    if "dsseEnvelope" not in document:
        raise MalformedError("the bundle holds no DSSE envelope", where=where)
    if document.get("messageSignature") is not None:
        raise MalformedError("the bundle holds an envelope and a message signature", where=where)
    envelope = _parse_envelope(document["dsseEnvelope"], where)
    material = as_object(document.get("verificationMaterial"), "verificationMaterial", where)
    kinds = [name for name in _SIGNERS if material.get(name) is not None]
    if len(kinds) != 1:
        raise MalformedError("the bundle must name its signer in exactly one way", where=where)
    hint = ""
    if kinds == ["publicKey"]:
        holder = as_object(material["publicKey"], "publicKey", where)
        hint = as_text(holder.get("hint", ""), "hint", where)
    entries = material.get("tlogEntries", [])
    if not isinstance(entries, list) or len(entries) > MAX_LOG_ENTRIES:
        raise MalformedError(
            f"tlogEntries must be a list of at most {MAX_LOG_ENTRIES}", where=where
        )
    objects = tuple(as_object(entry, "a log entry", where) for entry in entries)
    return Bundle(envelope, kinds[0], hint, objects, data)


def parse_lines(data: bytes, *, where: str | None = None) -> tuple[Bundle, ...]:
    """Return the bundles of *data*, the content of a ``claims.jsonl``: one a line.

    Raises:
        MalformedError: a line is not a bundle, is empty, or the last one has no end.
    """
    if not data.endswith(b"\n"):
        raise MalformedError("the last line has no end: the file is cut off", where=where)
    lines = data[:-1].split(b"\n")
    if len(lines) > MAX_LINES:
        raise MalformedError(f"more than {MAX_LINES} lines", where=where)
    return tuple(
        parse(line, where=f"{where or 'line'}:{number}") for number, line in enumerate(lines, 1)
    )


def parse_any(data: bytes, *, where: str | None = None) -> tuple[Bundle, ...]:
    """Return the bundles of *data*: one bundle in any JSON layout, or one a line.

    Raises:
        MalformedError: *data* is neither.
    """
    stripped = data.rstrip(b"\r\n")
    first = stripped.partition(b"\n")[0]
    one_document = first == stripped or not first.rstrip(b"\r").endswith(b"}")
    return (parse(stripped, where=where),) if one_document else parse_lines(data, where=where)


def open_bundle(bundle: Bundle, keys: Sequence[PublicKey]) -> Opened:
    """Return what one of *keys* signed.

    Raises:
        SignatureError: none of them made the signature, the hint names a key whose signature
            fails, hint and ``keyid`` name different keys, or the signer is named by certificate.
    """
    if bundle.material != "publicKey":
        raise SignatureError(
            "signed with a certificate, which this version does not verify",
            hint="ask the signer for a signature by key",
        )
    (signature,) = bundle.envelope.signatures
    if bundle.hint and signature.keyid and bundle.hint != signature.keyid:
        raise SignatureError("the bundle's hint and the signature's keyid name different keys")
    if bundle.hint:
        keys = [key for key in keys if bundle.hint in (key.key_id, key.pem_digest)]
        if not keys:
            raise SignatureError(f"signed by another key, {bundle.hint}")
    return open_envelope(bundle.envelope, keys)


def _parse_envelope(value: object, where: str | None) -> Envelope:
    document = as_object(value, "dsseEnvelope", where)
    place = f"{where or 'bundle'}: dsseEnvelope"
    listed = document.get("signatures")
    if not isinstance(listed, list) or len(listed) != 1:
        raise MalformedError("a bundle holds exactly one signature", where=place)
    signature = as_object(listed[0], "the signature", place)
    payload = strict_base64.parse(
        as_text(document.get("payload"), "payload", place), where=f"{place}.payload"
    )
    keyid = signature.get("keyid")
    return Envelope(
        as_text(document.get("payloadType"), "payloadType", place),
        payload,
        (
            Signature(
                "" if keyid is None else as_text(keyid, "keyid", place),
                strict_base64.parse(
                    as_text(signature.get("sig"), "sig", place), where=f"{place}.sig"
                ),
            ),
        ),
    )
