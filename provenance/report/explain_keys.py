"""What a key file is. Key material of a private key is read and never shown."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import msgspec

from provenance.errors import MalformedError, UnreadableError, reason
from provenance.keys import load_private, parse_public_pem
from provenance.report.explain_text import explained, row

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.keys import PublicKey
    from provenance.report.explain_text import Explained

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class PublicKeyFile(
    msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="public-key"
):
    """A public key. ``pemDigest`` (SHA-256 of the PEM text) names it in OpenSSF signatures."""

    algorithm: str
    key_id: str
    pem_digest: str


class PrivateKeyFile(
    msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="private-key"
):
    """A private key: what may be said of it. Of an encrypted one, algorithm and id are hidden.

    ``mode`` are the file's permissions, octal.
    """

    encrypted: bool
    mode: str
    algorithm: str | None = None
    key_id: str | None = None


def explain_public_key(data: bytes, where: str) -> Explained:
    """Return what the public key *data* is.

    Raises:
        MalformedError: it is none.
    """
    key = parse_public_pem(data, where=where)
    lines = [
        f"{where}: public key (not verified)",
        *_key_rows(key),
        row("pem digest", f"sha256 {key.pem_digest}"),
    ]
    if key.algorithm == "ed25519":
        lines.append(row("use", "claims, or a log (whose vkey is this key under the log's name)"))
    return explained(PublicKeyFile(key.algorithm, key.key_id, key.pem_digest), lines)


def explain_private_key(path: Path) -> Explained:
    """Return what may be said of the private key at *path*.

    Raises:
        UnreadableError: it cannot be read.
        MalformedError: it is damaged, or of an algorithm that is not supported.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {reason(error)}", where=str(path)) from error
    public: PublicKey | None = None
    try:
        public = load_private(path).public
    except MalformedError as error:
        if not isinstance(error.__cause__, TypeError):  # cryptography's word for "needs a password"
            raise
    lines = [f"{path}: private key, {'in the clear' if public else 'encrypted'} (not verified)"]
    if public is not None:
        lines += _key_rows(public)
    else:
        lines.append(row("key id", "hidden: the key is encrypted; the file in .pub tells it"))
    lines.append(
        row("mode", f"{mode:04o}" + (", others can use it: chmod 600" if mode & _OTHERS else ""))
    )
    lines.append(row("", "keep it secret: whoever has it signs in its owner's name"))
    content = PrivateKeyFile(
        public is None,
        f"{mode:04o}",
        public.algorithm if public else None,
        public.key_id if public else None,
    )
    return explained(content, lines)


def _key_rows(key: PublicKey) -> list[str]:
    return [row("algorithm", key.algorithm), row("key id", key.key_id)]
