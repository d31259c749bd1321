"""Curves, judged (P7): where they come from, and what a rule asks of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from provenance.equality.coverage import evidence
from provenance.equality.curve_files import MAX_BYTES, parse_curves, parse_records
from provenance.equality.curves import CurveDistance, measure_curves
from provenance.equality.distances import at_most
from provenance.equality.findings import Finding
from provenance.equality.judgement import Judged
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
    """Judge the curves that *rule* selects, in files of both models or in what was recorded."""
    judged = []
    try:
        if rule.sources is None:
            judged.append(_judge(rule, RECORDED, _recorded(models[0]), _recorded(models[1])))
        for pair in laid:
            if not evidence(rule, pair):
                continue
            if pair.both is None:
                judged.append(Judged((Finding(file=pair.name, measure="presence", held=False),)))
                continue
            left, right = (
                _in_file(model, unit) for model, unit in zip(models, pair.both, strict=True)
            )
            judged.append(_judge(rule, pair.name, left, right))
    except (MalformedError, UnreadableError) as error:
        judged.append(Judged((), (str(error),)))
    findings = tuple(finding for each in judged for finding in each.findings)
    return Judged(findings, tuple(text for each in judged for text in each.missing))


def _recorded(model: Model) -> Mapping[str, Curve]:
    if model.recorded is None:
        raise UnreadableError(
            "no recorded metrics are at hand",
            where=str(model.root),
            mend="'agree' reads them from the statement; else name files in 'sources'",
        )
    return parse_records(model.recorded, RECORDED)


def _in_file(model: Model, unit: Unit) -> Mapping[str, Curve]:
    data = read_file(model.path(unit.main), MAX_BYTES)
    if hashlib.sha256(data).hexdigest() != model.files[unit.main].sha256:
        raise ContentError("is no longer the file that was hashed", where=unit.main)
    return parse_curves(unit.main, data)


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
    note = distance.notes[0] if distance.notes else None
    parted = distance.divergence
    terminal = distance.terminal
    return [
        Finding(
            file=file,
            tensor=name,
            measure="points-missing",  # of those that must agree
            held=distance.agreed >= rule.points,
            value=float(max(0, rule.points - distance.agreed)),
            limit=0.0,
            place=None if parted is None else (parted.step,),
            note=note,
        ),
        Finding(
            file=file,
            tensor=name,
            measure="terminal-difference",
            held=terminal is not None and at_most(terminal, rule.terminal),
            value=terminal,
            limit=rule.terminal,
            note=note,
        ),
        Finding(
            file=file, tensor=name, measure="largest-relative-difference", held=True,
            value=distance.largest,
            place=None if distance.largest_step is None else (distance.largest_step,),
        ),
    ]  # fmt: skip
