"""What a training statement says of its run: step 6 of a verification.

The evidence levels are the word of its signer (docs/spec/verification.md, "Whose word").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import msgspec

from provenance.envelope.dsse import Opened, SignerKind
from provenance.errors import SHOWN, PolicyError, count, cut, some_of
from provenance.statement.training import MODEL, TrainingStatement, changed_text
from provenance.trust.opening import Claim, Signed

Level = Literal["signed", "attested", "recorded", "rebuilt"]
"""An evidence level."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""The evidence levels, the weakest first."""


class Word(msgspec.Struct, frozen=True, rename="camel"):
    """The evidence level for which *signer* vouches: a key id, a subject or an identity."""

    signer: str
    level: Level
    kind: SignerKind = "key"


def check_level(statement: TrainingStatement | None, required: Level, where: str) -> None:
    """Raise a PolicyError if *statement*, which stands in *where*, says less than *required*.

    ``rebuilt`` is for a verdict to say.
    """
    level = "signed" if statement is None else statement.level
    if required != "rebuilt" and LEVELS.index(level) < LEVELS.index(required):
        what = f"{required} is required, but the outcome is {outcome_detail(statement)}"
        raise PolicyError(what, where=where)


def failure_of(statement: TrainingStatement) -> str | None:
    """Return why the training of *statement* counts for nothing; None if it counts."""
    outcome = statement.run.provenance_outcome
    if outcome.signal:
        return f"the training command was killed by {outcome.signal}"
    if outcome.failed:
        return f"the training command ended with status {outcome.exit_status}"
    if outcome.spoiled_inputs:
        named = cut([changed_text(item) for item in outcome.spoiled_inputs], SHOWN)
        return f"inputs changed while the training ran: {'; '.join(named)}"
    return None


def outcome_detail(statement: TrainingStatement | None) -> str:
    """Say what was seen of a run that did not fail."""
    if statement is None:
        return "not stated: the files are signed, but how they were made is not"
    run = statement.run
    if not run.metadata.started_on:
        return "attested after the fact: the run itself was not observed"
    status = run.provenance_outcome.exit_status
    if status is None:
        return "unknown: the run began and its end was not seen"
    ended = f"the command ended with status {status}"
    if statement.level != "recorded":
        return f"attested: {ended}, but was not seen to make all of these files"
    inputs = "file of an input" if run.provenance_outcome.changed_inputs else "input"
    meanwhile = f", and no {inputs} changed meanwhile" if _looked_again(statement) else ""
    return f"recorded: {ended}{meanwhile}"


def first_good(matching: Sequence[Claim], name: str | None = None) -> Claim | None:
    """Return the first claim about these files, called *name*, whose training did not fail.

    The first, so that nobody who can add a claim can replace an equality that was declared earlier.
    """
    named = [claim for claim in matching if name in (None, claim.training.model_name)]
    for claim in named:
        if failure_of(claim.training) is None:
            return claim
    if named:
        raise PolicyError(failure_of(named[0].training) or "", where=named[0].where)
    if matching:
        what = f"calls these files {matching[0].training.model_name}, and {name} is expected"
        raise PolicyError(what, where=matching[0].where)
    return None


def levels_of(
    matching: Sequence[Claim], signatures: Sequence[Signed], name: str | None
) -> tuple[Word, ...]:
    """Return each signer's word: the level of the first good claim, else that it signed."""
    found: dict[str, Word] = {}

    def add(opened: Opened, level: Level) -> None:
        found.setdefault(opened.signer, Word(opened.signer, level, opened.kind))

    for claim in matching:
        if name in (None, claim.training.model_name) and failure_of(claim.training) is None:
            add(claim.opened, claim.training.level)
    for signed in signatures:
        add(signed.opened, "signed")
    return tuple(found.values())


def notes_on(claim: Claim, matching: Sequence[Claim]) -> Iterator[str]:
    """Say what *claim*, one of those about these files, does not vouch for."""
    yield from notes_of(claim.training)
    for later in matching[matching.index(claim) + 1 :]:
        if failure := failure_of(later.training):
            yield f"a later claim about these files does not count, {later.where}: {failure}"
            return


def notes_of(statement: TrainingStatement) -> Iterator[str]:
    """Say what the claim states and its level does not vouch for; lists are cut."""
    outcome = statement.run.provenance_outcome
    if outcome.exit_status is not None and not _looked_again(statement):
        yield "the inputs were not looked at again after the run"
    added = [
        f"added during the run: {item.name}: "
        + some_of([entry.name for entry in item.added], item.more_added)
        for item in outcome.changed_inputs
        if item.added or item.more_added
    ]
    yield from cut(added, SHOWN, "more inputs to which files were added")
    yield from _rank_notes(statement)
    yield from file_notes(statement)


def _rank_notes(statement: TrainingStatement) -> Iterator[str]:
    """Say which ranks of a distributed training were not heard, at all or when they ended."""
    said = statement.build.internal_parameters.collectors.get("distribution")
    values = said.values if said else {}
    parts = {"missing": "that never spoke", "withoutEnd": "that did not say that they ended"}
    for name, what in parts.items():
        ranks = values.get(name)
        if ranks and isinstance(ranks, str):
            yield f"ranks {what}: {ranks[:200]} of a world of {str(values.get('worldSize'))[:20]}"


def file_notes(statement: TrainingStatement) -> Iterator[str]:
    """Say which of the model's files the run was not seen to make, or read; lists are cut."""
    outcome, recipe = statement.run.provenance_outcome, statement.recipe
    read = [each.name for each in recipe.source.read] if recipe.source else []
    own = [name.removeprefix(MODEL) for name in read if name.startswith(MODEL)]
    files = {
        "there before and read by the run, of no base model": own if not recipe.base_model else (),
        "there before and not written by the run": outcome.untouched,
        "there before and written by the run with equal bytes": outcome.rewritten,
        "that the run was not seen to make": outcome.unseen,
    }
    for what, names in files.items():
        if names:
            yield f"{count(len(names), 'file')} {what}: {some_of(names)}"


def _looked_again(statement: TrainingStatement) -> bool:
    return "end" in statement.build.internal_parameters.observed
