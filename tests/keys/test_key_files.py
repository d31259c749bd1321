"""Key files of other programs, and files that are no keys."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, SecretError
from provenance.keys import (
    generate,
    load_private,
    load_public,
    parse_public_pem,
    refuse_private_keys,
)
from provenance.keys.public import public_key_of

if TYPE_CHECKING:
    from pathlib import Path

P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()

PEM = serialization.Encoding.PEM
OPENSSH = serialization.Encoding.OpenSSH
NO_PASSWORD = serialization.NoEncryption()

FORMATS = {
    "traditional EC": (P256, serialization.PrivateFormat.TraditionalOpenSSL),
    "PKCS#8 EC": (P256, serialization.PrivateFormat.PKCS8),
    "PKCS#8 Ed25519": (ED25519, serialization.PrivateFormat.PKCS8),
    "OpenSSH EC": (P256, serialization.PrivateFormat.OpenSSH),
    "OpenSSH Ed25519": (ED25519, serialization.PrivateFormat.OpenSSH),
}


def write(folder: Path, data: bytes) -> Path:
    path = folder / "key"
    path.write_bytes(data)
    return path


def ssh_line(handle: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return handle.public_key().public_bytes(OPENSSH, serialization.PublicFormat.OpenSSH)


def ssh_string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(("handle", "form"), FORMATS.values(), ids=FORMATS)
def test_private_keys_of_other_programs(
    tmp_path: Path,
    handle: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    form: serialization.PrivateFormat,
) -> None:
    path = write(tmp_path, handle.private_bytes(PEM, form, NO_PASSWORD))
    assert load_private(path).public == public_key_of(handle.public_key())


@pytest.mark.parametrize("handle", [P256, ED25519], ids=["EC", "Ed25519"])
@pytest.mark.parametrize("ending", [b"", b"\n", b" comment\n", b" user@host with spaces\n"])
def test_openssh_public_keys(
    tmp_path: Path,
    handle: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    ending: bytes,
) -> None:
    path = write(tmp_path, ssh_line(handle) + ending)
    assert load_public(path) == public_key_of(handle.public_key())


def test_a_seed_alone_is_a_key_of_ml_dsa(tmp_path: Path) -> None:
    handle = mldsa.MLDSA65PrivateKey.from_seed_bytes(bytes(32))
    data = handle.private_bytes(PEM, serialization.PrivateFormat.PKCS8, NO_PASSWORD)
    assert load_private(write(tmp_path, data)).public == public_key_of(handle.public_key())


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def without_bcrypt(*_: object) -> None:
    raise UnsupportedAlgorithm("bcrypt")


def test_keys_of_ssh_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, password in (("ed25519", ""), ("ecdsa", ""), ("ed25519", "example")):
        path = tmp_path / f"{kind}{password}"
        command = ["ssh-keygen", "-q", "-t", kind, "-N", password, "-f", str(path)]
        subprocess.run(command, check=True)
        public = load_public(path.with_name(path.name + ".pub"))
        if not password:
            assert load_private(path).public == public
            continue
        with pytest.raises(MalformedError, match="the key is encrypted"):
            load_private(path)
        with monkeypatch.context() as patch:
            patch.setattr(serialization, "load_ssh_private_key", without_bcrypt)
            with pytest.raises(MalformedError, match="encrypted, or of an unsupported kind") as no:
                load_private(path, b"example")
        assert "training-provenance[keys]" in (no.value.hint or "")


SECURITY_KEY = b"sk-ssh-ed25519@openssh.com"
CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"


def test_an_openssh_security_key_is_not_taken_for_the_key_inside() -> None:
    # What it signs is not the message, so nothing it made would ever verify.
    raw = ED25519.public_key().public_bytes_raw()
    blob = ssh_string(SECURITY_KEY) + ssh_string(raw) + ssh_string(b"ssh:")
    with pytest.raises(MalformedError, match="certificates and security keys"):
        parse_public_pem(SECURITY_KEY + b" " + base64.b64encode(blob))


def test_an_openssh_certificate_is_not_taken_for_the_key_inside() -> None:
    builder = serialization.SSHCertificateBuilder()
    certificate = (
        builder.public_key(ED25519.public_key())
        .type(serialization.SSHCertificateType.USER)
        .valid_principals([b"somebody"])
        .valid_after(0)
        .valid_before(1)  # long over
        .sign(P256)
    )
    line = certificate.public_bytes()
    assert line.startswith(CERTIFICATE)
    with pytest.raises(MalformedError, match="certificates and security keys"):
        parse_public_pem(line)


# --- Passwords ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ed25519", "ml-dsa-65"])
def test_passwords(tmp_path: Path, algorithm: str) -> None:
    key = generate(algorithm)
    path = write(tmp_path, key.pem(b"example"))
    assert load_private(path, b"example").public == key.public
    with pytest.raises(MalformedError, match="the key is encrypted") as caught:
        load_private(path)
    assert caught.value.hint == "name its password with --password-env"
    for wrong in (b"Example", b"example1", b"example\n", b"\0", b"x" * 5000):
        with pytest.raises(MalformedError, match="the password is wrong, or the key is damaged"):
            load_private(path, wrong)
    path.write_bytes(key.pem())
    with pytest.raises(MalformedError, match="is not encrypted, and needs no password"):
        load_private(path, b"example")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    path = write(tmp_path, generate().pem(b"right-horse"))
    with pytest.raises(MalformedError) as caught:
        load_private(path, b"wrong-horse")
    assert "horse" not in str(caught.value) + repr(caught.value)


# --- Files that are no keys -----------------------------------------------------------------------

NO_KEY = {
    "empty": b"",
    "text": b"hello\n",
    "binary": bytes(range(256)),
    "only a header": b"-----BEGIN PRIVATE KEY-----\n",
    "nothing inside": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "no base64 inside": b"-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n",
    "another label": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "a certificate request": b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END",
    "a public label": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    "only an OpenSSH header": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
    "OpenSSH, nothing inside": b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"
    b"-----END OPENSSH PRIVATE KEY-----\n",
    "an OpenSSH word": b"ssh-ed25519",
    "an OpenSSH line of nothing": b"ssh-ed25519 AAAA",
    "an OpenSSH line of another type": b"ssh-rsa " + ssh_line(ED25519).split()[1],
    "an OpenSSH line that is no base64": b"ssh-ed25519 ????",
    "an unknown OpenSSH type": b"ssh-falcon AAAA",
    "PuTTY": b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n",
    "age": b"AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQ\n",
    "minisign": b"untrusted comment: minisign public key\nRWQ=\n",
}


@pytest.mark.parametrize("data", NO_KEY.values(), ids=NO_KEY)
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    for load in (load_private, load_public):
        with pytest.raises(MalformedError) as caught:
            load(path)
        assert caught.value.where == str(path)
        assert str(caught.value).isprintable()
    with pytest.raises(MalformedError):
        load_private(path, b"example")


def test_one_half_where_the_other_is_needed(tmp_path: Path) -> None:
    key = generate()
    for data in (key.pem(), key.pem(b"example")):
        with pytest.raises(MalformedError, match="is a private key") as caught:
            load_public(write(tmp_path, data))
        assert caught.value.hint == "name the public key, the file that ends in .pub"
    with pytest.raises(MalformedError, match="is a public key"):
        load_private(write(tmp_path, key.public.pem))
    with pytest.raises(MalformedError, match="is a public key"):
        load_private(write(tmp_path, ssh_line(P256)))


def test_a_public_key_behind_a_private_one_is_not_read(tmp_path: Path) -> None:
    # Whoever hands such a file out publishes a private key, and should hear of it.
    key = generate()
    with pytest.raises(MalformedError, match="is a private key"):
        load_public(write(tmp_path, key.public.pem + key.pem()))


@given(st.data())
def test_a_damaged_key_file_raises_only_our_error(draw: st.DataObject) -> None:
    data = bytearray(EXAMPLE_PEM)
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        parse_public_pem(bytes(data))
    except ProvenanceError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right


EXAMPLE_PEM = public_key_of(P256.public_key()).pem


@given(st.data())
def test_a_damaged_private_key_file_raises_only_our_error(
    tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject
) -> None:
    data = bytearray(PRIVATE_PEM)
    data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.key"
    path.write_bytes(data)
    try:
        load_private(path, draw.draw(st.none() | st.just(b"example")))
    except ProvenanceError as error:
        assert str(error).isprintable()  # noqa: PT017 - either outcome is right


PRIVATE_PEM = P256.private_bytes(PEM, serialization.PrivateFormat.PKCS8, NO_PASSWORD)


def test_an_unreadable_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, generate().pem())
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ProvenanceError, match="cannot be read: permission denied"):
            load_private(path)


# --- Private keys where there must be none --------------------------------------------------------

KEYS = {
    "EC": P256.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, NO_PASSWORD),
    "PKCS#8": ED25519.private_bytes(PEM, serialization.PrivateFormat.PKCS8, NO_PASSWORD),
    "OpenSSH": ED25519.private_bytes(PEM, serialization.PrivateFormat.OpenSSH, NO_PASSWORD),
    "ours": generate("ml-dsa-65").pem(),
    "ours, encrypted": generate().pem(b"password"),
    "RSA": b"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n",
    "behind a certificate": b"-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n"
    + generate().pem(),
    "PGP": b"\n-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n",
    "Windows": b"\xef\xbb\xbf-----BEGIN PRIVATE KEY-----\r\nMIIE\r\n",
    "age": b"# created: 2026-01-01T00:00:00Z\n# public key: age1\nAGE-SECRET-KEY-1QQ\n",
}
NO_KEYS = {
    "a public key": generate().public.pem,
    "a certificate": b"-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n",
    "a text about keys": b"A key begins with\n-----BEGIN PRIVATE KEY-----\nMIIE\n",
    "a vocabulary": b'{"-----BEGIN PRIVATE KEY-----": 1}',
    "weights": bytes(range(256)),
    "nothing": b"",
}


@pytest.mark.parametrize("name", KEYS)
def test_a_private_key_among_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "id").write_bytes(KEYS[name])
    with pytest.raises(SecretError, match=r"below/id: is a private key \(move it out") as caught:
        refuse_private_keys(tmp_path, ["a", "below/id"])
    assert "MIIE" not in str(caught.value)


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_is_no_private_key_is_not_taken_for_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(NO_KEYS[name])
    refuse_private_keys(tmp_path, ["file"])


def test_what_cannot_hold_a_key_is_passed_over(tmp_path: Path) -> None:
    key = generate().pem()
    (tmp_path / "large").write_bytes(key + bytes(2**16))
    (tmp_path / "id.pub").write_bytes(key)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("id.pub")
    refuse_private_keys(tmp_path, ["large", "id.pub", "fifo", "gone"])
    with pytest.raises(SecretError, match=r"link: is a private key"):
        refuse_private_keys(tmp_path, ["link"])
