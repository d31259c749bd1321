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

from provenance.envelope import bundle as bundles
from provenance.errors import ProvenanceError, SignatureError, UsageError
from provenance.keys import load_public
from provenance.sigstore import root
from provenance.sigstore.keyless import Keyless
from provenance.statement import intoto


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["verify-bundle"])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--certificate-identity", default="")
    parser.add_argument("--certificate-oidc-issuer", default="")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--trusted-root", type=Path)
    parser.add_argument("--staging", action="store_true")
    parser.add_argument("artifact")
    return parser.parse_args()


def verify(given: argparse.Namespace) -> str:
    if given.staging and given.trusted_root is None:
        raise UsageError("the staging instance's root is not shipped", hint="--trusted-root FILE")
    trusted = root.load(given.trusted_root) if given.trusted_root else root.shipped()
    keyless = Keyless(trusted, given.certificate_identity, given.certificate_oidc_issuer)
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
        return keyless.check_blob(data, digest, key)
    opened = bundles.open_bundle(bundles.parse(data), [keyless, *([key] if key else [])])
    subjects = intoto.from_opened(opened).subject
    if all(each.digest.get("sha256") != digest("sha256").hex() for each in subjects):
        raise SignatureError("the statement is about something else")
    return opened.proof


if __name__ == "__main__":
    try:
        print(verify(arguments()))  # noqa: T201 - a command's answer
    except ProvenanceError as error:
        sys.exit(str(error))
