"""Certificates (X.509, RFC 5280): the key that a chain leads to from an authority one trusts.

A chain is built from the signer's certificate up to a self-signed one that the reader gave. Every
certificate on it must be valid at the time asked for, signed by the next with an algorithm of a
closed list, and allowed to do what it does: the signer's to sign code or data, the others to issue.
What this module does not know and a certificate calls critical, name constraints too, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from warnings import catch_warnings

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.errors import MalformedError, SignatureError, UsageError, one_line
from provenance.keys.public import RSA_BITS, PublicKey, public_key_of

MAX_CHAIN = 10
"""Most certificates on one path to a root."""

MAX_NAME = 200
"""Longest subject that is told whole, and so can be asked for."""

T = TypeVar("T", bound=x509.ExtensionType)

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_KNOWN = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_PURPOSES = {
    ExtendedKeyUsageOID.CODE_SIGNING: "signing code",
    ExtendedKeyUsageOID.TIME_STAMPING: "time stamps",
}
_PARTS = "version subject issuer extensions not_valid_before_utc not_valid_after_utc".split()
BAD = (
    Warning,
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """Roots that a reader trusts, other certificates that may lie on a path, and a time.

    Where nothing proves when a signature was made, *at* is now: what has expired counts no more.
    """

    roots: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...]
    at: datetime
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING

    def certify(self, chain: Sequence[bytes]) -> tuple[PublicKey, str]:
        """Return the key of the first certificate (DER) of *chain*, and its subject (RFC 4514)."""
        found = [load(der) for der in chain]
        name = _name(found[0])
        if found[0] in self.roots:
            raise SignatureError(f"{name} is a root, which signs certificates and no models")
        _check_signs(found[0], self.purpose)
        refusals: list[str] = []
        if not self._reaches(found[0], [*found[1:], *self.others], refusals, 1):
            none = f"no path leads from the certificate of {name} to a given root"
            issuer = one_line(found[-1].issuer.rfc4514_string())[:200]
            hint = f"it was issued by {issuer}: --certificate-chain names whom you trust"
            raise SignatureError(*refusals[:1] or [none], hint=None if refusals else hint)
        try:
            return public_key_of(found[0].public_key()), name
        except MalformedError as error:
            raise SignatureError(f"the certificate of {name}: {error.what}") from error

    def _reaches(
        self,
        subject: x509.Certificate,
        others: list[x509.Certificate],
        refusals: list[str],
        depth: int,
    ) -> bool:
        """Tell whether a path leads from *subject* to a root; add to *refusals* what stops one.

        Each of *others* is tried once and taken out.
        """
        if refusal := _not_valid(subject, self.at):
            refusals.append(refusal)
            return False
        for issuer in (*self.roots, *others):
            if issuer.subject != subject.issuer or issuer not in (*self.roots, *others):
                continue
            refusal = not_issued(subject, issuer, depth - 1)
            is_root = issuer in self.roots
            if not refusal and is_root:
                refusal = _not_valid(issuer, self.at)
            if refusal:
                refusals.append(refusal)
                continue
            if not is_root:
                others.remove(issuer)
            if is_root or (
                depth < MAX_CHAIN and self._reaches(issuer, others, refusals, depth + 1)
            ):
                return True
        return False


def chain_for(key: PublicKey, pems: Sequence[tuple[str, bytes]]) -> tuple[bytes, ...]:
    """Return the certificates in *pems* (file name and PEM) in DER; the first is that of *key*."""
    found = [each for where, pem in pems for each in _parse(where, pem)]
    certified = found[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certified != key.spki:
        what = "is the certificate of another key than the one that signs"
        raise UsageError(what, where=pems[0][0])
    _check_signs(found[0], ExtendedKeyUsageOID.CODE_SIGNING)
    return tuple(each.public_bytes(Encoding.DER) for each in dict.fromkeys(found))


def parse_authority(pems: Sequence[tuple[str, bytes]], at: datetime) -> Authority:
    """Return the certificates in *pems* (file name and PEM) as what a reader trusts."""
    found = dict.fromkeys(each for where, pem in pems for each in _parse(where, pem))
    roots = tuple(each for each in found if not not_issued(each, each, 0))
    if not roots:
        hint = "name the file of the authority that issued them, too"
        where = ", ".join(name for name, _ in pems)
        raise MalformedError("holds no root, only certificates below one", where=where, hint=hint)
    return Authority(roots, tuple(each for each in found if each not in roots), at)


def _parse(where: str, pem: bytes) -> list[x509.Certificate]:
    """Return the certificates in *pem*; one that cannot be parsed whole is as good as none."""
    found = []
    with suppress(*BAD), catch_warnings(action="ignore"):
        for each in x509.load_pem_x509_certificates(pem):
            with suppress(*BAD):
                found.append(_whole(each))
    if not found:
        hint = "name a file of certificates in PEM"
        raise MalformedError("not a certificate", where=where, hint=hint)
    return found


def load(der: bytes) -> x509.Certificate:
    """Return the certificate that *der* spells, every part of it parsed."""
    try:
        with catch_warnings(action="error"):  # of what RFC 5280 forbids
            return _whole(x509.load_der_x509_certificate(der))
    except BAD as error:
        raise SignatureError(f"not a certificate: {one_line(str(error))[:200]}") from error


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """Return *certificate*: what cannot be parsed shows only when it is asked for."""
    for part in _PARTS:
        getattr(certificate, part)
    certificate.public_key()
    return certificate


def _name(certificate: x509.Certificate) -> str:
    name = one_line(certificate.subject.rfc4514_string()) or "no subject"
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _not_valid(certificate: x509.Certificate, at: datetime) -> str:
    """Return why *certificate* is not valid at the time *at*; "" if it is."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if at < begin:
        return f"the certificate of {_name(certificate)} is not valid before {begin:%Y-%m-%d}"
    return f"the certificate of {_name(certificate)} expired on {end:%Y-%m-%d}" if at > end else ""


def not_issued(subject: x509.Certificate, issuer: x509.Certificate, below: int) -> str:
    """Return why *issuer* did not issue *subject*, or may not; "" if it did.

    *below*: the certificates of authorities between *issuer* and the signer's.
    """
    name = _name(issuer)
    try:
        if refusal := _may_not_issue(issuer, below):
            return f"{name} {refusal}"
        if _is_weak(subject, issuer):
            return f"{name} signed with an algorithm that is not accepted"
        subject.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return f"{name} did not sign the certificate of {_name(subject)}"
    except BAD as error:
        return f"the certificate of {name} cannot be used: {one_line(str(error))[:200]}"
    return ""


def may_issue(certificate: x509.Certificate) -> bool:
    """Tell whether *certificate* says that it is an authority's."""
    limits = _extension(certificate, x509.BasicConstraints)
    return limits is not None and limits.ca


def _may_not_issue(issuer: x509.Certificate, below: int) -> str:
    limits = _extension(issuer, x509.BasicConstraints)
    usage = _extension(issuer, x509.KeyUsage)
    if limits is None or not limits.ca:
        return "is not a certificate authority"
    if usage is not None and not usage.key_cert_sign:
        return "may not sign certificates"
    if limits.path_length is not None and below > limits.path_length:
        return f"allows no {below} authorities below it"
    unknown = next(_unknown(issuer), "")
    return unknown and f"has the critical extension {unknown}, which is not supported"


def _is_weak(subject: x509.Certificate, issuer: x509.Certificate) -> bool:
    algorithm, key = subject.signature_hash_algorithm, issuer.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size not in RSA_BITS:
        return True
    return algorithm is not None and not isinstance(algorithm, _HASHES)


def _check_signs(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    """Refuse a signer's certificate that is not for signatures of this *purpose*."""
    name = _name(certificate)
    usage = _extension(certificate, x509.KeyUsage)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if usage is None and purposes is None:
        raise SignatureError(f"the certificate of {name} does not say that it may sign")
    if usage is not None and not usage.digital_signature:
        raise SignatureError(f"the certificate of {name} is not for digital signatures")
    if purposes is not None and purpose not in purposes:
        raise SignatureError(f"the certificate of {name} is not for {_PURPOSES[purpose]}")
    if unknown := next(_unknown(certificate), ""):
        what = f"the certificate of {name} has the critical extension {unknown}"
        raise SignatureError(f"{what}, which is not supported")


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _unknown(certificate: x509.Certificate) -> Iterator[str]:
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, _KNOWN):
            yield extension.oid.dotted_string
