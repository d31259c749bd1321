from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import LogProofError, MalformedError
from provenance.transparency import checkpoint, entry, merkle, note
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.entry import InclusionProof, LogEntry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.transparency.note import SignerKey

# Sigstore's staging log of 2025 (vectors/README.md).
STAGING_VKEY = (
    "log2025-alpha1.rekor.sigstage.dev+f30d5a99+AT5/gERB6AWme8IEtcwaqcZi0hp8ocV4+JRcUnVlQfKP"
)

BODY = b'{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{}}'
BODIES = [b"%d" % number for number in range(5)] + [BODY] + [b"last"]
INDEX = 5


def subtree(level: int, index: int) -> bytes:
    leaves = [merkle.hash_leaf(body) for body in BODIES]
    return merkle.fold(leaves[index << level : (index + 1) << level])


@pytest.fixture(scope="module")
def good(signer: SignerKey) -> LogEntry:
    size = len(BODIES)
    root = merkle.root_between(0, size, subtree)
    signed = checkpoint.sign(Checkpoint(signer.name, size, root), signer)
    path = merkle.prove_inclusion(INDEX, size, subtree)
    proof = InclusionProof(INDEX, root, size, path, signed)
    return LogEntry(INDEX, signer.verifier.log_id, "hashedrekord", "0.0.2", BODY, proof)


def replace(value: LogEntry, **changes: Any) -> LogEntry:  # noqa: ANN401 - any field
    return msgspec.structs.replace(value, **changes)


def with_proof(value: LogEntry, **changes: Any) -> LogEntry:  # noqa: ANN401 - any field
    return replace(value, proof=msgspec.structs.replace(value.proof, **changes))


def test_a_good_entry_is_verified(good: LogEntry, signer: SignerKey) -> None:
    assert good.index == INDEX
    assert entry.check_entry(good, body=BODY, vkey=signer.verifier).size == len(BODIES)


@pytest.mark.parametrize("name", ["hashedrekord", "dsse"])
def test_real_entries_of_rekor_v2_are_verified(vectors: Path, name: str) -> None:
    document = json.loads((vectors / f"rekor-v2-staging-{name}.json").read_text())
    parsed = entry.parse_entry(document)
    assert entry.format_entry(parsed) == document
    signed = entry.check_entry(parsed, body=parsed.body, vkey=note.parse_vkey(STAGING_VKEY))
    assert str(parsed.index) == document["logIndex"]
    assert signed.origin == "log2025-alpha1.rekor.sigstage.dev"


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def stranger_s(good: LogEntry, stranger: SignerKey) -> bytes:
    return checkpoint.sign(Checkpoint(stranger.name, good.proof.size, good.proof.root), stranger)


REFUSED: dict[str, tuple[str, str, Callable[[LogEntry, SignerKey, SignerKey], LogEntry]]] = {
    "another log's id": (
        "log",
        "of another log than",
        lambda good, _key, stranger: replace(good, log_id=stranger.verifier.log_id),
    ),
    "two indices": (
        "log",
        "has index 6, and its proof 5",
        lambda good, _key, _stranger: replace(good, index=6),
    ),
    "another body": (
        "body",
        "not about this envelope",
        lambda good, _key, _stranger: replace(good, body=BODY + b" "),
    ),
    "another kind": (
        "body",
        "not of the kind dsse 0.0.2",
        lambda good, _key, _stranger: replace(good, kind="dsse"),
    ),
    "another version": (
        "body",
        "not of the kind hashedrekord 0.0.1",
        lambda good, _key, _stranger: replace(good, version="0.0.1"),
    ),
    "a checkpoint of another key": (
        "checkpoint",
        "not signed by the key of",
        lambda good, _key, stranger: with_proof(good, checkpoint=stranger_s(good, stranger)),
    ),
    "a checkpoint of another origin": (
        "checkpoint",
        r"of the log 'other.example'",
        lambda good, key, _stranger: with_proof(
            good,
            checkpoint=note.sign(
                checkpoint.format(Checkpoint("other.example", 7, good.proof.root)), key
            ),
        ),
    ),
    "a changed checkpoint": (
        "checkpoint",
        "does not match",
        lambda good, _key, _stranger: with_proof(
            good, checkpoint=good.proof.checkpoint.replace(b"\n7\n", b"\n8\n")
        ),
    ),
    "a proof for another size": (
        "tree",
        "for size 8, not 7",
        lambda good, _key, _stranger: with_proof(good, size=8),
    ),
    "a proof for another root": (
        "tree",
        "different roots",
        lambda good, _key, _stranger: with_proof(good, root=flip(good.proof.root)),
    ),
    "an index beyond the tree": (
        "inclusion",
        "size 7 has no leaf 7",
        lambda good, _key, _stranger: replace(with_proof(good, index=7), index=7),
    ),
    "another index": (
        "inclusion",
        "another root",
        lambda good, _key, _stranger: replace(with_proof(good, index=4), index=4),
    ),
    "a short proof": (
        "inclusion",
        "2 hashes, and needs 3",
        lambda good, _key, _stranger: with_proof(good, hashes=good.proof.hashes[1:]),
    ),
    "a long proof": (
        "inclusion",
        "4 hashes, and needs 3",
        lambda good, _key, _stranger: with_proof(
            good, hashes=(*good.proof.hashes, good.proof.root)
        ),
    ),
    "a changed hash": (
        "inclusion",
        "another root",
        lambda good, _key, _stranger: with_proof(
            good, hashes=(flip(good.proof.hashes[0]), *good.proof.hashes[1:])
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_lie_is_refused_at_its_step(
    name: str, good: LogEntry, signer: SignerKey, stranger: SignerKey
) -> None:
    step, what, change = REFUSED[name]
    with pytest.raises(LogProofError, match=what) as caught:
        entry.check_entry(change(good, signer, stranger), body=BODY, vkey=signer.verifier)
    number = entry.STEPS.index(step) + 1
    assert caught.value.where == f"log proof, step {number} ({step})"


def test_an_entry_about_another_document_is_refused(good: LogEntry, signer: SignerKey) -> None:
    with pytest.raises(LogProofError, match="not about this envelope"):
        entry.check_entry(good, body=BODY.replace(b"{}", b"[]"), vkey=signer.verifier)


def test_a_checkpoint_that_is_none_is_malformed(good: LogEntry, signer: SignerKey) -> None:
    with pytest.raises(MalformedError, match="step 3"):
        entry.check_entry(with_proof(good, checkpoint=b"hello\n"), body=BODY, vkey=signer.verifier)


def test_an_entry_is_written_as_it_is_read(good: LogEntry) -> None:
    document = entry.format_entry(good)
    assert document["logIndex"] == "5"
    assert document["inclusionProof"]["treeSize"] == "7"
    assert "integratedTime" not in document
    assert entry.parse_entry(json.loads(json.dumps(document))) == good
    dated = {"integratedTime": "1750000000", "inclusionPromise": {"signedEntryTimestamp": "c2ln"}}
    told = entry.parse_entry(document | dated)
    assert (told.time, told.promise) == (1750000000, b"sig")
    assert entry.format_entry(told) == document  # they prove nothing here


def test_protobuf_leaves_out_zeros(good: LogEntry) -> None:
    document = entry.format_entry(good)
    del document["logIndex"], document["inclusionProof"]["logIndex"]
    del document["inclusionProof"]["hashes"]
    document["integratedTime"] = "0"
    parsed = entry.parse_entry(document)
    assert (parsed.index, parsed.proof.index, parsed.proof.hashes) == (0, 0, ())


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            document = document[name]
        document[last] = value

    return change


MALFORMED: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "index as a number": (r"got 'int' - at '\$\.logIndex'", put("logIndex", 5)),
    "index with a leading zero": ("matching regex", put("logIndex", "05")),
    "index of 2^63": ("not a decimal", put("logIndex", str(2**63))),
    "a negative index": ("matching regex", put("inclusionProof.logIndex", "-1")),
    "size with a space": ("matching regex", put("inclusionProof.treeSize", "7 ")),
    "a time that is none": ("matching regex", put("integratedTime", "now")),
    "log id of 31 bytes": ("matching regex", put("logId.keyId", "A" * 41 + "A==")),
    "log id in URL base64": ("matching regex", put("logId.keyId", "_" * 43 + "=")),
    "no log id": (
        r"missing required field 'keyId' - at '\$\.logId'",
        lambda document: document["logId"].clear(),
    ),
    "no proof": (
        "missing required field 'inclusionProof'",
        lambda document: document.pop("inclusionProof"),
    ),
    "root of 33 bytes": ("matching regex", put("inclusionProof.rootHash", "A" * 44)),
    "hashes that are no list": (
        r"got 'object' - at '\$\.inclusionProof\.hashes'",
        put("inclusionProof.hashes", {}),
    ),
    "65 hashes": ("'array' of length <= 64", put("inclusionProof.hashes", ["A" * 43 + "="] * 65)),
    "a hash that is null": (
        r"got 'null' - at '\$\.inclusionProof\.hashes\[0\]'",
        put("inclusionProof.hashes", [None]),
    ),
    "a checkpoint that is a text": (
        r"got 'str' - at '\$\.inclusionProof\.checkpoint'",
        put("inclusionProof.checkpoint", "text"),
    ),
    "an unknown field": ("unknown field 'extra'", put("extra", 1)),
    "an unknown field in the proof": ("unknown field", put("inclusionProof.extra", 1)),
    "a body too long": ("at most 65535", put("canonicalizedBody", "A" * 4 * 21846)),
    "base64 with bits left over": ("not canonical", put("canonicalizedBody", "AB==")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_entry_is_malformed(name: str, good: LogEntry) -> None:
    what, change = MALFORMED[name]
    document = copy.deepcopy(entry.format_entry(good))
    change(document)
    with pytest.raises(MalformedError, match=what):
        entry.parse_entry(document, "claims.jsonl:1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.just("5"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        "logIndex",
        "logId",
        "logId.keyId",
        "kindVersion",
        "kindVersion.kind",
        "inclusionProof",
        "inclusionProof.hashes",
        "inclusionProof.rootHash",
        "inclusionProof.checkpoint",
        "inclusionProof.checkpoint.envelope",
        "inclusionPromise",
        "canonicalizedBody",
        "new",
    ]
)


@given(JSON, FIELDS)
def test_any_json_is_an_entry_or_malformed(good: LogEntry, value: object, field: str) -> None:
    document = copy.deepcopy(entry.format_entry(good))
    put(field, value)(document)
    for candidate in (value, document):
        try:
            parsed = entry.parse_entry(candidate)
        except MalformedError:
            continue
        assert entry.parse_entry(entry.format_entry(parsed)) == parsed
