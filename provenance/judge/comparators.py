"""A declaration, applied to two models: the steps of docs/spec/equality.md section 2.

Weights that differ and that a rule selects are read side by side, once for each file of initial
weights (:mod:`~provenance.judge.measured`). The order of the two models does not matter.
"""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from provenance.equality.declaration import Alternative, Declaration, place
from provenance.equality.lattice import AGREES, STRENGTHS, Conclusion
from provenance.equality.patterns import selects_tensor
from provenance.equality.rules import Behaviour, Close, Metrics, Rounded, TensorRule
from provenance.errors import UnavailableError, UsageError
from provenance.judge.coverage import Selection, check_coverage
from provenance.judge.evidence import judge_evidence
from provenance.judge.exceptions import Exceptions
from provenance.judge.measured import MeasuredWeights
from provenance.judge.selection import Judges, files_differ
from provenance.judge.tensors import judge_contents
from provenance.loaders.table import table
from provenance.measure.contents import Contents
from provenance.measure.findings import (
    AS_NARROWER,
    REPORTED,
    SHIPPED,
    AlternativeOutcome,
    Finding,
    Judged,
    Outcome,
)
from provenance.measure.statistics import check_scipy
from provenance.weights.opening import open_tensors
from provenance.weights.pairs import Pair, SideBySide


def apply(
    declaration: Declaration,
    weights: MeasuredWeights,
    *,
    probes: Path | None = None,
    same_base: bool = False,
) -> Outcome:
    """Return the outcome of *declaration* on the two models of *weights*, which are read as needed.

    The file *probes*, drawn after both models were committed to, replaces the ``probes`` of every
    rule; it is an error if no rule runs a model, or if it cannot be read. *same_base*: both claims
    name the same base model by its digest.

    Raises:
        PolicyError: the declaration does not fit the models.
        ContentError: a file is not the one that was hashed.
        UnavailableError: float64 arithmetic does not work as it should, or a rule needs scipy.
    """
    if probes is not None:
        if not any(getattr(rule, "run", None) for rule in declaration.rules):
            raise UsageError("no rule of the declaration runs a model on probes", where=str(probes))
        with open_tensors(probes):  # refused before anything is compared
            pass
    selections = check_coverage(declaration, weights)
    if not weights.changed:
        return _identical(declaration, weights.sides)
    _check_statistics(declaration)
    exceptions = Exceptions(declaration, weights.sides, same_base=same_base)
    judged = [
        _judge(alternative, weights, selection, exceptions, probes)
        for alternative, selection in zip(declaration.any, selections, strict=True)
    ]
    alternatives = tuple(map(_outcome, declaration.any, judged))
    best, used = min(
        (each for each in zip(alternatives, judged, strict=True) if each[0].held),
        key=lambda each: (AGREES.index(each[0].concludes), -STRENGTHS.index(each[0].strength)),
        default=(None, None),
    )
    undecided = any(outcome.held is None for outcome in alternatives)
    used = used or Judged.merged(judged)
    otherwise: Conclusion = "inconclusive" if undecided else "mismatch"
    contents = weights.all()
    distances = (pair.distance for value in contents for pair in value.tensors if pair.distance)
    effects = [effect for value in contents for effect in value.normalisers or ()]
    missing = (what for outcome in alternatives for what in outcome.missing)
    return Outcome(
        conclusion=otherwise if best is None else best.concludes,
        declaration=declaration.digest,
        alternatives=alternatives,
        strongest=None if best is None else best.strength,
        first=next(filter(None, (value.first for value in contents)), None),
        distances=tuple(distances),
        normalisers=tuple(dict.fromkeys([*effects, *used.normalisers])),
        missing=tuple(dict.fromkeys(missing)),
        exceptions=tuple(dict.fromkeys(used.excepted)),
        same_weights=weights.same(),
        loaders=table().version,
        not_compared=weights.sides.not_compared,
    )


def _outcome(alternative: Alternative, judged: Judged) -> AlternativeOutcome:
    """Return what was *judged* of *alternative*; with an exception it is not one of bytes."""
    against = any(not finding.held for finding in judged.findings)
    less = alternative.strength == "bytes" and (judged.excepted or judged.normalisers)
    return AlternativeOutcome(
        strength="tensors" if less else alternative.strength,
        held=False if against else None if judged.missing else True,
        findings=tuple(dict.fromkeys(judged.findings)),
        missing=tuple(dict.fromkeys(judged.missing)),
    )


def _check_statistics(declaration: Declaration) -> None:
    """Refuse rules that need scipy where it is not installed, before anything is compared."""
    for number, alternative in enumerate(declaration.any):
        for index, rule in enumerate(alternative.all):
            if isinstance(rule, Metrics) or (isinstance(rule, Behaviour) and rule.kind != "values"):
                try:
                    check_scipy()
                except UnavailableError as error:
                    raise error.inside(place(declaration.any, number, index)) from error


def _identical(declaration: Declaration, sides: SideBySide) -> Outcome:
    held = tuple(
        AlternativeOutcome(strength=alternative.strength, held=True, findings=())
        for alternative in declaration.any
    )
    return Outcome(
        conclusion="match",
        declaration=declaration.digest,
        alternatives=held,
        strongest="bytes",
        same_weights=True,
        not_compared=sides.not_compared,
    )


def _judge(
    alternative: Alternative,
    weights: MeasuredWeights,
    selection: Selection,
    exceptions: Exceptions,
    probes: Path | None,
) -> Judged:
    judged = [Judged(_loaded_apart(weights.sides), selection.unread)]
    weighed: dict[int, tuple[Pair, tuple[TensorRule, ...]]] = {}
    for pair in weights.changed:
        judges = weights.judges(alternative, pair)
        if judges.by == "bytes":
            judged.append(Judged(files_differ(pair, weights.sides)))
        elif pair.both is None or judges.by == "exceptions":
            judged.append(exceptions.of_file(pair))
        elif judges.by == "tensors":
            weighed[len(judged)] = pair, judges.rules
            judged.append(_judge_weights(pair, judges, weights, exceptions))
        if pair.name in selection.reported:
            reported = Finding(file=pair.name, measure=REPORTED, held=True, note=REPORTED)
            judged.append(Judged((reported,)))
    judged += judge_evidence(alternative, weights.sides, probes)
    for number, (pair, rules) in weighed.items():
        for rule in rules if alternative.strength == "rounded" else ():
            if isinstance(rule, Rounded):
                judged[number] = _shipped(judged[number], pair, rule, weights)
    return Judged.merged(judged)


def _loaded_apart(sides: SideBySide) -> tuple[Finding, ...]:
    """Return a finding for the weights that loaders take, and that are compared with no others."""
    return tuple(
        Finding(
            file=" | ".join(filter(None, (each.left, each.right))),
            measure=f"loaded by {', '.join(each.loaders)}",
            held=False,
            left=each.left,
            right=each.right,
        )
        for each in sides.apart
    )


def _shipped(judged: Judged, pair: Pair, rule: Rounded, weights: MeasuredWeights) -> Judged:
    """Return what was *judged* of *pair*, with what both models ship as *rule* rounds it marked."""
    measure = f"{AS_NARROWER}{rule.to}"
    names = [it.tensor or "" for it in judged.findings if it.measure == measure and it.held]
    found = weights.shipped(pair, rule, [it for it in names if selects_tensor(rule.tensors, it)])
    findings = (
        replace(it, note=SHIPPED) if it.measure == measure and it.tensor in found else it
        for it in judged.findings
    )
    return replace(judged, findings=tuple(findings))


def _judge_weights(
    pair: Pair, judges: Judges, weights: MeasuredWeights, exceptions: Exceptions
) -> Judged:
    found = []
    for rule in judges.rules:
        initial = rule.initial if isinstance(rule, Close) else None
        contents = weights.of(pair, initial)
        if not isinstance(contents, Contents):
            return Judged((), (contents,))
        if contents.doubts:
            return Judged((), contents.doubts)
        found.append((rule, contents))
    beside = exceptions.of_metadata(pair, found[0][1])
    return Judged.merged([beside, judge_contents(pair.name, judges, found)])
