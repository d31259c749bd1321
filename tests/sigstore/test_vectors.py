"""Bundles of the public Sigstore and of its staging instance, each as its name says."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import provenance
from provenance.encoding import strict_json
from provenance.errors import MalformedError, SignatureError, UsageError
from provenance.report.explain import explain
from provenance.sigstore import root
from provenance.trust.verification import Verified

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = Path(__file__).parents[1] / "vectors"
PUBLIC = VECTORS / "sigstore/trusted_root.production.json"
STAGING = VECTORS / "sigstore/trusted_root.staging.json"
MODEL = VECTORS / "openssf-model-signing/v1.1.0-sigstore"
WHO = "stefanb@us.ibm.com"
PROVIDER = "https://sigstore.verify.ibm.com/oauth2"


def verify(model: Path, **more: Any) -> Verified:  # noqa: ANN401 - the verb's own
    given: dict[str, Any] = {"identity": WHO, "identity_provider": PROVIDER, "trust_config": PUBLIC}
    given["ignore_paths"] = [model / "ignore-me"]
    return provenance.verify(model, **(given | more))


def test_a_keyless_model_signature_verifies() -> None:
    verified = verify(MODEL)
    assert [word.signer for word in verified.levels] == [f"{WHO} ({PROVIDER})"]
    assert (
        "entry 598151086 of rekor.sigstore.dev at 2025-10-10 02:12:20" in verified.steps[1].detail
    )


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"identity": "stefanb@us.ibm.co"}, f"signed by {WHO}, not by stefanb@us.ibm.co"),
        ({"identity_provider": "https://accounts.google.com"}, "vouched for by https://sigstore"),
        ({"trust_config": STAGING}, "in no log of the trusted root"),
        ({"identity": None, "identity_provider": None}, "none is trusted.*--identity"),
    ],
)
def test_another_signer_is_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        verify(MODEL, **more)


@pytest.mark.parametrize("more", [{"identity": None}, {"identity_provider": None}])
def test_an_identity_needs_its_provider(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="both are needed"):
        verify(MODEL, **more)


def test_what_is_no_trusted_root_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "root.json"
    for text, reason in (
        ("{}", "not a trusted root"),
        ('{"mediaType": "x"}', "the media type is 'x'"),
        ("[" * 100, "nested|not JSON"),
    ):
        bad.write_text(text, "utf-8")
        with pytest.raises(MalformedError, match=reason):
            verify(MODEL, trust_config=bad)


def test_a_clients_trust_configuration_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    trusted = json.loads(PUBLIC.read_bytes())
    kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
    path.write_text(json.dumps({"mediaType": kind, "trustedRoot": trusted}), "utf-8")
    assert verify(MODEL, trust_config=path).name == "v1.1.0-sigstore"


def flipped(text: str, at: int = 40) -> str:
    data = bytearray(b64decode(text))
    data[at % len(data)] ^= 1
    return b64encode(data).decode()


def _edit(path: str, change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def edit(document: Any) -> None:  # noqa: ANN401 - JSON
        *steps, last = [int(it) if it.isdigit() else it for it in path.split("/")]
        for step in steps:
            document = document[step]
        document[last] = change(document[last])

    return edit


CHECKPOINT = "verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope"
ENTRY = "verificationMaterial/tlogEntries/0"
ALTERED = {
    "the payload": (_edit("dsseEnvelope/payload", flipped), "the signature does not match"),
    "its type": (_edit("dsseEnvelope/payloadType", lambda _: "text/plain"), "does not match"),
    "the signature": (_edit("dsseEnvelope/signatures/0/sig", flipped), "does not match"),
    "the body": (_edit(f"{ENTRY}/canonicalizedBody", flipped), "something else: speb differs"),
    "the kind": (_edit(f"{ENTRY}/kindVersion/kind", lambda _: "intoto"), "not of the kind"),
    "the time": (_edit(f"{ENTRY}/integratedTime", lambda it: it[:-1] + "9"), "promise.*SET"),
    "the index": (_edit(f"{ENTRY}/logIndex", lambda it: it[:-1] + "9"), "promise.*SET"),
    "the promise": (
        _edit(f"{ENTRY}/inclusionPromise/signedEntryTimestamp", flipped),
        "promise.*SET",
    ),
    "the proof's index": (
        _edit(f"{ENTRY}/inclusionProof/logIndex", lambda it: str(int(it) - 1)),
        "the proof has 14 hashes, and needs",
    ),
    "a hash": (_edit(f"{ENTRY}/inclusionProof/hashes/3", flipped), "leads to another root"),
    "no hashes": (_edit(f"{ENTRY}/inclusionProof/hashes", lambda _: []), "hashes"),
    "the root": (_edit(f"{ENTRY}/inclusionProof/rootHash", flipped), "different roots"),
    "the size": (_edit(f"{ENTRY}/inclusionProof/treeSize", lambda it: it + "0"), "is for size"),
    "the checkpoint": (
        _edit(CHECKPOINT, lambda it: it.replace("476246825", "476246826")),
        "does not match",
    ),
    "its origin": (
        _edit(CHECKPOINT, lambda it: it.replace("rekor", "other", 1)),
        "not signed by the key",
    ),
    "the log": (_edit(f"{ENTRY}/logId/keyId", flipped), "in no log"),
    "no entry": (_edit("verificationMaterial/tlogEntries", lambda _: []), "in no log"),
    "no proof": (_edit(f"{ENTRY}/inclusionProof", lambda _: None), "has no proof of inclusion"),
    "the certificate's SCT": (
        _edit("verificationMaterial/certificate/rawBytes", lambda it: flipped(it, -150)),
        "something else|SCT|not a certificate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ALTERED)
def test_an_altered_bundle_is_refused(tmp_path: Path, case: str) -> None:
    edit, reason = ALTERED[case]
    model = shutil.copytree(MODEL, tmp_path / MODEL.name)
    document = json.loads((model / "model.sig").read_bytes())
    edit(document)
    (model / "model.sig").write_bytes(strict_json.format(document))
    with pytest.raises(SignatureError, match=reason):
        verify(model)


def test_without_the_logs_time_the_timestamp_counts(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL, tmp_path / MODEL.name)
    document = json.loads((model / "model.sig").read_bytes())
    material = document["verificationMaterial"]
    del material["tlogEntries"][0]["inclusionPromise"]
    (model / "model.sig").write_bytes(strict_json.format(document))
    assert "2025-10-10 02:12:20" in verify(model).steps[1].detail
    [stamp] = material["timestampVerificationData"]["rfc3161Timestamps"]
    stamp["signedTimestamp"] = flipped(stamp["signedTimestamp"], -1)
    (model / "model.sig").write_bytes(strict_json.format(document))
    with pytest.raises(SignatureError, match="timestamp does not hold"):
        verify(model)


def test_without_a_root_it_is_the_one_that_sigstore_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(UsageError, match=r"no Sigstore is trusted by default.*--trust-config"):
            root.shipped()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    store = tmp_path / "sigstore/_store/https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
    store.mkdir(parents=True)
    (tmp_path / "sigstore/__init__.py").write_text("raise SystemExit('imported')", "utf-8")
    (tmp_path / "sigstore-4.5.1.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: sigstore\nVersion: 4.5.1\n"
    (tmp_path / "sigstore-4.5.1.dist-info/METADATA").write_text(metadata, "utf-8")
    shutil.copy(PUBLIC, store / "trusted_root.json")
    importlib.invalidate_caches()
    detail = verify(MODEL, trust_config=None).steps[1].detail
    assert "root in sigstore 4.5.1, whose newest part counts since 2025-09-23" in detail


def test_show_says_whom_the_certificate_names() -> None:
    assert f"{WHO} ({PROVIDER})" in "\n".join(explain(MODEL).lines)
