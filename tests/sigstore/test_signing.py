"""Signing by an identity, with the real clients, against a Sigstore on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from provenance.envelope import bundle as bundles
from provenance.errors import UnavailableError
from provenance.sigstore.keyless import Keyless
from provenance.sigstore.root import parse as root_of
from provenance.sigstore.signing import Identity, read_config
from tests.loopback import Loopback, RefusedError, by, trust
from tests.sigstores import DAY, PROVIDER, WHO, new_key
from tests.world import PROGRAM, Shell, refused, tree

if TYPE_CHECKING:
    from tests.world import Person

pytest.importorskip("sigstore")

PEER = os.environ.get("PROVENANCE_PEER")
ADAPTER = Path(__file__).parents[1] / "sigstore_adapter.py"


def ran(*words: str | Path, status: int = 0) -> str:
    done = subprocess.run(list(words), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr


def sigstores(sigstore: Loopback) -> list[str | Path]:
    """Return how the command ``sigstore`` begins."""
    return [sys.executable, "-m", "sigstore", "--trust-config", sigstore.config]


def test_what_an_identity_signs_verifies_here_and_with_the_others(
    each: Loopback, root: Path, provenance: Shell, tmp_path: Path
) -> None:
    signed = provenance("sign", root, *by(each), "--json")
    assert signed.status == 0, signed.err
    assert signed.document["identity"] == f"{WHO} ({PROVIDER})"
    assert each.asked == ["/api/v2/signingCert", "/timestamp", f"/api/v{each.rekor}/log/entries"]
    verified = provenance("verify", root, *trust(each))
    assert verified.status == 0, verified.err
    assert f"signed (as {WHO} ({PROVIDER}) says)" in verified.out
    refused(provenance("verify", root, *trust(each, "mallory@example.org")), 1, f"signed by {WHO}")
    digest = f"sha256:{signed.document['rootDigest']['sha256']}"
    attested = provenance("attest", root, *by(each))
    assert attested.status == 0, attested.err
    [line] = (root / "claims.jsonl").read_bytes().splitlines()
    (tmp_path / "claim").write_bytes(line)
    named = ["--cert-identity", WHO, "--cert-oidc-issuer", PROVIDER]
    for bundle in (root / "model.sig", tmp_path / "claim"):
        given = [*sigstores(each), "verify", "identity", "--bundle", bundle, *named]
        ran(*given, digest)
    ran(*given, f"sha256:{'0' * 64}", status=1)
    verified = provenance("verify", root, *trust(each))
    assert f"attested (as {WHO} ({PROVIDER}) says)" in verified.out


@pytest.mark.skipif(PEER is None, reason="PROVENANCE_PEER does not name model_signing")
def test_the_reference_tool_and_we_verify_each_others(
    each: Loopback, root: Path, provenance: Shell
) -> None:
    peer = Path(PEER or "")
    signature = root / "model.sig"
    named: list[str | Path] = ["--signature", signature, "--trust_config", each.config]
    whose = ["--identity", WHO, "--identity_provider", PROVIDER]
    assert provenance("sign", root, *by(each)).status == 0
    ran(peer, "verify", "sigstore", root, *named, *whose)
    (root / "more").write_bytes(b"more")
    ran(peer, "verify", "sigstore", root, *named, *whose, status=1)
    signature.unlink()
    ran(peer, "sign", "sigstore", root, *named, "--identity_token", each.token())
    assert provenance("verify", root, *trust(each)).status == 0
    assert provenance("sign", root, *by(each)).status == 0, "the same identity may replace it"


def test_we_verify_what_the_command_of_sigstore_signs(each: Loopback, tmp_path: Path) -> None:
    artifact, bundle = tmp_path / "artifact", tmp_path / "bundle"
    artifact.write_bytes(b"an artifact")
    ran(*sigstores(each), "sign", "--identity-token", each.token(), "--bundle", bundle, artifact)
    (tmp_path / "root").write_bytes(each.trusted_root())
    given: list[str | Path] = [sys.executable, ADAPTER, "verify-bundle", "--bundle", bundle]
    given += ["--trusted-root", tmp_path / "root", "--certificate-identity", WHO]
    given += ["--certificate-oidc-issuer", PROVIDER]
    ran(*given, artifact)
    digest = hashlib.sha256(b"another").hexdigest()
    assert "another digest" in ran(*given, f"sha256:{digest}", status=1)


STATEMENT = json.dumps({
    "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.org/p",
    "predicate": {}, "subject": [{"name": "a", "digest": {"sha256": "0" * 64}}],
}).encode()  # fmt: skip
NONSENSE = b'{"no": "such thing"}'


def other_body(sigstore: Loopback, data: bytes) -> bytes:
    """Return what a log answers that has put in another entry."""
    asked = json.loads(data)
    envelope = json.loads(asked["spec"]["proposedContent"]["envelope"])
    envelope["payload"] = "e30="
    asked["spec"]["proposedContent"]["envelope"] = json.dumps(envelope)
    return json.dumps(sigstore.enter(asked)).encode()


def unsigned_entry(sigstore: Loopback, data: bytes) -> bytes:
    """Return what a log answers whose promise another key signed."""
    [(name, entry)] = sigstore.enter(json.loads(data)).items()
    entry["verification"]["signedEntryTimestamp"] = "MAA="
    return json.dumps({name: entry}).encode()


def wrong_time(sigstore: Loopback, data: bytes) -> bytes:
    """Return a timestamp of something else."""
    query = sigstore.folder / "other"
    query.write_bytes(data)
    words = ("openssl", "ts", "-query", "-data", query, "-sha256", "-cert", "-out", query)
    subprocess.run(words, check=True, capture_output=True)
    return sigstore.timestamp(query.read_bytes())


FAILURES: dict[str, tuple[str, Any, str]] = {
    "the authority answers nonsense": ("/api/v2/signingCert", NONSENSE, "the certificate"),
    "the authority refuses": ("/api/v2/signingCert", None, "the certificate.*500"),
    "the log answers nonsense": ("/api/v1/log/entries", NONSENSE, "the log"),
    "the log answers no JSON": ("/api/v1/log/entries", b"<html>", "the log"),
    "the log refuses": ("/api/v1/log/entries", None, "the log.*500"),
    "the log has another entry": ("/api/v1/log/entries", other_body, "the check of the sig"),
    "the log did not sign": ("/api/v1/log/entries", unsigned_entry, "the check of the sig"),
    "the clock answers nonsense": ("/timestamp", NONSENSE, "the time-stamp authority.*invalid"),
    "the clock refuses": ("/timestamp", None, "the time-stamp authority.*500"),
    "the clock stamps something else": ("/timestamp", wrong_time, "timestamp"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_service_that_fails(sigstore: Loopback, case: str) -> None:
    path, answer, said = FAILURES[case]
    sigstore.spoil[path] = answer if not callable(answer) else lambda it: answer(sigstore, it)
    token = sigstore.token()
    with pytest.raises(UnavailableError, match=f"signing without a key.*{said}") as failed:
        Identity(token, read_config(sigstore.config)).sign(STATEMENT)
    assert token[:30] not in str(failed.value)


def test_a_part_of_the_token_is_not_told(sigstore: Loopback) -> None:
    token = sigstore.token()

    def refuse(_: bytes) -> bytes:
        raise RefusedError(500, f"what is {token[:-1]}")

    sigstore.spoil["/api/v2/signingCert"] = refuse
    with pytest.raises(UnavailableError, match="what is …") as failed:
        Identity(token, read_config(sigstore.config)).sign(STATEMENT)
    assert token[:30] not in str(failed.value)


@pytest.mark.parametrize("url", ["http://ca.example", "http://127.0.0.1@ca.example", "ca.example"])
def test_a_token_goes_nowhere_unencrypted(sigstore: Loopback, url: str) -> None:
    config = json.loads(sigstore.config.read_text())
    config["signingConfig"]["caUrls"][0]["url"] = url
    sigstore.config.write_text(json.dumps(config))
    with pytest.raises(UnavailableError, match=r"trust configuration.*unencrypted"):
        Identity(sigstore.token(), read_config(sigstore.config)).check()


TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": 1}, "the identity.*expired"),
    "for others": ({"aud": "others"}, "the identity.*[Aa]udience"),
    "of the future": ({"nbf": 2**33}, "the identity.*(not yet valid|validity)"),
    "of nobody": ({"sub": None}, "the identity.*[Ss]ub"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_token_that_is_not_good(sigstore: Loopback, case: str) -> None:
    claims, said = TOKENS[case]
    token = sigstore.token(**claims)
    with pytest.raises(UnavailableError, match=said) as failed:
        Identity(token, read_config(sigstore.config)).check()
    assert token[:30] not in str(failed.value)
    assert sigstore.asked == []


def test_a_certificate_that_is_over(sigstore: Loopback, root: Path, provenance: Shell) -> None:
    sigstore.spoil["age"] = DAY
    before = tree(root)
    refused(provenance("sign", root, *by(sigstore)), 4, "signing without a key")
    assert tree(root) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_who_is_stopped_leaves_nothing(sigstore: Loopback, root: Path, number: int) -> None:
    path, goes_on = "/api/v1/log/entries", threading.Event()
    sigstore.spoil[path] = lambda _: bytes(goes_on.wait(300))
    before = tree(root)
    signer = subprocess.Popen([*PROGRAM, "sign", root, *by(sigstore)], stderr=subprocess.DEVNULL)
    while path not in sigstore.asked:
        assert signer.poll() is None
        time.sleep(0.01)
    signer.send_signal(number)
    assert signer.wait(300) == (130 if number == signal.SIGINT else -number)
    goes_on.set()
    assert tree(root) == before


def test_without_the_library(
    sigstore: Loopback, root: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sigstore.folder / "sigstore.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(sigstore.folder))
    refused(provenance("sign", root, *by(sigstore)), 4, "needs sigstore", "[sigstore]")


def test_a_token_of_another_provider(sigstore: Loopback, root: Path, provenance: Shell) -> None:
    token = sigstore.token()
    sigstore.provider_key = new_key()
    given: list[str | Path] = ["--identity-token", token, "--trust-config", sigstore.config]
    refused(provenance("sign", root, *given), 4, "the certificate", "processing the identity token")
    refused(provenance("sign", root, "--identity-token", "no JWT", *given[2:]), 4, "the identity")


def test_what_is_missing_or_contradicts(
    sigstore: Loopback, root: Path, provenance: Shell, alice: Person, tmp_path: Path
) -> None:
    refused(provenance("sign", root, *by(sigstore)[2:]), 2, "no key is named", "--identity-token")
    refused(provenance("sign", root, "--key", alice.private, *by(sigstore)), 2, "or an identity")
    refused(provenance("record", "--model", root, "--", "true"), 125, "no key is named")
    empty = ["--identity-token", "", *by(sigstore)[2:]]
    refused(provenance("sign", root, *empty), 2, "token is empty")
    chain: list[str | Path] = ["--signing-certificate", alice.public]
    refused(provenance("sign", root, *by(sigstore), *chain), 2, "gets its certificate when it")
    (tmp_path / "root").write_bytes(sigstore.trusted_root())
    given = by(sigstore)[:3]
    refused(provenance("sign", root, *given, tmp_path / "root"), 2, "not where to sign")
    refused(provenance("sign", root, *given, root / "config.json"), 3, "config.json")
    for name, value in (("--link", "train"), ("--log", tmp_path)):
        refused(provenance("attest", root, *by(sigstore), name, value), 2, "a key signs")
    dry = provenance("attest", root, *by(sigstore), "--dry-run")
    assert (dry.status, sigstore.asked) == (0, [])
    assert dry.document["predicate"]["runDetails"].get("provenance_signer") is None


def test_the_public_sigstore_is_checked_by_its_own_client(
    sigstore: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration is fetched, and here it is that of the loopback."""
    text = f"""
        from sigstore.models import ClientTrustConfig
        def production(cls, offline=False):
            return cls.from_json(open({str(sigstore.config)!r}).read())
        ClientTrustConfig.production = classmethod(production)
    """
    (sigstore.folder / "sitecustomize.py").write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(sigstore.folder))
    signed = bundles.parse(Identity(sigstore.token()).sign(STATEMENT))
    trusted = root_of(sigstore.trusted_root(), where="root")
    assert Keyless(trusted, ((WHO, PROVIDER),)).open(signed).payload == STATEMENT
    sigstore.spoil["/api/v1/log/entries"] = lambda it: unsigned_entry(sigstore, it)
    with pytest.raises(UnavailableError, match="the check of the signature"):
        Identity(sigstore.token()).sign(STATEMENT)
