"""Which rule judges which pair of units, by what; and the arrays of a pair, matched by name.

A pair is judged by its bytes, by its tensors, or through what the model does (*evidence*). As a
*reference* (initial weights, probes) it must be equal, and no tolerance reaches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from provenance.equality.patterns import selects_file, selects_tensor
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Close,
    EvidenceRule,
    Metrics,
    TensorRule,
    takes,
)
from provenance.loaders.table import table
from provenance.measure.findings import Finding, Judged, differs, unlike
from provenance.weights.metadata import metadata_differences

if TYPE_CHECKING:
    from provenance.equality.declaration import Alternative
    from provenance.equality.rules import Rule
    from provenance.weights.model import Pair, SideBySide
    from provenance.weights.view import TensorFile

_ARRAYS: Final = ("*.npy", "*.npz")
"""How the table names arrays that a loader opens only where something names them."""

_STEMS: Final = frozenset(
    {
        "model", "pytorch_model", "tf_model", "flax_model", "diffusion_pytorch_model",
        "adapter_model",
    }
)  # fmt: skip
"""Stems of weight files for which loaders look, whatever their format."""


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
    return _by_its_name(_patterns(rule), pair)


@dataclass(frozen=True, slots=True)
class Judges:
    """What judges a pair under one alternative."""

    exact: bool
    """It must be equal byte for byte: by a rule, or as initial weights or probes."""
    rules: tuple[TensorRule, ...]
    """Those that judge its tensors."""
    evidence: tuple[Sequence[str], ...]
    """Of each rule that finds outputs, scores or curves in it, the patterns of their names."""
    alone: bool
    """Whether what these select is nothing else: no loader takes it for weights."""
    asked: bool
    """Whether it is run."""
    through: bool
    """Whether a rule judges it through numbers that are elsewhere."""
    weights: bool
    """Whether it holds weights, and not the state of a training."""

    def judges(self, rule: TensorRule, name: str, rank: int) -> bool:
        """Tell whether *rule* judges the tensor *name*: without ``files``, no mere evidence."""
        return takes(rule, name, rank) and (rule.files is not None or not self.leaves(name))

    def leaves(self, name: str) -> bool:
        """Tell whether the array *name* is evidence and nothing else."""
        return self.alone and self._is_evidence(name)

    def covers(self, name: str, rank: int) -> bool:
        """Tell whether something judges the tensor *name*."""
        if any(self.judges(rule, name, rank) for rule in self.rules):
            return True
        return (self.alone or not self.rules) and self._is_evidence(name)

    def _is_evidence(self, name: str) -> bool:
        return any(selects_tensor(patterns, name) for patterns in self.evidence)

    @property
    def looks(self) -> bool:
        """Whether the weights themselves are looked at."""
        return self.exact or bool(self.rules) or self.asked

    @property
    def reports(self) -> bool:
        """Whether what a builder reports is all that speaks for weights in it."""
        reported = self.through or (bool(self.evidence) and not self.alone)
        return self.weights and reported and not self.looks

    @property
    def beside(self) -> bool:
        """Whether it is a side file, which must be equal but for what is excepted."""
        return not (self.looks or self.reports or (self.evidence and self.alone))


def judges_of(alternative: Alternative, pair: Pair, sides: SideBySide) -> Judges:
    """Return what judges *pair* of *sides* under *alternative*."""
    rules = alternative.all
    references = {rule.initial for rule in rules if isinstance(rule, Close)}
    references |= {rule.probes for rule in rules if isinstance(rule, Behaviour)}
    reference = any(name in references for name in pair.names)
    holding = [it for it in rules if isinstance(it, EvidenceRule) and holds_evidence(it, pair)]
    found = Judges(
        exact=reference or any(isinstance(it, Bytes) and selects(it, pair) for it in rules),
        rules=tuple(
            it for it in rules if isinstance(it, TensorRule) and selects(it, pair) and not reference
        ),
        evidence=tuple(map(_arrays, holding)),
        alone=bool(holding) and all(_is_nothing_else(it, pair, sides) for it in holding),
        asked=any(runs(it, pair) for it in rules),
        through=any(isinstance(it, EvidenceRule) and selects(it, pair) for it in rules),
        weights=pair.weights and not pair.state,
    )
    if found.alone and found.rules and not isinstance(ranks := sides.ranks(pair), str):
        every = (ranks[0] | ranks[1]).items()
        judging = (it for it in found.rules if any(found.judges(it, *each) for each in every))
        found = replace(found, rules=tuple(judging))
    return found


def runs(rule: Rule, pair: Pair) -> bool:
    """Tell whether *pair* is a model that *rule* runs."""
    return isinstance(rule, Behaviour) and rule.run in pair.names


def _patterns(rule: EvidenceRule) -> Sequence[str]:
    """Return the patterns of the files that hold what *rule* judges by."""
    if isinstance(rule, Behaviour):
        return rule.outputs or ()
    return rule.samples if isinstance(rule, Metrics) else rule.sources or ()


def _arrays(rule: EvidenceRule) -> Sequence[str]:
    """Return the patterns of the arrays that *rule* judges by; curves are in no arrays."""
    if isinstance(rule, Behaviour):
        return rule.tensors
    return rule.metrics if isinstance(rule, Metrics) else ()


def _is_nothing_else(rule: EvidenceRule, pair: Pair, sides: SideBySide) -> bool:
    """Tell whether *pair*, in which *rule* finds what it judges by, is nothing to a loader.

    Of the formats of weights only NumPy's can be: *rule* must name the file, and nobody else may.
    """
    last = PurePosixPath(pair.name).name
    if pair.state or (pair.weights and last.partition(".")[0] in _STEMS):
        return False
    exact = (it for it in _patterns(rule) if it.rpartition("/")[2] == last)
    if pair.weights and not any(selects_file([it], pair.name) for it in exact):
        return False
    opened = table().opened_by(pair.name).values()
    named = (side.named for side in (sides.left, sides.right))
    return all(each.file in _ARRAYS for each in opened) and not any(
        names is None or pair.name.casefold() in names for names in named
    )


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
    absent = (it for pair in every if pair.both is None for it in files_differ(pair, sides))
    return [pair for pair in every if pair.both is not None], Judged(tuple(absent))


def files_differ(pair: Pair, sides: SideBySide) -> tuple[Finding, ...]:
    """Return a finding for each file of *pair* that is not the same on both sides."""
    findings = []
    left, right = sides.left, sides.right
    for name in pair.files:
        if (both := name in left.files and name in right.files) and sides.equal_files(name, name):
            continue
        digests = [each.digest(name) if name in each.files else None for each in (left, right)]
        measure = "bytes" if both else "presence"
        findings.append(
            Finding(file=name, measure=measure, held=False, left=digests[0], right=digests[1])
        )
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
