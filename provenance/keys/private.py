"""Private keys, their files, and ``keygen``.

A private key is written as PKCS#8 in PEM (RFC 5958, RFC 7468), mode 0600, encrypted where a
password is given; its public key beside it at ``PATH.pub`` as SubjectPublicKeyInfo in PEM. Read are
PKCS#8, traditional EC keys, OpenSSH keys and cosign's, and what is not in a file at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from provenance.errors import MalformedError, SecretError, UnreadableError, UsageError
from provenance.files.atomic import create_file
from provenance.files.reading import read_file
from provenance.keys.elsewhere import SIGNERS, Remote, open_cosign, read_text, scheme_of
from provenance.keys.public import (
    CURVES,
    MAX_KEY_BYTES,
    PublicKey,
    parse_public_pem,
    public_key_of,
    read_key_file,
    unsupported_algorithm,
)

ALGORITHMS = ("ecdsa-p256", "ed25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87")
"""What ``keygen`` makes. The first is the default: Rekor v2 takes no pure Ed25519 for DSSE."""

MAX_PASSWORD_BYTES = 1023
"""OpenSSL's limit, which it has when it reads an encrypted key too."""

_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:-----BEGIN |Bag Attributes|# created: )")
_PRIVATE = re.compile(
    rb"(?m)^(?:\xef\xbb\xbf)?"
    rb"(?:-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|AGE-SECRET-KEY-)"
)
"""A private key in PEM (OpenSSL, OpenSSH, PGP) or of age, perhaps behind its certificate."""

_COSIGN = re.compile(rb"\s*-----BEGIN ENCRYPTED (?:COSIGN|SIGSTORE) PRIVATE KEY-----")

PrivateHandle = (
    ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)


class Signs(Protocol):
    """What signs elsewhere, and does not give the key away."""

    def sign(self, message: bytes, /) -> bytes:
        """Return the signature over *message*."""


class PrivateKey(msgspec.Struct, frozen=True):
    """A private key that can sign."""

    public: PublicKey
    _handle: PrivateHandle | Signs
    chain: tuple[bytes, ...] = ()
    """Certificates (DER) of its owner, from his own up, that go with a model signature."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*, encoded as :mod:`provenance.keys.public` lists."""
        if isinstance(self._handle, ec.EllipticCurvePrivateKey):
            _, hash_of = CURVES[self._handle.curve.name]
            return self._handle.sign(message, ec.ECDSA(hash_of()))
        return self._handle.sign(message)

    def pem(self, password: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 in PEM, encrypted if *password* is given."""
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            if not 1 <= len(password) <= MAX_PASSWORD_BYTES:
                raise UsageError(f"a password has 1 to {MAX_PASSWORD_BYTES} bytes")
            encryption = serialization.BestAvailableEncryption(password)
        if not isinstance(self._handle, PrivateHandle):
            raise UsageError("the key cannot be had from what keeps it")
        return self._handle.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )


def generate(algorithm: str = ALGORITHMS[0]) -> PrivateKey:
    """Return a new private key for *algorithm*, one of :data:`ALGORITHMS`."""
    makers = {
        "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
        "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
        "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
    }
    if algorithm not in makers:
        raise UsageError(f"unknown algorithm {algorithm!r}", hint=f"use {', '.join(makers)}")
    return _private_key_of(makers[algorithm]())


def write_pair(key: PrivateKey, path: Path, password: bytes | None = None) -> Path:
    """Write *key* at *path*, mode 0600, and its public key at ``path.pub``; return that path.

    A UsageError if one of the two exists; then neither is written.
    """
    if path.name in ("", ".."):
        raise UsageError("is a folder, and a key is a file", where=str(path))
    public_path = path.with_name(path.name + ".pub")
    for taken in (path, public_path):
        if os.path.lexists(taken):
            what, hint = "exists already, and keys are never overwritten", "choose another name"
            raise UsageError(what, where=str(taken), hint=hint)
    create_file(path, key.pem(password), mode=0o600)
    try:
        create_file(public_path, key.public.pem, mode=0o644)
    except BaseException:  # an interrupt too: half a pair would be in the way of the next one
        path.unlink(missing_ok=True)
        raise
    return public_path


def load_private(key: str | Path, password: bytes | None = None) -> PrivateKey:
    """Return the private key in the file *key*, or that :mod:`~provenance.keys.elsewhere` finds.

    A password that is not needed is refused.
    """
    scheme, where = scheme_of(key), os.fspath(key)
    if scheme == "pkcs11":
        from provenance.keys.pkcs11 import Token  # noqa: PLC0415 - 30 ms of every start

        token = Token(where, password)
        return PrivateKey(token.public, token)
    if scheme in SIGNERS:
        uri, _, path = where.partition("#")
        if not path:
            hint = "name its public key's file: URI#PUB"
            raise UnreadableError("does not say who signs", where=uri, hint=hint)
        public = parse_public_pem(read_key_file(Path(path)), where=path)
        return PrivateKey(public, Remote(uri, public, password))
    data = read_text(where) if scheme else read_key_file(Path(key))
    return parse_private(data, password, where)


def parse_private(data: bytes, password: bytes | None, where: str) -> PrivateKey:
    """Return the private key in *data*: PEM, OpenSSH's, or cosign's."""
    if b"PRIVATE KEY" not in data:
        if b"PUBLIC KEY" in data or data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
            hint = "name the private key, the file without .pub"
            raise MalformedError("is a public key", where=where, hint=hint)
        raise MalformedError("not a private key in PEM or OpenSSH form", where=where)
    is_openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
    try:
        if _COSIGN.match(data):
            sealed, password = open_cosign(data, password or b"", where), None
            return _private_key_of(serialization.load_der_private_key(sealed, None), where=where)
        handle = load(data, password)
    except TypeError as error:  # cryptography's word for a missing or a superfluous password
        if password is not None:
            raise MalformedError("is not encrypted, and needs no password", where=where) from error
        hint = "name its password with --password-env"
        raise MalformedError("the key is encrypted", where=where, hint=hint) from error
    except UnsupportedAlgorithm as error:
        if not is_openssh:
            raise unsupported_algorithm(where) from error
        what = "an OpenSSH key that is encrypted, or of an unsupported kind"  # it takes bcrypt
        hint = "pip install 'training-provenance[keys]', or copy it by 'ssh-keygen -p -m PKCS8'"
        raise MalformedError(what, where=where, hint=hint) from error
    except (ValueError, InternalError) as error:  # the latter of a key of X448 that is too short
        damaged = "the password is wrong, or the key is damaged"
        what = "not a readable private key" if password is None else damaged
        raise MalformedError(what, where=where) from error
    return _private_key_of(handle, where=where)


def refuse_private_keys(folder: Path, names: Iterable[str]) -> None:
    """Raise a SecretError if one of the files *names* below *folder* is a private key."""
    for name in names:
        path = f"{folder}/{name}"
        try:
            refuse_private_key(path, read_file(Path(path), MAX_KEY_BYTES))
        except UnreadableError:
            continue  # a reader that needs it will say why


def is_private_key(path: Path) -> bool:
    """Tell whether the file *path* is a private key."""
    try:
        refuse_private_key(os.fspath(path), read_file(path, MAX_KEY_BYTES))
    except SecretError:
        return True
    except UnreadableError:
        return False
    return False


def refuse_private_key(path: str, data: bytes) -> None:
    """Raise a SecretError if the file *path*, which holds *data*, is a private key."""
    is_text = len(data) <= MAX_KEY_BYTES and _HEAD.match(data)
    if is_text and not path.endswith(".pub") and _PRIVATE.search(data):
        hint = "move it out of the folder, which others are to have"
        raise SecretError("is a private key", where=path, hint=hint)


def _private_key_of(handle: object, *, where: str | None = None) -> PrivateKey:
    if not isinstance(handle, PrivateHandle):
        raise unsupported_algorithm(where, handle)
    return PrivateKey(public_key_of(handle.public_key(), where=where), handle)
