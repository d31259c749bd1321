"""Keys that services keep: the real clients of AWS KMS and HashiCorp Vault, and a service here.

moto signs a digest as if it were the message, as its ``kms/models.py`` says.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
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
        if isinstance(key, ed25519.Ed25519PrivateKey):
            signed = key.sign(message)
        elif isinstance(key, rsa.RSAPrivateKey):  # by PSS, if nothing else is asked for
            padded = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
            signed = key.sign(message, padded, hashes.SHA256())
        else:
            signed = key.sign(message, ec.ECDSA(hashes.SHA256()))
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
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        **more,
    }


SIGNING = """
import json, os, sys
from provenance.errors import ProvenanceError
from provenance.keys import load_private
for uri, changes in json.load(sys.stdin):
    os.environ.update(changes)
    try:
        print(json.dumps(load_private(uri).sign(b"message").hex()))
    except ProvenanceError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
NOWHERE = "http://127.0.0.1:1"
SIGNED = ("awskms:p256", "awskms:p384", "awskms:rsa", "hv:p256/1", "hv:ed25519/1")
REFUSED: tuple[tuple[str, dict[str, str], str], ...] = (
    ("awskms:none#p256", {}, "NotFoundException"),
    ("awskms:p521", {}, "no key of the kind ecdsa-p521"),
    ("awskms:p384#p256", {}, "the public key does not fit"),
    ("awskms:p256", {"AWS_ENDPOINT_URL": NOWHERE}, "EndpointConnectionError"),
    ("hv:p256/1", {"user": "bob"}, "permission denied"),
    ("hv:p256/2", {}, "signing key not found"),
    ("hv:ed25519/1#p256", {}, "the public key does not fit"),
    ("hv:p256/1", {"VAULT_ADDR": NOWHERE}, "ConnectionError"),
    ("hv:p256", {}, "ValueError"),
)


def public_of(service: Path, uri: str) -> Path:
    place, _, other = uri.partition("#")
    return service / f"{other or place.partition(':')[2].partition('/')[0]}.pub"


def test_what_services_sign_and_refuse(service: Path) -> None:
    address = (service / "address").read_text()
    asked: list[tuple[str, dict[str, str], str]] = [*((uri, {}, "") for uri in SIGNED), *REFUSED]
    cases = [
        (f"{uri.partition('#')[0]}#{public_of(service, uri)}", reach(address, **changes))
        for uri, changes, _ in asked
    ]
    done = subprocess.run(
        [PYTHON, "-c", SIGNING],
        input=json.dumps(cases),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (uri, _, words), answer in zip(asked, answers, strict=True):
        if not words:
            key = load_public(public_of(service, uri))
            key.verify(bytes.fromhex(answer), b"message")
            continue
        kind, said = answer
        assert kind == "UnavailableError"
        assert words in said
        assert said.startswith(uri.partition("#")[0])
        assert "secret-of-alice" not in said
        assert "token-of" not in said


@pytest.mark.parametrize(("uri", "padded"), [("awskms:rsa", "PKCS1V15"), ("hv:rsa/1", "PSS")])
def test_a_claim_by_a_key_that_a_service_keeps(
    model: Path, service: Path, uri: str, padded: str
) -> None:
    """An entry in a log says by which of RSA's paddings it is signed."""
    public, address = service / "rsa.pub", (service / "address").read_text()
    ran = run("attest", model, "--key", f"{uri}#{public}", environ=reach(address))
    assert ran.status == 0, ran.err
    claim = provenance.verify(model, keys=[public]).claim
    assert claim
    message, signature = claim.bundle.envelope.pae, claim.opened.signature
    body = rekor.format_body(message, signature, claim.opened.key)
    assert f"PKIX_RSA_{padded}_2048_SHA256".encode() in body


def test_a_refusal_is_one_line(model: Path, service: Path) -> None:
    environ = reach((service / "address").read_text(), "bob")
    ran = run("sign", model, "--key", f"awskms:p256#{service / 'p256.pub'}", environ=environ)
    refused(ran, 4, "AccessDeniedException", "awskms:p256")
    assert not (model / "model.sig").exists()
