from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import LogProofError
from provenance.transparency import merkle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZES = st.integers(1, 300)


def naive_root(entries: Sequence[bytes]) -> bytes:
    """MTH as RFC 6962, section 2.1, writes it: the oracle."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def entries_of(size: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(size)]


def subtree_of(entries: Sequence[bytes]) -> merkle.Subtree:
    def subtree(level: int, index: int) -> bytes:
        start, end = index << level, (index + 1) << level
        assert end <= len(entries), "asked for a subtree that is not complete"
        return naive_root(entries[start:end])

    return subtree


def flipped(data: bytes, bit: int) -> bytes:
    number = int.from_bytes(data, "big") ^ (1 << bit % (8 * len(data)))
    return number.to_bytes(len(data), "big")


@pytest.fixture(scope="module")
def published(vectors: Path) -> dict[str, Any]:
    document = json.loads((vectors / "rfc6962.json").read_text())
    document["leaves"] = [bytes.fromhex(leaf) for leaf in document["leaves"]]
    return dict(document)


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots(published: dict[str, Any], size: int) -> None:
    leaves = published["leaves"][:size]
    if size:
        found = merkle.root_between(0, size, subtree_of(leaves))
        assert found.hex() == published["roots"][size]
    assert merkle.fold([merkle.hash_leaf(e) for e in leaves]).hex() == published["roots"][size]


@pytest.mark.parametrize("case", range(5))
def test_the_published_inclusion_proofs(published: dict[str, Any], case: int) -> None:
    vector = published["inclusion"][case]
    index, size = vector["index"], vector["size"]
    leaves = published["leaves"]
    proof = merkle.prove_inclusion(index, size, subtree_of(leaves[:size]))
    assert [item.hex() for item in proof] == vector["proof"]
    merkle.check_inclusion(
        merkle.hash_leaf(leaves[index]),
        proof,
        index=index,
        size=size,
        root=bytes.fromhex(published["roots"][size]),
    )


@pytest.mark.parametrize("case", range(4))
def test_the_published_consistency_proofs(published: dict[str, Any], case: int) -> None:
    vector = published["consistency"][case]
    old_size, size = vector["old_size"], vector["size"]
    proof = merkle.prove_consistency(old_size, size, subtree_of(published["leaves"][:size]))
    assert [item.hex() for item in proof] == vector["proof"]
    merkle.check_consistency(
        proof,
        old_size=old_size,
        old_root=bytes.fromhex(published["roots"][old_size]),
        size=size,
        root=bytes.fromhex(published["roots"][size]),
    )


@given(SIZES)
def test_roots_are_those_of_the_definition(size: int) -> None:
    entries = entries_of(size)
    expected = naive_root(entries)
    if size:
        assert merkle.root_between(0, size, subtree_of(entries)) == expected
    assert merkle.fold([merkle.hash_leaf(entry) for entry in entries]) == expected


@given(SIZES, st.data())
def test_inclusion_proofs_check_and_no_changed_bit_does(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    entries = entries_of(size)
    leaf, root = merkle.hash_leaf(entries[index]), naive_root(entries)
    proof = merkle.prove_inclusion(index, size, subtree_of(entries))
    merkle.check_inclusion(leaf, proof, index=index, size=size, root=root)

    bit = data.draw(st.integers(0, 255))
    with pytest.raises(LogProofError):
        merkle.check_inclusion(flipped(leaf, bit), proof, index=index, size=size, root=root)
    with pytest.raises(LogProofError):
        merkle.check_inclusion(leaf, proof, index=index, size=size, root=flipped(root, bit))
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        bad = (*proof[:place], flipped(proof[place], bit), *proof[place + 1 :])
        with pytest.raises(LogProofError, match="another root"):
            merkle.check_inclusion(leaf, bad, index=index, size=size, root=root)
    for wrong_length in (proof[1:] if proof else None, (*proof, root)):
        if wrong_length is not None:
            with pytest.raises(LogProofError, match="needs"):
                merkle.check_inclusion(leaf, wrong_length, index=index, size=size, root=root)


@given(SIZES, st.data())
def test_an_inclusion_proof_holds_at_its_own_index_only(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    other = data.draw(st.integers(0, size + 3).filter(lambda value: value != index))
    entries = entries_of(size)
    leaf, root = merkle.hash_leaf(entries[index]), naive_root(entries)
    proof = merkle.prove_inclusion(index, size, subtree_of(entries))
    with pytest.raises(LogProofError):
        merkle.check_inclusion(leaf, proof, index=other, size=size, root=root)


@given(SIZES, st.data())
def test_consistency_proofs_check_and_no_changed_bit_does(size: int, data: st.DataObject) -> None:
    old_size = data.draw(st.integers(0, size))
    entries = entries_of(size)
    old_root, root = naive_root(entries[:old_size]), naive_root(entries)
    proof = merkle.prove_consistency(old_size, size, subtree_of(entries))

    def check(proof: Sequence[bytes], old_root: bytes, root: bytes) -> None:
        merkle.check_consistency(proof, old_size=old_size, old_root=old_root, size=size, root=root)

    check(proof, old_root, root)
    bit = data.draw(st.integers(0, 255))
    with pytest.raises(LogProofError):
        check(proof, flipped(old_root, bit), root)
    if old_size:  # everything extends the empty tree
        with pytest.raises(LogProofError):
            check(proof, old_root, flipped(root, bit))
    if proof:
        place = data.draw(st.integers(0, len(proof) - 1))
        with pytest.raises(LogProofError):
            check((*proof[:place], flipped(proof[place], bit), *proof[place + 1 :]), old_root, root)
        with pytest.raises(LogProofError, match="needs"):
            check(proof[1:], old_root, root)
    with pytest.raises(LogProofError, match="needs"):
        check((*proof, root), old_root, root)


@given(st.integers(2, 300), st.data())
def test_a_log_that_rewrote_an_old_entry_cannot_prove_consistency(
    size: int, data: st.DataObject
) -> None:
    old_size = data.draw(st.integers(1, size - 1))
    changed = data.draw(st.integers(0, old_size - 1))
    entries = entries_of(size)
    old_root = naive_root(entries[:old_size])
    entries[changed] = b"rewritten"
    with pytest.raises(LogProofError):
        merkle.check_consistency(
            merkle.prove_consistency(old_size, size, subtree_of(entries)),
            old_size=old_size,
            old_root=old_root,
            size=size,
            root=naive_root(entries),
        )


@pytest.mark.parametrize(
    ("index", "size"),
    [(0, 0), (1, 1), (-1, 4), (4, 4), (2**63, 2**63 + 1)],
    ids=["empty", "index is size", "negative", "beyond", "size over 2^63 - 1"],
)
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(LogProofError, match=f"size {size} has no leaf {index}"):
        merkle.prove_inclusion(index, size, lambda _level, _index: b"")
    with pytest.raises(LogProofError, match=f"size {size} has no leaf {index}"):
        merkle.check_inclusion(b"", (), index=index, size=size, root=b"")


def test_a_shrunken_tree_is_refused() -> None:
    with pytest.raises(LogProofError, match="a tree of size 3 cannot follow one of size 4"):
        merkle.prove_consistency(4, 3, lambda _level, _index: b"")


def test_one_size_has_one_root() -> None:
    with pytest.raises(LogProofError, match="root mismatch at size 4"):
        merkle.check_consistency((), old_size=4, old_root=b"a" * 32, size=4, root=b"b" * 32)


def test_the_largest_tree_needs_few_hashes() -> None:
    asked: list[tuple[int, int]] = []

    def subtree(level: int, index: int) -> bytes:
        asked.append((level, index))
        return b"\x00" * 32

    proof = merkle.prove_inclusion(12345, merkle.MAX_SIZE, subtree)
    assert len(proof) == 63
    assert len(asked) <= 2 * 63
