"""The adapter run as a suite runs it, from another folder; each refusal for its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sigstores import AUTHORITY, DAY, Issued, issue, pem_of, usage

CLIENT = Path(__file__).with_name("model_signing_client.py")
VECTORS = Path(__file__).parents[1] / "vectors/openssf-model-signing"
CERTIFICATES = VECTORS / "keys/certificate"
PEER = os.environ.get("PROVENANCE_PEER", "")


def run(*words: str | Path, here: Path) -> tuple[int, str]:
    command = [sys.executable, CLIENT, *words]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def verify(case: Path, here: Path, *words: str | Path, method: str = "key") -> tuple[int, str]:
    bundle = case / "model.sig"
    fixed = ("--method", method, "--model-path", case, "--bundle", bundle)
    ignored = ("--ignore-paths", case / "ignore-me")
    return run("verify-model", *fixed, *ignored, *words, here=here)


KEY = ("--public-key", CERTIFICATES / "signing-key-pub.pem")


def edit(case: Path, *words: str) -> None:
    what, *rest = words
    bundle = case / "model.sig"
    if what == "file":
        (case / rest[0]).write_text(rest[1])
    elif what == "missing":
        (case / rest[0]).unlink()
    elif what == "truncated":
        bundle.write_bytes(bundle.read_bytes()[:100])
    else:
        document = json.loads(bundle.read_bytes())
        document[what] = rest[0]
        bundle.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words", "reason"),
    [
        (("file", "signme-1", "x"), KEY, "signme-1 was changed"),
        (("file", "extra.bin", "x"), KEY, "extra.bin is extra"),
        (("missing", "signme-2"), KEY, "signme-2 is missing"),
        (("truncated",), KEY, "not JSON"),
        (("mediaType", "application/json"), KEY, "the media type is"),
        (("dsseEnvelope", ""), KEY, "dsseEnvelope"),
        (("file", "note", "x"), (*KEY, "--ignore-unsigned-files"), ""),
        (("missing", "model.sig"), KEY, "model.sig: no such file"),
        (("file", "note", "x"), ("--public-key", VECTORS / "made/key.pub"), "signed by another"),
        (("file", "note", "x"), (), "nothing is trusted by default"),
    ],
)
def test_each_refusal_has_its_reason(
    change: tuple[str, ...], words: tuple[str | Path, ...], reason: str, tmp_path: Path
) -> None:
    case = tmp_path / "case"
    shutil.copytree(VECTORS / "v1.1.0-elliptic-key", case)
    edit(case, *change)
    status, why = verify(case, tmp_path, *words)
    assert status == int(bool(reason)), why
    assert reason in why


class Authority:
    """A root, an authority below it, and a signer's certificate, in files."""

    def __init__(self, folder: Path, *, valid: tuple[int, int] = (-1, 30)) -> None:
        self.folder, self.valid = folder, valid
        middle = self.make("middle", self.make("root", None, *AUTHORITY), *AUTHORITY)
        code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        self.make("leaf", middle, (usage(digital_signature=True), True), (code, False))

    def make(self, name: str, above: Issued | None, *extensions: Any) -> Issued:  # noqa: ANN401 - as issue has them
        begin, end = (datetime.now(UTC) + days * DAY for days in self.valid)
        made = issue(name, above, *extensions, begin=begin, end=end)
        (self.folder / f"{name}.pem").write_bytes(pem_of("CERTIFICATE", made.der))
        private = made.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(private)
        return made

    def sign(self, model: Path, bundle: Path, leaf: str = "leaf") -> tuple[int, str]:
        return run(
            "sign-model", "--method", "certificate", "--model-path", model,
            "--output-bundle", bundle, "--private-key", self.folder / "leaf.key",
            "--signing-cert", self.folder / f"{leaf}.pem",
            "--cert-chain", self.folder / "middle.pem", here=self.folder,
        )  # fmt: skip

    def verify(self, model: Path, bundle: Path, root: str = "root") -> tuple[int, str]:
        return run(
            "verify-model", "--method", "certificate", "--model-path", model, "--bundle", bundle,
            "--cert-chain", self.folder / f"{root}.pem", here=self.folder,
        )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shutil.copytree(VECTORS / "model", tmp_path / "model")
    return tmp_path / "model"


def test_round_trip_by_certificate(model: Path, tmp_path: Path) -> None:
    authority, bundle = Authority(tmp_path), tmp_path / "b.sig"
    assert authority.sign(model, bundle) == (0, "")
    assert authority.sign(model, bundle) == (0, "")  # its own signature is replaced
    assert authority.verify(model, bundle) == (0, "")
    status, why = authority.verify(model, bundle, "middle")
    assert (status, "holds no root" in why) == (1, True)
    status, why = authority.sign(model, bundle, "middle")
    assert (status, "the certificate of another key" in why) == (1, True)
    if PEER:
        chain = ("--certificate_chain", tmp_path / "root.pem")
        command: list[str | Path] = [
            PEER,
            "verify",
            "certificate",
            model,
            "--signature",
            bundle,
            *chain,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_expired_certificate_is_refused(model: Path, tmp_path: Path) -> None:
    # The reference tool verifies it: it takes the certificate's own beginning for the time.
    authority, bundle = Authority(tmp_path, valid=(-30, -1)), tmp_path / "b.sig"
    assert authority.sign(model, bundle)[0] == 0
    status, why = authority.verify(model, bundle)
    assert (status, "the certificate of CN=leaf expired on" in why) == (1, True)


def test_round_trip_by_key(model: Path, tmp_path: Path) -> None:
    Authority(tmp_path)
    key, public = tmp_path / "leaf.key", tmp_path / "leaf.pub"
    made: list[str | Path] = ["openssl", "pkey", "-in", key, "-pubout", "-out", public]
    subprocess.run(made, check=True)
    method, inside = ("--method", "key"), model / "model.oms"
    for place, bundle in ((model, inside), (model / "weights.bin", tmp_path / "one.sig")):
        fixed = (*method, "--model-path", place)
        left_out = ("--ignore-paths", model / "notes.md") if place == model else ()
        words = ("--output-bundle", bundle, "--private-key", key)
        assert run("sign-model", *fixed, *left_out, *words, here=tmp_path) == (0, "")
        words = ("--bundle", bundle, "--public-key", public)
        assert run("verify-model", *fixed, *words, here=tmp_path) == (0, "")
        if PEER:
            words = ("--signature", bundle, "--public_key", public)
            command: list[str | Path] = [PEER, "verify", "key", place, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    (model / "link").symlink_to("weights.bin")
    words = ("--output-bundle", tmp_path / "l.sig", "--private-key", key)
    status, why = run("sign-model", *method, "--model-path", model, *words, here=tmp_path)
    assert (status, "is a symbolic link" in why) == (1, True)
