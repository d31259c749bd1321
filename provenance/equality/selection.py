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
    from provenance.equality.model import Pair


def selects(rule: Rule, pair: Pair) -> bool:
    """Tell whether *rule* selects the files of *pair* as those that it judges."""
    if isinstance(rule, EvidenceRule):
        return rule.files is not None and _any(rule.files, pair.names)
    if isinstance(rule, Bytes):
        units = [unit for unit in (pair.left, pair.right) if unit is not None]
        files = [name for unit in units for name in (unit.name, *unit.files)]
        return rule.files is None or _any(rule.files, files)
    return pair.weights if rule.files is None else pair.weights and _any(rule.files, pair.names)


def holds_evidence(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* holds what *rule* judges by: outputs, scores or curves."""
    if isinstance(rule, Behaviour):
        patterns = rule.outputs
    elif isinstance(rule, Metrics):
        patterns = rule.samples
    else:
        patterns = rule.sources
    return patterns is not None and _any(patterns, pair.names)


def is_measuring_rod(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is what the distances of others are measured by.

    Initial weights and probes are such. No tolerance reaches them: they must be equal.
    """
    named = {rule.initial for rule in alternative.all if isinstance(rule, Close)}
    named |= {rule.probes for rule in alternative.all if isinstance(rule, Behaviour)}
    return any(name in named for name in pair.names)


def tensor_rules(alternative: Alternative, pair: Pair) -> tuple[TensorRule, ...]:
    """Return the rules that judge the tensors of *pair*; none if its bytes decide."""
    if is_measuring_rod(alternative, pair):
        return ()
    rules = [rule for rule in alternative.all if selects(rule, pair)]
    if any(isinstance(rule, Bytes) for rule in rules):
        return ()
    return tuple(rule for rule in rules if isinstance(rule, TensorRule))


def judged_by_evidence(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether a rule judges *pair* through what the model does, and none by its bytes."""
    if is_measuring_rod(alternative, pair):
        return False
    if any(isinstance(rule, Bytes) and selects(rule, pair) for rule in alternative.all):
        return False
    rules = [rule for rule in alternative.all if isinstance(rule, EvidenceRule)]
    return any(
        selects(rule, pair) or holds_evidence(rule, pair) or runs(rule, pair) for rule in rules
    )


def runs(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* is a model that *rule* runs."""
    return isinstance(rule, Behaviour) and rule.run in pair.names


def _any(patterns: tuple[str, ...], names: Sequence[str]) -> bool:
    return any(selects_file(patterns, name) for name in names)
