"""The log entry for a signed envelope: Rekor v2's canonical ``hashedrekord`` 0.0.2 body.

An entry holds hashes and a signature, never the document::

    {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
        "data": {"algorithm": "SHA2_256", "digest": BASE64},
        "signature": {"content": BASE64, "verifier": {
            "keyDetails": "PKIX_ECDSA_P256_SHA_256", "publicKey": {"rawBytes": BASE64 OF SPKI}}}}}}

in JCS (RFC 8785). For a DSSE envelope the digest is over the pre-authentication encoding, since
that is what the key signed (sigstore/rekor-tiles, ``pkg/types/hashedrekord``; the log dropped its
``dsse`` type in v2.3.0). The digest's algorithm is that with which the key signs, SHA-256 for keys
that hash by themselves.

Rekor v2 itself takes only the ECDSA keys of the table; Ed25519 (pure) and ML-DSA-65 go to a log of
one's own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from provenance.encoding import strict_base64, strict_json
from provenance.errors import LogProofError, MalformedError

if TYPE_CHECKING:
    from provenance.keys import PublicKey

KIND = "hashedrekord"
VERSION = "0.0.2"

_ALGORITHMS = {
    "ecdsa-p256": ("PKIX_ECDSA_P256_SHA_256", "SHA2_256", "sha256"),
    "ecdsa-p384": ("PKIX_ECDSA_P384_SHA_384", "SHA2_384", "sha384"),
    "ecdsa-p521": ("PKIX_ECDSA_P521_SHA_512", "SHA2_512", "sha512"),
    "ed25519": ("PKIX_ED25519", "SHA2_256", "sha256"),
    "ml-dsa-65": ("ML_DSA_65", "SHA2_256", "sha256"),
}
"""By key algorithm: Sigstore's PublicKeyDetails and HashAlgorithm (sigstore_common.proto; digests
by sigstore/sigstore ``pkg/signature/algorithm_registry.go``), and hashlib's name of the latter."""


def format_body(message: bytes, signature: bytes, key: PublicKey) -> bytes:
    """Return the body that says: *key* made *signature* over *message* (an envelope's PAE)."""
    details, algorithm, name = _ALGORITHMS[key.algorithm]
    spec = {
        "data": {
            "algorithm": algorithm,
            "digest": strict_base64.format(hashlib.new(name, message).digest()),
        },
        "signature": {
            "content": strict_base64.format(signature),
            "verifier": {
                "keyDetails": details,
                "publicKey": {"rawBytes": strict_base64.format(key.spki)},
            },
        },
    }
    return strict_json.format(
        {"apiVersion": VERSION, "kind": KIND, "spec": {"hashedRekordV002": spec}}
    )


def check_body(body: bytes, message: bytes, signature: bytes, key: PublicKey) -> None:
    """Return if *body* says that *key* made *signature* over *message*, and nothing else.

    The body is made anew and compared byte for byte, so nothing of it needs to be understood.

    Raises:
        LogProofError: it says something else.
    """
    expected = format_body(message, signature, key)
    if body != expected:
        raise LogProofError(f"the log entry is about {_difference(body, expected)}")


def parse_kind(body: bytes, *, where: str | None = None) -> tuple[str, str]:
    """Return the kind and the version that *body*, a canonical body, declares.

    Raises:
        MalformedError: it is not a JSON object that declares them.
    """
    value = strict_json.parse(body, where=where)
    if isinstance(value, dict):
        kind, version = value.get("kind"), value.get("apiVersion")
        if isinstance(kind, str) and isinstance(version, str):
            return kind, version
    raise MalformedError("the log entry's body declares no kind and version", where=where)


def _difference(body: bytes, expected: bytes) -> str:
    """Return what tells *body* from *expected*, for the error's text only."""
    try:
        given = _spec(strict_json.parse(body))
    except (MalformedError, KeyError, TypeError):
        return "something of another form"
    wanted = _spec(strict_json.parse(expected))
    parts = ("digest", "signature", "key")
    differing = [part for part, a, b in zip(parts, given, wanted, strict=True) if a != b]
    return f"another {' and '.join(differing)}" if differing else "the same in another spelling"


def _spec(document: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 - JSON that is not checked yet
    spec = document["spec"]["hashedRekordV002"]
    return spec["data"], spec["signature"]["content"], spec["signature"]["verifier"]
