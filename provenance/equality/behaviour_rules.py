"""Outputs on probes, judged (P5): those that both models hold, and those that running one gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provenance.equality.coverage import evidence
from provenance.equality.distances import RELATIVE_ERROR
from provenance.equality.findings import Finding
from provenance.equality.judgement import Judged
from provenance.equality.model import same
from provenance.equality.outputs import KL_ERROR, Outputs, measure_outputs
from provenance.equality.pairing import matched, opened
from provenance.equality.statistics import disagreement_bound
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.tensors.arrays import ArraysFile
from provenance.tensors.opening import open_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.equality.model import Pair
    from provenance.equality.pairing import Models
    from provenance.equality.rules import Behaviour
    from provenance.tensors.view import TensorFile


def judge_outputs(rule: Behaviour, models: Models, laid: tuple[Pair, ...]) -> list[Judged]:
    """Judge the files of outputs that *rule* selects."""
    judged = []
    for pair in laid:
        if not evidence(rule, pair):
            continue
        if pair.both is None:
            judged.append(Judged((Finding(file=pair.name, measure="presence", held=False),)))
            continue
        try:
            with opened(pair.name, pair.both, models) as (left, right):
                judged.append(_judge_arrays(rule, pair.name, left, right))
        except (MalformedError, UnreadableError) as error:
            judged.append(Judged((), (str(error),)))
    return judged


def judge_run(
    rule: Behaviour, run: str, models: Models, laid: tuple[Pair, ...], probes: Path | None
) -> Judged:
    """Run the ONNX model *run* of both models on the same probes, and judge the answers."""
    from provenance.equality.onnx_runner import probes_of, run_unit  # noqa: PLC0415 - an extra

    pair = next((pair for pair in laid if run in pair.names), None)
    if pair is None or pair.both is None:
        return Judged((Finding(file=run, measure="presence", held=False),))
    try:
        with _probes(rule, models, laid, probes) as file:
            asked = probes_of(file, where=rule.probes or str(probes))
        left, right = (
            ArraysFile(run_unit(model, unit, asked), where=f"{run} ({side})")
            for model, unit, side in zip(models, pair.both, ("left", "right"), strict=True)
        )
        return _judge_arrays(rule, run, left, right)
    except (MalformedError, UnreadableError, UsageError) as error:
        return Judged((), (str(error),))


def _probes(
    rule: Behaviour, models: Models, laid: tuple[Pair, ...], probes: Path | None
) -> TensorFile:
    """Return the probes: those from outside, or those of the models, which must be the same.

    Raises:
        UnreadableError: there are none, or the models have two.
    """
    if probes is not None:
        return open_tensors(probes)
    for pair in laid:
        if rule.probes in pair.names and pair.left is not None:
            if not same(*models, pair):
                raise UnreadableError("not the same probes in both models", where=rule.probes)
            return models[0].open(pair.left, pair.name)
    raise UnreadableError(
        "no probes: the rule names none that both models have",
        where=rule.run,
        mend="give a file of probes (--probes)",
    )


def _judge_arrays(rule: Behaviour, file: str, left: TensorFile, right: TensorFile) -> Judged:
    """Judge the arrays of two files of outputs that *rule* selects by name."""
    names, findings = matched(file, rule.tensors, left, right)
    if not names and not findings:
        return Judged((), (f"{file}: no output that the rule selects",))
    kind = "values" if rule.kind == "labels" else rule.kind
    try:
        for name in names:
            findings += _judge(rule, file, measure_outputs(name, left, right, kind))
    except UsageError as error:  # an array that has no such outputs
        return Judged(tuple(findings), (f"{file}: {error}",))
    return Judged(tuple(findings))


def _judge(rule: Behaviour, file: str, outputs: Outputs) -> list[Finding]:
    bound = None
    if outputs.disagreements is not None:
        bound = disagreement_bound(outputs.disagreements, outputs.probes, rule.confidence)
    kl = outputs.kl_mean
    if kl is not None and outputs.differing:
        kl += KL_ERROR * (1 + kl)
    measures = (
        ("max-difference", _enlarged(outputs.max_difference), rule.max_difference),
        ("mean-difference", _enlarged(outputs.mean_difference), rule.mean_difference),
        ("kl-divergence", kl, rule.kl_divergence),
        ("disagreement-bound", bound, rule.disagreement),
    )
    findings = [
        Finding(
            file=file,
            tensor=outputs.name,
            measure=measure,
            held=limit is None or (value is not None and value <= limit),
            value=value,
            limit=limit,
            place=outputs.max_place if measure == "max-difference" else None,
            note=_reason(measure, outputs) if value is None else None,
        )
        for measure, value, limit in measures
        if value is not None or limit is not None
    ]
    if "not-a-distribution" in outputs.notes:
        findings.append(
            Finding(file=file, tensor=outputs.name, measure="distribution", held=False,
                    note="not-a-distribution")
        )  # fmt: skip
    return findings


def _reason(measure: str, outputs: Outputs) -> str | None:
    """Return the note that says why *measure* is absent."""
    elsewhere = {
        "kl-divergence": ("overflow",),
        "max-difference": ("infinite-divergence", "not-a-distribution"),
        "mean-difference": ("infinite-divergence", "not-a-distribution"),
    }.get(measure, ())
    return next((note for note in outputs.notes if note not in elsewhere), None)


def _enlarged(value: float | None) -> float | None:
    """Return *value* with the bound of its error added."""
    return None if value is None else value * (1 + RELATIVE_ERROR)
