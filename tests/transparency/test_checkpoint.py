from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import LogProofError, MalformedError
from provenance.transparency import checkpoint, merkle, note
from provenance.transparency.checkpoint import Checkpoint

if TYPE_CHECKING:
    from provenance.transparency.note import SignerKey

# The example of C2SP tlog-checkpoint.
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


def test_the_published_checkpoint_is_written_as_it_was_read() -> None:
    parsed = checkpoint.parse(SOFA)
    assert parsed.origin == "example.com/behind-the-sofa"
    assert parsed.size == 20852163
    assert len(parsed.root) == 32
    assert parsed.extensions == ()
    assert checkpoint.format(parsed) == SOFA


def test_extension_lines_are_kept() -> None:
    parsed = checkpoint.parse(SOFA + "one\n two \n")
    assert parsed.extensions == ("one", " two ")
    assert checkpoint.format(parsed) == SOFA + "one\n two \n"


MALFORMED = {
    "empty": "",
    "no root": "example.com\n1\n",
    "the last line has no end": SOFA[:-1],
    "an empty origin": f"\n1\n{ROOT}\n",
    "an empty size": f"example.com\n\n{ROOT}\n",
    "an empty extension line": SOFA + "\n",
    "an empty line between extensions": SOFA + "a\n\nb\n",
    "a size with a leading zero": f"example.com\n01\n{ROOT}\n",
    "a size of many zeros": f"example.com\n00\n{ROOT}\n",
    "a size with a sign": f"example.com\n+1\n{ROOT}\n",
    "a negative size": f"example.com\n-1\n{ROOT}\n",
    "a size after a space": f"example.com\n 1\n{ROOT}\n",
    "a size with an underscore": f"example.com\n1_0\n{ROOT}\n",
    "a size in other digits": f"example.com\n\u0661\n{ROOT}\n",
    "a size in hexadecimal": f"example.com\n0x1\n{ROOT}\n",
    "a size of 2^63": f"example.com\n{2**63}\n{ROOT}\n",
    "a size of a thousand digits": f"example.com\n{'9' * 1000}\n{ROOT}\n",
    "a root that is not base64": "example.com\n1\n*\n",
    "a root of 31 bytes": f"example.com\n1\n{'A' * 41}A==\n",
    "a root of 33 bytes": f"example.com\n1\n{'A' * 44}\n",
    "a root without padding": f"example.com\n1\n{ROOT[:-1]}\n",
    "a root with bits left over": f"example.com\n1\n{ROOT[:-2]}J=\n",
    "a root before a space": f"example.com\n1\n{ROOT} \n",
    "a control character": f"exam\tple.com\n1\n{ROOT}\n",
    "a carriage return": SOFA.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_checkpoint_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        checkpoint.parse(MALFORMED[name])


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_sizes_at_the_limits_are_read(size: int) -> None:
    assert checkpoint.parse(f"example.com\n{size}\n{ROOT}\n").size == size


@pytest.mark.parametrize(
    "broken",
    [
        Checkpoint("", 1, b"0" * 32),
        Checkpoint("a\nb", 1, b"0" * 32),
        Checkpoint("a", -1, b"0" * 32),
        Checkpoint("a", 2**63, b"0" * 32),
        Checkpoint("a", 1, b"0" * 31),
        Checkpoint("a", 1, b"0" * 32, ("",)),
    ],
    ids=["no origin", "two lines", "negative", "too large", "short root", "empty extension"],
)
def test_what_cannot_be_a_checkpoint_is_not_written(broken: Checkpoint) -> None:
    with pytest.raises(MalformedError):
        checkpoint.format(broken)


def test_what_is_signed_opens(signer: SignerKey) -> None:
    value = Checkpoint(signer.name, 7, hashlib.sha256(b"x").digest())
    data = checkpoint.sign(value, signer)
    assert checkpoint.open_checkpoint(data, signer.verifier) == value


def test_cosignatures_of_unknown_witnesses_do_not_matter(signer: SignerKey) -> None:
    value = Checkpoint(signer.name, 7, hashlib.sha256(b"x").digest())
    data = checkpoint.sign(value, signer) + "— witness.example AAAAAAEC\n".encode()
    assert checkpoint.open_checkpoint(data, signer.verifier) == value


def test_a_checkpoint_of_another_origin_is_refused(signer: SignerKey) -> None:
    value = Checkpoint("other.example", 7, hashlib.sha256(b"x").digest())
    with pytest.raises(LogProofError, match=r"of the log 'other.example'"):
        checkpoint.sign(value, signer)
    data = note.sign(checkpoint.format(value), signer)
    with pytest.raises(LogProofError, match=r"of the log 'other.example'"):
        checkpoint.open_checkpoint(data, signer.verifier)


def test_a_checkpoint_of_another_key_is_refused(signer: SignerKey, stranger: SignerKey) -> None:
    data = checkpoint.sign(Checkpoint(signer.name, 7, b"0" * 32), stranger)
    with pytest.raises(LogProofError, match="not signed by the key of"):
        checkpoint.open_checkpoint(data, signer.verifier)


def test_every_changed_bit_of_a_signed_checkpoint_is_refused(signer: SignerKey) -> None:
    data = checkpoint.sign(Checkpoint(signer.name, 7, b"0" * 32), signer)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises((LogProofError, MalformedError)):
                checkpoint.open_checkpoint(bytes(changed), signer.verifier)


def test_the_empty_tree_has_one_root(signer: SignerKey) -> None:
    good = checkpoint.sign(Checkpoint(signer.name, 0, merkle.EMPTY_ROOT), signer)
    assert checkpoint.open_checkpoint(good, signer.verifier).size == 0
    bad = checkpoint.sign(Checkpoint(signer.name, 0, b"0" * 32), signer)
    with pytest.raises(LogProofError, match="wrong root of an empty tree"):
        checkpoint.open_checkpoint(bad, signer.verifier)


@given(st.text(max_size=30), st.integers(0, 120), st.integers(0, 120))
def test_any_text_is_a_checkpoint_or_malformed(extra: str, start: int, end: int) -> None:
    for text in (extra, SOFA[:start] + extra + SOFA[end:]):
        try:
            parsed = checkpoint.parse(text)
        except MalformedError:
            continue
        assert checkpoint.format(parsed) == text
