from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import LogProofError, MalformedError, UsageError
from provenance.keys import generate
from provenance.transparency import note
from provenance.transparency.note import Note, NoteSignature, SignerKey, VerifierKey

# The example of golang.org/x/mod/sumdb/note.
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng"
    "otpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_VKEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWL"
    "ox33WWd1RvMc+QQ=\n"
)

# The example of C2SP signed-note; its key is not published.
QUASIMODO = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMou"
    "FSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)


def signed(*lines: str, text: str = TEXT) -> bytes:
    return f"{text}\n{''.join(lines)}".encode()


def peter() -> VerifierKey:
    return note.parse_vkey(PETER_VKEY)


def enoch() -> VerifierKey:
    return note.parse_vkey(ENOCH_VKEY)


def test_the_published_note_opens() -> None:
    for key in (peter(), enoch()):
        assert note.open_note(signed(PETER_LINE, ENOCH_LINE), key) == TEXT


def test_signatures_of_other_keys_are_ignored() -> None:
    bad = ENOCH_LINE[:60] + "ABCD" + ENOCH_LINE[64:]
    assert note.open_note(signed(PETER_LINE, bad), peter()) == TEXT


def test_an_empty_line_may_stand_in_the_text() -> None:
    parsed = note.parse(QUASIMODO.encode())
    assert parsed.text.endswith(":\n\ned è subito sera.\n")
    assert [line.name for line in parsed.signatures] == ["quasimodo.example/salvatore"]
    assert parsed.signatures[0].note_id == bytes.fromhex("367ba04b")


def test_what_is_signed_opens(signer: SignerKey) -> None:
    assert note.open_note(note.sign("hello\n", signer), signer.verifier) == "hello\n"


def test_a_second_signature_of_a_known_key_must_hold_too() -> None:
    bad = "— PeterNeumann " + base64.b64encode(peter().note_id + b"\x00" * 64).decode() + "\n"
    with pytest.raises(LogProofError, match="signature of PeterNeumann does not match"):
        note.open_note(signed(PETER_LINE, bad), peter())


def test_a_known_key_that_fails_refuses_the_note_though_another_holds() -> None:
    changed = signed(PETER_LINE[:60] + "ABCD" + PETER_LINE[64:], ENOCH_LINE)
    with pytest.raises(LogProofError, match="signature of PeterNeumann does not match"):
        note.open_note(changed, peter())


def test_a_changed_text_is_refused() -> None:
    with pytest.raises(LogProofError, match="does not match"):
        note.open_note(signed(PETER_LINE, text=TEXT.replace("don't", "do")), peter())


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    with pytest.raises(LogProofError, match="not signed by the key of PeterNeumann"):
        note.open_note(signed(ENOCH_LINE), peter())


def test_same_name_other_key_is_another_key(signer: SignerKey, stranger: SignerKey) -> None:
    data = note.sign("hello\n", stranger)
    with pytest.raises(LogProofError, match="not signed by"):
        note.open_note(data, signer.verifier)


@pytest.mark.parametrize("count", [16, note.MAX_SIGNATURES])
def test_many_signatures_are_accepted(count: int) -> None:
    assert note.open_note(signed(*[PETER_LINE] * count), peter()) == TEXT


MALFORMED = {
    "no signature block": TEXT.encode(),
    "an empty signature block": (TEXT + "\n").encode(),
    "the last line has no end": signed(PETER_LINE)[:-1],
    "a control character in the text": signed(PETER_LINE, text="\x01" + TEXT),
    "a carriage return": signed(PETER_LINE, text=TEXT.replace("\n", "\r\n")),
    "a tab in a signature line": signed(PETER_LINE.replace(" x08", "\tx08")),
    "not UTF-8": b"\xff" + signed(PETER_LINE),
    "a line that is no signature": signed(PETER_LINE, "Unexpected line.\n"),
    "a hyphen for the dash": signed(PETER_LINE.replace("—", "-")),
    "no name": signed(PETER_LINE.replace("PeterNeumann ", "")),
    "a name with a space": signed(PETER_LINE.replace("PeterNeumann", "Peter Neumann")),
    "a name with a no-break space": signed(PETER_LINE.replace("rN", "r\u00a0N")),
    "a name with a plus": signed(PETER_LINE.replace("rN", "r+N")),
    "two spaces": signed(PETER_LINE.replace(" x08", "  x08")),
    "a space at the end": signed(PETER_LINE.replace("=\n", "= \n")),
    "not base64": signed(PETER_LINE.replace("x08", "x0*")),
    "base64 without padding": signed(PETER_LINE.replace("AM=", "AM")),
    "base64 with bits left over": signed(PETER_LINE.replace("AM=", "AN=")),
    "a signature of the key id alone": signed("— PeterNeumann x08gow==\n"),
    "too many signatures": signed(*[PETER_LINE] * (note.MAX_SIGNATURES + 1)),
    "too long": signed(PETER_LINE, text="a" * note.MAX_NOTE_BYTES + "\n"),
    "empty": b"",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_note_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        note.parse(MALFORMED[name], where="checkpoint")


@pytest.mark.parametrize(
    "broken",
    [
        Note("no end", ()),
        Note("text\n", ()),
        Note("a\tb\n", (NoteSignature("n", b"1234", b"5"),)),
        Note("text\n", (NoteSignature("a b", b"1234", b"5"),)),
        Note("text\n", (NoteSignature("n", b"123", b"4"),)),
        Note("text\n", (NoteSignature("n", b"12345", b"6"),)),
    ],
    ids=["no end", "no signature", "control", "bad name", "short id", "long id"],
)
def test_what_cannot_be_a_note_is_not_written(broken: Note) -> None:
    with pytest.raises(MalformedError):
        note.format(broken)


def test_the_published_vkey_is_written_as_it_was_read() -> None:
    assert note.format_vkey(peter()) == PETER_VKEY
    assert peter().note_id == bytes.fromhex("c74f20a3")
    assert peter().log_id[:4] == peter().note_id
    assert len(peter().log_id) == 32


def test_no_part_of_a_vkey_and_no_changed_character_is_a_vkey() -> None:
    # As golang.org/x/mod/sumdb/note's own test does.
    parts = {
        PETER_VKEY[i:j] for i in range(len(PETER_VKEY)) for j in range(i + 1, len(PETER_VKEY) + 1)
    } - {PETER_VKEY}
    changed = {
        PETER_VKEY[:i] + chr(ord(PETER_VKEY[i]) + 1) + PETER_VKEY[i + 1 :]
        for i in range(len(PETER_VKEY))
    }
    for text in parts | changed:
        with pytest.raises(MalformedError):
            note.parse_vkey(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "canonical"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "type 0x01"),
        (PETER_VKEY.replace("c74f20a3", "C74F20A3"), "does not match"),
        (PETER_VKEY.replace("c74f20a3", "74f20a3"), "does not match"),
        (PETER_VKEY + "\n", "not base64"),
        ("PeterNeumann+c74f20a3+", "type 0x01"),
        ("PeterNeumann+c74f20a3+AQ==", "32 bytes"),
        ("Peter Neumann+c74f20a3+AQ==", "NAME"),
    ],
    ids=["long", "other type", "upper case", "short id", "line end", "no key", "cut", "name"],
)
def test_a_bad_vkey_says_what_is_wrong(text: str, what: str) -> None:
    with pytest.raises(MalformedError, match=what):
        note.parse_vkey(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2028b", "a\x00b", "a\u202eb"])
def test_a_name_that_cannot_name_a_log_is_refused(name: str, signer: SignerKey) -> None:
    with pytest.raises(UsageError, match="cannot name a log"):
        note.signer_key(name, signer.private)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ml-dsa-65"])
def test_only_ed25519_keys_sign_notes(algorithm: str) -> None:
    with pytest.raises(UsageError, match=f"signs with Ed25519, and this key is {algorithm}"):
        note.signer_key("example.com", generate(algorithm))


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 300))
def test_any_bytes_are_a_note_or_malformed(extra: bytes, start: int, end: int) -> None:
    valid = signed(PETER_LINE, ENOCH_LINE)
    for data in (extra, valid[:start] + extra + valid[end:]):
        try:
            parsed = note.parse(data)
        except MalformedError:
            continue
        assert note.format(parsed) == data


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=50),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.binary(min_size=5, max_size=80),
)
def test_what_is_written_is_read_back(text: str, name: str, data: bytes) -> None:
    value = Note(text + "\n", (NoteSignature(name, data[:4], data[4:]),))
    try:
        written = note.format(value)
    except MalformedError:
        return
    assert note.parse(written) == value


@given(st.text(max_size=120))
def test_any_text_is_a_vkey_or_malformed(text: str) -> None:
    try:
        key = note.parse_vkey(text)
    except MalformedError:
        return
    assert note.format_vkey(key) == text
