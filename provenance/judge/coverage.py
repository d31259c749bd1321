"""Whether a declaration fits the models that it is applied to: docs/spec/equality.md section 2.1.

A file without tensors, or of the state of a training, that no rule selects must be equal byte for
byte and needs no rule. A weight file that cannot be read is covered by rules that select all of its
tensors, and by equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from provenance.equality.declaration import Alternative, Declaration, place
from provenance.equality.exceptions import Except
from provenance.equality.rules import Close, Curves, EvidenceRule, Rule, TensorRule
from provenance.errors import MalformedError, PolicyError, UnreadableError, count, some_of
from provenance.judge.measured import MeasuredWeights
from provenance.judge.selection import Judges, holds_evidence, runs, selects
from provenance.measure.side_files import paths_in
from provenance.weights.model import Model
from provenance.weights.pairs import Pair, SideBySide


class Selected(msgspec.Struct, frozen=True):
    """What one rule selects: units by name, and the number of their tensors.

    ``tensors`` is null if the rule does not select tensors, or if they cannot be read.
    """

    units: tuple[str, ...]
    tensors: int | None


class Selection(msgspec.Struct, frozen=True):
    """What one alternative selects, rule by rule.

    ``unread`` says why weights that differ cannot be read. ``reported`` is what only numbers that a
    builder reports speak for.
    """

    rules: tuple[Selected, ...]
    unread: tuple[str, ...]
    reported: tuple[str, ...]


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


def check_coverage(declaration: Declaration, weights: MeasuredWeights) -> tuple[Selection, ...]:
    """Return what each alternative of *declaration* selects in two models, read for ranks alone.

    Raises:
        PolicyError: a rule selects nothing, or no rule covers a tensor.
        ContentError: a file is not the one that was hashed.
    """
    return tuple(_check(declaration.any, number, weights) for number in range(len(declaration.any)))


def unread_files(sides: SideBySide) -> list[str]:
    """Return why weight files cannot be read: what no rule about tensors can judge."""
    weights = (pair for pair in sides.pairs if pair.weights and not pair.state)
    return [why for pair in weights if isinstance(why := sides.ranks(pair), str)]


def _check(
    alternatives: tuple[Alternative, ...], number: int, weights: MeasuredWeights
) -> Selection:
    alternative, sides, pairs = alternatives[number], weights.sides, weights.sides.pairs
    judges = {pair: weights.judges(alternative, pair) for pair in pairs}
    rules: list[Selected] = []
    for index, rule in enumerate(alternative.all):
        where = place(alternatives, number, index)
        chosen = [pair for pair in pairs if _chosen(rule, pair, judges[pair])]
        found = _selected(rule, chosen, judges, sides) if isinstance(rule, TensorRule) else None
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
    unread = [
        why
        for pair in pairs
        if (why := _check_pair(who, pair, judges[pair], sides)) and not sides.same(pair)
    ]
    looks = ("bytes", "tensors", "run")
    looked = any(it.weights and not it.state and judges[it].by in looks for it in pairs)
    reported = [
        it for it in pairs if judges[it].by == "reports" or (judges[it].evidence and not looked)
    ]
    names = tuple(pair.name for pair in reported)
    return Selection(tuple(rules), tuple(unread), names)


def _chosen(rule: Rule, pair: Pair, judges: Judges) -> bool:
    if isinstance(rule, EvidenceRule):
        return holds_evidence(rule, pair) or runs(rule, pair)
    return rule in judges.rules if isinstance(rule, TensorRule) else selects(rule, pair)


def _selected(
    rule: TensorRule, chosen: list[Pair], judges: Mapping[Pair, Judges], sides: SideBySide
) -> int | None:
    """Return how many tensors *rule* selects; None: some cannot be read."""
    total = 0
    for pair in chosen:
        found = sides.ranks(pair)
        if isinstance(found, str):
            return None
        every = (found[0] | found[1]).items()
        total += sum(judges[pair].judges(rule, *each) for each in every)
    return total


def _check_pair(who: str, pair: Pair, judges: Judges, sides: SideBySide) -> str | None:
    """Refuse a tensor of *pair* that no rule covers; return why it could not be read."""
    if judges.whole:
        return None
    found = sides.ranks(pair)
    if isinstance(found, str):
        return None if judges.evidence and not judges.rules else found  # it is told by the others
    both = {name: rank for name, rank in sorted(found[0].items()) if name in found[1]}
    bare = [name for name, rank in both.items() if not judges.covers(name, rank)]
    if bare:
        what = f"{who} covers {count(len(bare), 'tensor')}: {some_of(bare)}"
        raise PolicyError(what, where=pair.name, hint="add a rule for them")
    return None
