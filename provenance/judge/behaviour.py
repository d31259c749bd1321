"""Outputs on probes, judged (P5): those that both models hold, and those that running one gives.

Which probes a model was run on is a finding as well, with their digests: a verdict about other
probes is another verdict. ``probes`` are a file of both models, ``probes-from-outside`` one that
was given at comparison.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.judge.selection import evidence_pairs, in_both, matched
from provenance.measure.findings import Finding, Judged
from provenance.measure.onnx_runner import outputs_of, probes_of
from provenance.measure.outputs import KL_ERROR, Outputs, measure_outputs
from provenance.measure.squares import enlarged
from provenance.measure.statistics import disagreement_bound
from provenance.weights.model import model_of_file
from provenance.weights.view import ArraysFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from provenance.equality.rules import Behaviour
    from provenance.weights.model import Model, Pair, SideBySide, Unit
    from provenance.weights.view import TensorFile

_WHY: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "max-difference": ("empty", "exact-type", "not-finite", "overflow"),
        "mean-difference": ("empty", "exact-type", "not-finite", "overflow"),
        "kl-divergence": ("empty", "not-finite", "not-a-distribution", "infinite-divergence"),
        "disagreement-bound": ("empty", "not-finite", "not-a-distribution"),
    }
)
"""Why a measure can be absent; the last word is why, where nothing else is noted."""


@dataclass(frozen=True, slots=True)
class _Probes:
    """The inputs that the models are run on, and the findings that say which these are."""

    arrays: Mapping[str, NDArray[Any]]
    said: tuple[Finding, ...]

    @property
    def distinct(self) -> int:
        """Return how many differ: one that is repeated counts once."""
        rows = zip(*self.arrays.values(), strict=True)
        return len({tuple(part.tobytes() for part in row) for row in rows})


def judge_outputs(rule: Behaviour, sides: SideBySide) -> Judged:
    """Judge the files of outputs that *rule* selects."""
    pairs, absent = evidence_pairs(rule, sides)
    judged = [absent]
    for pair in pairs:
        try:
            with sides.opened(pair) as (left, right):
                judged.append(_judge_arrays(rule, pair.name, left, right))
        except (MalformedError, UnreadableError) as error:
            judged.append(Judged((), (str(error),)))
    return Judged.merged(judged)


def judge_run(rule: Behaviour, run: str, sides: SideBySide, probes: Path | None) -> Judged:
    """Run the ONNX model *run* of both models on the same probes, and judge the answers.

    *probes* is a file from outside, in place of the probes that *rule* names; one that cannot be
    read is an error.
    """
    given = None
    if probes is not None:
        model = model_of_file(probes)
        (unit,) = model.units.values()
        given = _read(model, unit, "probes-from-outside")
    pairs, absent = in_both((pair for pair in sides.pairs if run in pair.names), sides)
    judged = [absent]
    for pair in pairs:
        try:
            asked = given or _of_the_models(rule, sides)
            left, right = _answers(pair, sides, asked)
        except (MalformedError, UnreadableError, UsageError) as error:
            judged.append(Judged((), (str(error),)))
            continue
        judged.append(Judged(asked.said))
        judged.append(_judge_arrays(rule, pair.name, left, right, asked.distinct))
    return Judged.merged(judged)


def _answers(pair: Pair, sides: SideBySide, asked: _Probes) -> list[ArraysFile]:
    answers = []
    for model, unit, side in zip(
        (sides.left, sides.right), pair.both or (), ("left", "right"), strict=True
    ):
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
    raise UnreadableError(
        "no probes: the rule names none that both models have",
        where=rule.run,
        hint="give a file of probes (--probes)",
    )


def _read(model: Model, unit: Unit, measure: str) -> _Probes:
    with model.open(unit, unit.name) as file:
        arrays = probes_of(file, where=unit.name)
    said = tuple(
        Finding(file=name, measure=measure, held=True, left=file.sha256, right=file.sha256)
        for name, file in unit.files.items()
    )
    return _Probes(arrays, said)


def _judge_arrays(
    rule: Behaviour, file: str, left: TensorFile, right: TensorFile, distinct: int | None = None
) -> Judged:
    """Judge the arrays of two files of outputs that *rule* selects by name.

    *distinct* is how many probes differ from each other, where that is known.
    """
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
    """Judge what was measured; *distinct* as in :func:`_judge_arrays`."""
    bound: float | None = None
    few: list[str] = []
    rate = rule.disagreement
    if outputs.disagreements is not None and rule.kind != "values":
        trials = outputs.probes if distinct is None else min(distinct, outputs.probes)
        wrong = min(outputs.disagreements, trials)
        bound = disagreement_bound(wrong, trials, rule.confidence)
        if rate is not None and outputs.disagreements <= rate * trials and bound > rate:
            few.append(
                f"{file}: {outputs.name}: {wrong} of {trials} answers differ, and so few probes"
                f" cannot show a rate of at most {rate:g}"
            )
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
    findings = [
        found(
            measure=measure,
            held=limit is None or (value is not None and value <= limit),
            value=value,
            limit=limit,
            place=outputs.max_place if measure == "max-difference" else None,
            note=None
            if value is not None
            else next((word for word in outputs.notes if word in _WHY[measure]), _WHY[measure][-1]),
        )
        for measure, value, limit in measures
        if value is not None or limit is not None
    ]
    if "not-a-distribution" in outputs.notes:
        findings.append(found(measure="distribution", held=False, note="not-a-distribution"))
    return Judged(tuple(findings), tuple(few))


def _enlarged(value: float | None) -> float | None:
    """Return *value* with the bound of its error added; None beyond float64."""
    return None if value is None else _finite(enlarged(value))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
