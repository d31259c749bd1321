"""Whether a declaration fits the models that it is applied to.

A rule that selects nothing is a typing error, and its limits would never be applied; a tensor that
no rule covers would not be judged. So each alternative must

1. have only rules that select something, unless a rule says that it is ``optional``, and
2. cover every tensor of every weight file that both models have. A file is covered whole by
   ``bytes``, as the initial weights or probes of a rule, or by a rule that judges it through
   outputs, metrics or curves; a tensor by a rule that selects it.

A file that holds no tensors and that no rule selects must be equal byte for byte; it needs no rule.
A weight file that cannot be read is covered by rules that select all of its tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import msgspec

from provenance.equality.declaration import place
from provenance.equality.patterns import selects_tensor
from provenance.equality.rules import Close, Curves, EvidenceRule, Rule, TensorRule
from provenance.errors import MalformedError, PolicyError, UnreadableError, count
from provenance.judge.selection import (
    by_bytes,
    holds_evidence,
    is_reference,
    judged_by_evidence,
    judges_tensors,
    runs,
    selects,
    tensor_rules,
)

if TYPE_CHECKING:
    from provenance.equality.declaration import Alternative, Declaration
    from provenance.weights.model import Pair, SideBySide

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


def check_coverage(declaration: Declaration, sides: SideBySide) -> tuple[Selection, ...]:
    """Return what each alternative of *declaration* selects in two models.

    Raises:
        PolicyError: a rule selects nothing, or no rule covers a tensor.
        ContentError: a file is not the one that was hashed.
    """
    names = cache(partial(_tensor_names, sides))
    return tuple(
        _check(declaration.any, number, sides.pairs, names)
        for number in range(len(declaration.any))
    )


_Names = Callable[["Pair"], tuple[frozenset[str], frozenset[str]] | str]
"""The names of a pair's tensors on each side, or why they could not be read."""


def _tensor_names(sides: SideBySide, pair: Pair) -> tuple[frozenset[str], frozenset[str]] | str:
    found = []
    for model, unit in ((sides.left, pair.left), (sides.right, pair.right)):
        if unit is None or not unit.weights:
            found.append(frozenset[str]())
            continue
        try:
            with model.open(unit, unit.name) as file:
                found.append(frozenset(file.tensors))
        except (MalformedError, UnreadableError) as error:
            return str(error)
    return found[0], found[1]


def _check(
    alternatives: tuple[Alternative, ...], number: int, pairs: tuple[Pair, ...], names: _Names
) -> Selection:
    alternative = alternatives[number]
    rules: list[Selected] = []
    for index, rule in enumerate(alternative.all):
        chosen = [pair for pair in pairs if _chosen(alternative, rule, pair)]
        found = None
        if isinstance(rule, TensorRule):
            found = _selected(rule, chosen, names)
        recorded = isinstance(rule, Curves) and rule.sources is None  # is in no file
        optional = isinstance(rule, TensorRule) and rule.optional
        if (found == 0 or not (chosen or recorded)) and not optional:
            what = "tensors" if chosen else "files"
            raise PolicyError(
                f"{place(alternatives, number, index)} selects no {what}",
                hint="correct its patterns, or leave the rule out",
            )
        if isinstance(rule, Close) and rule.initial is not None:
            _check_initial(rule.initial, pairs, place(alternatives, number, index))
        rules.append(Selected(tuple(pair.name for pair in chosen), found))
    who = f"no rule of alternative {number + 1}" if len(alternatives) > 1 else "no rule"
    unread = (_check_pair(alternative, who, pair, names) for pair in pairs if pair.weights)
    return Selection(tuple(rules), tuple(filter(None, unread)))


def _check_initial(initial: str, pairs: tuple[Pair, ...], where: str) -> None:
    if not any(initial in pair.names for pair in pairs):
        raise PolicyError(
            f"{where} measures from {initial!r}, which is not a file of the model",
            hint="save the initial weights beside the others, or set relative_to",
        )


def _chosen(alternative: Alternative, rule: Rule, pair: Pair) -> bool:
    if isinstance(rule, EvidenceRule):
        return holds_evidence(rule, pair) or runs(rule, pair)
    if isinstance(rule, TensorRule):
        return not is_reference(alternative, pair) and judges_tensors(alternative, rule, pair)
    return selects(rule, pair)


def _selected(rule: TensorRule, chosen: list[Pair], names: _Names) -> int | None:
    """Return how many tensors *rule* selects; None where that cannot be said."""
    total = 0
    for pair in chosen:
        found = names(pair)
        if isinstance(found, str):
            return None
        total += sum(selects_tensor(rule.tensors, name) for name in found[0] | found[1])
    return total


def _check_pair(alternative: Alternative, who: str, pair: Pair, names: _Names) -> str | None:
    """Refuse a tensor of *pair* that no rule covers; return why it could not be looked at."""
    covered = (
        is_reference(alternative, pair)
        or judged_by_evidence(alternative, pair)
        or by_bytes(alternative, pair)
    )
    if covered:
        return None
    rules = tensor_rules(alternative, pair)
    if any(rule.tensors == ("*",) for rule in rules):
        return None
    found = names(pair)
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
            f"{who} covers {count(len(bare), 'tensor')}: {', '.join(bare[:_SHOWN])}{more}",
            where=pair.name,
            hint="add a rule for them",
        )
    return None
