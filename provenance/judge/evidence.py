"""Rules about what models do: outputs on probes, scores on examples, curves.

Names, types and shapes must be the same on both sides. What cannot be read is missing, and leaves
the rule undecided. A measure without a limit is listed for information and decides nothing.

Outputs (P5) are judged in :mod:`~provenance.judge.behaviour`; here, scores on the same examples
(P6), with Holm's correction over all that a rule selects, and curves (P7).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from provenance.equality.declaration import Alternative
from provenance.equality.patterns import selects_tensor
from provenance.equality.rules import Behaviour, Curves, Metrics
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.judge.behaviour import judge_outputs, judge_run
from provenance.judge.selection import each_in_both, holds_evidence, matched
from provenance.measure.curve_files import parse_curves
from provenance.measure.curves import Curve, CurveDistance, measure_curves
from provenance.measure.findings import Finding, Judged
from provenance.measure.samples import Metric, measure_metric
from provenance.measure.squares import at_most, enlarged
from provenance.measure.statistics import holm
from provenance.statement.metrics import MAX_BYTES
from provenance.weights.model import Model, Unit
from provenance.weights.pairs import Pair, SideBySide

RECORDED: Final = "recorded metrics"
"""What findings call the metrics of the training statement, which are not a file of the model."""


def judge_evidence(
    alternative: Alternative, sides: SideBySide, probes: Path | None
) -> Iterator[Judged]:
    """Yield the judgement of each rule of *alternative* about what the models do.

    The file *probes* replaces the probes that rules name.
    """
    for rule in alternative.all:
        if isinstance(rule, Behaviour) and rule.run is not None:
            yield judge_run(rule, sides, probes)
        elif isinstance(rule, Behaviour):
            yield judge_outputs(rule, sides)
        elif isinstance(rule, Metrics):
            yield judge_metrics(rule, sides)
        elif isinstance(rule, Curves):
            yield judge_curves(rule, sides)


def judge_metrics(rule: Metrics, sides: SideBySide) -> Judged:
    """Judge the metrics in the files of scores that *rule* selects."""
    measured: list[tuple[str, Metric]] = []

    def judge(pair: Pair) -> Judged:
        missing = []
        with sides.opened(pair) as (left, right):
            names, against = matched(pair.name, rule.metrics, left, right)
            for name in names:
                try:
                    measured.append((pair.name, measure_metric(name, left, right, rule)))
                except UsageError as error:  # the array holds no scores
                    missing.append(f"{pair.name}: {error}")
        return Judged(tuple(against), tuple(missing))

    judged = each_in_both(sides, partial(holds_evidence, rule), judge)
    findings, missing = list(judged.findings), list(judged.missing)
    if not (measured or findings or missing):
        missing.append(f"no metric that the rule selects: {', '.join(rule.metrics)}")
    adjusted = holm([metric.test.p for _, metric in measured])
    for (file, metric), p in zip(measured, adjusted, strict=True):
        findings += _judge_metric(rule, file, metric, p)
    return Judged(tuple(findings), tuple(missing))


def _judge_metric(rule: Metrics, file: str, metric: Metric, p: float) -> list[Finding]:
    found = partial(Finding, file=file, tensor=metric.name)
    level, measure = rule.alpha, f"not-equivalent-p-{rule.test}"
    findings = [
        found(measure=measure, held=p <= level, value=p, limit=level, note=metric.test.note)
    ]
    if metric.left_mean is not None and metric.right_mean is not None:
        apart = abs(metric.left_mean - metric.right_mean)
        if math.isfinite(apart):
            findings.append(found(measure="difference-of-means", held=True, value=apart))
    churned = partial(found, measure="churn-bound", limit=rule.max_churn)
    if metric.churn_bound is not None:
        held = rule.max_churn is None or metric.churn_bound <= rule.max_churn
        findings.append(churned(held=held, value=metric.churn_bound))
    elif rule.max_churn is not None:
        note = "answers-not-0-or-1" if metric.examples else "empty"
        findings.append(churned(held=False, note=note))
    return findings


def judge_curves(rule: Curves, sides: SideBySide) -> Judged:
    """Judge the curves that *rule* selects, in files of both models or in what was recorded."""
    if rule.sources is None:
        try:
            found = _recorded(sides.left, "left"), _recorded(sides.right, "right")
        except (MalformedError, UnreadableError) as error:
            return Judged((), (str(error),))
        return _judge_curves(rule, RECORDED, *found)

    def judge(pair: Pair) -> Judged:
        return _judge_curves(rule, pair.name, *(_in_file(*each) for each in sides.each(pair)))

    return each_in_both(sides, partial(holds_evidence, rule), judge)


def _recorded(model: Model, side: str) -> Mapping[str, Curve]:
    where = f"{RECORDED} ({side})"
    if model.recorded is None:
        hint = "'agree' takes them from the statement or beside the weights; else name 'sources'"
        raise UnreadableError("not at hand", where=where, hint=hint)
    return parse_curves(where, model.recorded, ".jsonl")


def _in_file(model: Model, unit: Unit, side: str) -> Mapping[str, Curve]:
    try:
        return parse_curves(unit.main, model.read(unit.main, MAX_BYTES))
    except (MalformedError, UnreadableError) as error:
        raise error.inside(side) from error


def _judge_curves(
    rule: Curves, file: str, left: Mapping[str, Curve], right: Mapping[str, Curve]
) -> Judged:
    names = [name for name in {**left, **right} if selects_tensor(rule.curves, name)]
    if not names:
        return Judged((), (f"{file}: no curve that the rule selects",))
    findings: list[Finding] = []
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
    found = partial(Finding, file=file, tensor=name)
    findings = [
        found(
            measure="points-missing",  # of those that must agree
            held=agreed,
            value=float(max(0, rule.points - distance.agreed)),
            limit=0.0,
            place=None if parted is None else (parted.step,),
            note=None if agreed else _why_parted(distance),
        ),
        found(
            measure="terminal-difference",
            held=terminal is not None and at_most(terminal, rule.terminal),
            value=None if terminal is None else enlarged(terminal),
            limit=rule.terminal,
            note=distance.notes[0] if terminal is None else None,
        ),
    ]
    if distance.largest is not None:
        place = None if distance.largest_step is None else (distance.largest_step,)
        largest, measure = enlarged(distance.largest), "largest-relative-difference"
        findings.append(found(measure=measure, held=True, value=largest, place=place))
    return findings


def _why_parted(distance: CurveDistance) -> str | None:
    """Return why the first points that do not agree have no relative difference."""
    parted = distance.divergence
    if parted is None:  # a curve ends, or is not one
        return distance.notes[0] if distance.notes else None
    if parted.left is None or parted.right is None:
        return "steps-differ"
    finite = math.isfinite(parted.left) and math.isfinite(parted.right)
    return None if finite else "not-finite"
