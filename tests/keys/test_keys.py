"""Reading, writing and using each kind of key."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    dsa,
    ec,
    ed448,
    ed25519,
    padding,
    rsa,
    utils,
    x25519,
)
from hypothesis import given
from hypothesis import strategies as st

from provenance.encoding import strict_base64
from provenance.errors import (
    MalformedError,
    SignatureError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.files.atomic import create_file
from provenance.keys import (
    ALGORITHMS,
    generate,
    load_private,
    load_public,
    parse_public_pem,
    parse_raw,
    parse_spki,
    private,
    write_pair,
)
from provenance.keys.private import MAX_PASSWORD_BYTES
from provenance.keys.public import MAX_KEY_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

EXAMPLES = Path(__file__).parents[2] / "keys-example"

KEYS = {algorithm: generate(algorithm) for algorithm in ALGORITHMS}

SIGNATURES = {algorithm: key.sign(b"message") for algorithm, key in KEYS.items()}

SIGNATURE_BYTES = {"ed25519": 64, "ml-dsa-44": 2420, "ml-dsa-65": 3309, "ml-dsa-87": 4627}

READ_TOO = {
    "ecdsa-p384": ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": ec.generate_private_key(ec.SECP521R1()),
}

UNSUPPORTED: dict[str, PrivateKeyTypes] = {
    "DSA with 1024 bits": dsa.generate_private_key(1024),  # noqa: S505 - to be refused
    "Ed448": ed448.Ed448PrivateKey.generate(),
    "X25519": x25519.X25519PrivateKey.generate(),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "brainpoolP256r1": ec.generate_private_key(ec.BrainpoolP256R1()),
    "RSA with 1024 bits": rsa.generate_private_key(65537, 1024),  # noqa: S505 - to be refused
}

RSA = rsa.generate_private_key(65537, 2048)
MGF1 = padding.MGF1(hashes.SHA256())

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
NO_PASSWORD = serialization.NoEncryption()


def pkcs8(handle: PrivateKeyTypes) -> bytes:
    return handle.private_bytes(PEM, serialization.PrivateFormat.PKCS8, NO_PASSWORD)


def spki_pem(handle: PrivateKeyTypes) -> bytes:
    return handle.public_key().public_bytes(PEM, SPKI)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(folder: Path, data: bytes) -> Path:
    path = folder / "key"
    path.write_bytes(data)
    return path


# --- Signing and verifying ------------------------------------------------------------------------


PADDINGS = {
    "PKCS #1 v1.5": padding.PKCS1v15(),
    "PSS, salt of the digest's length": padding.PSS(MGF1, padding.PSS.DIGEST_LENGTH),
    "PSS, longest salt": padding.PSS(MGF1, padding.PSS.MAX_LENGTH),
}


@pytest.mark.parametrize("padded", PADDINGS.values(), ids=PADDINGS)
def test_a_signature_by_rsa_is_checked(padded: padding.AsymmetricPadding, tmp_path: Path) -> None:
    signature = RSA.sign(b"message", padded, hashes.SHA256())
    key = parse_public_pem(spki_pem(RSA))
    assert key.algorithm == "rsa-2048"
    assert parse_spki(key.spki) == key
    key.verify(signature, b"message")
    weak = RSA.sign(b"message", padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - to be refused
    other = rsa.generate_private_key(65537, 2048).sign(b"message", padded, hashes.SHA256())
    for wrong, message in ((signature, b"messagf"), (weak, b"message"), (other, b"message")):
        with pytest.raises(SignatureError):
            key.verify(wrong, message)
    with pytest.raises(MalformedError, match="RSA with 2048 bits"):  # we sign with none
        load_private(write(tmp_path, pkcs8(RSA)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_holds_for_its_message_and_key_only(algorithm: str) -> None:
    key, stranger = KEYS[algorithm], generate(algorithm)
    signature = key.sign(b"message")
    assert len(signature) == SIGNATURE_BYTES.get(algorithm, len(signature))
    key.public.verify(signature, b"message")
    for public, message in ((key.public, b"messagf"), (stranger.public, b"message")):
        with pytest.raises(SignatureError, match="does not match") as caught:
            public.verify(signature, message)
        assert caught.value.where == public.key_id


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(st.binary(max_size=80))
def test_bytes_that_are_no_signature_are_refused(algorithm: str, data: bytes) -> None:
    with pytest.raises(SignatureError):
        KEYS[algorithm].public.verify(data, b"message")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(st.data())
def test_any_flipped_bit_of_a_signature_is_noticed(algorithm: str, draw: st.DataObject) -> None:
    signature = bytearray(SIGNATURES[algorithm])
    signature[draw.draw(st.integers(0, len(signature) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(SignatureError):
        KEYS[algorithm].public.verify(bytes(signature), b"message")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_with_more_behind_it_is_refused(algorithm: str) -> None:
    key = KEYS[algorithm]
    with pytest.raises(SignatureError):
        key.public.verify(key.sign(b"message") + b"\0", b"message")


def test_a_stranger_can_make_a_second_ecdsa_signature() -> None:
    # So a signature's bytes must never identify a document (docstring of keys.public).
    key = KEYS["ecdsa-p256"]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = utils.decode_dss_signature(key.sign(b"message"))
    key.public.verify(utils.encode_dss_signature(r, order - s), b"message")


def test_a_stranger_can_make_no_second_ed25519_signature_by_the_order_of_the_group() -> None:
    key = KEYS["ed25519"]
    order = 2**252 + 27742317777372353535851937790883648493
    signature = key.sign(b"message")
    s = int.from_bytes(signature[32:], "little") + order
    assert s < 2**256
    with pytest.raises(SignatureError):
        key.public.verify(signature[:32] + s.to_bytes(32, "little"), b"message")


def test_an_ecdsa_signature_has_one_spelling() -> None:
    key = KEYS["ecdsa-p256"]
    der = key.sign(b"message")
    length = der[1]
    spellings = {
        "long length": b"\x30\x81" + bytes([length]) + der[2:],
        "indefinite length": b"\x30\x80" + der[2:] + b"\0\0",
        "leading zero": b"\x30" + bytes([length + 1, 2, der[3] + 1, 0]) + der[4:],
        "set for sequence": b"\x31" + der[1:],
    }
    for spelling in spellings.values():
        with pytest.raises(SignatureError):
            key.public.verify(spelling, b"message")


@pytest.mark.parametrize(("algorithm", "handle"), READ_TOO.items())
def test_other_curves_are_read_with_their_hash(
    tmp_path: Path, algorithm: str, handle: ec.EllipticCurvePrivateKey
) -> None:
    key = load_private(write(tmp_path, pkcs8(handle)))
    assert key.public.algorithm == algorithm
    signature = key.sign(b"message")
    parse_public_pem(spki_pem(handle)).verify(signature, b"message")
    of_curve = hashes.SHA384() if algorithm == "ecdsa-p384" else hashes.SHA512()
    handle.public_key().verify(signature, b"message", ec.ECDSA(of_curve))


# --- Names of keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_has_one_name(algorithm: str) -> None:
    public = KEYS[algorithm].public
    assert public.algorithm == algorithm
    assert strict_base64.parse(public.key_id) == hashlib.sha256(public.spki).digest()
    assert public.pem_digest == hashlib.sha256(public.pem).hexdigest()
    same = parse_public_pem(public.pem)
    assert same == public
    assert hash(same) == hash(public)
    assert same != generate(algorithm).public
    assert same != public.spki


def test_a_private_key_does_not_show_itself(tmp_path: Path) -> None:
    handle = ed25519.Ed25519PrivateKey.generate()
    key = load_private(write(tmp_path, pkcs8(handle)))
    assert handle.private_bytes_raw().hex() not in repr(key)
    assert repr(handle.private_bytes_raw()) not in repr(key)
    assert repr(key).startswith("PrivateKey(public=")


def test_raw_ed25519() -> None:
    public = KEYS["ed25519"].public
    assert parse_raw(public.raw) == public
    for size in (0, 31, 33, 64):
        with pytest.raises(MalformedError, match="32 bytes"):
            parse_raw(b"\2" * size, where="vkey")
    with pytest.raises(MalformedError, match="an Ed25519 key is needed, and this is ecdsa-p256"):
        _ = KEYS["ecdsa-p256"].public.raw


FIELD = 2**255 - 19
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
SMALL = {
    **{f"y = {y}": y for y in (0, 1)},
    "y = -1": FIELD - 1,
    "order 8": int.from_bytes(bytes.fromhex(ORDER_8), "little"),
    "order 8, negative": FIELD - int.from_bytes(bytes.fromhex(ORDER_8), "little"),
    **{f"y = p + {y}": FIELD + y for y in (0, 1, 3, 18)},
}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", SMALL.values(), ids=SMALL)
def test_an_ed25519_key_for_which_everybody_can_sign_is_refused(y: int, sign: int) -> None:
    raw = (y + (sign << 255)).to_bytes(32, "little")
    spki = bytes.fromhex("302a300506032b6570032100") + raw
    pem = b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % base64.b64encode(spki)
    for parse, data in (
        (parse_raw, raw),
        (parse_spki, spki),
        (parse_public_pem, pem),
    ):
        with pytest.raises(MalformedError, match=r"low-order|non-canonical|not a public key"):
            parse(data)


# --- SubjectPublicKeyInfo -------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_spki_round_trip(algorithm: str) -> None:
    public = KEYS[algorithm].public
    assert parse_spki(public.spki) == public


def test_another_spelling_of_an_spki_is_refused() -> None:
    handle = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = handle.public_bytes(DER, SPKI)
    compressed = handle.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
    spellings = {
        "compressed point": b"\x30\x39" + spki[2:23] + b"\x03\x22\x00" + compressed,
        "long length": b"\x30\x81\x59" + spki[2:],
        "trailing byte": spki + b"\0",
        "cut off": spki[:-1],
        "nothing": b"",
        "PEM": handle.public_bytes(PEM, SPKI),
        "a point off the curve": spki[:-1] + bytes([spki[-1] ^ 1]),
    }
    assert parse_spki(spki).spki == spki
    for name, spelling in spellings.items():
        with pytest.raises(MalformedError, match="DER") as caught:
            parse_spki(spelling, where=name)
        assert caught.value.where == name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(st.data())
def test_a_damaged_spki_is_another_key_or_refused(algorithm: str, draw: st.DataObject) -> None:
    spki = bytearray(KEYS[algorithm].public.spki)
    spki[draw.draw(st.integers(0, len(spki) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        parsed = parse_spki(bytes(spki))
    except MalformedError:
        return
    assert parsed.spki == bytes(spki)
    assert parsed != KEYS[algorithm].public


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_another_algorithm_is_refused_by_its_name_with_the_list(tmp_path: Path, kind: str) -> None:
    handle = UNSUPPORTED[kind]
    message = f"the key's algorithm is not supported: {kind} .use ECDSA on P-256"
    with pytest.raises(MalformedError, match=message):
        load_private(write(tmp_path, pkcs8(handle)))
    with pytest.raises(MalformedError, match=message):
        load_public(write(tmp_path, spki_pem(handle)))
    with pytest.raises(MalformedError, match=message):
        parse_spki(handle.public_key().public_bytes(DER, SPKI))


def test_a_curve_that_no_library_here_knows_is_no_damaged_key(tmp_path: Path) -> None:
    secp112r1 = "MDIwEAYHKoZIzj0CAQYFK4EEAAYDHgAEjinIpTqfKvNqzjUde49xAu//XpzpNr2Q+RrsSA=="
    pem = f"-----BEGIN PUBLIC KEY-----\n{secp112r1}\n-----END PUBLIC KEY-----\n".encode()
    with pytest.raises(MalformedError, match=r"the key's algorithm is not supported .use ECDSA"):
        load_public(write(tmp_path, pem))


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("password", [None, b"example", b"\x00\xff", b"x" * MAX_PASSWORD_BYTES])
def test_a_pair_is_written_and_read(tmp_path: Path, algorithm: str, password: bytes | None) -> None:
    key, path = KEYS[algorithm], tmp_path / "key"
    assert write_pair(key, path, password) == tmp_path / "key.pub"
    assert names(tmp_path) == ["key", "key.pub"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in path.read_bytes()) == (password is not None)
    again = load_private(path, password)
    assert again.public == key.public == load_public(tmp_path / "key.pub")
    key.public.verify(again.sign(b"m"), b"m")


@pytest.mark.parametrize("taken", ["key", "key.pub"])
@pytest.mark.parametrize("how", ["file", "folder", "dangling link"])
def test_neither_half_is_ever_overwritten(tmp_path: Path, taken: str, how: str) -> None:
    path = tmp_path / taken
    if how == "file":
        path.write_bytes(b"theirs")
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists already") as caught:
        write_pair(KEYS["ed25519"], tmp_path / "key")
    assert caught.value.where == str(path)
    assert names(tmp_path) == [taken]
    assert how != "file" or path.read_bytes() == b"theirs"


def test_a_public_half_that_appears_meanwhile_is_kept_and_the_private_one_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def link_then_theirs(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        real(source, target, follow_symlinks=follow_symlinks)
        if target.name == "key":
            (tmp_path / "key.pub").write_bytes(b"theirs")

    monkeypatch.setattr(os, "link", link_then_theirs)
    with pytest.raises(UsageError, match="exists already"):
        write_pair(KEYS["ed25519"], tmp_path / "key")
    assert names(tmp_path) == ["key.pub"]
    assert (tmp_path / "key.pub").read_bytes() == b"theirs"


def test_an_interrupt_leaves_no_half_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = create_file

    def interrupted(path: Path, data: bytes, *, mode: int) -> None:
        if path.suffix == ".pub":
            raise KeyboardInterrupt
        real(path, data, mode=mode)

    monkeypatch.setattr(private, "create_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_pair(KEYS["ed25519"], tmp_path / "key")
    assert names(tmp_path) == []


def test_files_of_similar_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "key.tmp").write_bytes(b"mine")
    (tmp_path / "key.pub.tmp").symlink_to("nowhere")
    write_pair(KEYS["ed25519"], tmp_path / "key")
    assert names(tmp_path) == ["key", "key.pub", "key.pub.tmp", "key.tmp"]
    assert (tmp_path / "key.tmp").read_bytes() == b"mine"


@pytest.mark.parametrize("name", [".", "..", "missing/key", "k" * 254, "k" * 300])
def test_a_place_where_no_key_can_be(tmp_path: Path, name: str) -> None:
    with pytest.raises((UsageError, UnavailableError)):
        write_pair(KEYS["ed25519"], tmp_path / name if name != "." else Path())
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [0, MAX_PASSWORD_BYTES + 1])
def test_a_password_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, size: int
) -> None:
    with pytest.raises(UsageError, match="1 to 1023 bytes"):
        write_pair(KEYS["ed25519"], tmp_path / "key", b"x" * size)
    assert names(tmp_path) == []


def test_an_unknown_algorithm() -> None:
    with pytest.raises(UsageError, match="use ecdsa-p256, ed25519, ml-dsa-44"):
        generate("rsa")


# --- The example keys -----------------------------------------------------------------------------

EXAMPLE_FILES = {
    "builder.key": ("ecdsa-p256", None),
    "post-quantum.key": ("ml-dsa-65", None),
    "log.key": ("ed25519", None),
    "encrypted.key": ("ecdsa-p256", b"example"),
}


@pytest.mark.parametrize("name", EXAMPLE_FILES)
def test_the_example_keys_are_pairs(name: str) -> None:
    algorithm, password = EXAMPLE_FILES[name]
    key = load_private(EXAMPLES / name, password)
    assert key.public.algorithm == algorithm
    assert key.public == load_public(EXAMPLES / f"{name}.pub")


def test_the_example_logs_key_is_its_public_key() -> None:
    name, key_id, encoded = (EXAMPLES / "log.vkey").read_text("ascii").strip().split("+", 2)
    public = load_public(EXAMPLES / "log.key.pub")
    typed = b"\x01" + public.raw
    assert strict_base64.parse(encoded) == typed
    assert key_id == hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]


def test_the_examples_say_that_they_prove_nothing() -> None:
    text = (EXAMPLES / "README.md").read_text("utf-8")
    assert text.startswith("# Example keys: public, never trust\n")
    files = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "make.sh", "log.vkey"}
    assert files == {name + end for name in EXAMPLE_FILES for end in ("", ".pub")}


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(bytes(MAX_KEY_BYTES + 1))
    cases = {
        "missing": "no such file",
        "fifo": "is a FIFO",
        "huge": "is longer than 65536 bytes",
        ".": "is a folder",
    }
    for name, message in cases.items():
        for load in (load_private, load_public):
            with pytest.raises(UnreadableError, match=message):
                load(tmp_path / name)
