"""What a training statement says: how the model was made, in rows."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from provenance.encoding import strict_base64
from provenance.equality import declaration as declarations
from provenance.errors import MalformedError, count
from provenance.keys import parse_spki
from provenance.report.explain_byproducts import manifest_rows
from provenance.report.explain_equality import declaration_rows
from provenance.report.explain_text import (
    pairs_text,
    row,
    rows,
    sha256_text,
    value_text,
)

if TYPE_CHECKING:
    from provenance.statement.intoto import ResourceDescriptor
    from provenance.statement.training import (
        DeclaredEquality,
        Environment,
        Input,
        Outcome,
        Recipe,
        RunDetails,
        Source,
        TrainingStatement,
    )

SHOWN_DEPENDENCIES = 10
"""Dependencies named; they are mostly installed distributions."""

SHOWN_COLLECTED = 8
"""Values shown of one collector."""


def training_rows(training: TrainingStatement, depth: int = 1) -> list[str]:
    """Return what *training* says, from the model to its byproducts."""
    return [
        row("model", training.model_name, depth),
        row("subject", f"sha256 {training.manifest.root_digest}", depth),
        *manifest_rows(training.manifest, depth),
        *_recipe_rows(training.recipe, depth),
        *_run_rows(training.run, depth),
        *_environment_rows(training.build.internal_parameters, depth),
        *_dependency_rows(training.build.resolved_dependencies, depth),
        *_byproduct_rows(training.run.byproducts, depth),
    ]


def _recipe_rows(recipe: Recipe, depth: int) -> list[str]:
    command = shlex.join(recipe.command) if recipe.command else "not stated"
    lines = [row("command", command, depth)]
    lines += rows("code", _source_texts(recipe.source), depth)
    lines += rows("config", [_input_text(item) for item in recipe.config], depth)
    lines += rows("data", [_input_text(item) for item in recipe.data] or ["not stated"], depth)
    if recipe.base_model is not None:
        lines.append(row("base model", _input_text(recipe.base_model), depth))
    if recipe.seeds:
        lines.append(row("seeds", pairs_text(dict(recipe.seeds)), depth))
    if recipe.axes:
        lines.append(row("axes", ", ".join(recipe.axes), depth))
    return lines + _equality_rows(recipe.equality, depth)


def _source_texts(source: Source | None) -> list[str]:
    if source is None:
        return ["not stated"]
    texts = []
    if source.tree:
        dirty = ", with uncommitted changes" if source.dirty else ""
        texts.append(f"git tree {source.tree}{dirty}")
    if source.commit:
        texts.append(f"{'on ' if source.dirty else ''}commit {source.commit}")
    if source.uri:
        texts.append(f"from {source.uri}")
    if source.folder:
        texts.append(f"in the folder {source.folder}")
    return texts + [f"{file.name}  {sha256_text(file.sha256)}" for file in source.files]


def _input_text(item: Input) -> str:
    role = f"{item.role}: " if item.role else ""
    what = f"{count(item.files, 'file')}, {item.size:,} bytes"
    return f"{role}{item.name}  {what}  {sha256_text(item.digest.get('sha256', ''))}"


def _equality_rows(declared: DeclaredEquality | None, depth: int) -> list[str]:
    if declared is None:
        return [row("equality", "none declared: rebuilds cannot be judged", depth)]
    lines = [row("equality", f"{declared.name}  {sha256_text(declared.sha256)}", depth)]
    try:
        declaration = declarations.from_document(declared.declaration)
    except MalformedError as error:
        return [*lines, row("", f"not understood: {error}", depth)]
    if declaration.digest != declared.sha256:
        lines.append(row("", "but it has another digest", depth))
    return lines + declaration_rows(declaration, depth + 1)


def _run_rows(run: RunDetails, depth: int) -> list[str]:
    metadata, lines = run.metadata, []
    if metadata.started_on:
        lines.append(row("run", f"{metadata.started_on} to {metadata.finished_on}", depth))
    lines.append(row("outcome", _outcome_text(run.provenance_outcome), depth))
    changed = run.provenance_outcome.changed_inputs
    lines += rows("", [f"the input {name} changed meanwhile" for name in changed], depth)
    version = f" ({pairs_text(dict(run.builder.version))})" if run.builder.version else ""
    lines.append(row("builder", run.builder.id + version, depth))
    if run.provenance_signer:
        lines.append(row("names as its", f"signer: {_signer_text(run.provenance_signer)}", depth))
    return lines


def _outcome_text(outcome: Outcome) -> str:
    if outcome.signal:
        return f"killed by {outcome.signal}"
    if outcome.exit_status is None:
        return "attested after the fact: the run was not observed"
    return f"exit status {outcome.exit_status}"


def _signer_text(spki: str) -> str:
    try:
        key = parse_spki(strict_base64.parse(spki))
    except MalformedError as error:
        return f"not understood: {error}"
    return f"{key.algorithm}, key id {key.key_id}"


def _environment_rows(environment: Environment, depth: int) -> list[str]:
    texts = []
    for name in sorted(environment.collectors):
        collected = environment.collectors[name]
        why = f" ({collected.reason})" if collected.reason else ""
        status = "" if collected.status == "ok" else f"{collected.status}{why}; "
        values = pairs_text(collected.values, SHOWN_COLLECTED) or "no values"
        texts.append(f"{name}: {status}{values}")
    lines = rows("environment", texts or ["not stated"], depth)
    drift = [
        f"{item.collector}.{item.name}: {value_text(item.start)} became {value_text(item.end)}"
        for item in environment.drift
    ]
    observed = " and ".join(environment.observed)
    return lines + rows("drift", drift or [f"none (looked at {observed})"], depth)


def _dependency_rows(dependencies: tuple[ResourceDescriptor, ...], depth: int) -> list[str]:
    lines = [row("dependencies", count(len(dependencies), "resource"), depth)]
    texts = [_resource_text(item) for item in dependencies]
    return lines + rows("", texts, depth, SHOWN_DEPENDENCIES)


def _byproduct_rows(byproducts: tuple[ResourceDescriptor, ...], depth: int) -> list[str]:
    texts = []
    for item in byproducts:
        place = "in the statement" if item.content else "in provenance/, by its digest"
        notes = f"  ({pairs_text(item.annotations)})" if item.annotations else ""
        texts.append(f"{_resource_text(item)}  {place}{notes}")
    return rows("byproducts", texts or ["none"], depth)


def _resource_text(item: ResourceDescriptor) -> str:
    digests = [f"{name} {value[:16]}…" for name, value in sorted(item.digest.items())]
    packaged = item.uri.startswith("pkg:")  # its name alone would leave out the version
    name = item.uri if packaged or not item.name else item.name
    return "  ".join([name or "without a name", *digests])
