"""Scores on the same examples, judged (P6), with Holm's correction over all that a rule selects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from provenance.equality.coverage import evidence
from provenance.equality.findings import Finding
from provenance.equality.judgement import Judged
from provenance.equality.pairing import absent, matched, opened
from provenance.equality.samples import MeanTest, Metric, measure_metric
from provenance.equality.statistics import holm
from provenance.errors import MalformedError, UnreadableError, UsageError

if TYPE_CHECKING:
    from provenance.equality.model import Pair
    from provenance.equality.pairing import Models
    from provenance.equality.rules import Metrics


@dataclass(frozen=True, slots=True)
class _Measured:
    """A metric of the file *file*."""

    file: str
    metric: Metric


def judge_metrics(rule: Metrics, models: Models, laid: tuple[Pair, ...]) -> Judged:
    """Judge the metrics in the files of scores that *rule* selects.

    Raises:
        ContentError: a file is not the one that was hashed.
    """
    test = MeanTest(rule.margin, rule.alpha, rule.test, rule.resamples)
    findings: list[Finding] = []
    missing: list[str] = []
    measured: list[_Measured] = []
    for pair in laid:
        if not evidence(rule, pair):
            continue
        if pair.both is None:
            findings.append(absent(pair, models))
            continue
        try:
            with opened(pair.name, pair.both, models) as (left, right):
                names, against = matched(pair.name, rule.metrics, left, right)
                findings += against
                for name in names:
                    try:
                        metric = measure_metric(name, left, right, test)
                    except UsageError as error:  # an array that holds no scores
                        missing.append(f"{pair.name}: {error}")
                    else:
                        measured.append(_Measured(pair.name, metric))
        except (MalformedError, UnreadableError) as error:
            missing.append(str(error))
    if not (measured or findings or missing):
        missing.append(f"no metric that the rule selects: {', '.join(rule.metrics)}")
    adjusted = holm([each.metric.test.p for each in measured])
    for each, p in zip(measured, adjusted, strict=True):
        findings += _judge(rule, each, p)
    return Judged(tuple(findings), tuple(missing))


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
    if metric.churn is not None:
        bound = metric.churn.bound
        held = rule.max_churn is None or bound <= rule.max_churn
        findings += [
            found(measure="churn-bound", held=held, value=bound, limit=rule.max_churn),
            found(measure="mcnemar-p", held=True, value=metric.churn.mcnemar),
        ]
    elif rule.max_churn is not None:
        note = "answers-not-0-or-1" if metric.examples else "empty"
        findings.append(found(measure="churn-bound", held=False, limit=rule.max_churn, note=note))
    return findings
