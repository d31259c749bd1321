"""Certificates: which chains lead to a root; those that do not are ``forgeries/certificate``."""

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
    from collections.abc import Sequence

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


def test_a_short_rsa_root_is_not_believed() -> None:
    small = Made("small", key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - it is to be refused
    signer = Made("signer", small, extensions=SIGNER)
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
