"""Private keys that are not in a file: ``env:NAME``, ``fd:N``, and URIs of what keeps them.

``env:`` and ``fd:`` are where a key's text is, as a file would hold it. ``pkcs11:`` is a key in a
token (:mod:`~provenance.keys.pkcs11`), and ``awskms:``, ``azurekms:``, ``gcpkms:`` and ``hv:``
(Vault) are keys that securesystemslib's signers reach, each ``URI#PUB`` with the file of its public
key; ``file2:`` is its own for files. What such a signer makes is checked with the public key before
it is given on.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Any, Final

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.errors import (
    MalformedError,
    SignatureError,
    UnavailableError,
    UnreadableError,
    one_line,
)
from provenance.keys.public import MAX_KEY_BYTES, PublicKey

TEXTS: Final = ("env", "fd")
SIGNERS: Final = ("awskms", "azurekms", "file2", "gcpkms", "hv")

_COSTS: Final = (2**15, 2**16, 2**17)
"""What cosign's scrypt may cost (65,536 in version 2): 128 MiB of memory at most."""


def scheme_of(key: str | os.PathLike[str]) -> str:
    """Return the scheme of *key*; "" if it is a file's path (``./env:x`` is one)."""
    scheme, colon, _ = os.fspath(key).partition(":")
    return scheme if colon and scheme in (*TEXTS, *SIGNERS, "pkcs11") else ""


def read_text(key: str) -> bytes:
    """Return the text of the private key that *key*, ``env:NAME`` or ``fd:N``, names."""
    scheme, _, name = key.partition(":")
    if scheme == "env":
        if (text := os.environ.get(name)) is None:
            raise UnreadableError("the variable is not set", where=key, hint="export it first")
        return os.fsencode(text)
    if not re.fullmatch("[0-9]{1,9}", name):
        raise UnreadableError("is no number of a descriptor", where=key, hint="as in fd:3")
    try:
        with os.fdopen(int(name), "rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UnreadableError("cannot be read", where=key) from error
    if len(data) > MAX_KEY_BYTES:
        raise UnreadableError(f"is longer than {MAX_KEY_BYTES} bytes", where=key)
    return data


class Remote:
    """A signer of securesystemslib's, as a private key is used."""

    def __init__(self, uri: str, public: PublicKey, password: bytes | None) -> None:
        """Reach the key that *uri* names; a signer that asks for a secret gets *password*."""
        import logging  # noqa: PLC0415 - as below

        from securesystemslib.exceptions import (  # noqa: PLC0415 - as below
            UnsupportedAlgorithmError,
            UnsupportedLibraryError,
        )
        from securesystemslib.signer import (  # type: ignore[attr-defined] # noqa: PLC0415
            Signer,
            SSlibKey,
        )

        logging.getLogger("securesystemslib").setLevel(logging.CRITICAL)  # it prints; we raise
        self._public, self._where = public, uri
        # Of RSA's paddings, where the service lets one choose: Vault signs by PSS all the same.
        padding = "rsa-pkcs1v15-sha256" if public.algorithm.startswith("rsa-") else None
        try:
            key = SSlibKey.from_crypto(public.handle, scheme=padding)
            secret = (password or b"").decode()
            self._signer = Signer.from_priv_key_uri(uri, key, lambda _: secret)
        except UnsupportedLibraryError as error:
            extra = {"hv": "vault"}.get(scheme_of(uri), scheme_of(uri))
            hint = f"pip install 'securesystemslib[{extra}]'"
            raise UnavailableError("its library is not installed", where=uri, hint=hint) from error
        except (KeyError, UnsupportedAlgorithmError) as error:
            what = f"its service signs by no key of the kind {public.algorithm}"
            raise UnavailableError(what, where=uri, hint="ECDSA on P-256 is for all") from error
        except Exception as error:
            raise self._failed(error) from error

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*, which the public key was seen to accept."""
        try:
            signature = bytes.fromhex(self._signer.sign(message).signature)
        except Exception as error:
            raise self._failed(error) from error
        try:
            self._public.verify(signature, message)
        except SignatureError as error:
            what = "the public key does not fit what the signer made"
            hint = "name its own #PUB; of ECDSA, only P-256 is hashed alike by all services"
            raise UnavailableError(what, where=self._where, hint=hint) from error
        return signature

    def _failed(self, error: Exception) -> UnavailableError:
        kind = type(error).__name__
        return UnavailableError(f"{kind}: {one_line(str(error))[:200]}", where=self._where)


class _Kdf(msgspec.Struct, frozen=True):
    name: str
    params: dict[str, int]
    salt: str


class _Cipher(msgspec.Struct, frozen=True):
    name: str
    nonce: str


class _Sealed(msgspec.Struct, frozen=True):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: str


def open_cosign(data: bytes, password: bytes, where: str) -> bytes:
    """Return the key in DER in *data*, a private key of cosign's: scrypt and NaCl's secretbox."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415 - rarely needed

    try:
        from nacl.exceptions import CryptoError  # noqa: PLC0415 - an extra
        from nacl.secret import SecretBox  # noqa: PLC0415
    except ImportError as error:
        hint = "pip install 'training-provenance[keys]'"
        raise UnavailableError("a key of cosign's needs PyNaCl", where=where, hint=hint) from error
    try:
        text = base64.b64decode(b"".join(data.strip().splitlines()[1:-1]), validate=True)
    except ValueError as error:
        raise MalformedError("not a private key of cosign's", where=where) from error
    sealed = strict_json.convert(strict_json.parse(text, where=where), _Sealed, where=where)
    costs: Any = sealed.kdf.params
    known = (sealed.kdf.name, sealed.cipher.name) == ("scrypt", "nacl/secretbox")
    if not known or costs not in [{"N": n, "r": 8, "p": 1} for n in _COSTS]:
        raise MalformedError("sealed as no cosign does", where=where)
    salt, nonce, box = (
        strict_base64.parse(it, where=where)
        for it in (sealed.kdf.salt, sealed.cipher.nonce, sealed.ciphertext)
    )
    if len(nonce) != SecretBox.NONCE_SIZE:
        raise MalformedError("sealed as no cosign does", where=where)
    key = Scrypt(salt, length=32, n=costs["N"], r=8, p=1).derive(password)
    try:
        return SecretBox(key).decrypt(box, nonce)
    except CryptoError as error:
        raise MalformedError("the password is wrong, or the key is damaged", where=where) from error
