"""DSSE, the Dead Simple Signing Envelope (DSSE 1.0.2).

What is signed is the pre-authentication encoding of the payload and its type::

    PAE(type, payload) = "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload

with lengths in bytes as decimal ASCII. The ``keyid`` of a signature is a hint that says which key
to try; it proves nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Literal

import msgspec

from provenance.errors import SignatureError
from provenance.keys import PrivateKey
from provenance.keys.public import PublicKey

IN_TOTO_PAYLOAD = "application/vnd.in-toto+json"
"""The payload type of an in-toto Statement in JSON."""


class Envelope(msgspec.Struct, frozen=True):
    """A payload, its type, the signature over both, and the hint of the key that made it.

    DSSE allows several signatures; each of our envelopes, and of Sigstore's bundles, has one.
    """

    payload_type: str
    payload: bytes
    keyid: str
    sig: bytes
    older: bool = False
    """Signed as model-signing did before 0.3: over the payload as Python writes bytes in a text."""

    @property
    def pae(self) -> bytes:
        """The bytes that are signed."""
        if self.older:
            kind, size = self.payload_type, len(self.payload)
            return f"DSSEV1 {len(kind)} {kind} {size} {self.payload!r}".encode()
        return pae(self.payload_type, self.payload)


SignerKind = Literal["key", "certificate", "identity"]


class Opened(msgspec.Struct, frozen=True):
    """What a trusted key signed: the payload, its type, the key, and its signature.

    ``subject`` is that of the key's certificate, where it is trusted for one; ``kind`` says by what
    the signer is known. ``proof`` says when the signature was made, and who says so; ``at`` is the
    earliest time that is proven.
    """

    payload_type: str
    payload: bytes
    key: PublicKey
    signature: bytes
    subject: str = ""
    proof: str = ""
    at: datetime | None = None
    kind: SignerKind = "key"

    @property
    def signer(self) -> str:
        """The subject of the certificate, else the key's id."""
        return self.subject or self.key.key_id


def identity_text(name: str, provider: str) -> str:
    """Return the ``subject`` of what an identity signed, *name*, for which *provider* vouches."""
    return f"{name} ({provider})"


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(
    payload_type: str, payload: bytes, key: PrivateKey, *, keyid: str | None = None
) -> Envelope:
    """Return *payload* signed by *key*; *keyid* replaces the key's own id as the hint."""
    hint = key.public.key_id if keyid is None else keyid
    return Envelope(payload_type, payload, hint, key.sign(pae(payload_type, payload)))


def open_envelope(envelope: Envelope, keys: Sequence[PublicKey]) -> Opened:
    """Return what one of *keys* signed.

    A hint that names one of *keys* is binding: if that key's signature fails, the others are not
    tried. With any other hint, every key is tried.
    """
    hinted = [key for key in keys if envelope.keyid in (key.key_id, key.pem_digest)]
    for key in hinted or keys:
        with contextlib.suppress(SignatureError):
            if envelope.older:  # by SHA-256, whatever the curve
                key.verify_digest(envelope.sig, sha256(envelope.pae).digest(), "sha256")
            else:
                key.verify(envelope.sig, envelope.pae)
            return Opened(envelope.payload_type, envelope.payload, key, envelope.sig)
    raise SignatureError("none of the given keys made this signature")
