"""Keys that services keep: the real clients of AWS KMS and HashiCorp Vault, and a service here.

moto answers no request of securesystemslib's, which sends digests (its documentation says so).
"""

from __future__ import annotations

import base64
import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

import provenance
from provenance.keys import load_public
from provenance.transparency import rekor
from tests.world import refused, run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = os.environ.get("PROVENANCE_SERVICES", "")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not PYTHON, reason="PROVENANCE_SERVICES names no Python with the clients"),
]
run = partial(run_program, python=PYTHON)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/w.bin").write_bytes(b"1")
    return tmp_path / "model"


class Service(BaseHTTPRequestHandler):
    """AWS KMS and HashiCorp Vault's transit engine, as far as they sign with one P-256 key each.

    By the documentation of the two: KMS signs the digest that it gets, Vault hashes what it gets.
    """

    keys: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/v1/transit/sign/"):
            self.answer(*self.vault(body))
        else:
            assert self.headers["X-Amz-Target"] == "TrentService.Sign"
            self.answer(*self.kms(body))

    def answer(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def kms(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "Credential=bob" in self.headers["Authorization"]:
            words = "not authorized to perform: kms:Sign"
            return 400, {"__type": "AccessDeniedException", "message": words}
        if body["KeyId"] not in self.keys:
            return 400, {"__type": "NotFoundException", "message": f"Invalid keyId {body['KeyId']}"}
        assert body["MessageType"] == "DIGEST"
        key, digest = self.keys[body["KeyId"]], base64.b64decode(body["Message"])
        hashing = Prehashed(hashes.SHA384() if len(digest) == 48 else hashes.SHA256())
        if body["SigningAlgorithm"].startswith("ECDSA_SHA_"):
            signature = key.sign(digest, ec.ECDSA(hashing))
        else:
            assert body["SigningAlgorithm"] == "RSASSA_PKCS1_V1_5_SHA_256"
            signature = key.sign(digest, padding.PKCS1v15(), hashing)
        return 200, {"Signature": base64.b64encode(signature).decode()}

    def vault(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.headers["X-Vault-Token"] != "token-of-alice":
            return 403, {"errors": ["permission denied"]}
        name = self.path.rpartition("/")[2]
        if name not in self.keys or body["key_version"] != 1:
            return 400, {"errors": ["signing key not found"]}
        message, key = base64.b64decode(body["input"]), self.keys[name]
        is_raw = isinstance(key, ed25519.Ed25519PrivateKey)
        signed = key.sign(message) if is_raw else key.sign(message, ec.ECDSA(hashes.SHA256()))
        return 200, {"data": {"signature": f"vault:v1:{base64.b64encode(signed).decode()}"}}

    do_PUT = do_POST  # noqa: N815 - the name that the server asks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Serve keys by their names, and return the folder with the public ones."""
    folder = tmp_path_factory.mktemp("public")
    Service.keys = {
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "p521": ec.generate_private_key(ec.SECP521R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in Service.keys.items():
        pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*pem))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "address").write_text(f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()


def reach(address: str, user: str = "alice", **more: str) -> dict[str, str]:
    """Return the variables by which the clients find the service, and say who asks."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": user,
        "AWS_SECRET_ACCESS_KEY": "secret-of-alice",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_MAX_ATTEMPTS": "1",
        "VAULT_ADDR": address,
        "VAULT_TOKEN": f"token-of-{user}",
        "PYTHONPATH": str(ROOT),
        **more,
    }


@pytest.mark.parametrize(
    "uri",
    ["awskms:p256", "awskms:p384", "awskms:rsa", "hv:p256/1", "hv:ed25519/1"],
)
def test_a_key_that_a_service_keeps(model: Path, service: Path, uri: str) -> None:
    name = uri.partition(":")[2].partition("/")[0]
    public, environ = service / f"{name}.pub", reach((service / "address").read_text())
    ran = run("attest", model, "--key", f"{uri}#{public}", environ=environ)
    assert ran.status == 0, ran.err
    found = provenance.verify(model, keys=[public])
    assert [each.level for each in found.levels] == ["attested"]
    # Its entry in a log says by which of RSA's paddings.
    if (key := load_public(public)).algorithm.startswith("rsa-"):
        assert found.claim
        opened = found.claim.opened
        Service.keys[name].public_key().verify(
            opened.signature, found.claim.bundle.envelope.pae, padding.PKCS1v15(), hashes.SHA256()
        )
        assert b"PKIX_RSA_PKCS1V15" in rekor.format_body(b"", opened.signature, key)


@pytest.mark.parametrize(
    ("uri", "changes", "words"),
    [
        ("awskms:p256", {"user": "bob"}, "AccessDeniedException"),
        ("awskms:none#p256", {}, "NotFoundException"),
        ("awskms:p521", {}, "no key of the kind ecdsa-p521"),
        ("awskms:p384#p256", {}, "the public key does not fit"),
        ("awskms:p256", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "EndpointConnectionError"),
        ("hv:p256/1", {"user": "bob"}, "permission denied"),
        ("hv:p256/2", {}, "signing key not found"),
        ("hv:ed25519/1#p256", {}, "the public key does not fit"),
        ("hv:p256/1", {"VAULT_ADDR": "http://127.0.0.1:1"}, "ConnectionError"),
        ("hv:p256", {}, "ValueError"),
    ],
)
def test_a_service_that_does_not_sign(
    model: Path, service: Path, uri: str, changes: dict[str, str], words: str
) -> None:
    place, _, name = uri.partition("#")
    name = name or place.partition(":")[2].partition("/")[0]
    environ = reach((service / "address").read_text(), **changes)
    key = f"{place}#{service / name}.pub"
    ran = run("sign", model, "--key", key, environ=environ)
    refused(ran, 4, words, place)
    assert "secret-of-alice" not in ran.err
    assert "token-of" not in ran.err
    assert not (model / "model.sig").exists()
