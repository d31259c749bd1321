"""Outputs on probes, judged (P5): files of both models, or what an ONNX model that is run answers.

The probes that a model was run on are findings too, with their digests: ``probes`` are a file of
both models, ``probes-from-outside`` one that was given at comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from provenance.equality.rules import Behaviour
from provenance.errors import UnreadableError, UsageError
from provenance.judge.selection import each_in_both, holds_evidence, matched, runs
from provenance.measure.findings import Finding, Judged
from provenance.measure.onnx_runner import outputs_of, probes_of
from provenance.measure.outputs import KL_ERROR, Outputs, measure_outputs
from provenance.measure.squares import enlarged
from provenance.measure.statistics import disagreement_bound
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
