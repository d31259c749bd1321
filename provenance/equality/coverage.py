"""Whether a declaration fits the models that it is applied to.

A rule that selects nothing is a typing error that would make its limits idle; a tensor that no rule
covers would be judged by nobody. So each alternative must

1. have only rules that select something, unless a rule says that it is ``optional``, and
2. cover every tensor of every weight file that both models have. A file is covered whole by
   ``bytes``, as the initial weights or probes of a rule, or by a rule that judges it through
   outputs, metrics or curves; a tensor by a rule that selects it.

A file that holds no tensors and that no rule selects must be equal byte for byte; it needs no rule.
A weight file that cannot be read is covered by rules that select all of its tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from provenance.equality.model import pairs
from provenance.equality.patterns import selects_file, selects_tensor
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Close,
    Curves,
    EvidenceRule,
    Metrics,
    Rounded,
    Rule,
    TensorRule,
    Tensors,
)
from provenance.errors import MalformedError, PolicyError, UnreadableError, count

if TYPE_CHECKING:
    from provenance.equality.declaration import Alternative, Declaration
    from provenance.equality.model import Model, Pair

_SHOWN: Final = 5
"""Tensors named in a refusal; the rest is counted."""


class Selected(msgspec.Struct, frozen=True):
    """What one rule selects: units by name, and how many tensors of them.

    ``tensors`` is null for a rule that does not select tensors, and where they cannot be read.
    """

    units: tuple[str, ...]
    tensors: int | None


class Selection(msgspec.Struct, frozen=True):
    """What one alternative selects in two models, or in one against itself, rule by rule.

    ``unread`` says why weight files could not be looked into.
    """

    rules: tuple[Selected, ...]
    unread: tuple[str, ...]


def check_coverage(declaration: Declaration, left: Model, right: Model) -> tuple[Selection, ...]:
    """Return what each alternative of *declaration* selects in *left* and *right*.

    Raises:
        PolicyError: a rule selects nothing, or a tensor is covered by no rule.
        ContentError: a file is not the one that was hashed.
    """
    names = _TensorNames(left, right)
    laid = pairs(left, right)
    return tuple(
        _check(alternative, number, laid, names)
        for number, alternative in enumerate(declaration.any)
    )


class _TensorNames:
    """The names of the tensors of each unit, read when a rule asks for some of them."""

    def __init__(self, left: Model, right: Model) -> None:
        self._models = (left, right)
        self._read: dict[str, tuple[frozenset[str], frozenset[str]] | str] = {}

    def of(self, pair: Pair) -> tuple[frozenset[str], frozenset[str]] | str:
        """Return the names on each side, or why they could not be read."""
        if pair.name not in self._read:
            self._read[pair.name] = self._names(pair)
        return self._read[pair.name]

    def _names(self, pair: Pair) -> tuple[frozenset[str], frozenset[str]] | str:
        found = []
        for model, unit in zip(self._models, (pair.left, pair.right), strict=True):
            if unit is None or not unit.weights:
                found.append(frozenset[str]())
                continue
            try:
                with model.open(unit, unit.name) as file:
                    found.append(frozenset(file.tensors))
            except (MalformedError, UnreadableError) as error:
                return str(error)
        return found[0], found[1]


def selects(rule: Rule, pair: Pair) -> bool:
    """Tell whether *rule* selects the files of *pair* as those that it judges."""
    if isinstance(rule, Behaviour | Metrics | Curves):
        return rule.files is not None and _any(rule.files, pair.names)
    if isinstance(rule, Bytes):
        units = [unit for unit in (pair.left, pair.right) if unit is not None]
        files = [name for unit in units for name in (unit.name, *unit.files)]
        return rule.files is None or _any(rule.files, files)
    return pair.weights if rule.files is None else pair.weights and _any(rule.files, pair.names)


def evidence(rule: EvidenceRule, pair: Pair) -> bool:
    """Tell whether *pair* holds what *rule* judges by: outputs, scores or curves."""
    if isinstance(rule, Behaviour):
        patterns = rule.outputs
    elif isinstance(rule, Metrics):
        patterns = rule.samples
    else:
        patterns = rule.sources
    return patterns is not None and _any(patterns, pair.names)


def measures_others(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether *pair* is what the distances of others are measured by.

    Initial weights and probes are such. No tolerance reaches them: they must be equal.
    """
    named = {rule.initial for rule in alternative.all if isinstance(rule, Close)}
    named |= {rule.probes for rule in alternative.all if isinstance(rule, Behaviour)}
    return any(name in named for name in pair.names)


def tensor_rules(alternative: Alternative, pair: Pair) -> tuple[TensorRule, ...]:
    """Return the rules that judge the tensors of *pair*; none if its bytes decide."""
    if measures_others(alternative, pair):
        return ()
    rules = [rule for rule in alternative.all if selects(rule, pair)]
    if any(isinstance(rule, Bytes) for rule in rules):
        return ()
    return tuple(rule for rule in rules if isinstance(rule, Tensors | Rounded | Close))


def judged_by_evidence(alternative: Alternative, pair: Pair) -> bool:
    """Tell whether a rule judges *pair* through what the model does, and none by its bytes."""
    if measures_others(alternative, pair):
        return False
    if any(isinstance(rule, Bytes) and selects(rule, pair) for rule in alternative.all):
        return False
    rules = [rule for rule in alternative.all if isinstance(rule, Behaviour | Metrics | Curves)]
    return any(selects(rule, pair) or evidence(rule, pair) or _runs(rule, pair) for rule in rules)


def _runs(rule: EvidenceRule, pair: Pair) -> bool:
    return isinstance(rule, Behaviour) and rule.run in pair.names


def _any(patterns: tuple[str, ...], names: tuple[str, ...] | list[str]) -> bool:
    return any(selects_file(patterns, name) for name in names)


def _check(
    alternative: Alternative, number: int, laid: tuple[Pair, ...], names: _TensorNames
) -> Selection:
    rules: list[Selected] = []
    for index, rule in enumerate(alternative.all):
        chosen = [pair for pair in laid if _chosen(alternative, rule, pair)]
        found = None
        if isinstance(rule, Tensors | Rounded | Close):
            found = _selected(rule, chosen, names)
        idle = found == 0 or (not chosen and not _from_outside(rule))
        if idle and not _optional(rule):
            what = "tensors" if chosen else "files"
            raise PolicyError(
                f"any[{number}].all[{index}] ({rule.__struct_config__.tag}): selects no {what}",
                mend="correct its patterns, or leave the rule out",
            )
        rules.append(Selected(tuple(pair.name for pair in chosen), found))
    unread = (_check_pair(alternative, number, pair, names) for pair in laid if pair.weights)
    return Selection(tuple(rules), tuple(filter(None, unread)))


def _chosen(alternative: Alternative, rule: Rule, pair: Pair) -> bool:
    if isinstance(rule, Behaviour | Metrics | Curves):
        return evidence(rule, pair) or _runs(rule, pair)
    if isinstance(rule, Tensors | Rounded | Close) and measures_others(alternative, pair):
        return False
    return selects(rule, pair)


def _from_outside(rule: Rule) -> bool:
    """Tell whether what *rule* judges by is not in the files: the recorded curves."""
    return isinstance(rule, Curves) and rule.sources is None


def _optional(rule: Rule) -> bool:
    return isinstance(rule, Tensors | Rounded | Close) and rule.optional


def _selected(rule: TensorRule, chosen: list[Pair], names: _TensorNames) -> int | None:
    """Return how many tensors *rule* selects; None where that cannot be said."""
    total = 0
    for pair in chosen:
        found = names.of(pair)
        if isinstance(found, str):
            return None
        total += sum(selects_tensor(rule.tensors, name) for name in found[0] | found[1])
    return total


def _check_pair(
    alternative: Alternative, number: int, pair: Pair, names: _TensorNames
) -> str | None:
    """Refuse a tensor of *pair* that no rule covers; return why it could not be looked at."""
    covered = (
        measures_others(alternative, pair)
        or judged_by_evidence(alternative, pair)
        or any(isinstance(rule, Bytes) and selects(rule, pair) for rule in alternative.all)
    )
    if covered:
        return None
    rules = tensor_rules(alternative, pair)
    if any(rule.tensors == ("*",) for rule in rules):
        return None
    found = names.of(pair)
    if isinstance(found, str):
        return found
    bare = [
        name
        for name in sorted(found[0] & found[1])
        if not any(selects_tensor(rule.tensors, name) for rule in rules)
    ]
    if bare:
        more = f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else ""
        raise PolicyError(
            f"any[{number}]: no rule covers {count(len(bare), 'tensor')}:"
            f" {', '.join(bare[:_SHOWN])}{more}",
            where=pair.name,
            mend="add a rule for them",
        )
    return None
