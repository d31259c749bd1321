"""``sign-model`` and ``verify-model``, as the conformance suite of model signing calls them.

    PYTHON model_signing_client.py verify-model --method key --model-path DIR --bundle FILE …

The exit status is 0 where it is done, else that of ``provenance``, with the reason on stderr. It
works from any folder, with a Python in which the package is installed. The suite has no option that
allows symbolic links, and so a model that holds one is not signed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import provenance
from provenance.errors import ProvenanceError, UsageError


def sign(given: argparse.Namespace) -> None:
    keyless = given.method == "sigstore"
    if not keyless and given.private_key is None:
        raise UsageError(f"--method {given.method} needs another option here")
    links = [it for it in (given.model_path, *given.model_path.rglob("*")) if it.is_symlink()]
    if links:
        raise UsageError("is a symbolic link", where=str(links[0]))
    provenance.sign(
        given.model_path,
        key=None if keyless else given.private_key,
        identity_token=given.identity_token if keyless else None,
        trust_config=given.trust_config if keyless else None,
        signature=given.output_bundle,
        signing_certificate=given.signing_cert if given.method == "certificate" else None,
        certificate_chain=given.cert_chain if given.method == "certificate" else (),
        ignore_paths=given.ignore_paths,
    )


def verify(given: argparse.Namespace) -> None:
    keyless = given.method == "sigstore"
    provenance.verify(
        given.model_path,
        keys=[given.public_key] if given.method == "key" and given.public_key else (),
        certificate_chain=given.cert_chain if given.method == "certificate" else (),
        identity=given.identity if keyless else None,
        identity_provider=given.identity_provider if keyless else None,
        trust_config=given.trust_config if keyless else None,
        signature=given.bundle,
        ignore_paths=given.ignore_paths,
        unsafe_ignore_unsigned=given.ignore_unsigned_files,
    )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(required=True)
    for name, call in (("sign-model", sign), ("verify-model", verify)):
        verb = verbs.add_parser(name)
        verb.set_defaults(call=call)
        verb.add_argument("--method", choices=["key", "certificate", "sigstore"], required=True)
        verb.add_argument("--model-path", type=Path, required=True)
        verb.add_argument("--cert-chain", type=Path, action="append", default=[])
        verb.add_argument("--ignore-paths", type=Path, action="append", default=[])
        paths = ("private-key", "signing-cert", "output-bundle", "public-key", "bundle")
        for option in (*paths, "trust-config"):
            verb.add_argument(f"--{option}", type=Path)
        verb.add_argument("--identity")
        verb.add_argument("--identity-token")
        verb.add_argument("--identity-provider")
        verb.add_argument("--ignore-unsigned-files", action="store_true")
    given = parser.parse_args(words)
    try:
        given.call(given)
    except ProvenanceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
