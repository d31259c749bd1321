"""Certificates: which chains lead to a root, and the reason for each that does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provenance.errors import MalformedError, SignatureError
from provenance.keys.certificates import MAX_CHAIN, parse_authority
from provenance.keys.public import public_key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(**allowed: bool) -> x509.KeyUsage:
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**(dict.fromkeys(names, False) | allowed))


AUTHORITY = (x509.BasicConstraints(ca=True, path_length=None), usage(key_cert_sign=True))
SIGNER = (usage(digital_signature=True), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]))


class Made:
    """A certificate and its private key."""

    def __init__(
        self,
        subject: str,
        issuer: Made | None = None,
        *,
        extensions: Sequence[x509.ExtensionType] = AUTHORITY,
        key: Any = None,  # noqa: ANN401 - any private key of cryptography
        begin: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
        algorithm: Any = None,  # noqa: ANN401 - any hash
        named: str | None = None,
    ) -> None:
        self.key: Any = key or ec.generate_private_key(ec.SECP256R1())
        self.subject = subject
        above = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of(named or above.subject))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        self.certificate = builder.sign(above.key, algorithm or hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


ROOT = Made("root")
BETWEEN = Made("between", ROOT)


def certify(chain: Sequence[Made], *trusted: Made, at: datetime = NOW) -> str:
    authority = parse_authority([("ca.pem", each.pem) for each in trusted or (ROOT,)], at)
    key, subject = authority.certify([each.der for each in chain])
    leaf = chain[0].key.public_key()
    assert key == public_key_of(leaf)
    return subject


def test_a_chain_to_a_root_names_the_signers_key() -> None:
    signer = Made("signer", BETWEEN, extensions=SIGNER)
    assert certify([signer, BETWEEN]) == "CN=signer"
    assert certify([signer, ROOT, BETWEEN]) == "CN=signer"  # in any order, with or without the root
    assert certify([signer], ROOT, BETWEEN) == "CN=signer"  # the reader has what lies between
    direct = Made("signer", ROOT, extensions=SIGNER, key=ed25519.Ed25519PrivateKey.generate())
    assert certify([direct]) == "CN=signer"


def test_a_signer_may_be_an_authority_too() -> None:
    """As in the reference tool's own vectors."""
    extensions = (AUTHORITY[0], usage(digital_signature=True))
    signer = Made("between", BETWEEN, extensions=extensions)
    assert certify([signer, BETWEEN]) == "CN=between"


def _weak() -> list[Made]:
    small = Made("small", key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - it is to be refused
    return [Made("signer", small, extensions=SIGNER), small]


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
EMAIL = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
SHORT = (x509.BasicConstraints(ca=True, path_length=0), usage(key_cert_sign=True))

REFUSED: dict[str, tuple[Callable[[], list[Made]], str]] = {
    "of another root": (
        lambda: [Made("signer", Made("root"), extensions=SIGNER)],
        "CN=root did not sign the certificate of CN=signer",
    ),
    "of a root that nobody gave": (
        lambda: [Made("signer", Made("stranger"), extensions=SIGNER)],
        "no path leads from the certificate of CN=signer to a given root",
    ),
    "without what lies between": (
        lambda: [Made("signer", BETWEEN, extensions=SIGNER)],
        "no path leads",
    ),
    "a root of its own in the chain": (
        lambda: [Made("signer", it := Made("own"), extensions=SIGNER), it],
        "no path leads",
    ),
    "expired": (
        lambda: [Made("signer", ROOT, extensions=SIGNER, begin=NOW - 9 * DAY, end=NOW - DAY)],
        "the certificate of CN=signer expired on 2026-05-31",
    ),
    "not yet valid": (
        lambda: [Made("signer", ROOT, extensions=SIGNER, begin=NOW + DAY, end=NOW + 9 * DAY)],
        "the certificate of CN=signer is not valid before 2026-06-02",
    ),
    "below one that expired": (
        lambda: [
            Made("signer", it := Made("old", ROOT, end=NOW - DAY / 2), extensions=SIGNER),
            it,
        ],
        "the certificate of CN=old expired",
    ),
    "by a signer's certificate": (
        lambda: [
            Made("signer", it := Made("leaf", ROOT, extensions=SIGNER), extensions=SIGNER),
            it,
        ],
        "CN=leaf is not a certificate authority",
    ),
    "by an authority that may not": (
        lambda: [
            Made(
                "signer",
                it := Made("weak", ROOT, extensions=(AUTHORITY[0], usage(crl_sign=True))),
                extensions=SIGNER,
            ),
            it,
        ],
        "CN=weak may not sign certificates",
    ),
    "too long a path": (
        lambda: [
            Made(
                "signer",
                low := Made("low", it := Made("short", ROOT, extensions=SHORT)),
                extensions=SIGNER,
            ),
            low,
            it,
        ],
        "CN=short allows no 1 authorities below it",
    ),
    "for something else": (
        lambda: [Made("signer", ROOT, extensions=(usage(digital_signature=True), EMAIL))],
        "is not for signing code",
    ),
    "not for signatures": (
        lambda: [Made("signer", ROOT, extensions=(usage(key_encipherment=True), SIGNER[1]))],
        "is not for digital signatures",
    ),
    "for nothing that it names": (
        lambda: [Made("signer", ROOT, extensions=())],
        "does not say that it may sign",
    ),
    "with what we do not know": (
        lambda: [Made("signer", ROOT, extensions=(*SIGNER, UNKNOWN))],
        "the critical extension 1.2.3.4",
    ),
    "below what we do not know": (
        lambda: [
            Made(
                "signer",
                it := Made("odd", ROOT, extensions=(*AUTHORITY, UNKNOWN)),
                extensions=SIGNER,
            ),
            it,
        ],
        "CN=odd has the critical extension 1.2.3.4",
    ),
    "by SHA-1": (
        lambda: [Made("signer", ROOT, extensions=SIGNER, algorithm=hashes.SHA224())],
        "CN=root signed with an algorithm that is not accepted",
    ),
    "by a short RSA key": (_weak, "CN=small signed with an algorithm that is not accepted"),
    "a root as the signer": (lambda: [ROOT], "CN=root is a root"),
    "of a curve that is not on the list": (
        lambda: [
            Made("signer", ROOT, extensions=SIGNER, key=ec.generate_private_key(ec.SECP256K1()))
        ],
        "algorithm is not supported",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_each_chain_is_refused_for_its_own_reason(
    make: Callable[[], list[Made]], reason: str
) -> None:
    with pytest.raises(SignatureError) as caught:
        certify(make())
    assert reason in caught.value.what


def test_a_short_rsa_root_is_not_believed() -> None:
    signer, small = _weak()
    with pytest.raises(MalformedError, match="holds no root"):
        certify([signer], small)


def test_the_time_decides() -> None:
    signer = Made("signer", ROOT, extensions=SIGNER)
    assert certify([signer], at=NOW) == "CN=signer"
    for at in (NOW - 2 * DAY, NOW + 2 * DAY):
        with pytest.raises(SignatureError):
            certify([signer], at=at)


def test_an_intermediate_is_no_root() -> None:
    with pytest.raises(MalformedError, match="holds no root"):
        parse_authority([("between.pem", BETWEEN.pem)], NOW)


def test_another_path_is_found_where_one_is_refused() -> None:
    old = Made("between", ROOT, key=BETWEEN.key, end=NOW - DAY / 2)
    signer = Made("signer", BETWEEN, extensions=SIGNER)
    assert certify([signer, old, BETWEEN]) == "CN=signer"


def test_authorities_that_sign_each_other_end() -> None:
    one = Made("one")
    many = [Made("one", one, key=one.key) for _ in range(MAX_CHAIN - 1)]
    with pytest.raises(SignatureError):
        certify([Made("signer", one, extensions=SIGNER), *many])


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x82\xff\xff", ROOT.der[:-1], ROOT.der + b"\0"])
def test_what_is_no_certificate_is_our_error(der: bytes) -> None:
    authority = parse_authority([("ca.pem", ROOT.pem)], NOW)
    with pytest.raises(SignatureError, match="not a certificate"):
        authority.certify([der])


@pytest.mark.parametrize("pem", [b"", b"text", ROOT.der, ROOT.pem[:200]])
def test_what_is_no_file_of_certificates_is_our_error(pem: bytes) -> None:
    with pytest.raises(MalformedError, match=r"not a certificate|holds no root"):
        parse_authority([("ca.pem", pem)], NOW)


def test_altered_bytes_of_a_certificate_never_pass() -> None:
    signer = Made("signer", ROOT, extensions=SIGNER)
    authority = parse_authority([("ca.pem", ROOT.pem)], NOW)
    for place in range(len(signer.der)):
        altered = bytearray(signer.der)
        altered[place] ^= 1
        try:
            authority.certify([bytes(altered)])
        except SignatureError:
            continue
        passed = x509.load_der_x509_certificate(bytes(altered))  # only the signature's own padding
        assert passed.tbs_certificate_bytes == signer.certificate.tbs_certificate_bytes
