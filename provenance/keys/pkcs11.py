"""Private keys in tokens, by PKCS#11 URIs (RFC 7512), with PyKCS11 (extra ``pkcs11``).

A URI names the token (``token``, ``serial``, ``slot-id``), the key (``object``, ``id``), and the
token's library (``module-path``). The PIN is the password that is given, else ``pin-value`` or the
file ``pin-source``. What errors say of a URI is without its query, where the PIN is. Keys are ECDSA
on the curves that are known elsewhere; the public key must lie in the token beside the private one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from provenance.errors import MalformedError, UnavailableError, UnreadableError, one_line
from provenance.files.reading import read_file
from provenance.keys.public import CURVES, PublicKey, public_key_of

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
