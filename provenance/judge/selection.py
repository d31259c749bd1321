"""Which rule judges which pair of units, by what; and the arrays of a pair, matched by name.

A pair is judged by its bytes, by its tensors, or through what the model does (*evidence*). As a
*reference* (initial weights, probes) it must be equal, and no tolerance reaches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from provenance.equality.patterns import selects_file, selects_tensor
from provenance.equality.rules import Behaviour, Bytes, Close, EvidenceRule, Metrics, TensorRule
from provenance.measure.findings import Finding, Judged, unlike
from provenance.weights.metadata import metadata_differences

if TYPE_CHECKING:
    from provenance.equality.declaration import Alternative
    from provenance.equality.rules import Rule
    from provenance.weights.model import Pair, SideBySide
    from provenance.weights.view import TensorFile


def selects(rule: Rule, pair: Pair) -> bool:
    """Tell whether *rule* selects the files of *pair* to judge them.

    Stricter rules select a pair by either name; one that judges weights by evidence alone needs
    both sides to have the same name.
    """
    if isinstance(rule, EvidenceRule):
        return rule.files is not None and pair.weights and _by_its_name(rule.files, pair)
    if isinstance(rule, Bytes):
        return rule.files is None or _any(rule.files, (*pair.names, *pair.files))
    if rule.files is None:
        return pair.weights and not pair.state
    return pair.weights and _any(rule.files, pair.names)


def holds_evidence(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* holds what *rule* judges by: outputs, scores or curves."""
    if isinstance(rule, Behaviour):
        return rule.outputs is not None and _by_its_name(rule.outputs, pair)
    patterns = rule.samples if isinstance(rule, Metrics) else rule.sources
    return patterns is not None and _by_its_name(patterns, pair)


def is_reference(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is the initial weights or the probes of a rule, which must be equal."""
    named = {rule.initial for rule in alternative.all if isinstance(rule, Close)}
    named |= {rule.probes for rule in alternative.all if isinstance(rule, Behaviour)}
    return any(name in named for name in pair.names)


def tensor_rules(alternative: Alternative, pair: Pair) -> tuple[TensorRule, ...]:
    """Return the rules that judge the tensors of *pair*; none if its bytes are judged."""
    if is_reference(alternative, pair) or by_bytes(alternative, pair):
        return ()
    return tuple(
        rule
        for rule in alternative.all
        if isinstance(rule, TensorRule) and judges_tensors(alternative, rule, pair)
    )


def judges_tensors(alternative: Alternative, rule: TensorRule, pair: Pair) -> bool:
    """Tell whether *rule* judges the tensors of *pair*.

    A rule without ``files`` does not judge what is evidence for another rule.
    """
    evidence = [other for other in alternative.all if isinstance(other, EvidenceRule)]
    if rule.files is None and any(holds_evidence(other, pair) for other in evidence):
        return False
    return selects(rule, pair)


def judged_by_evidence(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is judged by evidence alone."""
    if is_reference(alternative, pair) or by_bytes(alternative, pair):
        return False
    rules = [rule for rule in alternative.all if isinstance(rule, EvidenceRule)]
    return not tensor_rules(alternative, pair) and any(
        selects(rule, pair) or holds_evidence(rule, pair) or runs(rule, pair) for rule in rules
    )


def by_bytes(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether a rule judges *pair* by its bytes."""
    return any(isinstance(rule, Bytes) and selects(rule, pair) for rule in alternative.all)


def runs(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* is a model that *rule* runs."""
    return isinstance(rule, Behaviour) and rule.run in pair.names


def _by_its_name(patterns: Sequence[str], pair: Pair) -> bool:
    """Tell whether *patterns* select *pair*, whose sides must have the same name.

    Otherwise a rebuilder could rename weights so that no rule for weights selects them.
    """
    return len(pair.unit_names) == 1 and _any(patterns, pair.names)


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(selects_file(patterns, name) for name in names)


def evidence_pairs(rule: EvidenceRule, sides: SideBySide) -> tuple[list[Pair], Judged]:
    """Return the pairs that *rule* judges by, and findings about those that one side lacks."""
    return in_both((pair for pair in sides.pairs if holds_evidence(rule, pair)), sides)


def in_both(pairs: Iterable[Pair], sides: SideBySide) -> tuple[list[Pair], Judged]:
    """Return the *pairs* that both models have, and the findings about the others."""
    every = list(pairs)
    absent = tuple(_absent(pair, sides) for pair in every if pair.both is None)
    return [pair for pair in every if pair.both is not None], Judged(absent)


def _absent(pair: Pair, sides: SideBySide) -> Finding:
    left, right = (
        None if unit is None else model.digest(unit.main)
        for model, unit in ((sides.left, pair.left), (sides.right, pair.right))
    )
    return Finding(file=pair.name, measure="presence", held=False, left=left, right=right)


def matched(
    file: str, patterns: Sequence[str], left: TensorFile, right: TensorFile
) -> tuple[list[str], list[Finding]]:
    """Return the arrays that *patterns* select, and findings about those that are not comparable.

    Comparable arrays are on both sides and have the same type and shape.
    """
    alike: list[str] = []
    against = [
        Finding(file=file, measure=f"metadata: {it.key}", held=False, left=mine, right=theirs)
        for it in metadata_differences(left, right)
        for mine, theirs in [it.shown]
    ]
    for name in {**left.tensors, **right.tensors}:
        if not selects_tensor(patterns, name):
            continue
        one, other = left.tensors.get(name), right.tensors.get(name)
        if one is not None and other is not None and one.is_like(other):
            alike.append(name)
        else:
            against.append(unlike(file, name, one, other))
    return alike, against
