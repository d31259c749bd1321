"""Curves, judged (P7): where they come from, and what a rule asks of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from provenance.equality.patterns import selects_tensor
from provenance.errors import MalformedError, UnreadableError
from provenance.judge.pairing import evidence_pairs
from provenance.measure.curve_files import parse_curves, parse_records
from provenance.measure.curves import CurveDistance, measure_curves
from provenance.measure.findings import Finding, Judged
from provenance.measure.norms import at_most, enlarged
from provenance.statement.metrics import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provenance.equality.rules import Curves
    from provenance.measure.curves import Curve
    from provenance.weights.model import Model, SideBySide, Unit

RECORDED: Final = "recorded metrics"
"""What findings call the metrics of the training statement, which are no file of the model."""


def judge_curves(rule: Curves, sides: SideBySide) -> Judged:
    """Judge the curves that *rule* selects, in files of both models or in what was recorded.

    Raises:
        ContentError: a file is not the one that was hashed.
    """
    if rule.sources is None:
        return _judge_source(rule, RECORDED, (sides.left, None), (sides.right, None))
    pairs, absent = evidence_pairs(rule, sides)
    return Judged.merged(
        [
            absent,
            *(
                _judge_source(rule, pair.name, (sides.left, pair.left), (sides.right, pair.right))
                for pair in pairs
            ),
        ]
    )


def _judge_source(
    rule: Curves,
    name: str,
    left: tuple[Model, Unit | None],
    right: tuple[Model, Unit | None],
) -> Judged:
    """Judge the curves in one file of both models; None stands for what was recorded."""
    try:
        curves = [
            _in_file(model, unit, side) if unit is not None else _recorded(model, side)
            for (model, unit), side in ((left, "left"), (right, "right"))
        ]
    except (MalformedError, UnreadableError) as error:
        return Judged((), (str(error),))
    return _judge(rule, name, curves[0], curves[1])


def _recorded(model: Model, side: str) -> Mapping[str, Curve]:
    where = f"{RECORDED} ({side})"
    if model.recorded is None:
        raise UnreadableError(
            "not at hand",
            where=where,
            hint="'agree' takes them from the statement or beside the weights; else name 'sources'",
        )
    return parse_records(model.recorded, where)


def _in_file(model: Model, unit: Unit, side: str) -> Mapping[str, Curve]:
    try:
        return parse_curves(unit.main, model.read(unit.main, MAX_BYTES))
    except (MalformedError, UnreadableError) as error:
        raise error.inside(side) from error


def _judge(
    rule: Curves, file: str, left: Mapping[str, Curve], right: Mapping[str, Curve]
) -> Judged:
    findings: list[Finding] = []
    names = [name for name in {**left, **right} if selects_tensor(rule.curves, name)]
    if not names:
        return Judged((), (f"{file}: no curve that the rule selects",))
    for name in names:
        if name not in left or name not in right:
            findings.append(Finding(file=file, tensor=name, measure="presence", held=False))
            continue
        distance = measure_curves(left[name], right[name], rule.pointwise, rule.window)
        findings += _findings(rule, file, name, distance)
    return Judged(tuple(findings))


def _findings(rule: Curves, file: str, name: str, distance: CurveDistance) -> list[Finding]:
    parted, terminal = distance.divergence, distance.terminal
    agreed = distance.agreed >= rule.points
    findings = [
        Finding(
            file=file,
            tensor=name,
            measure="points-missing",  # of those that must agree
            held=agreed,
            value=float(max(0, rule.points - distance.agreed)),
            limit=0.0,
            place=None if parted is None else (parted.step,),
            note=None if agreed else _why_parted(distance),
        ),
        Finding(
            file=file,
            tensor=name,
            measure="terminal-difference",
            held=terminal is not None and at_most(terminal, rule.terminal),
            value=None if terminal is None else enlarged(terminal),
            limit=rule.terminal,
            note=distance.notes[0] if terminal is None else None,
        ),
    ]
    if distance.largest is not None:
        findings.append(
            Finding(
                file=file,
                tensor=name,
                measure="largest-relative-difference",
                held=True,
                value=enlarged(distance.largest),
                place=None if distance.largest_step is None else (distance.largest_step,),
            )
        )
    return findings


def _why_parted(distance: CurveDistance) -> str | None:
    """Return why there is no relative difference at the point that does not agree, or nothing."""
    parted = distance.divergence
    if parted is None:  # they end, or are no curves
        return distance.notes[0] if distance.notes else None
    if parted.left is None or parted.right is None:
        return "steps-differ"
    finite = math.isfinite(parted.left) and math.isfinite(parted.right)
    return None if finite else "not-finite"
