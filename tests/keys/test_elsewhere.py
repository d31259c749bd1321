from __future__ import annotations

import base64
import gc
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from securesystemslib.exceptions import UnsupportedAlgorithmError
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

import provenance
from provenance.errors import (
    MalformedError,
    ProvenanceError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.keys import PrivateKey, generate, load_private, write_pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world import Person, Shell


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/w.bin").write_bytes(b"1")
    return tmp_path / "model"


# --- A variable, a descriptor ---------------------------------------------------------------------


def test_a_key_in_a_variable(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = generate()
    monkeypatch.setenv("SIGNER", key.pem().decode())
    provenance.sign(model, key="env:SIGNER")
    assert provenance.verify(model, keys=[key.public]).name == "model"
    monkeypatch.setenv("SIGNER", key.pem(b"secret").decode())
    assert load_private("env:SIGNER", b"secret").public == key.public
    monkeypatch.setenv("SIGNER", "no key")
    with pytest.raises(MalformedError, match="not a private key") as caught:
        load_private("env:SIGNER")
    assert "no key" not in str(caught.value)
    with pytest.raises(UnreadableError, match="the variable is not set"):
        load_private("env:NOT_SET")


def test_a_key_from_a_descriptor() -> None:
    key = generate()
    ends = os.pipe()
    os.write(ends[1], key.pem())
    os.close(ends[1])
    assert load_private(f"fd:{ends[0]}").public == key.public
    for text in ("fd:", "fd:x", "fd:-1", "fd:99999999999999999999", "fd:1000000", "fd:\u0663"):
        with pytest.raises(UnreadableError, match=r"is no number|cannot be read"):
            load_private(text)


def test_a_descriptor_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(UnreadableError, match="longer than"):
        load_private(f"fd:{os.open('/dev/zero', os.O_RDONLY)}")


def test_a_file_of_such_a_name_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = generate()
    write_pair(key, Path("env:HERE"))
    assert load_private("./env:HERE").public == key.public
    with pytest.raises(UnreadableError, match="the variable is not set"):
        load_private("env:HERE")


def test_the_command_does_not_get_the_variable_of_the_key(
    provenance: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGNER", generate().pem().decode())
    train = "import os, pathlib; pathlib.Path('m').mkdir(); "
    train += "pathlib.Path('m/w').write_text(os.environ.get('SIGNER', 'none'))"
    recorded = provenance(
        "record", "--model", "m", "--key", "env:SIGNER", "--", sys.executable, "-c", train
    )
    assert recorded.status == 0, recorded.err
    assert Path("m/w").read_text() == "none"
    assert "PRIVATE" not in Path("m/claims.jsonl").read_text()


def test_a_key_that_others_can_read_is_warned_about(
    provenance: Shell, model: Path, alice: Person, tmp_path: Path
) -> None:
    key = Path(shutil.copy(alice.private, tmp_path / "key"))
    command = ("sign", model, "--key", key)
    assert "others can read" not in provenance(*command).err
    for mode in (0o640, 0o604):
        key.chmod(mode)
        done = provenance(*command)
        assert done.status == 0
        assert f"{key}: others can read this private key (chmod 600)" in done.err


# --- Cosign ---------------------------------------------------------------------------------------


def sealed(key: PrivateKey, password: bytes, **costs: int) -> dict[str, Any]:
    """Return what cosign's own form of *key* holds, made with PyNaCl."""
    box = pytest.importorskip("nacl.secret").SecretBox
    salt, nonce = b"s" * 32, b"n" * 24
    secret = Scrypt(salt, length=32, n=2**15, r=8, p=1).derive(password)
    pem = serialization.load_pem_private_key(key.pem(), None)
    der = pem.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    coded = {"salt": salt, "nonce": nonce, "text": box(secret).encrypt(der, nonce).ciphertext}
    texts = {name: base64.b64encode(it).decode() for name, it in coded.items()}
    params = {"N": 2**15, "r": 8, "p": 1, **costs}
    return {
        "kdf": {"name": "scrypt", "params": params, "salt": texts["salt"]},
        "cipher": {"name": "nacl/secretbox", "nonce": texts["nonce"]},
        "ciphertext": texts["text"],
    }


def as_pem(document: object, label: str = "SIGSTORE") -> bytes:
    body = base64.encodebytes(json.dumps(document).encode())
    label = f"ENCRYPTED {label} PRIVATE KEY"
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), body, label.encode())


@pytest.mark.parametrize("label", ["SIGSTORE", "COSIGN"])
@pytest.mark.parametrize("password", [b"", b"secret"])
def test_a_key_of_cosigns(tmp_path: Path, label: str, password: bytes) -> None:
    key, path = generate(), tmp_path / "cosign.key"
    path.write_bytes(as_pem(sealed(key, password), label))
    assert load_private(path, password or None).public == key.public
    with pytest.raises(MalformedError, match="the password is wrong, or the key is damaged"):
        load_private(path, b"another")


def edited(**changes: object) -> bytes:
    document = sealed(generate(), b"")
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for name in parents:
            place = place[name]
        place[last] = value
    return as_pem(document)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kdf__params": {"N": 2**30, "r": 8, "p": 1}}, "sealed as no cosign does"),
        ({"kdf__params": {"N": 2**15, "r": 8}}, "sealed as no cosign does"),
        ({"kdf__params": {"N": 2**15, "r": 8, "p": 2**20}}, "sealed as no cosign does"),
        ({"kdf__params": {"N": "x"}}, "kdf"),
        ({"kdf__name": "pbkdf2"}, "sealed as no cosign does"),
        ({"cipher__name": "none"}, "sealed as no cosign does"),
        ({"cipher__nonce": "AAAA"}, "sealed as no cosign does"),
        ({"ciphertext": ""}, "the password is wrong, or the key is damaged"),
        ({"ciphertext": "?"}, "not base64"),
        ({"kdf": 1}, "kdf"),
    ],
)
def test_what_no_cosign_made_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "cosign.key"
    path.write_bytes(edited(**change))
    with pytest.raises(MalformedError, match=words):
        load_private(path)


@pytest.mark.parametrize("body", [b"", b"?", b"AAAA\n", b"e30=\n"])
def test_a_body_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    pytest.importorskip("nacl")
    head = b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    (tmp_path / "k").write_bytes(head + body + b"-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    with pytest.raises(MalformedError):
        load_private(tmp_path / "k")


def test_without_pynacl_a_key_of_cosigns_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k").write_bytes(as_pem({}))
    monkeypatch.setitem(sys.modules, "nacl.exceptions", None)
    with pytest.raises(UnavailableError, match="needs PyNaCl"):
        load_private(tmp_path / "k")


def test_an_encrypted_key_of_openssh(tmp_path: Path) -> None:
    pytest.importorskip("bcrypt")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "id")]
    subprocess.run(command, check=True)
    key = load_private(tmp_path / "id", b"secret")
    assert key.public == provenance.keys.load_public(tmp_path / "id.pub")
    with pytest.raises(MalformedError, match="the password is wrong"):
        load_private(tmp_path / "id", b"another")
    with pytest.raises(MalformedError, match="the key is encrypted"):
        load_private(tmp_path / "id")


# --- Signers of securesystemslib's ----------------------------------------------------------------


def test_a_signer_by_its_uri(tmp_path: Path, model: Path) -> None:
    key = generate()
    public = write_pair(key, tmp_path / "key")
    uri = f"file2:{tmp_path / 'key'}"
    provenance.sign(model, key=f"{uri}#{public}")
    assert provenance.verify(model, keys=[key.public]).name == "model"
    with pytest.raises(UnreadableError, match="does not say who signs"):
        load_private(uri)
    other = write_pair(generate(), tmp_path / "other")
    with pytest.raises(UnavailableError, match="does not match public key"):
        load_private(f"{uri}#{other}")
    with pytest.raises(UsageError, match="cannot be had"):
        load_private(f"{uri}#{public}").pem()


def test_what_a_signer_makes_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = CryptoSigner.sign
    monkeypatch.setattr(CryptoSigner, "sign", lambda self, data: signer(self, data + b"more"))
    public = write_pair(generate(), tmp_path / "key")
    with pytest.raises(UnavailableError, match="the public key does not fit"):
        load_private(f"file2:{tmp_path / 'key'}#{public}").sign(b"x")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("awskms:x", "AWS"),
        ("azurekms://x/y/z", "AZURE"),
        ("gcpkms:x", "GCP"),
        ("hv:x/1", "VAULT"),
    ],
)
def test_a_library_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, name: str
) -> None:
    found = f"securesystemslib.signer._{name.lower()}_signer.{name}_IMPORT_ERROR"
    monkeypatch.setattr(found, "absent")
    public = write_pair(generate(), tmp_path / "key")
    with pytest.raises(UnavailableError, match="library is not installed") as caught:
        load_private(f"{uri}#{public}").sign(b"x")
    assert "pip install 'securesystemslib[" in str(caught.value.hint)


@pytest.mark.parametrize("error", [UnsupportedAlgorithmError("Unsupported key"), KeyError("x")])
def test_a_key_by_which_a_service_does_not_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    found = "securesystemslib.signer._gcp_signer.GCPSigner.from_priv_key_uri"
    monkeypatch.setattr(found, refuse)
    public = write_pair(generate("ed25519"), tmp_path / "key")
    with pytest.raises(UnavailableError, match="by no key of the kind ed25519") as caught:
        load_private(f"gcpkms:x#{public}")
    assert caught.value.hint == "ECDSA on P-256 is for all"


# --- Tokens ---------------------------------------------------------------------------------------

SOFTHSM = next(
    (it for it in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm.so",
     "/opt/homebrew/lib/softhsm/libsofthsm2.so")) if it.exists()), None)  # fmt: skip
PIN = "PIN-7391"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, PrivateKey]]:
    """Give the keys by label in a token of softhsm2's."""
    pytest.importorskip("PyKCS11")
    if SOFTHSM is None:
        pytest.skip("softhsm2 is not installed")
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    (folder / "conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = f"{folder}/conf"
    tool = ["softhsm2-util", "--pin", PIN]
    run: Any = partial(subprocess.run, check=True, capture_output=True)
    run([*tool, "--init-token", "--free", "--label", "shelf", "--so-pin", "1357"])
    keys = {}
    for number, curve in enumerate(("P-256", "P-384", "P-521", "P-256"), 1):
        made = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"]
        label = f"key {curve}" if number < 4 else "twin"
        (folder / "pem").write_bytes(run(made).stdout)
        keys[label] = load_private(folder / "pem")
        place = ["--token", "shelf", "--label", label, "--id", f"0{number}"]
        run([*tool, "--import", folder / "pem", *place])
    place = ["--token", "shelf", "--label", "twin", "--id", "05"]
    run([*tool, "--import", folder / "pem", *place])
    yield keys
    del os.environ["SOFTHSM2_CONF"]


def uri_of(path: str, query: str = "") -> str:
    return f"pkcs11:{path}?module-path={SOFTHSM}{query}"


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_a_key_in_a_token(token: dict[str, PrivateKey], model: Path, curve: str) -> None:
    key = token[f"key {curve}"]
    place = f"token=shelf;object=key%20{curve}"
    provenance.sign(model, key=uri_of(place), password=PIN)
    assert provenance.verify(model, keys=[key.public]).name == "model"
    source = model.parent / "pin"
    source.write_text(f"{PIN}\n")
    for query in (
        f"&pin-value={PIN}",
        f"&pin-source=file:{source}",
        f"&pin-source=file://{source}",
    ):
        assert load_private(uri_of(place, query)).public == key.public


def test_a_key_in_a_token_by_its_id(token: dict[str, PrivateKey]) -> None:
    found = load_private(uri_of("id=%01"), PIN.encode())
    assert found.public == token["key P-256"].public


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("token=shelf;object=none", UnreadableError, "no key is called so"),
        ("token=shelf;object=twin", UnreadableError, "several keys are called so"),
        ("token=other;id=%01", UnreadableError, "no token there is called so"),
        ("slot-id=x;id=%01", UnreadableError, "no token there is called so"),
        ("token=shelf", MalformedError, "does not say which key"),
        ("token=shelf;id=%01;id=%02", MalformedError, "repeats an attribute"),
        ("token=shelf;id=%01;x-new=1", MalformedError, "not known: x-new"),
        ("", MalformedError, "does not say which key"),
    ],
)
def test_a_uri_that_names_no_key_is_refused(
    token: dict[str, PrivateKey], uri: str, error: type[ProvenanceError], words: str
) -> None:
    assert token
    with pytest.raises(error, match=words) as caught:
        load_private(uri_of(uri, f"&pin-value={PIN}"))
    assert PIN not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (uri_of("token=shelf;id=%01", "&pin-value=0000"), "the PIN is wrong"),
        (uri_of("token=shelf;id=%01"), "no key is called so"),
        ("pkcs11:token=shelf;id=%01?module-path=/none.so", "/none.so: no such library"),
    ],
)
def test_a_mistake_about_a_token_is_said_in_words(
    token: dict[str, PrivateKey], capfd: pytest.CaptureFixture[str], uri: str, words: str
) -> None:
    assert token
    gc.collect()  # a process is logged in as long as it has a session, one that an error keeps too
    with pytest.raises(ProvenanceError, match=words):
        load_private(uri)
    assert capfd.readouterr().err == ""


def test_a_pin_is_never_printed(token: dict[str, PrivateKey], model: Path) -> None:
    assert token

    def provenance(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "provenance", *map(str, arguments)]  # not logged in yet
        return subprocess.run(command, capture_output=True, text=True, check=False)

    place = "token=shelf;object=key%20P-256"
    wrong = provenance("sign", model, "--key", uri_of(place, "&pin-value=wrong-4711"))
    assert wrong.returncode == 4
    assert "the PIN is wrong" in wrong.stderr
    unknown = provenance("sign", model, "--key", uri_of(place, "&pin-value=wrong-4711&x=1"))
    nowhere = f"pkcs11:{place}?module-path=/nowhere&pin-value=wrong-4711"
    missing = provenance("sign", model, "--key", nowhere)
    bad = provenance("record", "--finish", "none", "--key", uri_of(place, "&pin-value=wrong-4711"))
    assert bad.returncode != 0
    none = provenance("sign", model, "--key", f"pkcs11:{place}?pin-value=wrong-4711")
    attested = provenance("attest", model, "--key", uri_of(place, f"&pin-value={PIN}"))
    assert attested.returncode == 0, attested.stderr
    for done in (wrong, unknown, missing, none, bad, attested):
        assert "4711" not in done.stdout + done.stderr
        assert PIN not in done.stdout + done.stderr
    assert PIN not in (model / "claims.jsonl").read_text()


def test_without_its_package_a_token_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyKCS11", None)
    with pytest.raises(UnavailableError, match="needs PyKCS11") as caught:
        load_private("pkcs11:id=%01?pin-value=1234")
    assert "1234" not in str(caught.value)
