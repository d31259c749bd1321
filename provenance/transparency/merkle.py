"""The Merkle tree of a transparency log (RFC 6962, section 2.1; RFC 9162, section 2.1; SHA-256).

The hash over n leaves is that of two children, split at the largest power of two below n. Prefixes
keep a leaf from passing for an inner node. Sizes and indices count leaves, from 0.

Roots and proofs are made by O(log n) calls of a :data:`Subtree`. The checks need only their
arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from provenance.errors import LogProofError

HASH_BYTES = 32
"""Length of every hash here, in bytes."""

_ALL_LEFT = -1
"""The position every bit of which is set."""

MAX_SIZE = 2**63 - 1
"""Largest tree: sizes are signed 64-bit integers in every peer (Go's sumdb, Rekor's protobuf)."""

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree without leaves."""

Subtree = Callable[[int, int], bytes]
"""``subtree(level, index)`` is the hash over the 2^level leaves that begin at index * 2^level."""


def hash_leaf(entry: bytes) -> bytes:
    """Return the leaf hash of *entry*."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """Return the hash of the inner node over *left* and *right*."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """Return the root over *hashes*, each the hash of a leaf or of subtrees of one height.

    Pairing from the left and carrying an odd last hash up gives the same tree as splitting at the
    largest power of two.
    """
    if not hashes:
        return EMPTY_ROOT
    row = list(hashes)
    while len(row) > 1:
        paired = [hash_children(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = paired + row[2 * len(paired) :]
    return row[0]


def prove_inclusion(index: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """Return the audit path of leaf *index* in the tree of *size* (RFC 6962, section 2.1.1)."""
    _check_index(index, size)
    return _descend(index, size, subtree, to_leaf=True)[1]


def check_inclusion(
    leaf: bytes, proof: Sequence[bytes], *, index: int, size: int, root: bytes
) -> None:
    """Return if *proof* leads from the leaf hash *leaf* at *index* to *root* of the tree of *size*.

    Equivalent to RFC 9162, section 2.1.3.2. Below the node where the paths of leaf *index* and of
    the last leaf meet, the bits of *index* give the side of each sibling; above, all are left.
    """
    _check_index(index, size)
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    _check_length(proof, inner + border)
    if _climb(_climb(leaf, proof[:inner], index), proof[inner:], _ALL_LEFT) != root:
        raise LogProofError("the inclusion proof leads to another root")


def prove_consistency(old_size: int, size: int, subtree: Subtree) -> tuple[bytes, ...]:
    """Return the proof that the tree of *size* extends that of *old_size* (RFC 6962, 2.1.2)."""
    _check_growth(old_size, size)
    if old_size in (0, size):
        return ()
    start, path = _descend(old_size - 1, size, subtree, to_leaf=False)
    # The verifier has this subtree's hash already where it is the whole old tree.
    return (root_between(start, old_size, subtree), *path) if start else path


def check_consistency(
    proof: Sequence[bytes], *, old_size: int, old_root: bytes, size: int, root: bytes
) -> None:
    """Return if *proof* shows that the tree of *size* begins with that of *old_size*.

    Equivalent to RFC 9162, section 2.1.4.2. *proof* begins with the largest complete subtree at the
    end of the old tree; from there it gives the old root by its left siblings, the new one by all.
    """
    _check_growth(old_size, size)
    if old_size in (0, size):
        _check_length(proof, 0)
        if old_root != (EMPTY_ROOT if old_size == 0 else root):
            raise LogProofError(f"root mismatch at size {old_size}")
        return
    last = old_size - 1
    shift = (last ^ old_size).bit_length() - 1  # height of the subtree that ends the old tree
    inner = (last ^ (size - 1)).bit_length() - shift
    border = (last >> (inner + shift)).bit_count()
    given = 0 if old_size == 1 << shift else 1
    _check_length(proof, given + inner + border)
    seed = proof[0] if given else old_root
    climb, left = proof[given : given + inner], proof[given + inner :]
    position = last >> shift
    if _climb(_climb(seed, climb, position, only_left=True), left, _ALL_LEFT) != old_root:
        raise LogProofError("the consistency proof leads to another root of the older tree")
    if _climb(_climb(seed, climb, position), left, _ALL_LEFT) != root:
        raise LogProofError("the consistency proof leads to another root of the newer tree")


def _climb(seed: bytes, proof: Sequence[bytes], position: int, *, only_left: bool = False) -> bytes:
    """Hash *seed* with each hash of *proof*: on its left where that bit of *position* is set."""
    result = seed
    for level, other in enumerate(proof):
        if position >> level & 1:
            result = hash_children(other, result)
        elif not only_left:
            result = hash_children(result, other)
    return result


def _descend(
    last: int, size: int, subtree: Subtree, *, to_leaf: bool
) -> tuple[int, tuple[bytes, ...]]:
    """Return the first leaf of a node whose last leaf is *last*, and the path from it to the root.

    The node is the leaf itself if *to_leaf*, else the largest one.
    """
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1 if to_leaf else end != last + 1:
        middle = start + _split(end - start)
        if last < middle:
            path.append(root_between(middle, end, subtree))
            end = middle
        else:
            path.append(root_between(start, middle, subtree))
            start = middle
    return start, tuple(reversed(path))


def root_between(start: int, end: int, subtree: Subtree) -> bytes:
    """Return MTH(D[start:end]), not empty, where a larger tree splits at *start*."""
    if (end - start).bit_count() == 1:
        level = (end - start).bit_length() - 1
        return subtree(level, start >> level)
    middle = start + _split(end - start)
    return hash_children(root_between(start, middle, subtree), root_between(middle, end, subtree))


def _split(count: int) -> int:
    """Return the largest power of two below *count*, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size <= MAX_SIZE:
        raise LogProofError(f"a tree of size {size} has no leaf {index}")


def _check_growth(old_size: int, size: int) -> None:
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise LogProofError(f"a tree of size {size} cannot follow one of size {old_size}")


def _check_length(proof: Sequence[bytes], length: int) -> None:
    if len(proof) != length:
        raise LogProofError(f"the proof has {len(proof)} hashes, and needs {length}")
