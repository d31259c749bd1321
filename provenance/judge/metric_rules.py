"""Scores on the same examples, judged (P6), with Holm's correction over all that a rule selects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.judge.pairing import evidence_pairs, matched
from provenance.measure.findings import Finding, Judged
from provenance.measure.samples import MeanTest, Metric, measure_metric
from provenance.measure.statistics import holm

if TYPE_CHECKING:
    from provenance.equality.rules import Metrics
    from provenance.weights.model import SideBySide
    from provenance.weights.view import TensorFile


@dataclass(frozen=True, slots=True)
class _Measured:
    """A metric of the file *file*."""

    file: str
    metric: Metric


def judge_metrics(rule: Metrics, sides: SideBySide) -> Judged:
    """Judge the metrics in the files of scores that *rule* selects.

    Raises:
        ContentError: a file is not the one that was hashed.
    """
    pairs, absent = evidence_pairs(rule, sides)
    findings, missing = list(absent.findings), list[str]()
    measured: list[_Measured] = []
    for pair in pairs:
        try:
            with sides.opened(pair) as (left, right):
                names, against = matched(pair.name, rule.metrics, left, right)
                findings += against
                for name in names:
                    found = _measured(rule, pair.name, name, left, right)
                    if isinstance(found, str):
                        missing.append(found)
                    else:
                        measured.append(found)
        except (MalformedError, UnreadableError) as error:
            missing.append(str(error))
    if not (measured or findings or missing):
        missing.append(f"no metric that the rule selects: {', '.join(rule.metrics)}")
    adjusted = holm([each.metric.test.p for each in measured])
    for each, p in zip(measured, adjusted, strict=True):
        findings += _judge(rule, each, p)
    return Judged(tuple(findings), tuple(missing))


def _measured(
    rule: Metrics, file: str, name: str, left: TensorFile, right: TensorFile
) -> _Measured | str:
    """Return the metric *name*, or why the array holds no scores."""
    test = MeanTest(rule.margin, rule.alpha, rule.test, rule.resamples)
    try:
        return _Measured(file, measure_metric(name, left, right, test))
    except UsageError as error:
        return f"{file}: {error}"


def _judge(rule: Metrics, measured: _Measured, p: float) -> list[Finding]:
    metric = measured.metric
    found = partial(Finding, file=measured.file, tensor=metric.name)
    findings = [
        found(
            measure=f"not-equivalent-p-{rule.test}",
            held=p <= rule.alpha,
            value=p,
            limit=rule.alpha,
            note=metric.test.note,
        )
    ]
    if metric.left_mean is not None and metric.right_mean is not None:
        apart = abs(metric.left_mean - metric.right_mean)
        if math.isfinite(apart):
            findings.append(found(measure="difference-of-means", held=True, value=apart))
    if metric.churn_bound is not None:
        held = rule.max_churn is None or metric.churn_bound <= rule.max_churn
        findings.append(
            found(measure="churn-bound", held=held, value=metric.churn_bound, limit=rule.max_churn)
        )
    elif rule.max_churn is not None:
        note = "answers-not-0-or-1" if metric.examples else "empty"
        findings.append(found(measure="churn-bound", held=False, limit=rule.max_churn, note=note))
    return findings
