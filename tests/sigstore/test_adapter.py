"""The adapter for sigstore-conformance, run as its suite would, and the reference as an oracle."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.sigstore_adapter import signer_of
from tests.sigstores import NOW, PROVIDER, WHO, Sigstore, body, bundle, pae, sign

ADAPTER = Path(__file__).parents[1] / "sigstore_adapter.py"
VECTORS = Path(__file__).parents[1] / "vectors/sigstore"
PEER = os.environ.get("PROVENANCE_PEER")
"""The command model_signing, in an environment that has sigstore, too."""

ROOT = VECTORS / "trusted_root.production.json"
ARTIFACT = b"an artifact"


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ADAPTER), "verify-bundle", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_vector_by_path_and_by_digest(tmp_path: Path) -> None:
    path, artifact = VECTORS / "bundle_v3_github.whl.sigstore", VECTORS / "bundle_v3_github.whl"
    given = (
        "--bundle",
        path,
        *signer_of(path),
        "--trusted-root",
        VECTORS / "trusted_root.production.json",
    )
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    for what in (artifact, f"sha256:{digest}"):
        assert run(tmp_path, *given, what).returncode == 0
    wrong = run(tmp_path, *given, f"sha256:{'0' * 64}")
    assert (wrong.returncode, "another digest" in wrong.stderr) == (1, True)
    other = run(tmp_path, *given, "--certificate-identity", "someone", artifact)
    assert (other.returncode, "not by someone" in other.stderr) == (1, True)


def scene(
    folder: Path, *, by_key: bool = False, kind: tuple[str, str] = ("dsse", "0.0.1")
) -> dict[str, Path]:
    """Write a Sigstore's root, a statement about an artifact signed with it, and the key."""
    sigstore = Sigstore()
    signer = ec.generate_private_key(ec.SECP256R1()) if by_key else sigstore.signer(old=True)
    digest = {"sha256": hashlib.sha256(ARTIFACT).hexdigest()}
    statement = json.dumps({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "a", "digest": digest}],
        "predicateType": "https://example.org/p", "predicate": {},
    }).encode()  # fmt: skip
    key = signer if isinstance(signer, ec.EllipticCurvePrivateKey) else signer.key
    signature = sign(key, pae(statement))
    log = sigstore.logs[kind[1] == "0.0.2"]
    entry = log.enter(body(*kind, statement, signature, signer), NOW)
    stamps = [sigstore.stampers[0].stamp(signature, NOW)]
    document = bundle(signer, statement, [entry], stamps, signature=signature)
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    made = {
        "root": sigstore.trusted_root(), "bundle": json.dumps(document).encode(),
        "artifact": ARTIFACT, "other": b"other", "key": pem,
    }  # fmt: skip
    for name, data in made.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in made}


@pytest.mark.parametrize("by_key", [True, False])
def test_a_statement_about_an_artifact(tmp_path: Path, by_key: bool) -> None:
    at = scene(tmp_path, by_key=by_key)
    named = ("--certificate-identity", WHO, "--certificate-oidc-issuer", PROVIDER)
    given = ("--bundle", at["bundle"], "--trusted-root", at["root"])
    signer = ("--key", at["key"]) if by_key else named
    assert run(Path("/"), *given, *signer, at["artifact"]).returncode == 0
    refused = run(Path("/"), *given, *signer, at["other"])
    assert (refused.returncode, "about something else" in refused.stderr) == (1, True)
    wrong = run(Path("/"), *given, *(named if by_key else ("--key", at["key"])), at["artifact"])
    assert wrong.returncode == 1


ORACLE = """
import sys, warnings
warnings.simplefilter("ignore")
from sigstore.models import Bundle, TrustedRoot
from sigstore.verify import Verifier, policy
root, bundle, who, provider = sys.argv[1:]
verifier = Verifier(trusted_root=TrustedRoot.from_file(root))
identity = policy.Identity(identity=who, issuer=provider)
verifier.verify_dsse(Bundle.from_json(open(bundle).read()), identity)
"""


@pytest.mark.skipif(PEER is None, reason="PROVENANCE_PEER does not name model_signing")
@pytest.mark.parametrize("kind", [("dsse", "0.0.1"), ("hashedrekord", "0.0.2")])
def test_the_reference_library_takes_and_refuses_the_same(
    tmp_path: Path, kind: tuple[str, str]
) -> None:
    at = scene(tmp_path, kind=kind)
    python = Path(PEER or "").with_name("python")
    for who, status in ((WHO, 0), ("mallory@example.org", 1)):
        command: list[str | Path] = [python, "-c", ORACLE, at["root"], at["bundle"], who, PROVIDER]
        theirs = subprocess.run(command, capture_output=True, text=True, check=False)
        assert theirs.returncode == status, theirs.stderr
        named = ("--certificate-identity", who, "--certificate-oidc-issuer", PROVIDER)
        given = ("--bundle", at["bundle"], "--trusted-root", at["root"])
        assert run(tmp_path, *given, *named, at["artifact"]).returncode == status
