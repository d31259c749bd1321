from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from provenance.encoding import strict_json
from provenance.errors import LogProofError, MalformedError
from provenance.keys import ALGORITHMS, PrivateKey, generate, parse_spki
from provenance.transparency import rekor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MESSAGE = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return generate("ecdsa-p256")


def real_body(vectors: Path) -> bytes:
    """The body of a real entry of Sigstore's staging log."""
    entry = json.loads((vectors / "rekor-v2-staging-hashedrekord.json").read_text())
    return base64.b64decode(entry["canonicalizedBody"])


def test_the_body_has_the_form_of_a_real_one(vectors: Path, key: PrivateKey) -> None:
    body = json.loads(rekor.format_body(MESSAGE, key.sign(MESSAGE), key.public))
    real = json.loads(real_body(vectors))
    # The real one names its key by certificate; all else must agree.
    verifier = real["spec"]["hashedRekordV002"]["signature"]["verifier"]
    verifier["publicKey"] = verifier.pop("x509Certificate")

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(inner) for name, inner in value.items()}
        return None if isinstance(value, str) and len(value) > 30 else value

    assert shape(body) == shape(real)


def test_a_real_body_is_canonical_as_we_write_it(vectors: Path) -> None:
    real = real_body(vectors)
    assert strict_json.format(strict_json.parse(real)) == real
    assert rekor.parse_kind(real) == (rekor.KIND, rekor.VERSION)


@pytest.mark.parametrize(
    ("algorithm", "details", "digest"),
    [
        ("ecdsa-p256", "PKIX_ECDSA_P256_SHA_256", "SHA2_256"),
        ("ed25519", "PKIX_ED25519", "SHA2_256"),
        ("ml-dsa-65", "ML_DSA_65", "SHA2_256"),
    ],
)
def test_each_algorithm_has_sigstore_s_name(algorithm: str, details: str, digest: str) -> None:
    key = generate(algorithm)
    signature = key.sign(MESSAGE)
    body = rekor.format_body(MESSAGE, signature, key.public)
    spec = json.loads(body)["spec"]["hashedRekordV002"]
    assert spec["signature"]["verifier"]["keyDetails"] == details
    assert spec["data"]["algorithm"] == digest
    assert base64.b64decode(spec["data"]["digest"]) == hashlib.sha256(MESSAGE).digest()
    assert base64.b64decode(spec["signature"]["content"]) == signature
    rekor.check_body(body, MESSAGE, signature, key.public)


@pytest.mark.parametrize(
    ("curve", "details", "algorithm", "digest"),
    [
        (ec.SECP384R1(), "PKIX_ECDSA_P384_SHA_384", "SHA2_384", hashlib.sha384),
        (ec.SECP521R1(), "PKIX_ECDSA_P521_SHA_512", "SHA2_512", hashlib.sha512),
    ],
    ids=["P-384", "P-521"],
)
def test_the_digest_is_that_with_which_the_key_signs(
    curve: ec.EllipticCurve, details: str, algorithm: str, digest: Callable[[bytes], Any]
) -> None:
    handle = ec.generate_private_key(curve).public_key()
    spki = handle.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    body = json.loads(rekor.format_body(MESSAGE, b"signature", parse_spki(spki)))
    spec = body["spec"]["hashedRekordV002"]
    assert spec["signature"]["verifier"]["keyDetails"] == details
    assert spec["data"]["algorithm"] == algorithm
    assert base64.b64decode(spec["data"]["digest"]) == digest(MESSAGE).digest()


def test_every_algorithm_that_we_make_can_be_logged() -> None:
    for algorithm in ALGORITHMS:
        rekor.format_body(MESSAGE, b"signature", generate(algorithm).public)


def test_a_body_about_something_else_says_what_differs(key: PrivateKey) -> None:
    signature = key.sign(MESSAGE)
    other = generate("ecdsa-p256")
    body = rekor.format_body(MESSAGE, signature, key.public)
    cases = {
        "about another digest$": rekor.format_body(b"other", signature, key.public),
        "about another signature$": rekor.format_body(MESSAGE, b"other", key.public),
        "about another key$": rekor.format_body(MESSAGE, signature, other.public),
        "about another digest and signature and key$": rekor.format_body(b"", b"", other.public),
        "about the same in another spelling$": body.replace(b":", b": "),
        "about something of another form$": body.replace(b"V002", b"V001"),
    }
    for what, changed in cases.items():
        with pytest.raises(LogProofError, match=what):
            rekor.check_body(changed, MESSAGE, signature, key.public)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 400))
def test_any_other_body_is_refused(extra: bytes, start: int, end: int) -> None:
    key = generate("ed25519")
    body = rekor.format_body(MESSAGE, b"signature", key.public)
    for changed in (extra, body[:start] + extra + body[end:]):
        if changed != body:
            with pytest.raises(LogProofError):
                rekor.check_body(changed, MESSAGE, b"signature", key.public)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"1", b'{"kind":"a"}', b'{"kind":1,"apiVersion":"1"}', b"\xff", b"{"],
)
def test_a_body_without_a_kind_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        rekor.parse_kind(body)
