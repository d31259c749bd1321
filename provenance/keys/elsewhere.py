"""Private keys that are not in a file: ``env:NAME``, ``fd:N``, and URIs of what keeps them.

``env:`` and ``fd:`` are where a key's text is, as a file would hold it. ``pkcs11:`` (RFC 7512) is a
key in a token, and ``awskms:``, ``azurekms:``, ``gcpkms:`` and ``hv:`` (Vault) are keys that
securesystemslib's signers reach, each ``URI#PUB`` with the file of its public key; ``file2:`` is
its own for files. What such a signer makes is checked with the public key before it is given on.

Keys in tokens are reached with PyKCS11 (extra ``pkcs11``). A URI names the token (``token``,
``serial``, ``slot-id``), the key (``object``, ``id``), and the token's library (``module-path``).
The PIN is the password that is given, else ``pin-value`` or the file ``pin-source``. What errors
say of a URI is without its query, where the PIN is. Keys are ECDSA on the curves that are known
elsewhere; the public key must lie in the token beside the private one.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from provenance.encoding import strict_base64, strict_json
from provenance.errors import (
    MalformedError,
    SignatureError,
    UnavailableError,
    UnreadableError,
    one_line,
)
from provenance.files.reading import read_file
from provenance.keys.public import CURVES, MAX_KEY_BYTES, PublicKey, public_key_of

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
        from securesystemslib.exceptions import UnsupportedLibraryError  # noqa: PLC0415 - as below
        from securesystemslib.signer import (  # type: ignore[attr-defined] # noqa: PLC0415
            Signer,
            SSlibKey,
        )

        logging.getLogger("securesystemslib").setLevel(logging.CRITICAL)  # it prints; we raise
        self._public, self._where = public, uri
        # Of RSA's paddings, the one that the entry of a log names.
        padding = "rsa-pkcs1v15-sha256" if public.algorithm.startswith("rsa-") else None
        try:
            key = SSlibKey.from_crypto(public.handle, scheme=padding)
            secret = (password or b"").decode()
            self._signer = Signer.from_priv_key_uri(uri, key, lambda _: secret)
        except UnsupportedLibraryError as error:
            extra = {"hv": "vault"}.get(scheme_of(uri), scheme_of(uri))
            hint = f"pip install 'securesystemslib[{extra}]'"
            raise UnavailableError("its library is not installed", where=uri, hint=hint) from error
        except KeyError as error:
            what = f"its service signs by no key of the kind {public.algorithm}"
            raise UnavailableError(what, where=uri) from error
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
            raise UnavailableError(what, where=self._where) from error
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


_ATTRIBUTES = frozenset({"token", "serial", "slot-id", "object", "id", "type", "manufacturer",
                         "model"})  # fmt: skip
_QUERIES = frozenset({"module-path", "pin-value", "pin-source"})


class Token:
    """A key in a token, with a session in which its owner is logged in."""

    def __init__(self, uri: str, password: bytes | None) -> None:
        """Find the key that *uri* names; *password* is the PIN, if the URI does not say it."""
        self._where = uri.partition("?")[0]
        path, query = _parsed(uri, self._where)
        try:
            import PyKCS11  # noqa: PLC0415 - an extra
        except ImportError as error:
            hint = "pip install 'training-provenance[pkcs11]'"
            what = "a key in a token needs PyKCS11"
            raise UnavailableError(what, where=self._where, hint=hint) from error
        if "module-path" not in query:
            hint = "add ?module-path=/usr/lib/… to the URI"
            raise UnreadableError("no library of the token is named", where=self._where, hint=hint)
        module = unquote(query["module-path"])
        if module.startswith("/") and not os.path.exists(module):  # noqa: PTH110 - of the loader it prints
            raise UnreadableError("no such library", where=one_line(module))
        self._of = PyKCS11
        try:
            library = PyKCS11.PyKCS11Lib()
            library.load(module)
            self._session = library.openSession(self._slot(library, path))
            self._log_in(_pin(query, password))
            self._key = self._one(PyKCS11.CKO_PRIVATE_KEY, path)
            self.public = self._public_key(self._one(PyKCS11.CKO_PUBLIC_KEY, path))
        except PyKCS11.PyKCS11Error as error:
            raise self._failed(error) from error

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*, in DER, by the hash of the key's curve."""
        hash_of = next(
            hash_of for name, hash_of in CURVES.values() if name == self.public.algorithm
        )
        digest = hashes.Hash(hash_of())
        digest.update(message)
        try:
            mechanism = self._of.Mechanism(self._of.CKM_ECDSA, None)
            raw = bytes(self._session.sign(self._key, digest.finalize(), mechanism))
        except self._of.PyKCS11Error as error:
            raise self._failed(error) from error
        half = len(raw) // 2
        signature = encode_dss_signature(*(int.from_bytes(it) for it in (raw[:half], raw[half:])))
        self.public.verify(signature, message)
        return signature

    def _log_in(self, pin: str | None) -> None:
        try:
            if pin is not None:
                self._session.login(pin)
        except self._of.PyKCS11Error as error:
            if error.value != self._of.CKR_USER_ALREADY_LOGGED_IN:  # this process is, or is not
                raise

    def _slot(self, library: Any, path: dict[str, str]) -> int:  # noqa: ANN401 - no types there
        found = []
        for slot in library.getSlotList(tokenPresent=True):
            token = library.getTokenInfo(slot)
            if not token.flags & self._of.CKF_TOKEN_INITIALIZED:
                continue
            said = {"token": token.label, "serial": token.serialNumber, "slot-id": str(slot),
                    "manufacturer": token.manufacturerID, "model": token.model}  # fmt: skip
            asked = path.keys() & said.keys()
            if all(said[name].strip("\0 ") == unquote(path[name]) for name in asked):
                found.append(slot)
        if len(found) != 1:
            what = f"{'several tokens' if found else 'no token'} there is called so"
            raise UnreadableError(what, where=self._where)
        return int(found[0])

    def _one(self, kind: int, path: dict[str, str]) -> Any:  # noqa: ANN401
        template: list[tuple[int, object]] = [(self._of.CKA_CLASS, kind)]
        if "object" in path:
            template.append((self._of.CKA_LABEL, unquote(path["object"])))
        if "id" in path:
            template.append((self._of.CKA_ID, tuple(unquote_to_bytes(path["id"]))))
        found = self._session.findObjects(template)
        if len(found) != 1:
            which = "private" if kind == self._of.CKO_PRIVATE_KEY else "public"
            are = "several keys are" if found else "no key is"
            what = f"{are} called so in the token ({which})"
            hint = "name one by object=LABEL or id=%01, and log in with a PIN"
            raise UnreadableError(what, where=self._where, hint=hint)
        return found[0]

    def _public_key(self, found: Any) -> PublicKey:  # noqa: ANN401
        wanted = [self._of.CKA_EC_PARAMS, self._of.CKA_EC_POINT]
        parameters, point = map(bytes, self._session.getAttributeValue(found, wanted))
        try:
            curve = ec.get_curve_for_oid(asn1.decode_der(x509.ObjectIdentifier, parameters))()
            plain = asn1.decode_der(bytes, point)
            handle = ec.EllipticCurvePublicKey.from_encoded_point(curve, plain)
        except (ValueError, LookupError, UnsupportedAlgorithm) as error:
            raise MalformedError("not a public key in DER", where=self._where) from error
        return public_key_of(handle, where=self._where)

    def _failed(self, error: Exception) -> UnavailableError:
        said = one_line(str(error))[:200]
        what = "the PIN is wrong" if "CKR_PIN_INCORRECT" in said else f"the token says {said}"
        return UnavailableError(what, where=self._where)


def _parsed(uri: str, where: str) -> tuple[dict[str, str], dict[str, str]]:
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    parts = [it.partition("=") for it in filter(None, path.split(";"))]
    queries = [it.partition("=") for it in filter(None, query.split("&"))]
    found = {name: value for name, _, value in parts}
    asked = {name: value for name, _, value in queries}
    bad = found.keys() - _ATTRIBUTES or asked.keys() - _QUERIES
    if bad or len(found) + len(asked) != len(parts) + len(queries):
        what = f"has an attribute that is not known: {min(bad)}" if bad else "repeats an attribute"
        raise MalformedError(what, where=where)
    if not found.keys() & {"object", "id"}:
        hint = "add object=LABEL or id=%01"
        raise MalformedError("does not say which key", where=where, hint=hint)
    return found, asked


def _pin(query: dict[str, str], password: bytes | None) -> str | None:
    if password is not None:
        return password.decode("utf-8", "surrogateescape")
    if "pin-source" in query:
        path = re.sub("^file:(//)?", "", unquote(query["pin-source"]))
        return read_file(Path(path), 1024).decode("utf-8", "replace").strip()
    return unquote(query["pin-value"]) if "pin-value" in query else None
