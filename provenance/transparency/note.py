"""Signed notes: a text and the signatures of named keys (C2SP signed-note v1.0.0).

The text ends with a newline; after an empty line come the signature lines: em dash (U+2014), space,
key name, space, base64 of ``key id (4 bytes) || signature``, newline. A note is UTF-8 and has no
control character below U+0020 but newline. The signature is over the text without the empty line.

Logs sign with keys of type 0x01, Ed25519: public logs must have it (C2SP tlog-tiles,
"Checkpoints"). :func:`parse` and :func:`parse_vkey` accept only canonical notes and keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from provenance.encoding import strict_base64
from provenance.errors import LogProofError, MalformedError, SignatureError, UsageError
from provenance.keys import PrivateKey, PublicKey, parse_raw

MAX_NOTE_BYTES = 2**20
"""Largest note read, in bytes: 100 signatures of 5 kB (post-quantum) and a text fit twice."""

MAX_SIGNATURES = 100
"""Most signature lines read. At least 16 must be accepted (signed-note); Go's limit is 100."""

ED25519 = 0x01
"""The signature type of Ed25519 over the note's text (signed-note, "Signature types")."""

COSIGNATURES = (0x04, 0x06)
"""Those of a witness, by Ed25519 and by ML-DSA-44 (C2SP tlog-cosignature)."""

_SIGNATURE_START = "— "


class VerifierKey(msgspec.Struct, frozen=True):
    """A named key that can verify notes; or any key of a log *known_as* 32 bytes."""

    name: str
    public: PublicKey
    known_as: bytes = b""
    kind: int = ED25519

    @property
    def log_id(self) -> bytes:
        """SHA-256(name || 0x0A || type || public key), 32 bytes: the log id of Rekor v2."""
        return self.known_as or hashlib.sha256(self.name.encode() + b"\n" + self.typed).digest()

    @property
    def note_id(self) -> bytes:
        """The first 4 bytes of that: the key id of signed notes."""
        return self.log_id[:4]

    @property
    def typed(self) -> bytes:
        """The signature type and the public key."""
        return bytes([self.kind]) + self.public.raw


class SignerKey(msgspec.Struct, frozen=True):
    """A named Ed25519 key that can sign notes."""

    name: str
    private: PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """The key that verifies what this one signs."""
        return VerifierKey(self.name, self.private.public)


class NoteSignature(msgspec.Struct, frozen=True):
    """One signature line: key name, key id of the note (4 bytes), signature (at least 1 byte)."""

    name: str
    note_id: bytes
    signature: bytes


class Note(msgspec.Struct, frozen=True):
    """A text, ending with a newline, and its signature lines, not verified."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def lines_of(self, key: VerifierKey) -> list[NoteSignature]:
        """Return the signature lines that say to be of *key*."""
        own = (key.name, key.note_id)
        return [line for line in self.signatures if (line.name, line.note_id) == own]


def signer_key(name: str, private: PrivateKey) -> SignerKey:
    """Return the key *private* under *name*, if a log can have both."""
    if not is_name(name) or not name.isprintable():
        hint = "use a URL without scheme, spaces and plus signs"
        raise UsageError(f"{name!r} cannot name a log", hint=hint)
    algorithm = private.public.algorithm
    if algorithm != "ed25519":
        hint = "make one with: provenance keygen --algorithm ed25519"
        raise UsageError(f"a log signs with Ed25519, and this key is {algorithm}", hint=hint)
    return SignerKey(name, private)


def format_vkey(key: VerifierKey) -> str:
    """Return *key* as ``name+hex(id)+base64(type || public key)``."""
    return f"{key.name}+{key.note_id.hex()}+{strict_base64.format(key.typed)}"


def parse_vkey(
    text: str, *, kinds: Sequence[int] = (ED25519,), where: str | None = None
) -> VerifierKey:
    """Return the key, of one of *kinds*, that *text*, a vkey without line end, spells."""
    parts = text.split("+", 2)
    if len(parts) != 3 or not is_name(parts[0]):  # noqa: PLR2004 - name, id, key
        raise MalformedError("not a log's key: expected NAME+ID+KEY", where=where)
    name, written_id, encoded = parts
    typed = strict_base64.parse(encoded, where=where)
    if not typed or typed[0] not in kinds:
        allowed = " or ".join(f"0x{kind:02x}" for kind in kinds)
        what = f"a verifier key must be of type {allowed}, not 0x{typed[:1].hex()}"
        raise MalformedError(what, where=where)
    public = parse_raw(typed[1:], where=where, ml_dsa=typed[0] == COSIGNATURES[1])
    key = VerifierKey(name, public, kind=typed[0])
    if written_id != key.note_id.hex():
        raise MalformedError("the verifier key's id does not match its name and key", where=where)
    return key


def parse(data: bytes, *, where: str | None = None) -> Note:
    """Return the note that *data* spells; its signatures are not verified."""
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedError(f"a note has at most {MAX_NOTE_BYTES} bytes", where=where)
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error
    check_text(whole, where=where)
    text, separator, tail = whole.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        raise MalformedError("not a note: no signature lines after an empty line", where=where)
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(f"a note has at most {MAX_SIGNATURES} signatures", where=where)
    return Note(text + "\n", tuple(_parse_line(line, where) for line in lines))


def format(note: Note) -> bytes:  # noqa: A001 - the pair parse/format is the house's naming
    """Return *note* as bytes."""
    lines = "".join(
        f"{_SIGNATURE_START}{line.name} {strict_base64.format(line.note_id + line.signature)}\n"
        for line in note.signatures
    )
    data = f"{note.text}\n{lines}".encode()
    if parse(data) != note:
        raise MalformedError("this text cannot be written as a note")
    return data


def sign(text: str, signer: SignerKey) -> bytes:
    """Return *text*, which ends with a newline, as a note signed by *signer*."""
    signature = signer.private.sign(text.encode())
    return format(Note(text, (NoteSignature(signer.name, signer.verifier.note_id, signature),)))


def open_note(data: bytes, key: VerifierKey, *, where: str | None = None) -> str:
    """Return the text of the note *data*, if *key* signed it.

    Signatures of other keys are ignored; every line of this one must verify.
    """
    note = parse(data, where=where)
    if not (own := note.lines_of(key)):
        raise LogProofError(f"not signed by the key of {key.name}", where=where)
    for line in own:
        try:
            key.public.verify(line.signature, note.text.encode())
        except SignatureError as error:
            what = f"the signature of {key.name} does not match"
            raise LogProofError(what, where=where) from error
    return note.text


def is_name(text: str) -> bool:
    """Tell whether *text* can name a key: not empty, no plus, no space, no control character."""
    return bool(text) and not any(c == "+" or c < " " or c.isspace() for c in text)


def check_text(text: str, *, where: str | None = None) -> None:
    """Return if *text* has no control character below U+0020 but newline."""
    for character in text:
        if character < " " and character != "\n":
            what = f"control character U+{ord(character):04X} in a note"
            raise MalformedError(what, where=where)


def _parse_line(line: str, where: str | None) -> NoteSignature:
    name, space, encoded = line.removeprefix(_SIGNATURE_START).partition(" ")
    if not line.startswith(_SIGNATURE_START) or not space or not is_name(name):
        raise MalformedError("not a signature line: expected — NAME BASE64", where=where)
    data = strict_base64.parse(encoded, where=where)
    if len(data) < 5:  # noqa: PLR2004 - the id and at least one byte
        raise MalformedError("a note's signature is too short", where=where)
    return NoteSignature(name, data[:4], data[4:])
