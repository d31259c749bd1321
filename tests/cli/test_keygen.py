from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from provenance.keys import ALGORITHMS, load_private, load_public
from tests.world import Shell, refused, tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_pair(algorithm: str, tmp_path: Path, provenance: Shell) -> None:
    ran = provenance("keygen", tmp_path / "key", "--algorithm", algorithm)
    assert (ran.status, ran.err) == (0, "")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    private, public = load_private(tmp_path / "key"), load_public(tmp_path / "key.pub")
    assert private.public == public
    assert public.algorithm == algorithm
    assert f"key id       {public.key_id}" in ran.out
    assert "(keep it secret)" in ran.out


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, provenance: Shell) -> None:
    before = os.umask(0)
    try:
        assert provenance("keygen", tmp_path / "key").status == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_one_document(tmp_path: Path, provenance: Shell) -> None:
    ran = provenance("keygen", tmp_path / "key", "--json")
    assert ran.document == {
        "algorithm": "ecdsa-p256",
        "keyId": load_public(tmp_path / "key.pub").key_id,
        "private": str(tmp_path / "key"),
        "public": str(tmp_path / "key.pub"),
    }


@pytest.mark.parametrize("taken", ["key", "key.pub"])
def test_nothing_is_overwritten(taken: str, tmp_path: Path, provenance: Shell) -> None:
    (tmp_path / taken).write_text("mine")
    refused(provenance("keygen", tmp_path / "key"), 2, taken, "never overwritten")
    assert tree(tmp_path) == {taken: b"mine"}


def test_a_dangling_link_is_taken_too(tmp_path: Path, provenance: Shell) -> None:
    (tmp_path / "key").symlink_to("elsewhere")
    refused(provenance("keygen", tmp_path / "key"), 2, "exists already")
    assert not (tmp_path / "elsewhere").exists()


def test_a_password(tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_PASSWORD", "correct horse")
    key = tmp_path / "key"
    assert provenance("keygen", key, "--password-env", "KEY_PASSWORD").status == 0
    assert b"ENCRYPTED" in key.read_bytes()
    model = tmp_path / "model"
    model.mkdir()
    (model / "w").write_text("1")
    sign = ("sign", model, "--key", key)
    refused(provenance(*sign), 3, "key: the key is encrypted", "--password-env")
    assert provenance(*sign, "--password-env", "KEY_PASSWORD").status == 0
    monkeypatch.setenv("KEY_PASSWORD", "wrong")
    refused(provenance(*sign, "--password-env", "KEY_PASSWORD"), 3, "the password is wrong")


@pytest.mark.parametrize("value", [None, ""])
def test_a_password_that_is_not_set(
    value: str | None, tmp_path: Path, provenance: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("KEY_PASSWORD", value)
    ran = provenance("keygen", tmp_path / "key", "--password-env", "KEY_PASSWORD")
    refused(ran, 2, "the variable KEY_PASSWORD is not set")
    assert tree(tmp_path) == {}


def test_a_folder_that_is_not_there(tmp_path: Path, provenance: Shell) -> None:
    ran = provenance("keygen", tmp_path / "none" / "key")
    refused(ran, 4, "none/key", "cannot be written", "no such file or directory")


def test_a_folder_is_no_key(tmp_path: Path, provenance: Shell) -> None:
    refused(provenance("keygen", tmp_path), 2, "exists already")
    refused(provenance("keygen", "."), 2, "is a folder")


@pytest.mark.filterwarnings("ignore")
def test_what_a_library_warns_of_a_key_is_not_printed(tmp_path: Path) -> None:
    key = dsa.generate_private_key(1024)  # noqa: S505 - all that OpenSSH knew
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    (tmp_path / "key").chmod(0o600)
    ran = subprocess.run(
        [sys.executable, "-m", "provenance", "sign", ".", "--key", "key"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("provenance: key: the key's algorithm is not supported: DSA with")
    assert len(ran.stderr.splitlines()) <= 3
