"""What weakens a claim that was made: said to its signer, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from provenance.capture.secrecy.scan import LiveSecret, secrets_in_files
from provenance.errors import PolicyError, ProvenanceError, UnavailableError, count, some_of
from provenance.files.manifest import FileEntry
from provenance.files.names import MODEL_SIGNATURE
from provenance.files.pointers import FETCH, unfetched
from provenance.keys import PublicKey
from provenance.statement.training import TrainingStatement
from provenance.trust.outcome import failure_of, notes_of, outcome_detail
from provenance.trust.verification import claim_that_counts
from provenance.weights import check_numpy


def misfit(model: Path, statement: TrainingStatement) -> ProvenanceError | None:
    """Return why the declared equality does not fit *model*, or cannot be judged here."""
    stated = statement.recipe.equality
    if stated is None or stated.name == "bytes":  # fits everything
        return None
    try:
        check_numpy()
        from provenance.equality.declaration import from_document  # noqa: PLC0415 - rarely needed
        from provenance.judge.coverage import check_coverage  # noqa: PLC0415 - needs numpy
        from provenance.judge.measured import MeasuredWeights  # noqa: PLC0415
        from provenance.weights.model import Model  # noqa: PLC0415
        from provenance.weights.pairs import SideBySide  # noqa: PLC0415

        opened = Model(model, {each.name: each.size for each in statement.manifest.entries})
        declared = from_document(stated.declaration)
        check_coverage(declared, MeasuredWeights(SideBySide(opened, opened), declared))
    except (PolicyError, UnavailableError) as error:
        return error
    return None


def weaknesses_of_files(
    model: Path, entries: Iterable[FileEntry], secrets: tuple[LiveSecret, ...]
) -> Iterator[str]:
    """Yield what is wrong with the files that were signed: not fetched, or with *secrets* in them.

    It is said, not refused: whoever wrote the file has to decide.
    """
    if (text := unfetched(model, entries)) is not None:
        yield f"{text}: {FETCH}"
    for what, names in secrets_in_files(model, entries, secrets).items():
        holds = f"{some_of(names)} {'holds' if len(names) == 1 else 'hold'} {what}"
        yield f"{holds}: who gets the model gets it (remove it and sign again, or revoke it)"


def weaknesses(
    model: Path,
    statement: TrainingStatement,
    key: PublicKey,
    secrets: tuple[LiveSecret, ...],
    *,
    kept_signature: bool,
) -> Iterator[str]:
    """Yield what weakens the claim *statement* beside *model*, which *key* signed."""
    if kept_signature:
        yield f"{MODEL_SIGNATURE} is not of this key and was left; the claim stands beside it"
    collectors = statement.build.internal_parameters.collectors
    said, interpreter = collectors.get("metrics"), collectors.get("interpreter")
    lost = sum(said.values.get(name, 0) for name in ("dropped", "damaged")) if said else 0
    if lost:
        yield f"at least {count(lost, 'record')} of the program could not be kept"
    if statement.recipe.command and interpreter and interpreter.status == "error":
        yield f"interpreter and packages are not recorded: {interpreter.reason}"
    failure, observed = failure_of(statement), bool(statement.run.metadata.started_on)
    if failure is not None:
        yield f"'verify' will refuse this claim: {failure}"
    elif observed and statement.level != "recorded":
        yield f"'verify' will say: {outcome_detail(statement)}"
    yield from notes_of(statement)
    yield from weaknesses_of_files(model, statement.manifest.entries, secrets)
    problem = misfit(model, statement) if observed else None  # else it was refused beforehand
    if isinstance(problem, UnavailableError):
        yield f"whether the equality fits this model was not checked: {problem}"
    elif problem is not None:
        yield f"the equality does not fit this model: {problem}"
        yield "'agree' will refuse it ('provenance equality check FILE MODEL' says why)"
    counts = claim_that_counts(model, statement.manifest, [key])
    if failure and counts is not None:
        yield f"'verify' goes by an earlier claim about the same files, {counts.where}"
    earlier, declared = counts and counts.training.recipe.equality, statement.recipe.equality
    if counts and earlier and declared and earlier.sha256 != declared.sha256:
        what = f"{counts.where} declares another equality for the same files, {earlier.name}"
        yield f"'verify' will refuse both: {what} (remove the line of one)"
