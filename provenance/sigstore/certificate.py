"""The certificate of a signature by identity: whom it names, and that it was logged.

Fulcio writes the identity as subject alternative name and who vouches for it, the identity
provider, as an extension (sigstore/fulcio, ``docs/oid-info.md``). A certificate that counts is in a
log of certificates: a signed certificate timestamp (SCT; RFC 6962, section 3.2) of a trusted one is
embedded.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.certificate_transparency import LogEntryType, SignedCertificateTimestamp

from provenance.envelope.dsse import identity_text
from provenance.errors import MalformedError, SignatureError, one_line, some_of
from provenance.keys import PublicKey
from provenance.keys.certificates import BAD, Authority, load, not_issued
from provenance.keys.public import public_key_of
from provenance.sigstore.root import Issuer, Log

_PROVIDERS = ("1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1")
"""The identity provider: as an UTF8String in DER, and in certificates before 2023 as it is."""

_USER_NAME = "1.3.6.1.4.1.57264.1.7"
"""A name that is neither address nor URI, as an other name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A signer's certificate; nothing of it is verified."""

    der: bytes
    certificate: x509.Certificate
    key: PublicKey
    identities: tuple[str, ...]
    provider: str

    @property
    def who(self) -> str:
        """Whom the certificate names, and who vouches for that."""
        names = ", ".join(self.identities) or self.certificate.subject.rfc4514_string() or "nobody"
        return one_line(identity_text(names, self.provider) if self.provider else names)


def parse(der: bytes) -> Leaf:
    """Return the signer's certificate that *der* spells."""
    certificate = load(der)
    try:
        key = public_key_of(certificate.public_key())
        return Leaf(der, certificate, key, tuple(_identities(certificate)), _provider(certificate))
    except MalformedError as error:
        raise SignatureError(f"the signer's certificate: {error.what}") from error


def check_identity(leaf: Leaf, trusted: Sequence[tuple[str, str]]) -> str:
    """Return which of *trusted*, an identity and who vouches for it each, *leaf* names."""
    named = [each for each in trusted if each[0] in leaf.identities]
    if not named:
        names = one_line(", ".join(leaf.identities))[:200] or "nobody"
        raise SignatureError(f"signed by {names}, not by {some_of([it for it, _ in trusted])}")
    for identity, provider in named:
        if leaf.provider == provider:
            return identity_text(identity, provider)
    said = one_line(leaf.provider)[:200] or "nobody"
    providers = some_of([it for _, it in named])
    raise SignatureError(f"{named[0][0]} is vouched for by {said}, not by {providers}")


def check_chain(leaf: Leaf, issuers: Iterable[Issuer], at: datetime) -> Authority:
    """Return the authority among *issuers* to which *leaf* leads at the time *at*."""
    refusal = SignatureError(f"no authority of the trusted root counts at {at:%Y-%m-%d %H:%M:%S}")
    for issuer in issuers:
        if not issuer.valid_for.covers(at):
            continue
        *others, root = map(load, issuer.chain)
        authority = Authority((root,), tuple(others), at)
        try:
            authority.certify([leaf.der])
        except SignatureError as error:
            refusal = error
        else:
            return authority
    raise refusal


def check_logged(leaf: Leaf, authority: Authority, logs: Iterable[Log]) -> None:
    """Return if one of *logs* promised to log *leaf*, which *authority* issued."""
    certificate, logs = leaf.certificate, tuple(logs)
    try:
        kind = x509.PrecertificateSignedCertificateTimestamps
        promises = list(certificate.extensions.get_extension_for_class(kind).value)
        signed = [(each, _signed_by_log(certificate, each, authority)) for each in promises]
    except x509.ExtensionNotFound as error:
        raise SignatureError("the certificate carries no proof of a log (SCT)") from error
    except (*BAD, OverflowError) as error:
        what = f"the certificate's proofs of a log cannot be read: {one_line(str(error))[:200]}"
        raise SignatureError(what) from error
    refusal = SignatureError("the certificate was logged by no log of the trusted root (SCT)")
    for promise, messages in signed:
        made = promise.timestamp.replace(tzinfo=UTC)
        for log in logs:
            if log.log_id != promise.log_id:
                continue
            if not log.period.covers(made):
                refusal = SignatureError(f"the certificate's log is not trusted at {made} (SCT)")
                continue
            refusal = SignatureError("the log's signature over the certificate is wrong (SCT)")
            for message in messages:
                with suppress(SignatureError):
                    log.key.verify(promise.signature, message)
                    return
    raise refusal


def _signed_by_log(
    certificate: x509.Certificate, sct: SignedCertificateTimestamp, authority: Authority
) -> list[bytes]:
    """Return what *sct* signs, for each certificate of *authority* that issued *certificate*."""
    milliseconds = (sct.timestamp.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
    tbs = certificate.tbs_precertificate_bytes
    if sct.entry_type is not LogEntryType.PRE_CERTIFICATE:
        return []
    head = struct.pack(">BBQH", 0, 0, milliseconds, 1)
    body = len(tbs).to_bytes(3) + tbs
    tail = len(sct.extension_bytes).to_bytes(2) + sct.extension_bytes
    return [
        head + hashlib.sha256(public_key_of(issuer.public_key()).spki).digest() + body + tail
        for issuer in (*authority.others, *authority.roots)
        if issuer.subject == certificate.issuer and not not_issued(certificate, issuer, 0)
    ]


def _identities(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in names:
        if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
            yield name.value
        elif isinstance(name, x509.OtherName) and name.type_id.dotted_string == _USER_NAME:
            yield _utf8_string(name.value)


def _provider(certificate: x509.Certificate) -> str:
    found = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    new, old = (found.get(oid) for oid in _PROVIDERS)
    return _utf8_string(new) if new is not None else (old or b"").decode(errors="replace")


def _utf8_string(der: bytes) -> str:
    try:
        return asn1.decode_der(str, der)
    except ValueError as error:
        raise MalformedError("a name is no UTF8String in DER") from error
