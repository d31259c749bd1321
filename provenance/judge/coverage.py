"""Whether a declaration fits the models that it is applied to: docs/spec/equality.md section 2.1.

A file without tensors, or of the state of a training, that no rule selects must be equal byte for
byte and needs no rule. A weight file that cannot be read is covered by rules that select all of its
tensors, and by equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

import msgspec

from provenance.equality.declaration import place
from provenance.equality.rules import (
    Close,
    Curves,
    EvidenceRule,
    Rule,
    TensorRule,
    takes,
    takes_all,
)
from provenance.errors import MalformedError, PolicyError, UnreadableError, count, some_of
from provenance.judge import selection as select
from provenance.measure.side_files import paths_in

if TYPE_CHECKING:
    from provenance.equality.declaration import Alternative, Declaration
    from provenance.equality.exceptions import Except
    from provenance.weights.model import Model, Pair, SideBySide


class Selected(msgspec.Struct, frozen=True):
    """What one rule selects: units by name, and the number of their tensors.

    ``tensors`` is null if the rule does not select tensors, or if they cannot be read.
    """

    units: tuple[str, ...]
    tensors: int | None


class Selection(msgspec.Struct, frozen=True):
    """What one alternative selects, rule by rule; ``unread``: why weights that differ cannot be."""

    rules: tuple[Selected, ...]
    unread: tuple[str, ...]


class Reached(msgspec.Struct, frozen=True):
    """What one exception is about: units by name, and the number of their values that it selects.

    ``values`` is null if it is about whole files, or if they cannot be read by key.
    """

    units: tuple[str, ...]
    values: int | None


def find_reached(each: Except, model: Model) -> Reached:
    """Return what the exception *each* is about in *model*."""
    units = [unit for name, unit in sorted(model.units.items()) if each.selects_file(name)]
    names = tuple(unit.name for unit in units)
    if each.keys is None:
        return Reached(names, None)
    try:
        paths = [path for unit in units for path in paths_in(unit, model, each.member)]
    except (MalformedError, UnreadableError):
        return Reached(names, None)
    return Reached(names, sum(map(each.selects, paths)))


def check_coverage(declaration: Declaration, sides: SideBySide) -> tuple[Selection, ...]:
    """Return what each alternative of *declaration* selects in two models.

    Raises:
        PolicyError: a rule selects nothing, or no rule covers a tensor.
        ContentError: a file is not the one that was hashed.
    """
    names, every = cache(partial(_tensor_names, sides)), declaration.any
    return tuple(_check(every, number, sides, names) for number in range(len(every)))


def unread_files(sides: SideBySide) -> list[str]:
    """Return why weight files cannot be read: what no rule about tensors can judge."""
    weights = (pair for pair in sides.pairs if pair.weights and not pair.state)
    return [why for pair in weights if isinstance(why := _tensor_names(sides, pair), str)]


_Names = Callable[["Pair"], tuple[dict[str, int], dict[str, int]] | str]
"""The tensors of a pair on each side, each with its rank, or why they could not be read."""


def _tensor_names(sides: SideBySide, pair: Pair) -> tuple[dict[str, int], dict[str, int]] | str:
    found = []
    for model, unit in ((sides.left, pair.left), (sides.right, pair.right)):
        if unit is None or not unit.weights:
            found.append(dict[str, int]())
            continue
        try:
            with model.open(unit, unit.name) as file:
                found.append({name: len(it.shape) for name, it in file.tensors.items()})
        except (MalformedError, UnreadableError) as error:
            return str(error)
    return found[0], found[1]


def _check(
    alternatives: tuple[Alternative, ...], number: int, sides: SideBySide, names: _Names
) -> Selection:
    alternative, pairs = alternatives[number], sides.pairs
    rules: list[Selected] = []
    for index, rule in enumerate(alternative.all):
        where = place(alternatives, number, index)
        chosen = [pair for pair in pairs if _chosen(alternative, rule, pair)]
        found = _selected(rule, chosen, names) if isinstance(rule, TensorRule) else None
        recorded = isinstance(rule, Curves) and rule.sources is None  # is in no file
        optional = isinstance(rule, TensorRule) and rule.optional
        if (found == 0 or not (chosen or recorded)) and not optional:
            what = f"{where} selects no {'tensors' if chosen else 'files'}"
            raise PolicyError(what, hint="correct its patterns, or leave the rule out")
        initial = rule.initial if isinstance(rule, Close) else None
        if initial is not None and not any(initial in pair.names for pair in pairs):
            what = f"{where} measures from {initial!r}, which is not a file of the model"
            hint = "save the initial weights beside the others, or set relative_to"
            raise PolicyError(what, hint=hint)
        rules.append(Selected(tuple(pair.name for pair in chosen), found))
    who = f"no rule of alternative {number + 1}" if len(alternatives) > 1 else "no rule"
    judged = (
        pair
        for pair in pairs
        if pair.weights and (not pair.state or select.tensor_rules(alternative, pair))
    )
    unread = ((pair, _check_pair(alternative, who, pair, names)) for pair in judged)
    return Selection(tuple(rules), tuple(why for it, why in unread if why and not sides.same(it)))


def _chosen(alternative: Alternative, rule: Rule, pair: Pair) -> bool:
    if isinstance(rule, EvidenceRule):
        return select.holds_evidence(rule, pair) or select.runs(rule, pair)
    if isinstance(rule, TensorRule):
        reference = select.is_reference(alternative, pair)
        return not reference and select.judges_tensors(alternative, rule, pair)
    return select.selects(rule, pair)


def _selected(rule: TensorRule, chosen: list[Pair], names: _Names) -> int | None:
    """Return how many tensors *rule* selects; None: some cannot be read."""
    total = 0
    for pair in chosen:
        found = names(pair)
        if isinstance(found, str):
            return None
        total += sum(takes(rule, *each) for each in (found[0] | found[1]).items())
    return total


def _check_pair(alternative: Alternative, who: str, pair: Pair, names: _Names) -> str | None:
    """Refuse a tensor of *pair* that no rule covers; return why it could not be read."""
    covers = (select.is_reference, select.judged_by_evidence, select.by_bytes)
    if any(covered(alternative, pair) for covered in covers):
        return None
    rules = select.tensor_rules(alternative, pair)
    if any(map(takes_all, rules)):
        return None
    found = names(pair)
    if isinstance(found, str):
        return found
    both = {name: rank for name, rank in sorted(found[0].items()) if name in found[1]}
    bare = [n for n, rank in both.items() if not any(takes(rule, n, rank) for rule in rules)]
    if bare:
        what = f"{who} covers {count(len(bare), 'tensor')}: {some_of(bare)}"
        raise PolicyError(what, where=pair.name, hint="add a rule for them")
    return None
