"""What a training statement says of its run: step 6 of a verification.

====================  ======================================================================
level                 what the claim says; it is the word of its signer
====================  ======================================================================
``signed``            these are the files: there is no training statement
``attested``          how they were made, too; nobody says that a recorder saw all of it
``recorded``          a recorder saw the run begin, end, and write these files
====================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from provenance.errors import PolicyError, count
from provenance.statement.training import SHOWN_FILES, changed_text, named_files

if TYPE_CHECKING:
    from provenance.statement.training import TrainingStatement

Level = Literal["signed", "attested", "recorded"]
"""An evidence level."""

LEVELS: tuple[Level, ...] = get_args(Level)
"""The evidence levels, the weakest first."""


def level_of(statement: TrainingStatement | None) -> Level:
    """Return the level of *statement*; a run that wrote none of the files did not make them."""
    if statement is None:
        return "signed"
    untouched = statement.run.provenance_outcome.untouched
    names = {entry.name for entry in statement.manifest.entries}
    return statement.run.level if names.difference(untouched) else "attested"


def check_level(statement: TrainingStatement | None, required: Level, where: str) -> None:
    """Raise a PolicyError if *statement*, which stands in *where*, says less than *required*."""
    if LEVELS.index(level_of(statement)) < LEVELS.index(required):
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
        named = "; ".join(map(changed_text, outcome.spoiled_inputs[:SHOWN_FILES]))
        rest = len(outcome.spoiled_inputs[SHOWN_FILES:])
        more = f"; and {count(rest, 'more input')}" if rest else ""
        return f"inputs changed while the training ran: {named}{more}"
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
    if level_of(statement) != "recorded":
        return f"attested: {ended}, but was not seen to make all of these files"
    inputs = "file of an input" if run.provenance_outcome.changed_inputs else "input"
    meanwhile = f", and no {inputs} changed meanwhile" if _looked_again(statement) else ""
    return f"recorded: {ended}{meanwhile}"


def notes_of(statement: TrainingStatement) -> Iterator[str]:
    """Say what the claim states and its level does not vouch for; lists are cut."""
    outcome = statement.run.provenance_outcome
    if outcome.exit_status is not None and not _looked_again(statement):
        yield "the inputs were not looked at again after the run"
    for item in outcome.changed_inputs[:SHOWN_FILES]:
        names = named_files([entry.name for entry in item.added], item.more_added)
        yield f"added during the run: {item.name}: {names}"
    if rest := len(outcome.changed_inputs[SHOWN_FILES:]):
        yield f"files were added to {count(rest, 'more input')} during the run"
    yield from file_notes(statement)


def file_notes(statement: TrainingStatement) -> Iterator[str]:
    """Say which of the model's files the run was not seen to make; lists are cut."""
    outcome = statement.run.provenance_outcome
    files = {
        "there before and not written by the run": outcome.untouched,
        "there before and written by the run with equal bytes": outcome.rewritten,
        "changed after the command ended": outcome.unseen,
    }
    for what, names in files.items():
        if names:
            yield f"{count(len(names), 'file')} {what}: {named_files(names)}"


def _looked_again(statement: TrainingStatement) -> bool:
    return "end" in statement.build.internal_parameters.observed
