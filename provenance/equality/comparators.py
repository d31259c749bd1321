"""A declaration, applied to two models.

1. The declaration must fit: see :mod:`~provenance.equality.coverage`.
2. Models whose files are all equal satisfy every equality: the strongest that held is ``bytes``.
3. Weights that differ and that a rule selects are read, once, side by side.
4. Each alternative is judged. Weights that no rule of it selects, and every other file, must be
   equal byte for byte; what several rules select must satisfy all. Files and tensors on one side
   only, other types, shapes or metadata are against it.
5. The strongest alternative that held concludes. Where none held: ``inconclusive`` if for one of
   them something could not be read and nothing was against it, otherwise ``mismatch``.

The order of the two models does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from provenance.equality.contents import Contents, first_divergence, read_contents
from provenance.equality.coverage import (
    check_coverage,
    judged_by_evidence,
    tensor_rules,
)
from provenance.equality.distances import Wanted
from provenance.equality.evidence import judge_evidence
from provenance.equality.findings import AlternativeOutcome, Finding, Outcome
from provenance.equality.judgement import Judged, judge_contents
from provenance.equality.lattice import CONCLUDES, STRENGTHS
from provenance.equality.model import Model, Pair, Unit, Weights, pairs, same
from provenance.equality.normalisers import normalised
from provenance.equality.rules import Behaviour, Close, Rounded, TensorRule
from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.tensors.opening import open_tensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.declaration import Alternative, Declaration

__all__ = ["Model", "compare_models"]


@dataclass(frozen=True, slots=True)
class _Unread:
    """Weights that could not be read, and why."""

    reason: str


_Read = dict[tuple[str, str | None], Contents | _Unread]
"""What was read, by the pair's name and that of its initial weights."""


@dataclass(frozen=True, slots=True)
class _Models:
    """The two models, laid side by side."""

    left: Model
    right: Model
    pairs: tuple[Pair, ...]
    changed: tuple[Pair, ...]
    """The pairs whose files are not all equal."""

    def initial(self, rule: TensorRule) -> tuple[str, Unit] | None:
        """Return the initial weights that *rule* names, if both models have the same."""
        if not isinstance(rule, Close) or rule.initial is None:
            return None
        for pair in self.pairs:
            if rule.initial in pair.names and pair.left and same(self.left, self.right, pair):
                return rule.initial, pair.left
        return None


def compare_models(
    left: Model,
    right: Model,
    declaration: Declaration,
    *,
    probes: Path | None = None,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Outcome:
    """Return what *declaration* says of *left* and *right*.

    *probes* is a file of probes that was drawn after both models were committed to: it takes the
    place of the ``probes`` of every rule. *threads* is how many compare at once; by default as many
    as there are cores. *on_bytes* is told the bytes of each side as they are compared.

    Raises:
        UsageError: there are *probes*, and no rule runs a model.
        MalformedError, UnreadableError: *probes* cannot be read.
        PolicyError: the declaration does not fit the models.
        ContentError: a file is not the one that was hashed.
        MalformedError: a file's name leaves its folder.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    if probes is not None:
        _check_probes(declaration, probes)
    laid = pairs(left, right)
    changed = tuple(pair for pair in laid if not same(left, right, pair))
    models = _Models(left, right, laid, changed)
    selections = check_coverage(declaration, left, right)
    if not changed:
        return _identical(declaration)
    read = _read(models, declaration, threads, on_bytes)
    alternatives = tuple(
        _judge(alternative, models, read, selection.unread, probes)
        for alternative, selection in zip(declaration.any, selections, strict=True)
    )
    held = [outcome.strength for outcome in alternatives if outcome.held]
    strongest = max(held, key=STRENGTHS.index) if held else None
    undecided = any(outcome.held is None for outcome in alternatives)
    contents = [value for value in read.values() if isinstance(value, Contents)]
    return Outcome(
        conclusion=(
            CONCLUDES[strongest] if strongest else "inconclusive" if undecided else "mismatch"
        ),
        declaration=declaration.digest,
        alternatives=alternatives,
        strongest=strongest,
        first=next(filter(None, (first_divergence(c.file, c.tensors) for c in contents)), None),
        distances=tuple(
            pair.distance for value in contents for pair in value.tensors if pair.distance
        ),
        normalisers=tuple(
            dict.fromkeys(effect for value in contents for effect in value.normalisers or ())
        ),
        missing=tuple(dict.fromkeys(what for outcome in alternatives for what in outcome.missing)),
    )


def _check_probes(declaration: Declaration, probes: Path) -> None:
    """Refuse probes that no rule asks for or that cannot be read, before anything is compared."""
    rules = (rule for alternative in declaration.any for rule in alternative.all)
    if not any(isinstance(rule, Behaviour) and rule.run is not None for rule in rules):
        raise UsageError("no rule of the declaration runs a model on probes", where=str(probes))
    with open_tensors(probes):
        pass


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


def _read(
    models: _Models,
    declaration: Declaration,
    threads: int | None,
    on_bytes: Callable[[int], None] | None,
) -> _Read:
    """Read every changed pair that some alternative judges by its tensors."""
    read: _Read = {}
    for pair in models.changed:
        rules = [
            rule for alternative in declaration.any for rule in tensor_rules(alternative, pair)
        ]
        if pair.both is None or not rules:
            continue
        close = [rule for rule in rules if isinstance(rule, Close)]
        wanted = Wanted(
            norms=bool(close),
            ulp=any(rule.max_ulp is not None for rule in close),
            rounded=tuple((rule.to, rule.tensors) for rule in rules if isinstance(rule, Rounded)),
            threads=threads,
            on_bytes=on_bytes,
        )
        usable = {found[0]: found for rule in close if (found := models.initial(rule)) is not None}
        starts: list[tuple[str, Unit] | None] = [usable[name] for name in sorted(usable)]
        for start in starts or [None]:
            key = (pair.name, start[0] if start else None)
            read[key] = _contents(models, pair.both, pair.name, start, wanted)
    return read


def _contents(
    models: _Models,
    both: tuple[Unit, Unit],
    name: str,
    start: tuple[str, Unit] | None,
    wanted: Wanted,
) -> Contents | _Unread:
    initial = (start[0], Weights(models.left, start[1])) if start is not None else None
    sides = Weights(models.left, both[0]), Weights(models.right, both[1])
    try:
        contents = read_contents(name, *sides, wanted, initial)
    except (MalformedError, UnreadableError) as error:
        return _Unread(str(error))
    if both[0].name == both[1].name or contents.normalisers is None:
        return contents
    renamed = normalised(name, "weight-file-name")
    return replace(contents, normalisers=(*contents.normalisers, renamed))


def _judge(
    alternative: Alternative,
    models: _Models,
    read: _Read,
    unread: tuple[str, ...],
    probes: Path | None,
) -> AlternativeOutcome:
    """Judge one alternative."""
    findings: list[Finding] = []
    missing: list[str] = list(unread)
    for pair in models.changed:
        if judged_by_evidence(alternative, pair):
            continue
        rules = tensor_rules(alternative, pair)
        if pair.both is None or not rules:
            findings += _files_differ(pair, models)
            continue
        judged = _judge_weights(pair, rules, models, read)
        findings += judged.findings
        missing += judged.missing
    for judged in judge_evidence(alternative, (models.left, models.right), models.pairs, probes):
        findings += judged.findings
        missing += judged.missing
    against = any(not finding.held for finding in findings)
    return AlternativeOutcome(
        strength=alternative.strength,
        held=False if against else None if missing else True,
        findings=tuple(findings),
        missing=tuple(dict.fromkeys(missing)),
    )


def _judge_weights(
    pair: Pair, rules: tuple[TensorRule, ...], models: _Models, read: _Read
) -> Judged:
    """Judge a changed pair of weights by the rules that select its tensors."""
    found = [(rule, _for_rule(read, pair.name, models.initial(rule))) for rule in rules]
    unread = [contents.reason for _, contents in found if isinstance(contents, _Unread)]
    if unread:
        return Judged((), tuple(unread))
    return judge_contents(
        pair.name, [(rule, value) for rule, value in found if isinstance(value, Contents)]
    )


def _for_rule(read: _Read, name: str, initial: tuple[str, Unit] | None) -> Contents | _Unread:
    """Return what was read of the pair *name*, measured from *initial* where that was possible."""
    exact = read.get((name, initial[0] if initial else None))
    if exact is not None:
        return exact
    return next(contents for (pair, _), contents in read.items() if pair == name)


def _files_differ(pair: Pair, models: _Models) -> list[Finding]:
    """Return a finding for each file of *pair* that is not the same on both sides."""
    if pair.both is None:
        unit = pair.left or pair.right
        names: tuple[str, ...] = unit.files if unit is not None else ()
    else:
        names = tuple(sorted({*pair.both[0].files, *pair.both[1].files}))
    findings = []
    for name in names:
        mine, theirs = models.left.files.get(name), models.right.files.get(name)
        if mine and theirs and (mine.size, mine.sha256) == (theirs.size, theirs.sha256):
            continue
        findings.append(
            Finding(
                file=name,
                measure="bytes" if mine and theirs else "presence",
                held=False,
                left=mine.sha256 if mine else None,
                right=theirs.sha256 if theirs else None,
            )
        )
    return findings
