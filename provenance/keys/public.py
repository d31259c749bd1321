"""Public keys and the check of a signature.

ECDSA (FIPS 186-5) is by the curve's hash, in DER; Ed25519 (RFC 8032) and ML-DSA (FIPS 204; pure,
empty context) are raw bytes. RSA (RFC 8017) is checked, never made: by SHA-256, with the padding of
PKCS #1 v1.5 or of PSS, whichever fits.

A signature does not identify a document: anybody can turn the ECDSA signature (r, s) into the
equally valid (r, n - s), and a signer can make many by most algorithms here. Ed25519
and ML-DSA signatures cannot be altered by others. OpenSSL refuses non-canonical DER.

Low-order Ed25519 keys (for which anybody can sign) and a non-canonical y (RFC 8032, section 5.1.3)
are refused here, since OpenSSL accepts them.

The key id of DSSE signatures and Sigstore bundles is base64 of SHA-256 over the key's
SubjectPublicKeyInfo (DER).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from provenance.encoding import strict_base64
from provenance.errors import MalformedError, SignatureError, UnreadableError
from provenance.files.reading import read_file

PublicHandle = (
    ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
    | rsa.RSAPublicKey
)

CURVES: dict[str, tuple[str, Callable[[], hashes.HashAlgorithm]]] = {
    "secp256r1": ("ecdsa-p256", hashes.SHA256),
    "secp384r1": ("ecdsa-p384", hashes.SHA384),
    "secp521r1": ("ecdsa-p521", hashes.SHA512),
}

RSA_BITS = range(2048, 16385)
"""Sizes of RSA moduli, in bits: OpenSSL checks nothing by a longer one."""

_SHA256 = hashes.SHA256()
_PADDINGS = {
    "PKCS1V15": padding.PKCS1v15(),
    "PSS": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO),
}

MAX_KEY_BYTES = 64 * 2**10
"""Largest key file read, in bytes; an ML-DSA-87 key is under 8 KiB."""

_VKEY = re.compile(rb"[^\s+]+\+[0-9a-f]{8}\+")
"""How a log's key begins."""

_KEY_ID = re.compile(
    r"(?i:sha256:)([A-Za-z0-9+/]{36,43}=?|[0-9a-f]{64})|[A-Za-z0-9+/]{36,43}=|[0-9a-f]{64}"
)
"""A key id, or the SHA-256 of a key's PEM text; a Path has taken one of two slashes away."""

_FIELD = 2**255 - 19
"""The prime of Ed25519's field (RFC 8032, section 5.1)."""

_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
"""One y of the points of order 8; the other is its negative."""

_SMALL_ORDER = frozenset({0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8})
"""The y of the eight points whose order divides 8, whatever the sign of their x."""


class PublicKey(msgspec.Struct, frozen=True, eq=False):
    """A public key: its algorithm's name and its SubjectPublicKeyInfo in DER, which is the key."""

    algorithm: str
    spki: bytes
    _handle: PublicHandle

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.spki == other.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    @property
    def handle(self) -> PublicHandle:
        """The key as an object of ``cryptography``."""
        return self._handle

    @property
    def key_id(self) -> str:
        """Base64 of SHA-256 over the SubjectPublicKeyInfo."""
        return strict_base64.format(hashlib.sha256(self.spki).digest())

    @property
    def pem_digest(self) -> str:
        """SHA-256 over the PEM text, hexadecimal: the hint in OpenSSF model signatures."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def pem(self) -> bytes:
        """The key as SubjectPublicKeyInfo in PEM."""
        return self._handle.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def raw(self) -> bytes:
        """The bytes of an Ed25519 key, or of an ML-DSA-44 key."""
        if not isinstance(self._handle, ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey):
            raise MalformedError(f"an Ed25519 key is needed, and this is {self.algorithm}")
        return self._handle.public_bytes_raw()

    @property
    def _hash(self) -> hashes.HashAlgorithm | None:
        """The hash of messages; None where the algorithm signs the message itself."""
        if isinstance(self._handle, ec.EllipticCurvePublicKey):
            return CURVES[self._handle.curve.name][1]()
        return _SHA256 if isinstance(self._handle, rsa.RSAPublicKey) else None

    def verify(self, signature: bytes, message: bytes) -> None:
        """Return if this key made *signature* over *message*."""
        if (own := self._hash) is not None:
            digest = hashlib.new(own.name, message).digest()
            self.verify_digest(signature, digest, own.name)
            return
        try:
            self._handle.verify(signature, message)  # type: ignore[call-arg]
        except (InvalidSignature, ValueError) as error:
            raise SignatureError("the signature does not match", where=self.key_id) from error

    def verify_digest(self, signature: bytes, digest: bytes, algorithm: str) -> str:
        """Return by which padding this key made *signature* over something of this *digest*.

        That is ``PKCS1V15`` or ``PSS`` of RSA; the others have none, "". The *algorithm* is SHA-256
        or the curve's own: older clients signed by P-384 and SHA-256.
        """
        handle = self._handle
        by = {each.name: Prehashed(each) for each in (_SHA256, self._hash) if each}.get(algorithm)
        try:
            if by and isinstance(handle, ec.EllipticCurvePublicKey):
                handle.verify(signature, digest, ec.ECDSA(by))
                return ""
            if by and isinstance(handle, rsa.RSAPublicKey):
                return _verify_rsa(handle, signature, digest, by)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError("the signature does not match", where=self.key_id) from error
        what = f"a signature by {self.algorithm} over a digest by {algorithm}"
        raise SignatureError(f"{what} is not supported")


def _verify_rsa(key: rsa.RSAPublicKey, signature: bytes, digest: bytes, by: Prehashed) -> str:
    for name, padded in _PADDINGS.items():
        with suppress(InvalidSignature):
            key.verify(signature, digest, padded, by)
            return name
    raise InvalidSignature


def unsupported_algorithm(where: str | None, handle: object = None) -> MalformedError:
    """Return the refusal of a key, an object of ``cryptography`` if it has one for its kind."""
    kind = type(handle).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")
    if curve := getattr(handle, "curve", None):
        kind = curve.name
    elif bits := getattr(handle, "key_size", None):
        kind = f"{kind} with {bits} bits"
    what = f"the key's algorithm is not supported{f': {kind}' if handle else ''}"
    hint = "use ECDSA on P-256, P-384 or P-521, Ed25519, ML-DSA; to verify, RSA-2048 to 16384"
    return MalformedError(what, where=where, hint=hint)


def public_key_of(handle: object, *, where: str | None = None) -> PublicKey:
    """Return the key that *handle*, an object of ``cryptography``, stands for."""
    if isinstance(handle, ec.EllipticCurvePublicKey) and handle.curve.name in CURVES:
        name = CURVES[handle.curve.name][0]
    elif isinstance(handle, ed25519.Ed25519PublicKey):
        name = "ed25519"
        y = int.from_bytes(handle.public_bytes_raw(), "little") % 2**255  # without the sign of x
        if y >= _FIELD:
            raise MalformedError("non-canonical Ed25519 public key", where=where)
        if y in _SMALL_ORDER:
            raise MalformedError("low-order Ed25519 public key", where=where)
    elif isinstance(handle, rsa.RSAPublicKey) and handle.key_size in RSA_BITS:
        name = f"rsa-{handle.key_size}"
    elif isinstance(handle, mldsa.MLDSA44PublicKey):
        name = "ml-dsa-44"
    elif isinstance(handle, mldsa.MLDSA65PublicKey):
        name = "ml-dsa-65"
    elif isinstance(handle, mldsa.MLDSA87PublicKey):
        name = "ml-dsa-87"
    else:
        raise unsupported_algorithm(where, handle)
    spki = handle.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(name, spki, handle)


def parse_spki(spki: bytes, *, where: str | None = None) -> PublicKey:
    """Return the key that *spki*, a SubjectPublicKeyInfo in DER, holds."""
    try:
        handle = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError("not a public key in DER", where=where) from error
    key = public_key_of(handle, where=where)
    if key.spki != spki:
        raise MalformedError("not the DER form of a public key", where=where)
    return key


def parse_raw(raw: bytes, *, ml_dsa: bool = False, where: str | None = None) -> PublicKey:
    """Return the Ed25519 key of the 32 bytes *raw*, or the ML-DSA-44 key of 1,312."""
    kind = mldsa.MLDSA44PublicKey if ml_dsa else ed25519.Ed25519PublicKey
    try:
        return public_key_of(kind.from_public_bytes(raw), where=where)
    except ValueError as error:
        size = "ML-DSA-44 key has 1,312" if ml_dsa else "Ed25519 key has 32"
        raise MalformedError(f"an {size} bytes", where=where) from error


def parse_public_pem(data: bytes, *, where: str | None = None) -> PublicKey:
    """Return the key in *data*: SubjectPublicKeyInfo in PEM, or one OpenSSH public key line."""
    if b"PRIVATE KEY" in data:
        hint = "name the public key, the file that ends in .pub"
        raise MalformedError("is a private key", where=where, hint=hint)
    if b"BEGIN CERTIFICATE-" in data:
        hint = "name an authority that you trust with --certificate-chain"
        raise MalformedError("is a certificate, not a key", where=where, hint=hint)
    if _VKEY.match(data):
        raise MalformedError("is a log's key", where=where, hint="name the signer's public key")
    is_openssh = data.startswith((b"ssh-", b"ecdsa-", b"sk-"))
    if is_openssh and (data.startswith(b"sk-") or b"-cert-" in data.split(maxsplit=1)[0]):
        # cryptography would read the plain key inside. A security key signs more than the message,
        # so nothing it made would verify; a certificate's limits would be ignored.
        what = "OpenSSH certificates and security keys are not supported"
        hint = "make a key pair with 'provenance keygen'"
        raise MalformedError(what, where=where, hint=hint)
    load = serialization.load_ssh_public_key if is_openssh else serialization.load_pem_public_key
    try:
        handle = load(data)
    except UnsupportedAlgorithm as error:
        raise unsupported_algorithm(where) from error
    except (ValueError, InternalError) as error:
        raise MalformedError("not a public key in PEM or OpenSSH form", where=where) from error
    return public_key_of(handle, where=where)


def load_public(path: Path) -> PublicKey:
    """Return the public key in the file *path*."""
    return parse_public_pem(read_key_file(path), where=str(path))


def read_key_file(path: Path) -> bytes:
    """Return the bytes of the key file *path*, at most :data:`MAX_KEY_BYTES`.

    A key's id is never looked up as a file: whoever can add one could replace the key.
    """
    if _KEY_ID.fullmatch(str(path)):
        hint = "name the file of the key: an id is not enough to verify with"
        raise UnreadableError("is a key id", where=str(path), hint=hint)
    try:
        return read_file(path, MAX_KEY_BYTES)
    except UnreadableError as error:
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
            hint = "name the file of the key"
            raise UnreadableError("is a folder, not a key", where=str(path), hint=hint) from error
        raise
