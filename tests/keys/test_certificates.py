"""Certificates: which chains lead to a root; those that do not are ``forgeries/certificate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from provenance.errors import MalformedError, SignatureError
from provenance.keys.certificates import MAX_CHAIN, parse_authority
from provenance.keys.public import public_key_of
from tests.sigstores import AUTHORITY, DAY, NOW, Issued, issue, pem_of, usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

SIGNER = (
    (usage(digital_signature=True), True),
    (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), True),
)


def pem(issued: Issued) -> bytes:
    return pem_of("CERTIFICATE", issued.der)


ROOT = issue("root", None, *AUTHORITY)
BETWEEN = issue("between", ROOT, *AUTHORITY)


def certify(chain: Sequence[Issued], *trusted: Issued, at: datetime = NOW) -> str:
    authority = parse_authority([("ca.pem", pem(each)) for each in trusted or (ROOT,)], at)
    key, subject = authority.certify([each.der for each in chain])
    leaf = chain[0].key.public_key()
    assert key == public_key_of(leaf)
    return subject


def test_a_chain_to_a_root_names_the_signers_key() -> None:
    signer = issue("signer", BETWEEN, *SIGNER)
    assert certify([signer, BETWEEN]) == "CN=signer"
    assert certify([signer, ROOT, BETWEEN]) == "CN=signer"  # in any order, with or without the root
    assert certify([signer], ROOT, BETWEEN) == "CN=signer"  # the reader has what lies between
    direct = issue("signer", ROOT, *SIGNER, key=ed25519.Ed25519PrivateKey.generate())
    assert certify([direct]) == "CN=signer"


def test_a_signer_may_be_an_authority_too() -> None:
    """As in the reference tool's own vectors."""
    extensions = (AUTHORITY[0], SIGNER[0])
    signer = issue("between", BETWEEN, *extensions)
    assert certify([signer, BETWEEN]) == "CN=between"


def test_a_short_rsa_root_is_not_believed() -> None:
    small = issue("small", None, *AUTHORITY, key=rsa.generate_private_key(65537, 1024))  # noqa: S505 - it is to be refused
    signer = issue("signer", small, *SIGNER)
    with pytest.raises(MalformedError, match="holds no root"):
        certify([signer], small)


def test_the_time_decides() -> None:
    signer = issue("signer", ROOT, *SIGNER)
    assert certify([signer], at=NOW) == "CN=signer"
    for at in (NOW - 2 * DAY, NOW + 2 * DAY):
        with pytest.raises(SignatureError):
            certify([signer], at=at)


def test_an_intermediate_is_no_root() -> None:
    with pytest.raises(MalformedError, match="holds no root"):
        parse_authority([("between.pem", pem(BETWEEN))], NOW)


def test_another_path_is_found_where_one_is_refused() -> None:
    old = issue("between", ROOT, *AUTHORITY, key=BETWEEN.key, end=NOW - DAY / 2)
    signer = issue("signer", BETWEEN, *SIGNER)
    assert certify([signer, old, BETWEEN]) == "CN=signer"


def test_authorities_that_sign_each_other_end() -> None:
    one = issue("one", None, *AUTHORITY)
    many = [issue("one", one, *AUTHORITY, key=one.key) for _ in range(MAX_CHAIN - 1)]
    with pytest.raises(SignatureError):
        certify([issue("signer", one, *SIGNER), *many])


@pytest.mark.parametrize("der", [b"", b"0", b"\x30\x82\xff\xff", ROOT.der[:-1], ROOT.der + b"\0"])
def test_what_is_no_certificate_is_our_error(der: bytes) -> None:
    authority = parse_authority([("ca.pem", pem(ROOT))], NOW)
    with pytest.raises(SignatureError, match="not a certificate"):
        authority.certify([der])


def test_what_a_library_warns_of_is_our_error() -> None:
    authority = parse_authority([("ca.pem", pem(ROOT))], NOW)
    country = ROOT.der.replace(b"\x55\x04\x03", b"\x55\x04\x06")  # which has two letters
    assert country != ROOT.der
    with pytest.raises(SignatureError, match="not a certificate: Attribute's length"):
        authority.certify([country])


@pytest.mark.parametrize("pem", [b"", b"text", ROOT.der, pem(ROOT)[:200]])
def test_what_is_no_file_of_certificates_is_our_error(pem: bytes) -> None:
    with pytest.raises(MalformedError, match=r"not a certificate|holds no root"):
        parse_authority([("ca.pem", pem)], NOW)


def test_one_whose_name_is_no_text_is_passed_over() -> None:
    """What cryptography parses when it is asked for is parsed at once."""
    name = ROOT.der.index(b"\x0c\x04root")
    odd = b"%b\x0a%b" % (ROOT.der[:name], ROOT.der[name + 1 :])
    both = pem_of("CERTIFICATE", odd) + pem(ROOT)
    assert len(parse_authority([("ca.pem", both)], NOW).roots) == 1
    with pytest.raises(MalformedError, match="not a certificate"):
        parse_authority([("ca.pem", pem_of("CERTIFICATE", odd))], NOW)


def test_altered_bytes_of_a_certificate_never_pass() -> None:
    signer = issue("signer", ROOT, *SIGNER)
    authority = parse_authority([("ca.pem", pem(ROOT))], NOW)
    for place in range(len(signer.der)):
        altered = bytearray(signer.der)
        altered[place] ^= 1
        try:
            authority.certify([bytes(altered)])
        except SignatureError:
            continue
        passed = x509.load_der_x509_certificate(bytes(altered))  # only the signature's own padding
        assert passed.tbs_certificate_bytes == signer.certificate.tbs_certificate_bytes
