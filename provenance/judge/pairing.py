"""The pairs that a rule about what models do judges by; their arrays, matched by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provenance.equality.patterns import selects_tensor
from provenance.judge.selection import holds_evidence
from provenance.measure.findings import Finding, Judged, unlike

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from provenance.equality.rules import EvidenceRule
    from provenance.weights.model import Pair, SideBySide
    from provenance.weights.view import TensorFile


def evidence_pairs(rule: EvidenceRule, sides: SideBySide) -> tuple[list[Pair], Judged]:
    """Return the pairs that *rule* judges by, and what is against it: those of one side only."""
    return in_both((pair for pair in sides.pairs if holds_evidence(rule, pair)), sides)


def in_both(pairs: Iterable[Pair], sides: SideBySide) -> tuple[list[Pair], Judged]:
    """Return those of *pairs* that both models have, and the findings about the others."""
    found, absent = [], []
    for pair in pairs:
        if pair.both is None:
            absent.append(_absent(pair, sides))
        else:
            found.append(pair)
    return found, Judged(tuple(absent))


def _absent(pair: Pair, sides: SideBySide) -> Finding:
    left, right = (
        None if unit is None else model.files[unit.main].sha256
        for model, unit in ((sides.left, pair.left), (sides.right, pair.right))
    )
    return Finding(file=pair.name, measure="presence", held=False, left=left, right=right)


def matched(
    file: str, patterns: Sequence[str], left: TensorFile, right: TensorFile
) -> tuple[list[str], list[Finding]]:
    """Return the arrays that *patterns* select and both sides have alike, and what is against it.

    An array on one side only, or of another type or shape, is against any rule.
    """
    alike, against = [], []
    for name in {**left.tensors, **right.tensors}:
        if not selects_tensor(patterns, name):
            continue
        one, other = left.tensors.get(name), right.tensors.get(name)
        if one is not None and other is not None and one.is_like(other):
            alike.append(name)
        else:
            against.append(unlike(file, name, one, other))
    return alike, against
