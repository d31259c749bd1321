from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provenance.encoding import strict_json
from provenance.errors import MalformedError, SignatureError
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
        ("ml-dsa-44", "ML_DSA_44", "SHA2_256"),
        ("ml-dsa-65", "ML_DSA_65", "SHA2_256"),
        ("ml-dsa-87", "ML_DSA_87", "SHA2_256"),
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


PADDINGS = {
    "PKCS1V15": padding.PKCS1v15(),
    "PSS": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH),
}


@pytest.mark.parametrize("name", PADDINGS)
def test_the_body_says_by_which_of_rsa_s_paddings_it_is_signed(name: str) -> None:
    handle = rsa.generate_private_key(65537, 2048)
    spki = handle.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = handle.sign(MESSAGE, PADDINGS[name], hashes.SHA256())
    body = json.loads(rekor.format_body(MESSAGE, signature, parse_spki(spki)))
    verifier = body["spec"]["hashedRekordV002"]["signature"]["verifier"]
    assert verifier["keyDetails"] == f"PKIX_RSA_{name}_2048_SHA256"
    with pytest.raises(SignatureError):
        rekor.format_body(MESSAGE + b".", signature, parse_spki(spki))


def test_every_algorithm_that_we_make_can_be_logged() -> None:
    for algorithm in ALGORITHMS:
        rekor.format_body(MESSAGE, b"signature", generate(algorithm).public)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"1", b'{"kind":"a"}', b'{"kind":1,"apiVersion":"1"}', b"\xff", b"{"],
)
def test_a_body_without_a_kind_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        rekor.parse_kind(body)
