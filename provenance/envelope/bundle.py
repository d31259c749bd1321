"""The Sigstore bundle v0.3 (JSON) that carries one DSSE envelope.

Written is the form for self-managed keys, in JCS, with exactly one signature, whose ``keyid``
equals the hint (sigstore/protobuf-specs, ``sigstore_bundle.proto``). Older media types are read
too, and OpenSSF model signatures, whose hint is the digest of the PEM text and whose ``keyid`` is
empty. A signer or ``keyid`` of ``null`` counts as absent, as in protobuf's JSON.

``claims.jsonl`` holds one bundle a line. Received bytes are kept unchanged; a log entry is an
opaque object here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.encoding.strict_base64 import Base64
from provenance.envelope.dsse import IN_TOTO_PAYLOAD, Envelope, Opened, open_envelope
from provenance.errors import MalformedError, SignatureError
from provenance.keys import PublicKey

if TYPE_CHECKING:
    from provenance.keys.certificates import Authority

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"

READ_MEDIA_TYPES = frozenset(
    {MEDIA_TYPE} | {f"application/vnd.dev.sigstore.bundle+json;version=0.{n}" for n in (1, 2, 3)}
)

MAX_LINES = 10_000
"""Most bundles in one ``claims.jsonl``."""

MAX_LOG_ENTRIES = 16
"""Most log entries in one bundle."""

MAX_TIMESTAMPS = 16
"""Most timestamps in one bundle."""

MAX_CERTIFICATES = 10
"""Most certificates in one bundle."""

MAX_VALUES = 100_000
"""Most JSON values in one bundle; one of Sigstore's public log has about 100."""


class NamedKey(msgspec.Struct, frozen=True):
    """A hint at the key that signed: its key id, the digest of its PEM text, or anything else."""

    hint: str | None = None


class Certificate(msgspec.Struct, frozen=True, rename="camel"):
    """An X.509 certificate in DER."""

    raw_bytes: Base64


class CertificateChain(msgspec.Struct, frozen=True):
    """The signer's certificate, and those of authorities that lead from it to a root."""

    certificates: Annotated[
        tuple[Certificate, ...], msgspec.Meta(min_length=1, max_length=MAX_CERTIFICATES)
    ]


class SignedTimestamp(msgspec.Struct, frozen=True, rename="camel"):
    """A response of a time-stamp authority (RFC 3161) in DER."""

    signed_timestamp: Base64


class Timestamps(msgspec.Struct, frozen=True):
    """What time-stamp authorities say of the signature."""

    rfc3161_timestamps: Annotated[
        tuple[SignedTimestamp, ...],
        msgspec.Meta(max_length=MAX_TIMESTAMPS),
    ] = msgspec.field(default=(), name="rfc3161Timestamps")


class Material(msgspec.Struct, frozen=True, rename="camel"):
    """What is needed to verify, beside the signer's key. Exactly one of the first three is there.

    Written is ``publicKey``.
    """

    public_key: NamedKey | None = None
    certificate: Certificate | None = None
    x509_certificate_chain: CertificateChain | None = None
    tlog_entries: Annotated[
        tuple[dict[str, Any], ...], msgspec.Meta(max_length=MAX_LOG_ENTRIES)
    ] = ()
    timestamp_verification_data: Timestamps | None = None


class EnvelopeSignature(msgspec.Struct, frozen=True):
    """A signature over the DSSE pre-authentication encoding of payload and type."""

    sig: Base64
    keyid: str | None = None


class DsseEnvelope(msgspec.Struct, frozen=True, rename="camel"):
    """A signed payload: mostly an in-toto Statement."""

    payload: Base64
    payload_type: Annotated[str, msgspec.Meta(examples=[IN_TOTO_PAYLOAD])]
    signatures: Annotated[tuple[EnvelopeSignature, ...], msgspec.Meta(min_length=1, max_length=1)]


class BundleDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A signed statement and what is needed to verify it: a Sigstore bundle v0.3.

    One bundle is one line of claims.jsonl; model.sig and a signed verdict are one bundle each.
    """

    media_type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(READ_MEDIA_TYPES)})]
    dsse_envelope: DsseEnvelope
    verification_material: Material
    message_signature: None = None


class Bundle(msgspec.Struct, frozen=True):
    """One envelope and what is needed to verify it.

    ``material`` says how the signer is named: ``publicKey``, ``certificate`` or
    ``x509CertificateChain``. ``hint`` is the public key's hint, empty where there is none;
    ``chain`` are certificates in DER. ``raw`` is the bundle as received.
    """

    envelope: Envelope
    material: str
    hint: str
    raw: bytes
    chain: tuple[bytes, ...] = ()

    @property
    def document(self) -> BundleDocument:
        """The bundle parsed anew: kept for each, log entries fill the memory."""
        return _document(self.raw, None)

    @property
    def log_entries(self) -> tuple[dict[str, Any], ...]:
        """The JSON objects of ``tlogEntries``."""
        return self.document.verification_material.tlog_entries


class Notary(ABC):
    """Who opens bundles by more than a key: by an identity and what logs and clocks say."""

    @abstractmethod
    def open(self, bundle: Bundle) -> Opened:
        """Return what a trusted identity signed."""

    @abstractmethod
    def confirm(self, bundle: Bundle, opened: Opened) -> Opened:
        """Return *opened*, which a trusted key signed, if its logs hold."""


Trusted: TypeAlias = "PublicKey | Authority | Notary"
"""Whose signatures count."""


def format(  # noqa: A001
    envelope: Envelope,
    *,
    hint: str,
    log_entries: Sequence[dict[str, Any]] = (),
    chain: Sequence[bytes] = (),
) -> bytes:
    """Return the bundle around *envelope*, in JCS, without a line end.

    A *chain* of certificates in DER says who signed, in place of the *hint*.
    """
    signatures = [{"keyid": envelope.keyid, "sig": strict_base64.format(envelope.sig)}]
    payload = strict_base64.format(envelope.payload)
    dsse = {"payload": payload, "payloadType": envelope.payload_type, "signatures": signatures}
    signer: dict[str, Any] = {"publicKey": {"hint": hint}}
    if chain:
        certificates = [{"rawBytes": strict_base64.format(each)} for each in chain]
        signer = {"x509CertificateChain": {"certificates": certificates}}
    material = {**signer, "tlogEntries": list(log_entries)}
    return strict_json.format(
        {"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": dsse}
    )


def parse(data: bytes, *, where: str | None = None) -> Bundle:
    """Return the bundle that *data* spells."""
    document = _document(data, where)
    kind, hint, chain = signer_of(document.verification_material, where)
    dsse, inside = document.dsse_envelope, f"{where or 'bundle'}: dsseEnvelope"
    [signature] = dsse.signatures
    payload = strict_base64.parse(dsse.payload, where=f"{inside}.payload")
    sig = strict_base64.parse(signature.sig, where=f"{inside}.sig")
    envelope = Envelope(dsse.payload_type, payload, signature.keyid or "", sig)
    return Bundle(envelope, kind, hint, data, chain)


def signer_of(material: Material, where: str | None) -> tuple[str, str, tuple[bytes, ...]]:
    """Return how *material* names the signer, the public key's hint, and the certificates."""
    signers = {
        "publicKey": material.public_key,
        "certificate": material.certificate,
        "x509CertificateChain": material.x509_certificate_chain,
    }
    kinds = [name for name, signer in signers.items() if signer is not None]
    if len(kinds) != 1:
        raise MalformedError("the bundle must name its signer in exactly one way", where=where)
    hint = (material.public_key and material.public_key.hint) or ""
    single = [] if material.certificate is None else [material.certificate]
    many = material.x509_certificate_chain
    at = f"{where or 'bundle'}: verificationMaterial"
    chain = (
        strict_base64.parse(each.raw_bytes, where=at)
        for each in (single if many is None else many.certificates)
    )
    return kinds[0], hint, tuple(chain)


def parse_lines(data: bytes, *, where: str | None = None) -> tuple[Bundle, ...]:
    """Return the bundles of *data*, the content of a ``claims.jsonl``: one a line."""
    if not data.endswith(b"\n"):
        raise MalformedError("the last line has no newline: the file is truncated", where=where)
    lines = data[:-1].split(b"\n")
    if len(lines) > MAX_LINES:
        raise MalformedError(f"more than {MAX_LINES} lines", where=where)
    return tuple(
        parse(line, where=f"{where or 'line'}:{number}") for number, line in enumerate(lines, 1)
    )


def parse_any(data: bytes, *, where: str | None = None) -> tuple[Bundle, ...]:
    """Return the bundles of *data*: one bundle in any JSON layout, or one a line."""
    stripped = data.rstrip(b"\r\n")
    first = stripped.partition(b"\n")[0]
    one_document = first == stripped or not first.rstrip(b"\r").endswith(b"}")
    return (parse(stripped, where=where),) if one_document else parse_lines(data, where=where)


def open_bundle(bundle: Bundle, trusted: Sequence[Trusted]) -> Opened:
    """Return what one of *trusted* signed: one that a hint names, if it names any of them."""
    keys = [each for each in trusted if isinstance(each, PublicKey)]
    notary = next((each for each in trusted if isinstance(each, Notary)), None)
    if bundle.material != "publicKey":
        authorities = [it for it in trusted if not isinstance(it, PublicKey | Notary)]
        return _open_certified(bundle, authorities, notary)
    if not keys:
        hint = "name the signer's public key with --key, or in the policy"
        raise SignatureError("signed by a key, and none is trusted", hint=hint)
    hints = (bundle.hint, bundle.envelope.keyid)
    hinted = [key for key in keys if key.key_id in hints or key.pem_digest in hints]
    try:
        opened = open_envelope(bundle.envelope, hinted or keys)
    except SignatureError as error:
        if hinted or not any(hints):
            raise
        raise SignatureError(f"signed by another key, {bundle.hint or hints[1]}") from error
    return opened if notary is None else notary.confirm(bundle, opened)


def _open_certified(
    bundle: Bundle, authorities: Sequence[Authority], notary: Notary | None
) -> Opened:
    if authorities and bundle.material != "certificate":
        try:
            key, subject = authorities[0].certify(bundle.chain)
        except SignatureError:
            if notary is None or not bundle.log_entries:
                raise
        else:
            opened = open_envelope(bundle.envelope, [key])
            return msgspec.structs.replace(opened, subject=subject, kind="certificate")
    if notary is not None:
        return notary.open(bundle)
    if bundle.material == "certificate" or bundle.log_entries:
        raise no_identity()
    hint = "name the authority that issued it with --certificate-chain, or in the policy"
    raise SignatureError("signed with a certificate, and no authority is trusted", hint=hint)


def no_identity() -> SignatureError:
    """Return the refusal of what an identity signed, where none is trusted."""
    hint = "say whom you trust with --identity NAME --identity-provider URL, or in the policy"
    return SignatureError("signed by an identity (keyless), and none is trusted", hint=hint)


def _document(data: bytes, where: str | None) -> BundleDocument:
    value = strict_json.parse(data, where=where, max_values=MAX_VALUES)
    document = strict_json.convert(value, BundleDocument, where=where, what="a Sigstore bundle")
    if document.media_type not in READ_MEDIA_TYPES:
        what = f"not a Sigstore bundle: the media type is {document.media_type!r}"
        raise MalformedError(what, where=where)
    return document
