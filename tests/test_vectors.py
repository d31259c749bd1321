"""Every vector through the adapters of the conformance suites, from a folder that is not theirs.

Each behaves as its name says, and what is refused is refused for that reason.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import sigstore_adapter
from tests.conformance import model_signing_client

HERE = Path(__file__).parent / "vectors"
MODELS, BUNDLES = HERE / "openssf-model-signing", HERE / "sigstore"
KEY = ("--public-key", MODELS / "keys/certificate/signing-key-pub.pem")
MADE = ("--public-key", MODELS / "made/key.pub")
ROOT = ("--cert-chain", MODELS / "keys/certificate/ca-cert.pem")
PUBLIC, STAGING = (BUNDLES / f"trusted_root.{name}.json" for name in ("production", "staging"))
SIGNER = (
    "--identity", "stefanb@us.ibm.com", "--trust-config", PUBLIC,
    "--identity-provider", "https://sigstore.verify.ibm.com/oauth2",
)  # fmt: skip

REFERENCE = {
    "v0.2.0-certificate": ("certificate", ROOT, "--digests-v0.1 reads it"),
    "v1.0.1-certificate": ("certificate", ROOT, ""),
    "v1.0.1-elliptic-key": ("key", KEY, ""),
    "v1.1.0-certificate": ("certificate", ROOT, ""),
    "v1.1.0-elliptic-key": ("key", KEY, ""),
    "v1.1.0-sigstore": ("sigstore", SIGNER, ""),
}
"""Models that the reference tool's project signed, by method, and why one is refused."""

OTHERWISE = ("signed by a", "signed with a c", "none of the given keys made this signature")
"""How it is refused by what is trusted for another."""

CASES = (
    "files", "ignored", "blake2b", "shards", "shards-blake2b", "one-file", "one-file-shards",
)  # fmt: skip
ONLY_1_1 = ("1.1.1-blake3", "1.1.1-links")
MADE_CASES = [*(f"{version}-{case}" for version in ("1.0.0", "1.0.1", "1.1.1") for case in CASES),
              *ONLY_1_1]  # fmt: skip

PROVIDER = ("--certificate-oidc-issuer", "https://accounts.google.com")
SIGSTORE = {
    "bundle_v3.txt": (STAGING, ""),
    "bundle_v3_github.whl": (PUBLIC, ""),
    "bundle_cve_2022_36056.txt": (STAGING, "about something else: spec.signature.content"),
    "bundle_invalid_version.txt": (STAGING, "media type is 'this is completely wrong'"),
    "bundle_no_checkpoint.txt": (STAGING, "has no checkpoint"),
    "bundle_v3_no_signed_time.txt": (PUBLIC, "nothing proves when it was signed"),
}
"""Bundles of sigstore-python, by the root that is given, and why one is refused."""


def test_no_vector_is_left_out() -> None:
    models = {path.name for path in MODELS.glob("v*")}
    assert models == set(REFERENCE)
    assert {path.stem for path in (MODELS / "made").glob("*.sig")} == set(MADE_CASES)
    assert {path.name.partition(".sigstore")[0] for path in BUNDLES.glob("bundle_*")} == set(
        SIGSTORE
    )


def verify(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Return why ``verify-model`` refuses, if it does."""
    status = model_signing_client.main(["verify-model", *map(str, words)])
    why = capsys.readouterr().err
    assert status == int(bool(why))
    return why


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_tools_models(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    method, trusted, reason = REFERENCE[name]
    model = shutil.copytree(MODELS / name, tmp_path / name)
    given = (
        "--model-path", model, "--bundle", model / "model.sig",
        "--ignore-paths", model / "ignore-me",
    )  # fmt: skip
    assert reason in verify(capsys, "--method", method, *given, *trusted)
    assert bool(verify(capsys, "--method", method, *given, *trusted)) == bool(reason)
    for other, others in (("key", KEY), ("key", MADE), ("certificate", ROOT), ("sigstore", SIGNER)):
        if others != trusted:
            why = verify(capsys, "--method", other, *given, *others)
            assert any(word in why for word in OTHERWISE), why
    (model / "signme-1").write_text("other")
    assert verify(capsys, "--method", method, *given, *trusted)


@pytest.mark.parametrize("name", MADE_CASES)
def test_models_of_each_version_and_serialization(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("blake3"):
        pytest.importorskip("blake3")
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(MODELS / "model", tmp_path / "tiny")
    if name.endswith("links"):
        (model / "last.bin").symlink_to("weights.bin")
    ignored = [it for path in ("notes.md", "sub") for it in ("--ignore-paths", model / path)]
    given = (
        "--method", "key", "--bundle", MODELS / f"made/{name}.sig",
        "--model-path", model / "weights.bin" if "one-file" in name else model,
        *(ignored if name.endswith("ignored") else ()),
    )  # fmt: skip
    assert verify(capsys, *given, *MADE) == ""
    assert any(word in verify(capsys, *given, *KEY) for word in OTHERWISE)
    (model / "weights.bin").write_text("twelve BYTES")
    assert "weights.bin was changed" in verify(capsys, *given, *MADE)


@pytest.mark.parametrize("name", SIGSTORE)
def test_bundles_of_sigstore(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trusted, reason = SIGSTORE[name]
    [path] = BUNDLES.glob(f"{name}.sigstore*")
    given = ["verify-bundle", "--bundle", path, str(BUNDLES / name)]
    given += sigstore_adapter.signer_of(path) if "invalid" not in name else ()

    def verify_by(root: Path) -> str:
        status = sigstore_adapter.main([*map(str, given), "--trusted-root", str(root)])
        why = capsys.readouterr().err
        assert status == int(bool(why))
        return why

    assert reason in verify_by(trusted)
    assert bool(verify_by(trusted)) == bool(reason)
    if not reason:
        other = STAGING if trusted == PUBLIC else PUBLIC
        assert "in no log of the trusted root" in verify_by(other)
