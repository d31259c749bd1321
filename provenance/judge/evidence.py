"""Rules about what models do: outputs on probes, scores on examples, curves.

Names, types and shapes must be the same on both sides. What cannot be read is missing, and leaves
the rule undecided. A measure without a limit is listed for information and decides nothing.

Outputs on probes (P5) are files of both models, or what an ONNX model that is run answers; scores
on the same examples (P6) are judged with Holm's correction over all that a rule selects; then there
are curves (P7). The probes that a model was run on are findings too, with their digests: ``probes``
are a file of both models, ``probes-from-outside`` one that was given at comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from provenance.equality.declaration import Alternative
from provenance.equality.patterns import selects_tensor
from provenance.equality.rules import Behaviour, Curves, Metrics
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.judge.selection import each_in_both, holds_evidence, matched, runs
from provenance.measure.curves import Curve, CurveDistance, measure_curves, parse_curves
from provenance.measure.findings import Finding, Judged
from provenance.measure.onnx_runner import outputs_of, probes_of
from provenance.measure.outputs import KL_ERROR, Outputs, measure_outputs
from provenance.measure.samples import Metric, measure_metric
from provenance.measure.squares import at_most, enlarged
from provenance.measure.statistics import disagreement_bound, holm
from provenance.statement.metrics import MAX_BYTES
from provenance.weights.model import Model, Unit, model_of_file
from provenance.weights.pairs import Pair, SideBySide
from provenance.weights.view import ArraysFile, TensorFile

_WHY: Final[Mapping[str, tuple[str, ...]]] = {
    "max-difference": ("empty", "exact-type", "not-finite", "overflow"),
    "mean-difference": ("empty", "exact-type", "not-finite", "overflow"),
    "kl-divergence": ("empty", "not-finite", "not-a-distribution", "infinite-divergence"),
    "disagreement-bound": ("empty", "not-finite", "not-a-distribution"),
}  # fmt: skip
"""Why a measure can be absent; the last reason is the default."""


@dataclass(frozen=True, slots=True)
class _Probes:
    """The inputs that the models are run on, and the findings that identify them."""

    arrays: Mapping[str, NDArray[Any]]
    said: tuple[Finding, ...]

    @property
    def distinct(self) -> int:
        """How many probes are different; a repeated one counts once."""
        rows = zip(*self.arrays.values(), strict=True)
        return len({tuple(part.tobytes() for part in row) for row in rows})


def judge_outputs(rule: Behaviour, sides: SideBySide) -> Judged:
    """Judge the files of outputs that *rule* selects."""

    def judge(pair: Pair) -> Judged:
        with sides.opened(pair) as (left, right):
            return _judge_arrays(rule, pair.name, left, right)

    return each_in_both(sides, partial(holds_evidence, rule), judge)


def judge_run(rule: Behaviour, sides: SideBySide, probes: Path | None) -> Judged:
    """Run the ONNX model that *rule* names of both models on the same probes; judge the outputs.

    The file *probes* replaces the probes that *rule* names; one that cannot be read is an error.
    """
    given = None
    if probes is not None:
        model = model_of_file(probes)
        (unit,) = model.units.values()
        given = _read(model, unit, "probes-from-outside")

    def judge(pair: Pair) -> Judged:
        asked = given or _of_the_models(rule, sides)
        left, right = _answers(pair, sides, asked)
        judged = _judge_arrays(rule, pair.name, left, right, asked.distinct)
        return Judged.merged([Judged(asked.said), judged])

    return each_in_both(sides, partial(runs, rule), judge)


def _answers(pair: Pair, sides: SideBySide, asked: _Probes) -> list[ArraysFile]:
    answers = []
    for model, unit, side in sides.each(pair):
        where = f"{pair.name} ({side})"
        with model.open(unit, where) as file:
            answers.append(ArraysFile(outputs_of(file, asked.arrays, where=where), where=where))
    return answers


def _of_the_models(rule: Behaviour, sides: SideBySide) -> _Probes:
    """Return the probes that *rule* names, which must be the same in both models."""
    unit = sides.unit(rule.probes) if rule.probes is not None else None
    if unit is not None:
        return _read(sides.left, unit, "probes")
    if any(rule.probes in pair.names for pair in sides.pairs):
        raise UnreadableError("not the same probes in both models", where=rule.probes)
    what, hint = "no probes: the rule names none that both models have", "give a file of probes"
    raise UnreadableError(what, where=rule.run, hint=f"{hint} (--probes)")


def _read(model: Model, unit: Unit, measure: str) -> _Probes:
    with model.open(unit, unit.name) as file:
        arrays = probes_of(file, where=unit.name)
    said = tuple(
        Finding(file=name, measure=measure, held=True, left=sha256, right=sha256)
        for name in unit.files
        for sha256 in [model.digest(name)]
    )
    return _Probes(arrays, said)


def _judge_arrays(
    rule: Behaviour, file: str, left: TensorFile, right: TensorFile, distinct: int | None = None
) -> Judged:
    """Judge the arrays of two files that *rule* selects, with *distinct* probes where known."""
    names, findings = matched(file, rule.tensors, left, right)
    if not names and not findings:
        return Judged((), (f"{file}: no output that the rule selects",))
    missing = []
    for name in names:
        try:
            outputs = _measured(rule, name, left, right)
        except UsageError as error:  # the array has no such outputs
            missing.append(f"{file}: {error}")
            continue
        judged = _judge(rule, file, outputs, distinct)
        findings += judged.findings
        missing += judged.missing
    return Judged(tuple(findings), tuple(missing))


def _measured(rule: Behaviour, name: str, left: TensorFile, right: TensorFile) -> Outputs:
    if rule.kind != "labels":
        return measure_outputs(name, left, right, rule.kind)
    dtype = left.tensors[name].dtype
    if dtype.kind != "exact":
        raise UsageError(f"labels are integers, not {dtype.name}", where=name)
    return measure_outputs(name, left, right, "values")


def _judge(rule: Behaviour, file: str, outputs: Outputs, distinct: int | None) -> Judged:
    bound: float | None = None
    few: list[str] = []
    rate = rule.disagreement
    if outputs.disagreements is not None and rule.kind != "values":
        trials = outputs.probes if distinct is None else min(distinct, outputs.probes)
        wrong = min(outputs.disagreements, trials)
        bound = disagreement_bound(wrong, trials, rule.confidence)
        if rate is not None and outputs.disagreements <= rate * trials and bound > rate:
            differ = f"{file}: {outputs.name}: {wrong} of {trials} answers differ"
            few.append(f"{differ}, and so few probes cannot show a rate of at most {rate:g}")
    kl = outputs.kl_mean
    if kl is not None and outputs.differing:
        kl += KL_ERROR * (1 + kl)
    measures = (
        ("max-difference", _enlarged(outputs.max_difference), rule.max_difference),
        ("mean-difference", _enlarged(outputs.mean_difference), rule.mean_difference),
        ("kl-divergence", _finite(kl), rule.kl_divergence),
        ("disagreement-bound", bound, None if few else rate),
    )
    found = partial(Finding, file=file, tensor=outputs.name)
    findings = []
    for measure, value, limit in measures:
        if value is None and limit is None:
            continue
        held = limit is None or (value is not None and value <= limit)
        place = outputs.max_place if measure == "max-difference" else None
        why = next((word for word in outputs.notes if word in _WHY[measure]), _WHY[measure][-1])
        note = why if value is None else None
        findings.append(
            found(measure=measure, held=held, value=value, limit=limit, place=place, note=note)
        )
    if "not-a-distribution" in outputs.notes:
        findings.append(found(measure="distribution", held=False, note="not-a-distribution"))
    return Judged(tuple(findings), tuple(few))


def _enlarged(value: float | None) -> float | None:
    """Return *value* plus its error bound; None beyond float64."""
    return None if value is None else _finite(enlarged(value))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


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
