"""A Sigstore on loopback, with which the real clients sign: a CA, a log and an ``openssl ts``.

The certificate authority has Fulcio's API v2, the log that of Rekor v1 or v2; what is signed is
made by :mod:`tests.sigstores`. A token is a JWT of its own identity provider. ``spoil`` says what
is to go wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sigstores import (
    AUTHORITY,
    DAY,
    MINUTE,
    PEM,
    PROVIDER,
    WHO,
    Issued,
    Log,
    Sigstore,
    Stamper,
    body,
    issue,
    new_key,
    stamp,
    usage,
)

if TYPE_CHECKING:
    from pathlib import Path

TSA = """[tsa]
default_tsa = t
[t]
serial = serial
crypto_device = builtin
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.57264.2
digests = sha256,sha384,sha512
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""


def url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Server(ThreadingHTTPServer):
    """One that does not tell when somebody stops listening."""

    def handle_error(self, *_: object) -> None:
        pass


class RefusedError(Exception):
    """A status and what a service says with it."""


class Loopback(Sigstore):
    """A Sigstore that answers, with its files in *folder*; use it in a ``with`` block."""

    def __init__(self, folder: Path, rekor: int = 1) -> None:
        super().__init__()
        self.now = datetime.now(UTC).replace(microsecond=0)
        times: dict[str, Any] = {"begin": self.now - DAY, "end": self.now + DAY}
        self.root = issue("root", None, *AUTHORITY, **times)
        self.between = issue("between", self.root, *AUTHORITY, **times)
        self.authority_period = {"start": stamp(self.now - DAY)}
        self.ctlog = Log("ct.example.org", start=self.now - DAY)
        self.log = Log("log.example.org", rekor, start=self.now - DAY)
        self.logs = [self.log]
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        above = issue("stamps root", None, *AUTHORITY, **times)
        signs = (usage(digital_signature=True), True)
        own = issue("stamps", above, signs, (purpose, True), **times)
        self.stampers = [Stamper(above, own, start=self.now - DAY)]
        self.folder, self.rekor = folder, rekor
        self.provider_key = new_key()
        self.spoil: dict[str, Any] = {}
        self.asked: list[str] = []
        self._server = Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._write(own)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def config(self) -> Path:
        """The client's trust configuration."""
        return self.folder / "config.json"

    def _write(self, tsa: Issued) -> None:
        self.folder.mkdir(exist_ok=True)
        key = tsa.key.private_bytes(
            PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        files = {"tsa.key": key, "tsa.pem": tsa.certificate.public_bytes(PEM)}
        for name, data in (files | {"tsa.cnf": TSA.encode(), "serial": b"01\n"}).items():
            (self.folder / name).write_bytes(data)
        since = {"validFor": {"start": stamp(self.now - DAY)}, "operator": "example.org"}

        def service(path: str, version: int = 1) -> list[dict[str, Any]]:
            return [{"url": f"{self.url}{path}", "majorApiVersion": version, **since}]

        signing = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service(""),
            "oidcUrls": service("/oidc"),
            "rekorTlogUrls": service("", self.rekor),
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": service("/timestamp"),
            "tsaConfig": {"selector": "ANY"},
        }
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        root = json.loads(self.trusted_root())
        document = {"mediaType": kind, "trustedRoot": root, "signingConfig": signing}
        self.config.write_text(json.dumps(document))

    def token(self, who: str = WHO, **claims: Any) -> str:  # noqa: ANN401 - JSON values
        """Return an identity token of *who*, for five minutes, with other *claims*."""
        at = int(datetime.now(UTC).timestamp())
        said = {"iss": PROVIDER, "sub": who, "aud": "sigstore", "iat": at, "exp": at + 300}
        parts = [{"alg": "ES256", "typ": "JWT"}, said | claims]
        text = ".".join(url64(json.dumps(part).encode()) for part in parts)
        return f"{text}.{url64(self.provider_key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sigstore = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(b"")

            def do_POST(self) -> None:
                self.reply(self.rfile.read(int(self.headers["Content-Length"])))

            def reply(self, data: bytes) -> None:
                path = self.path.partition("?")[0]
                sigstore.asked.append(path)
                try:
                    status, answer = sigstore.answer(path, data, self.headers)
                except RefusedError as error:
                    said = {"code": error.args[0], "message": error.args[1]}
                    status, answer = error.args[0], json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def answer(self, path: str, data: bytes, headers: Any) -> tuple[int, bytes]:  # noqa: ANN401 - a mapping
        """Return status and body of what the service at *path* answers to *data*."""
        authorized = headers.get("Authorization", "").partition(" ")[2]
        if path in self.spoil:
            if (spoilt := self.spoil[path]) is None:
                raise RefusedError(500, f"out of order: {'x' * 300}{authorized}")
            return 200, spoilt(data) if callable(spoilt) else spoilt
        if path == "/api/v2/signingCert":
            return 200, json.dumps(self.certify(json.loads(data), authorized)).encode()
        if path == f"/api/v{self.rekor}/log/entries":
            return 201, json.dumps(self.enter(json.loads(data))).encode()
        if path == "/timestamp":
            return 200, self.timestamp(data)
        if (
            path == "/oidc/.well-known/openid-configuration"
        ):  # model_signing looks, whatever it needs
            places = ("authorization_endpoint", "token_endpoint")
            return 200, json.dumps(dict.fromkeys(places, f"{self.url}/oidc")).encode()
        if path == "/ambient" and authorized == "for the job":
            return 200, json.dumps({"value": self.token()}).encode()
        raise RefusedError(404, f"nothing is at {path}")

    def certify(self, asked: dict[str, Any], token: str) -> dict[str, Any]:
        """Return the chain that Fulcio gives for a certificate request and an identity token."""
        text, _, signature = token.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        try:
            self.provider_key.public_key().verify(raw, text.encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise RefusedError(401, "There was an error processing the identity token") from None
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        if claims["exp"] < datetime.now(UTC).timestamp() or claims["aud"] != "sigstore":
            raise RefusedError(401, "There was an error processing the identity token")
        request = x509.load_pem_x509_csr(base64.b64decode(asked["certificateSigningRequest"]))
        if not request.is_signature_valid:
            raise RefusedError(400, "The signature of the request is invalid")
        who: x509.GeneralName = x509.RFC822Name(claims["sub"])
        if "://" in claims["sub"]:
            who = x509.UniformResourceIdentifier(claims["sub"])
        at = datetime.now(UTC).replace(microsecond=0)
        made = self.signer(
            who=who, both=True, begin=at - self.spoil.get("age", MINUTE), promised=at,
            key=_Foreign(request.public_key()),
        )  # fmt: skip
        chain = [each.certificate for each in (made, self.between, self.root)]
        pems = [each.public_bytes(PEM).decode() for each in chain]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}

    def enter(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return what Rekor answers to a new entry."""
        told = self._told(asked)
        entry = self.log.enter(told, datetime.now(UTC))
        if self.rekor != 1:
            return entry
        proof = entry["inclusionProof"]
        shown = {
            "checkpoint": proof["checkpoint"]["envelope"],
            "hashes": [base64.b64decode(it).hex() for it in proof["hashes"]],
            "logIndex": int(proof["logIndex"]),
            "rootHash": base64.b64decode(proof["rootHash"]).hex(),
            "treeSize": int(proof["treeSize"]),
        }
        promise = entry["inclusionPromise"]["signedEntryTimestamp"]
        answer = {
            "body": entry["canonicalizedBody"],
            "integratedTime": int(entry["integratedTime"]),
            "logID": self.log.log_id.hex(),
            "logIndex": int(entry["logIndex"]),
            "verification": {"inclusionProof": shown, "signedEntryTimestamp": promise},
        }
        return {hashlib.sha256(promise.encode()).hexdigest(): answer}

    def _told(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the body of the entry that is asked for."""
        if self.rekor != 1:
            request = asked["hashedRekordRequestV002"]
            data = {"algorithm": "SHA2_256", "digest": request["digest"]}
            spec = {"hashedRekordV002": {"data": data, "signature": request["signature"]}}
            return {"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec}
        if asked["kind"] == "hashedrekord":
            spec = asked["spec"]
            hashed = {name: spec["data"]["hash"][name] for name in ("algorithm", "value")}
            made = spec["signature"]
            made = {
                "content": made["content"],
                "publicKey": {"content": made["publicKey"]["content"]},
            }
            return {
                "apiVersion": "0.0.1", "kind": "hashedrekord",
                "spec": {"data": {"hash": hashed}, "signature": made},
            }  # fmt: skip
        proposed = asked["spec"]["proposedContent"]
        envelope = json.loads(proposed["envelope"])
        pem = base64.b64decode(proposed["verifiers"][0])
        signer = Issued(None, x509.load_pem_x509_certificate(pem))
        signature = base64.b64decode(envelope["signatures"][0]["sig"])
        payload = base64.b64decode(envelope["payload"])
        return body("dsse", "0.0.1", payload, signature, signer)

    def timestamp(self, query: bytes) -> bytes:
        """Return what ``openssl ts`` answers to *query*."""
        (self.folder / "query").write_bytes(query)
        words = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query"]
        subprocess.run([*words, "-out", "reply"], cwd=self.folder, check=True, capture_output=True)
        return (self.folder / "reply").read_bytes()


class _Foreign:
    """A key whose private half is elsewhere."""

    def __init__(self, public: Any) -> None:  # noqa: ANN401 - any public key
        self._public = public

    def public_key(self) -> Any:  # noqa: ANN401 - any public key
        return self._public


def trust(sigstore: Loopback, who: str = WHO) -> list[str | Path]:
    """Return the options that trust *who*."""
    given = ["--identity", who, "--identity-provider", PROVIDER, "--trust-config"]
    return [*given, sigstore.config]


def by(sigstore: Loopback, **claims: Any) -> list[str | Path]:  # noqa: ANN401 - JSON values
    """Return the options by which one signs."""
    return ["--identity-token", sigstore.token(**claims), "--trust-config", sigstore.config]
