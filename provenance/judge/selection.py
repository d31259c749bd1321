"""Which rule judges which pair of units, by what.

A pair is judged by its bytes, by its tensors, or through what the model does (*evidence*); as a
measuring rod (initial weights, probes) it must be equal, and no tolerance reaches it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provenance.equality.patterns import selects_file
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Close,
    EvidenceRule,
    Metrics,
    Rule,
    TensorRule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.equality.declaration import Alternative
    from provenance.weights.model import Pair


def selects(rule: Rule, pair: Pair) -> bool:
    """Tell whether *rule* selects the files of *pair* as those that it judges.

    What is stricter selects a pair by either name; what judges weights through evidence alone, only
    where both sides are called alike.
    """
    if isinstance(rule, EvidenceRule):
        return rule.files is not None and pair.weights and _by_its_name(rule.files, pair)
    if isinstance(rule, Bytes):
        return rule.files is None or _any(rule.files, (*pair.names, *pair.files))
    return pair.weights and (rule.files is None or _any(rule.files, pair.names))


def holds_evidence(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* holds what *rule* judges by: outputs, scores or curves."""
    if isinstance(rule, Behaviour):
        patterns = rule.outputs
    elif isinstance(rule, Metrics):
        patterns = rule.samples
    else:
        patterns = rule.sources
    return patterns is not None and _by_its_name(patterns, pair)


def is_measuring_rod(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is what the distances of others are measured by.

    Initial weights and probes are such. No tolerance reaches them: they must be equal.
    """
    named = {rule.initial for rule in alternative.all if isinstance(rule, Close)}
    named |= {rule.probes for rule in alternative.all if isinstance(rule, Behaviour)}
    return any(name in named for name in pair.names)


def tensor_rules(alternative: Alternative, pair: Pair) -> tuple[TensorRule, ...]:
    """Return the rules that judge the tensors of *pair*; none if its bytes decide."""
    if is_measuring_rod(alternative, pair) or _by_bytes(alternative, pair):
        return ()
    return tuple(
        rule
        for rule in alternative.all
        if isinstance(rule, TensorRule) and judges_tensors(alternative, rule, pair)
    )


def judges_tensors(alternative: Alternative, rule: TensorRule, pair: Pair) -> bool:
    """Tell whether *rule* judges the tensors of *pair*.

    One for every weight file leaves out what holds evidence for another rule; one that names the
    file does not.
    """
    if rule.files is None and any(
        isinstance(other, EvidenceRule) and holds_evidence(other, pair) for other in alternative.all
    ):
        return False
    return selects(rule, pair)


def judged_by_evidence(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is judged through what the model does and by nothing else."""
    if is_measuring_rod(alternative, pair) or _by_bytes(alternative, pair):
        return False
    if tensor_rules(alternative, pair):
        return False
    rules = [rule for rule in alternative.all if isinstance(rule, EvidenceRule)]
    return any(
        selects(rule, pair) or holds_evidence(rule, pair) or runs(rule, pair) for rule in rules
    )


def _by_bytes(alternative: Alternative, pair: Pair) -> bool:
    return any(isinstance(rule, Bytes) and selects(rule, pair) for rule in alternative.all)


def runs(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* is a model that *rule* runs."""
    return isinstance(rule, Behaviour) and rule.run in pair.names


def _by_its_name(patterns: Sequence[str], pair: Pair) -> bool:
    """Tell whether *patterns* select *pair*, whose sides have one name.

    A pair of two names is never evidence: a rebuilder could rename weights to what no rule for
    weights selects.
    """
    return len(pair.unit_names) == 1 and _any(patterns, pair.names)


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(selects_file(patterns, name) for name in names)
