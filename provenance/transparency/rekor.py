"""The log entry for a signed envelope: Rekor v2's canonical ``hashedrekord`` 0.0.2 body, in JCS.

An entry holds hashes and a signature, never the document (docs/spec/log.md shows one). The digest
is over the envelope's pre-authentication encoding, which is what the key signed
(sigstore/rekor-tiles, ``pkg/types/hashedrekord``; v2.3.0 dropped the ``dsse`` type).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from provenance.encoding import strict_base64, strict_json
from provenance.errors import MalformedError
from provenance.keys import PublicKey
from provenance.keys.public import parse_public_pem

KIND = "hashedrekord"
VERSION = "0.0.2"

_ALGORITHMS = {
    "ecdsa-p256": ("PKIX_ECDSA_P256_SHA_256", "SHA2_256", "sha256"),
    "ecdsa-p384": ("PKIX_ECDSA_P384_SHA_384", "SHA2_384", "sha384"),
    "ecdsa-p521": ("PKIX_ECDSA_P521_SHA_512", "SHA2_512", "sha512"),
    "ed25519": ("PKIX_ED25519", "SHA2_256", "sha256"),
    **{f"ml-dsa-{n}": (f"ML_DSA_{n}", "SHA2_256", "sha256") for n in (44, 65, 87)},
    **{
        f"rsa-{bits}": (f"PKIX_RSA_{{}}_{bits}_SHA256", "SHA2_256", "sha256")
        for bits in (2048, 3072, 4096)
    },
}
"""By key algorithm: Sigstore's PublicKeyDetails and HashAlgorithm (sigstore_common.proto; digests
by sigstore/sigstore ``pkg/signature/algorithm_registry.go``), and hashlib's name of the latter. Of
RSA, the padding that was signed with goes into the former."""


def format_body(message: bytes, signature: bytes, key: PublicKey) -> bytes:
    """Return the body that says: *key* made *signature* over *message* (an envelope's PAE)."""
    spec = spec_of(lambda name: hashlib.new(name, message).digest(), signature, key)
    return strict_json.format({"apiVersion": VERSION, "kind": KIND, "spec": spec})


def spec_of(
    digest: Callable[[str], bytes], signature: bytes, key: PublicKey, certificate: bytes = b""
) -> dict[str, Any]:
    """Return what the body says, by the *digest* of the message for the name of a hash."""
    if key.algorithm not in _ALGORITHMS:
        raise MalformedError(f"a log has no entry for a key by {key.algorithm}")
    details, algorithm, name = _ALGORITHMS[key.algorithm]
    text, hashed = strict_base64.format, digest(name)
    if "{}" in details:
        details = details.format(key.verify_digest(signature, hashed, name))
    kind, der = ("x509Certificate", certificate) if certificate else ("publicKey", key.spki)
    verifier = {"keyDetails": details, kind: {"rawBytes": text(der)}}
    data = {"algorithm": algorithm, "digest": text(hashed)}
    signed = {"content": text(signature), "verifier": verifier}
    return {"hashedRekordV002": {"data": data, "signature": signed}}


def parse_kind(body: bytes, *, where: str | None = None) -> tuple[str, str]:
    """Return the kind and the version that *body*, a canonical body, declares."""
    value = strict_json.parse(body, where=where)
    if isinstance(value, dict):
        kind, version = value.get("kind"), value.get("apiVersion")
        if isinstance(kind, str) and isinstance(version, str):
            return kind, version
    raise MalformedError("the log entry's body declares no kind and version", where=where)


def signers_of(body: bytes) -> Iterator[str]:
    """Yield the id of each key in *body*, an entry of whatever kind; and what is no key's id."""
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", body):
        with suppress(binascii.Error, MalformedError):
            der = base64.b64decode(text)
            if der.startswith(b"-----BEGIN PUBLIC"):  # as version 1 of Rekor has it
                der = parse_public_pem(der).spki
            yield strict_base64.format(hashlib.sha256(der).digest())
