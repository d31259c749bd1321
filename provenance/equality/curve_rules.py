"""Curves, judged (P7): where they come from, and what a rule asks of them."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

from provenance.equality.coverage import evidence
from provenance.equality.curve_files import MAX_BYTES, parse_curves, parse_records
from provenance.equality.curves import CurveDistance, measure_curves
from provenance.equality.findings import Finding
from provenance.equality.judgement import Judged
from provenance.equality.norms import RELATIVE_ERROR, at_most
from provenance.equality.pairing import absent
from provenance.equality.patterns import selects_tensor
from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.files.reading import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provenance.equality.curves import Curve
    from provenance.equality.model import Model, Pair, Unit
    from provenance.equality.pairing import Models
    from provenance.equality.rules import Curves

RECORDED: Final = "recorded metrics"
"""What findings call the metrics of the training statement, which are no file of the model."""


def judge_curves(rule: Curves, models: Models, laid: tuple[Pair, ...]) -> Judged:
    """Judge the curves that *rule* selects, in files of both models or in what was recorded.

    Raises:
        ContentError: a file is not the one that was hashed.
    """
    judged = []
    if rule.sources is None:
        judged.append(_judge_source(rule, RECORDED, models, (None, None)))
    for pair in laid:
        if not evidence(rule, pair):
            continue
        if pair.both is None:
            judged.append(Judged((absent(pair, models),)))
        else:
            judged.append(_judge_source(rule, pair.name, models, pair.both))
    findings = tuple(finding for each in judged for finding in each.findings)
    return Judged(findings, tuple(text for each in judged for text in each.missing))


def _judge_source(
    rule: Curves, name: str, models: Models, units: tuple[Unit | None, Unit | None]
) -> Judged:
    """Judge the curves in one file of both models; None stands for what was recorded."""
    try:
        left, right = (
            _in_file(model, unit, side) if unit is not None else _recorded(model, side)
            for model, unit, side in zip(models, units, ("left", "right"), strict=True)
        )
    except (MalformedError, UnreadableError) as error:
        return Judged((), (str(error),))
    return _judge(rule, name, left, right)


def _recorded(model: Model, side: str) -> Mapping[str, Curve]:
    where = f"{RECORDED} ({side})"
    if model.recorded is None:
        raise UnreadableError(
            "not at hand",
            where=where,
            mend="'agree' takes them from the statement or beside the weights; else name 'sources'",
        )
    return parse_records(model.recorded, where)


def _in_file(model: Model, unit: Unit, side: str) -> Mapping[str, Curve]:
    try:
        data = read_file(model.path(unit.main), MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != model.files[unit.main].sha256:
            raise ContentError("is no longer the file that was hashed", where=unit.main)
        return parse_curves(unit.main, data)
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
            value=None if terminal is None else terminal * (1 + RELATIVE_ERROR),
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
                value=distance.largest * (1 + RELATIVE_ERROR),
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
