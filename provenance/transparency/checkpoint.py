"""Checkpoints: the signed statement of a log's size and root (C2SP tlog-checkpoint v1.0.0).

The text of a signed note: origin, size in leaves, root, and perhaps extensions, a line each; ours
has no extension. The key's name must be the origin (the specification only recommends it), so that
one key cannot speak for two logs.
"""

from __future__ import annotations

import msgspec

from provenance.encoding import strict_base64
from provenance.errors import LogProofError, MalformedError
from provenance.transparency import note
from provenance.transparency.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from provenance.transparency.note import SignerKey, VerifierKey

_MAX_DIGITS = len(str(MAX_SIZE))


class Checkpoint(msgspec.Struct, frozen=True):
    """The size (in leaves) and root (32 bytes) of the log called *origin*, at one moment."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def parse(text: str, *, where: str | None = None) -> Checkpoint:
    """Return the checkpoint that *text*, the text of a note, spells."""
    note.check_text(text, where=where)
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):  # noqa: PLR2004 - three lines, each ended
        raise MalformedError("a checkpoint has three or more lines, none empty", where=where)
    origin, size, root, *extensions = lines
    digest = strict_base64.parse(root, where=where)
    if len(digest) != HASH_BYTES:
        raise MalformedError(f"a root has {HASH_BYTES} bytes, not {len(digest)}", where=where)
    return Checkpoint(origin, parse_size(size, where=where), digest, tuple(extensions))


def parse_size(text: str, *, where: str | None = None) -> int:
    """Return the number of leaves, or the index, that *text* spells."""
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS:
        size = int(text)
        if str(size) == text and size <= MAX_SIZE:
            return size
    raise MalformedError(f"not a decimal number below 2^63: {text[:32]!r}", where=where)


def format(checkpoint: Checkpoint) -> str:  # noqa: A001 - the pair parse/format
    """Return the text of *checkpoint*."""
    root = strict_base64.format(checkpoint.root)
    lines = (checkpoint.origin, str(checkpoint.size), root, *checkpoint.extensions)
    text = "".join(f"{line}\n" for line in lines)
    if parse(text) != checkpoint:
        raise MalformedError("this cannot be written as a checkpoint")
    return text


def sign(checkpoint: Checkpoint, signer: SignerKey) -> bytes:
    """Return *checkpoint* as a note signed by *signer*, whose name must be the origin."""
    _check_origin(checkpoint, signer.verifier, None)
    return note.sign(format(checkpoint), signer)


def open_checkpoint(data: bytes, key: VerifierKey, *, where: str | None = None) -> Checkpoint:
    """Return the checkpoint in the note *data*, signed by the log's *key*."""
    checkpoint = parse(note.open_note(data, key, where=where), where=where)
    _check_origin(checkpoint, key, where)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise LogProofError("wrong root of an empty tree", where=where)
    return checkpoint


def _check_origin(checkpoint: Checkpoint, key: VerifierKey, where: str | None) -> None:
    if checkpoint.origin != key.name:
        what = f"the checkpoint is of the log {checkpoint.origin!r}, and the key is of {key.name!r}"
        raise LogProofError(what, where=where)
