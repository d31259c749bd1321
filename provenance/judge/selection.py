"""Which rule judges which pair of units, by what; and the arrays of a pair, matched by name.

A pair is judged by its bytes, by its tensors, or through what the model does (*evidence*). As a
*reference* (initial weights, probes) it must be equal, and no tolerance reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Final, Literal

from provenance.equality.declaration import Alternative
from provenance.equality.patterns import selects_file, selects_tensor
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Curves,
    EvidenceRule,
    Metrics,
    Rule,
    TensorRule,
    takes,
    takes_all,
)
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.loaders.table import folded, table
from provenance.measure.findings import Finding, Judged, differs, unlike
from provenance.weights.beside import metadata_differences
from provenance.weights.pairs import Pair, SideBySide
from provenance.weights.view import TensorFile

_ARRAYS: Final = ("*.npy", "*.npz")
"""How the table names arrays that a loader opens only where something names them."""


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
    return _by_its_name(_evidence(rule)[0], pair)


def runs(rule: Rule, pair: Pair) -> bool:
    """Tell whether *pair* is a model that *rule* runs."""
    return isinstance(rule, Behaviour) and rule.run in pair.names


By = Literal["bytes", "tensors", "run", "reports", "evidence", "exceptions"]


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges a pair under one alternative."""

    by: By
    """Its bytes, as a rule asks or as of initial weights or probes; else rules about its tensors; a
    rule that runs it; what a builder reports, where that is all that speaks for weights in it; as
    evidence alone; or exceptions, where it must be equal without them."""
    rules: tuple[TensorRule, ...]
    """Those that judge its tensors."""
    evidence: tuple[Sequence[str], ...]
    """The patterns of the arrays in it that rules take for outputs or scores."""
    alone: bool
    """Whether these are nothing else: no loader takes the file for anything."""
    whole: bool
    """Whether all tensors are covered, whatever their names; or it holds no weights."""

    def judges(self, rule: TensorRule, name: str, rank: int) -> bool:
        """Tell whether *rule* judges the tensor *name*: without ``files``, no mere evidence."""
        return takes(rule, name, rank) and (rule.files is not None or not self.leaves(name))

    def leaves(self, name: str) -> bool:
        """Tell whether the array *name* is evidence and nothing else."""
        return self.alone and self._is_evidence(name)

    def covers(self, name: str, rank: int) -> bool:
        """Tell whether something judges the tensor *name*."""
        judged = any(self.judges(rule, name, rank) for rule in self.rules)
        return judged or ((self.alone or not self.rules) and self._is_evidence(name))

    def _is_evidence(self, name: str) -> bool:
        return any(selects_tensor(patterns, name) for patterns in self.evidence)


def judges_of(sides: SideBySide, alternative: Alternative, pair: Pair) -> Judges:
    """Return what judges *pair* of *sides* under *alternative*."""
    every = alternative.all
    fixed = {getattr(rule, key, None) for rule in every for key in ("initial", "probes")}
    reference = not fixed.isdisjoint(pair.names)
    chosen = [it for it in every if selects(it, pair)]
    exact = reference or any(isinstance(it, Bytes) for it in chosen)
    through = any(isinstance(it, EvidenceRule) for it in chosen)
    rules = [it for it in chosen if isinstance(it, TensorRule) and not reference]
    holding = [it for it in every if isinstance(it, EvidenceRule) and holds_evidence(it, pair)]
    evidence = tuple(_evidence(it)[1] for it in holding)
    alone = bool(holding) and all(_is_nothing_else(it, pair, sides) for it in holding)
    whole = exact or any(map(takes_all, rules))
    if alone and rules and not isinstance(ranks := sides.ranks(pair), str):
        names = ranks[0] | ranks[1]
        if all(any(selects_tensor(it, name) for it in evidence) for name in names):
            rules = [it for it in rules if it.files is not None]
    asked = any(runs(it, pair) for it in every)
    one_name = len(pair.unit_names) == 1  # weights under two that no rule selects are a difference
    weights = pair.weights and not pair.state
    kinds: dict[By, bool] = {
        "bytes": exact,
        "tensors": bool(rules),
        "run": asked,
        "reports": weights and (through or (bool(holding) and not alone)),
        "evidence": alone,
    }
    return Judges(
        by=next((by for by, judged in kinds.items() if judged), "exceptions"),
        rules=tuple(rules),
        evidence=evidence,
        alone=alone,
        whole=whole or not (rules or (weights and one_name and not asked and not through)),
    )


_HELD: Final[Mapping[type, tuple[str, str]]] = {
    Behaviour: ("outputs", "tensors"),
    Metrics: ("samples", "metrics"),
    Curves: ("sources", ""),
}


def _evidence(rule: EvidenceRule) -> tuple[Sequence[str], Sequence[str]]:
    """Return the patterns of the files that hold what *rule* judges by, and of arrays in them."""
    files, arrays = _HELD[type(rule)]
    return getattr(rule, files) or (), getattr(rule, arrays, ())


@cache
def _stems() -> frozenset[str]:
    """Return the stems of the weights for which loaders look by their whole name."""
    opens = (each for loader in table().loader for each in loader.opens)
    known = (each.file for each in opens if each.role == "weights" and "*" not in each.file)
    return frozenset(name.rpartition("/")[2].partition(".")[0] for name in known)


def _is_nothing_else(rule: EvidenceRule, pair: Pair, sides: SideBySide) -> bool:
    """Tell whether *pair*, in which *rule* finds what it judges by, is nothing to a loader.

    Of the formats of weights only NumPy's can be: *rule* must name the file, and nobody else may.
    """
    last = PurePosixPath(pair.name).name
    if pair.weights:
        exact = [it for it in _evidence(rule)[0] if it.rpartition("/")[2] == last]
        if pair.state or last.partition(".")[0] in _stems() or not _any(exact, (pair.name,)):
            return False
    opened = table().opened_by(pair.name).values()
    named = (side.named for side in (sides.left, sides.right))
    return all(each.file in _ARRAYS for each in opened) and not any(
        names is None or folded(pair.name) in names for names in named
    )


def _by_its_name(patterns: Sequence[str], pair: Pair) -> bool:
    """Tell whether *patterns* select *pair*, whose sides must have the same name.

    Otherwise a rebuilder could rename weights so that no rule for weights selects them.
    """
    return len(pair.unit_names) == 1 and _any(patterns, pair.names)


def _any(patterns: Sequence[str], names: Sequence[str]) -> bool:
    return any(selects_file(patterns, name) for name in names)


def each_in_both(
    sides: SideBySide, chosen: Callable[[Pair], bool], judge: Callable[[Pair], Judged]
) -> Judged:
    """Return what *judge* says of each pair that is *chosen*, and what one side alone has.

    What it cannot read is missing.
    """
    pairs = [*filter(chosen, sides.pairs)]
    judged = [Judged(files_differ(pair, sides)) for pair in pairs if pair.both is None]
    for pair in pairs:
        if pair.both is None:
            continue
        try:
            judged.append(judge(pair))
        except (MalformedError, UnreadableError, UsageError) as error:
            judged.append(Judged((), (str(error),)))
    return Judged.merged(judged)


def files_differ(pair: Pair, sides: SideBySide) -> tuple[Finding, ...]:
    """Return a finding for each file of *pair* that is not the same on both sides."""
    findings = []
    left, right = sides.left, sides.right
    for name in pair.files:
        if (both := name in left.files and name in right.files) and sides.equal_files(name, name):
            continue
        one, two = (it.digest(name) if name in it.files else None for it in (left, right))
        measure = "bytes" if both else "presence"
        findings.append(Finding(file=name, measure=measure, held=False, left=one, right=two))
    return tuple(findings)


def matched(
    file: str, patterns: Sequence[str], left: TensorFile, right: TensorFile
) -> tuple[list[str], list[Finding]]:
    """Return the arrays that *patterns* select, and findings about those that are not comparable.

    Comparable arrays are on both sides and have the same type and shape. What one side alone has is
    a finding, whatever selects it.
    """
    alike: list[str] = []
    against = [differs(file, "metadata", it) for it in metadata_differences(left, right)]
    for name in {**left.tensors, **right.tensors}:
        one, other = left.tensors.get(name), right.tensors.get(name)
        if one is not None and other is not None and not selects_tensor(patterns, name):
            continue
        if one is not None and other is not None and one.is_like(other):
            alike.append(name)
        else:
            against.append(unlike(file, name, one, other))
    return alike, against
