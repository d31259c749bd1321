"""Drives our check of bundles as sigstore-conformance's ``docs/cli_protocol.md`` says.

``verify-bundle --bundle FILE [--trusted-root FILE]``, then ``--key PEM`` or
``--certificate-identity NAME --certificate-oidc-issuer URL``, then a file or ``sha256:HEX``: exit 0
where it holds; else 1 and the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.envelope import bundle as bundles
from provenance.errors import MalformedError, ProvenanceError, SignatureError, UsageError
from provenance.keys import PublicKey, load_public
from provenance.sigstore import certificate, root
from provenance.sigstore.keyless import Keyless, refusing
from provenance.sigstore.logged import Signed
from provenance.statement import intoto

if TYPE_CHECKING:
    from collections.abc import Callable


DIGESTS = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}


class MessageDigest(msgspec.Struct, frozen=True):
    algorithm: str
    digest: str


class MessageSignature(msgspec.Struct, frozen=True, rename="camel"):
    signature: str
    message_digest: MessageDigest | None = None


class Blob(msgspec.Struct, frozen=True, rename="camel"):
    """The other kind of bundle: a signature over any bytes."""

    media_type: str
    message_signature: MessageSignature
    verification_material: bundles.Material
    dsse_envelope: None = None


def parse_blob(data: bytes) -> Blob:
    document = strict_json.convert(strict_json.parse(data), Blob)
    if document.media_type not in bundles.READ_MEDIA_TYPES:
        raise MalformedError(f"not a Sigstore bundle: the media type is {document.media_type!r}")
    return document


def check_blob(
    keyless: Keyless, data: bytes, digest: Callable[[str], bytes], key: PublicKey | None = None
) -> str:
    """Return what proves the signature in the bundle *data* over something of this *digest*.

    It is by *key*, or else by the identity. *digest* is asked with the name of a hash.
    """
    document = parse_blob(data)
    kind, _, chain = bundles.signer_of(document.verification_material, None)
    said = document.message_signature.message_digest
    with refusing():
        if (kind == "publicKey") != (key is not None):
            raise SignatureError("signed by a key" if key is None else "signed by an identity")
        leaf = None if key else keyless.certified(document.media_type, kind, chain)[0]
        key = leaf.key if leaf else key
        name = DIGESTS.get(said.algorithm, "") if said else "sha256"
        if not name or key is None:
            raise SignatureError("the digest's hash is not supported")
        found = digest(name)
        if said and strict_base64.parse(said.digest) != found:
            raise SignatureError("the signature is over another digest")
        signature = strict_base64.parse(document.message_signature.signature)
        key.verify_digest(signature, found, name)
        signed = Signed(signature, key, leaf.der if leaf else b"", digest)
        return keyless.prove(document.verification_material, document.media_type, signed, leaf)[0]


def signer_of(path: Path) -> tuple[str, ...]:
    """Return the options that trust the identity which the bundle at *path* names."""
    material = parse_blob(path.read_bytes()).verification_material
    leaf = certificate.parse(bundles.signer_of(material, None)[2][0])
    return (
        "--certificate-identity", leaf.identities[0], "--certificate-oidc-issuer", leaf.provider,
    )  # fmt: skip


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["verify-bundle"])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--certificate-identity", default="")
    parser.add_argument("--certificate-oidc-issuer", default="")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--trusted-root", type=Path)
    parser.add_argument("--staging", action="store_true")
    parser.add_argument("artifact")
    return parser.parse_args(words)


def verify(given: argparse.Namespace) -> str:
    if given.staging and given.trusted_root is None:
        raise UsageError("the staging instance's root is not shipped", hint="--trusted-root FILE")
    trusted = root.load(given.trusted_root) if given.trusted_root else root.shipped()
    who = given.certificate_identity, given.certificate_oidc_issuer
    keyless = Keyless(trusted, (who,) if all(who) else ())
    key = load_public(given.key) if given.key else None

    def digest(name: str) -> bytes:
        kind, _, text = str(given.artifact).partition(":")
        if not text or Path(given.artifact).exists():
            return hashlib.new(name, Path(given.artifact).read_bytes()).digest()
        if kind != name:
            raise SignatureError(f"the digest by {name} is needed")
        return bytes.fromhex(text)

    data = given.bundle.read_bytes()
    if "messageSignature" in json.loads(data):
        return check_blob(keyless, data, digest, key)
    opened = bundles.open_bundle(bundles.parse(data), [keyless, *([key] if key else [])])
    subjects = intoto.from_opened(opened).subject
    if all(each.digest.get("sha256") != digest("sha256").hex() for each in subjects):
        raise SignatureError("the statement is about something else")
    return opened.proof


def main(words: list[str]) -> int:
    try:
        print(verify(arguments(words)))  # noqa: T201 - a command's answer
    except ProvenanceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
