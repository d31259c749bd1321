"""A declaration, applied to two models.

1. The declaration must fit: see :mod:`~provenance.judge.coverage`.
2. Models whose files are all equal satisfy every equality: the strongest that held is ``bytes``.
3. Weights that differ and that a rule selects are read side by side, once for each file of initial
   weights (:mod:`~provenance.judge.measured`).
4. Each alternative is judged. Weights that no rule of it selects, and every other file, must be
   equal byte for byte; what several rules select must satisfy all. Files and tensors on one side
   only, other types, shapes or metadata are against it.
5. Of the alternatives that held, the one that may conclude most concludes, and among those the
   strongest. Where none held: ``inconclusive`` if for one of them something could not be read and
   nothing was against it, otherwise ``mismatch``.

The order of the two models does not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from provenance.equality.declaration import place
from provenance.equality.lattice import AGREES, STRENGTHS, Conclusion, Strength
from provenance.equality.rules import Behaviour, Close, Metrics, TensorRule
from provenance.errors import UnavailableError, UsageError
from provenance.judge.coverage import check_coverage
from provenance.judge.evidence import judge_evidence
from provenance.judge.measured import MeasuredWeights, wanted_by
from provenance.judge.selection import judged_by_evidence, tensor_rules
from provenance.judge.tensors import judge_contents
from provenance.measure.contents import Contents
from provenance.measure.findings import AlternativeOutcome, Finding, Judged, Outcome
from provenance.measure.statistics import check_scipy
from provenance.weights.model import Model, SideBySide
from provenance.weights.opening import open_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.declaration import Alternative, Declaration
    from provenance.weights.model import Pair


def compare_models(
    left: Model,
    right: Model,
    declaration: Declaration,
    *,
    probes: Path | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Outcome:
    """Return what *declaration* says of *left* and *right*. See :func:`apply`.

    *on_bytes* is told the bytes of each side as they are compared.
    """
    weights = MeasuredWeights(SideBySide(left, right), wanted_by(declaration, on_bytes=on_bytes))
    return apply(declaration, weights, probes=probes)


def apply(
    declaration: Declaration, weights: MeasuredWeights, *, probes: Path | None = None
) -> Outcome:
    """Return what *declaration* says of the two models of *weights*, which are read as needed.

    *probes* is a file of probes that was drawn after both models were committed to: it takes the
    place of the ``probes`` of every rule.

    Raises:
        UsageError: there are *probes*, and no rule runs a model.
        MalformedError, UnreadableError: *probes* cannot be read.
        PolicyError: the declaration does not fit the models.
        ContentError: a file is not the one that was hashed.
        UnavailableError: float64 arithmetic does not work as it should, or a rule needs scipy.
    """
    if probes is not None:
        _check_probes(declaration, probes)
    selections = check_coverage(declaration, weights.sides)
    if not weights.sides.changed:
        return _identical(declaration)
    _check_statistics(declaration)
    alternatives = tuple(
        _judge(alternative, weights, selection.unread, probes)
        for alternative, selection in zip(declaration.any, selections, strict=True)
    )
    return _outcome(declaration, alternatives, weights.all())


def _outcome(
    declaration: Declaration,
    alternatives: tuple[AlternativeOutcome, ...],
    contents: list[Contents],
) -> Outcome:
    held = [
        (alternative.concludes, outcome.strength)
        for alternative, outcome in zip(declaration.any, alternatives, strict=True)
        if outcome.held
    ]
    conclusion, strongest = max(held, key=_rank) if held else (None, None)
    undecided = any(outcome.held is None for outcome in alternatives)
    return Outcome(
        conclusion=conclusion or ("inconclusive" if undecided else "mismatch"),
        declaration=declaration.digest,
        alternatives=alternatives,
        strongest=strongest,
        first=next(filter(None, (value.first for value in contents)), None),
        distances=tuple(
            pair.distance for value in contents for pair in value.tensors if pair.distance
        ),
        normalisers=tuple(
            dict.fromkeys(effect for value in contents for effect in value.normalisers or ())
        ),
        missing=tuple(dict.fromkeys(what for outcome in alternatives for what in outcome.missing)),
    )


def _rank(held: tuple[Conclusion, Strength]) -> tuple[int, int]:
    """Return what orders alternatives that hold: by what they conclude, then by strength."""
    return -AGREES.index(held[0]), STRENGTHS.index(held[1])


def _check_probes(declaration: Declaration, probes: Path) -> None:
    """Refuse probes that no rule asks for or that cannot be read, before anything is compared."""
    if not any(isinstance(rule, Behaviour) and rule.run is not None for rule in declaration.rules):
        raise UsageError("no rule of the declaration runs a model on probes", where=str(probes))
    with open_tensors(probes):
        pass


def _check_statistics(declaration: Declaration) -> None:
    """Refuse rules that need scipy where it is not installed, before anything is compared."""
    for number, alternative in enumerate(declaration.any):
        for index, rule in enumerate(alternative.all):
            if isinstance(rule, Metrics) or (isinstance(rule, Behaviour) and rule.kind != "values"):
                try:
                    check_scipy()
                except UnavailableError as error:
                    raise error.inside(place(declaration.any, number, index)) from error


def _identical(declaration: Declaration) -> Outcome:
    """Return the outcome of two models whose files are all equal."""
    return Outcome(
        conclusion="match",
        declaration=declaration.digest,
        alternatives=tuple(
            AlternativeOutcome(strength=alternative.strength, held=True, findings=())
            for alternative in declaration.any
        ),
        strongest="bytes",
    )


def _judge(
    alternative: Alternative, weights: MeasuredWeights, unread: tuple[str, ...], probes: Path | None
) -> AlternativeOutcome:
    """Judge one alternative."""
    sides = weights.sides
    judged = [Judged((), unread)]
    for pair in sides.changed:
        rules = tensor_rules(alternative, pair)
        if pair.both is not None and rules:
            judged.append(_judge_weights(pair, rules, weights))
        elif pair.both is None or not judged_by_evidence(alternative, pair):
            judged.append(Judged(_files_differ(pair, sides)))
    judged += judge_evidence(alternative, sides, probes)
    whole = Judged.merged(judged)
    against = any(not finding.held for finding in whole.findings)
    return AlternativeOutcome(
        strength=alternative.strength,
        held=False if against else None if whole.missing else True,
        findings=tuple(dict.fromkeys(whole.findings)),
        missing=tuple(dict.fromkeys(whole.missing)),
    )


def _judge_weights(pair: Pair, rules: tuple[TensorRule, ...], weights: MeasuredWeights) -> Judged:
    """Judge a changed pair of weights by the rules that select its tensors."""
    found = []
    for rule in rules:
        initial = rule.initial if isinstance(rule, Close) else None
        contents = weights.of(pair, initial)
        if not isinstance(contents, Contents):
            return Judged((), (contents,))
        found.append((rule, contents))
    return judge_contents(pair.name, found)


def _files_differ(pair: Pair, sides: SideBySide) -> tuple[Finding, ...]:
    """Return a finding for each file of *pair* that is not the same on both sides."""
    found = ((name, sides.left.files.get(name), sides.right.files.get(name)) for name in pair.files)
    return tuple(
        Finding(
            file=name,
            measure="bytes" if mine and theirs else "presence",
            held=False,
            left=mine.sha256 if mine else None,
            right=theirs.sha256 if theirs else None,
        )
        for name, mine, theirs in found
        if not (mine and theirs and (mine.size, mine.sha256) == (theirs.size, theirs.sha256))
    )
