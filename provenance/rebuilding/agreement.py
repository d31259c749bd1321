"""Whether rebuilds agree with the published model, under the equality that it declared.

The first model is the published one: its attestation's equality applies, and every other model is
compared with *it* (a star), because closeness is not transitive; if the equality is not exact, the
largest distance between any two is also reported. A builder is a signer, as the reader trusts them
(a key, a certificate's subject, an identity), who attested a run of their own: models by one signer
count once, and so do signatures of several on one attestation or one run, and those that one key
made under several names, or a key and the one that it follows, as both signed. One differing model
makes the result a mismatch: dissent is not outvoted.

``docs/spec/verdict.md`` says when each conclusion is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import msgspec

from provenance.encoding import strict_base64
from provenance.equality.declaration import Declaration
from provenance.equality.lattice import Conclusion
from provenance.equality.rules import Close, Curves
from provenance.errors import PolicyError, ProvenanceError, UsageError
from provenance.folder.claims import not_compared, read_byproduct
from provenance.judge.comparators import apply
from provenance.judge.coverage import check_coverage
from provenance.judge.measured import MeasuredWeights, read_together
from provenance.measure.findings import Outcome
from provenance.rebuilding import recipe, verdict
from provenance.rebuilding.verdict import (
    AppliedEquality,
    Diameter,
    Party,
    Rebuild,
    Verdict,
    allowed_by,
    worst,
)
from provenance.statement import metrics
from provenance.statement.training import Recipe
from provenance.trust.contents import confirm
from provenance.trust.opening import Claim
from provenance.trust.verification import Verified, claimed_files
from provenance.weights.model import Model
from provenance.weights.pairs import SideBySide


def agree(
    models: Sequence[Verified],
    *,
    quorum: int = verdict.SMALLEST_AGREEMENT,
    independent: bool = False,
    unsafe_equality: Declaration | None = None,
    probes: Path | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Verdict:
    """Return the judgement over *models*, the published one first.

    *quorum* is how many builders must agree, including the publisher; *independent* is for whoever
    will sign the verdict to say of them. *unsafe_equality* replaces
    the declared equality; the verdict says so. *probes* is a file of probes drawn after the models
    were committed to. *on_bytes* is called with the bytes compared on each side, or hashed.

    Every file is confirmed to be the one that was signed by what was read of it, before anything is
    said. Raises PolicyError if a model has no training statement, or no equality was declared, and
    ContentError where a file is not the one stated.
    """
    if len(models) < verdict.SMALLEST_AGREEMENT:
        hint = "the published one first, then its rebuilds"
        raise UsageError("agreement takes two models or more", hint=hint)
    if quorum < verdict.SMALLEST_AGREEMENT:
        raise UsageError("a quorum below two is no agreement")
    claims = [_claim(model) for model in models]
    declaration = unsafe_equality or models[0].declaration
    if declaration is None:
        raise PolicyError(
            "the first attestation declares no equality, and one chosen afterwards proves nothing",
            where=str(models[0].root),
            hint="record with --equality",
        )
    files = [_model(model, declaration) for model in models]
    changes = {(it.old, it.new) for model in models for it in model.key_changes}
    parties, reached = _builders(claims, changes, quorum)
    recipes = [claim.training.recipe for claim in claims]
    applied = AppliedEquality(
        declaration.name,
        declaration.version,
        declaration.digest,
        unsafe_equality is None,
        declaration.document if declaration.exceptions else None,
    )
    with _confirming(models, files, on_bytes):
        star, others = _read(files, declaration, on_bytes)
        bases = (recipe.same_base(recipes[0], each) for each in recipes[1:])
        outcomes = [
            apply(declaration, each, probes=probes, same_base=same)
            for each, same in zip(star, bases, strict=True)
        ]
        judged = zip(parties[1:], outcomes, claims[1:], strict=True)
        rebuilds = tuple(_rebuild(party, found, claims[0], it) for party, found, it in judged)
        parts = [_judge_rebuild(n, r, recipes[n], applied) for n, r in enumerate(rebuilds, 1)]
        if any(gap != recipe.NO_DATA for each in recipes for gap in recipe.gaps(each)):
            parts.append(("inconclusive", []))  # nobody repeats it; a training may do without data
        parts.append(reached)
        conclusion = worst(part[0] for part in parts)
        diameter = None
        if conclusion == "consistent":
            outcomes += [apply(declaration, each) for each in others]  # no distance needs probes
            diameter = _diameter(outcomes)
    return Verdict(
        conclusion,
        applied,
        parties[0],
        rebuilds,
        tuple(sorted(party.signer for party in parties if party.counted)),
        quorum,
        independent,
        tuple(reason for part in parts for reason in part[1]),
        diameter,
    )


def _read(
    files: Sequence[Model], declaration: Declaration, on_bytes: Callable[[int], None] | None
) -> tuple[list[MeasuredWeights], list[MeasuredWeights]]:
    """Return the models beside the first, and beside one another, read once as far as is asked.

    One another are read where a diameter may be told.
    """
    pairs = [*combinations(files, 2)]
    weights = [MeasuredWeights(SideBySide(*pair), declaration, on_bytes=on_bytes) for pair in pairs]
    star, others = weights[: len(files) - 1], weights[len(files) - 1 :]
    for each in star:
        check_coverage(declaration, each)  # one that does not fit is refused before
    wide = any(isinstance(rule, Close) for rule in declaration.rules)
    read_together(weights if wide else star)
    return star, others


@contextmanager
def _confirming(
    models: Sequence[Verified], files: Sequence[Model], on_bytes: Callable[[int], None] | None
) -> Iterator[None]:
    """Refuse *models* whose *files* are not those that were signed, whatever else is found."""
    failure: ProvenanceError | None = None
    try:
        yield
    except ProvenanceError as error:
        failure = error
    for verified, model in zip(models, files, strict=True):
        try:
            confirm(model, claimed_files(_claim(verified)), verified.reading, on_bytes)
        except ProvenanceError as error:
            raise error.inside(str(model.root)) from error
    if failure is not None:
        raise failure


def _claim(model: Verified) -> Claim:
    if model.claim is None:
        raise PolicyError("has no training statement", where=str(model.root))
    return model.claim


def _rebuild(party: Party, outcome: Outcome, published: Claim, rebuilt: Claim) -> Rebuild:
    builds = published.training.build, rebuilt.training.build
    found = recipe.compare(*builds)
    return Rebuild(
        party,
        outcome,
        recipe.answer(found.differences, found.unknown),
        found.differences,
        found.unknown,
        recipe.environment_differences(*builds),
    )


def _builders(
    claims: Sequence[Claim], changes: Iterable[tuple[str, str]], quorum: int
) -> tuple[list[Party], Part]:
    """Return the parties, and whether enough builders are among them, by *changes* of their keys.

    A party counts if its signer, its attestation and its run are new, and the attestation names
    the key that signed it, or none where an identity signed, whose keys are made as it signs: who
    signs what another one attested has built nothing.
    """
    parties, reasons = [_party(claim) for claim in claims], []
    counted, runs = set[int](), set[str]()
    people = zip(claims, parties, verdict.told_apart(parties, changes), strict=True)
    for number, (claim, party, signer) in enumerate(people):
        facts = {party.attestation["sha256"], party.invocation_id or party.attestation["sha256"]}
        key = "" if claim.opened.kind == "identity" else strict_base64.format(claim.opened.key.spki)
        why = ""
        if claim.training.run.provenance_signer != key:
            why = "it names another signer than the key that signed it"
        elif signer not in counted and facts & runs:
            why = "another signer attested the same run"
        if why:
            who = f"rebuild {number}" if number else "the published model"
            reasons.append(f"{who} does not count as a builder: {why}")
        elif signer not in counted:
            parties[number] = msgspec.structs.replace(party, counted=True)
            counted.add(signer)
            runs |= facts
    if len(counted) >= quorum:
        return parties, ("match", reasons)
    once = ": models by one signer count once" if len(parties) > len(counted) + len(reasons) else ""
    return parties, ("inconclusive", [*reasons, f"{len(counted)} of {quorum} builders{once}"])


def _party(claim: Claim) -> Party:
    run = claim.training.run
    return Party(
        claim.training.model_name,
        {"sha256": claim.training.manifest.root_digest},
        {"sha256": hashlib.sha256(claim.opened.payload).hexdigest()},
        {"sha256": hashlib.sha256(claim.bundle.raw).hexdigest()},
        claim.opened.key.key_id,
        run.metadata.invocation_id,
        claim.training.level,
        counted=False,
        subject=claim.opened.subject,
    )


def _model(verified: Verified, declaration: Declaration) -> Model:
    """Return the files of *verified*, and recorded metrics if *declaration* asks for them."""
    asked = any(isinstance(rule, Curves) and rule.sources is None for rule in declaration.rules)
    recorded = None
    if asked and verified.claim is not None:
        recorded = read_byproduct(verified.root, verified.claim.training, metrics.BYPRODUCT)
    others = not_compared(verified.root, verified.not_covered)
    entries = verified.manifest.entries
    sizes, sha256 = ({it.name: getattr(it, key) for it in entries} for key in ("size", "sha256"))
    return Model(verified.root, sizes, sha256, recorded, others)


Part = tuple[Conclusion, list[str]]
"""The best conclusion that one part allows, and the reasons."""


def _judge_rebuild(
    number: int, rebuild: Rebuild, followed: Recipe, applied: AppliedEquality
) -> Part:
    conclusions = [allowed_by(rebuild)]
    reasons = [f"rebuild {number}: {text}" for text in rebuild.outcome.missing]
    start = f"rebuild {number} followed another recipe"
    reasons += [f"{start}: {each.text}" for each in rebuild.recipe_differences]
    if rebuild.recipe == "unknown":
        start = f"rebuild {number}: the recipe is unknown"
        reasons += [f"{start}: {text}" for text in rebuild.recipe_unknown]
    theirs = followed.equality
    other = theirs is None or theirs.sha256 != applied.sha256
    if applied.declared and other and rebuild.outcome.strongest != "bytes":
        # The publisher may have signed a laxer declaration after seeing this rebuild. If the files
        # are the same, that does not matter.
        under = (
            "names no declaration: whether the published one is older"
            if theirs is None
            else f"was made under another declaration, {theirs.name} (sha256 {theirs.sha256}):"
            " which of the two came first"
        )
        conclusions.append("inconclusive")
        reasons.append(f"rebuild {number} {under} is not known")
    return worst(conclusions), reasons


def _diameter(outcomes: Sequence[Outcome]) -> Diameter:
    distances = [distance for outcome in outcomes for distance in outcome.distances]
    relative = (d.relative_l2_update for d in distances if d.relative_l2_update is not None)
    linf = (d.linf for d in distances if d.linf is not None)
    return Diameter(max(relative, default=None), max(linf, default=None))
