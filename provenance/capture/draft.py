"""The unsigned statement about what was observed before and after a training.

This step does no I/O. Byproducts (what came out besides the weights) are in the statement if they
are short, as in-toto asks of a resource's content; others are files named by their SHA-256, to be
put into ``provenance/``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from provenance import __version__
from provenance.capture.code.source import ObservedSource, describe_repositories
from provenance.capture.command import RecordedCommand
from provenance.capture.inputs import HashedInput, Inputs
from provenance.capture.made import Made
from provenance.capture.process import CommandResult
from provenance.capture.python.packages import Software
from provenance.capture.python.records import Records, merge_seeds, parse_seed
from provenance.encoding import strict_base64, strict_json
from provenance.files.manifest import Manifest
from provenance.statement import training
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import ChangedInput, Collected, Drift, Environment
from provenance.statement.uris import BUILD_TYPE, LOCAL_BUILDER

DISTRIBUTION = "training-provenance"

MAX_INLINE_BYTES = 1024
"""Largest inline content, in bytes (in-toto: "less than 1KB")."""


@dataclass(frozen=True, slots=True)
class Before:
    """What was observed before the training."""

    inputs: Inputs
    model: Path
    command: tuple[str, ...] = field(repr=False)
    recorded: RecordedCommand
    hashed: tuple[HashedInput, ...]
    source: ObservedSource
    software: Software
    collectors: dict[str, Collected]
    root: Path
    invocation_id: str


@dataclass(frozen=True, slots=True)
class After:
    """What was observed after the training, besides the model."""

    records: Records = field(default_factory=Records)
    said: Collected | None = None
    changed: tuple[ChangedInput, ...] = ()
    drift: tuple[Drift, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """An unsigned statement, and the files to put beside the weights, by SHA-256."""

    statement: training.TrainingStatement
    files: Mapping[str, bytes]


def draft(before: Before, after: After, result: CommandResult | None) -> Recording:
    """Return the unsigned statement about what was observed, without the model's files."""
    manifests = [_describe_manifest(item) for item in before.hashed]
    statement = training.TrainingStatement(
        model_name=before.model.name or "model",
        manifest=Manifest(()),
        build=training.BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters=_recipe(before),
            internal_parameters=_environment(before, after, result),
            resolved_dependencies=_dependencies(before),
        ),
        run=training.RunDetails(
            builder=training.Builder(LOCAL_BUILDER, version={DISTRIBUTION: __version__}),
            metadata=training.Metadata(before.invocation_id),
            byproducts=tuple(item.description for item in manifests),
        ),
    )
    files = {item.sha256: item.data for item in manifests if item.data is not None}
    recording = with_records(Recording(statement, files), after.records, after.said)
    if result is None:
        return recording
    outcome = training.Outcome(result.exit_status, result.signal, after.changed)
    return with_end(recording, outcome, result.started_on, result.finished_on)


def with_records(recording: Recording, records: Records, said: Collected | None) -> Recording:
    """Return *recording* with what the program reported, and how well that was kept."""
    build, run = recording.statement.build, recording.statement.run
    seeds = dict(build.external_parameters.seeds)
    for name, value in records.seeds.items():
        seeds[name] = merge_seeds(seeds.get(name), value)
    collectors = dict(build.internal_parameters.collectors)
    if said is not None:
        collectors["metrics"] = said
    files, byproducts = dict(recording.files), run.byproducts
    if records.count:
        annotations = {"records": records.count, "last": records.last}
        item = describe_bytes("metrics", records.metrics, "application/jsonl", annotations)
        byproducts = (*byproducts, item.description)
        if item.data is not None:
            files[item.sha256] = item.data
    build = msgspec.structs.replace(
        build,
        external_parameters=msgspec.structs.replace(build.external_parameters, seeds=seeds),
        internal_parameters=msgspec.structs.replace(
            build.internal_parameters, collectors=collectors
        ),
    )
    run = msgspec.structs.replace(run, byproducts=byproducts)
    return Recording(msgspec.structs.replace(recording.statement, build=build, run=run), files)


def with_end(
    recording: Recording, outcome: training.Outcome, started_on: str, finished_on: str
) -> Recording:
    """Return *recording* of a run that began at *started_on* and had the *outcome*."""
    run = recording.statement.run
    metadata = training.Metadata(run.metadata.invocation_id, started_on, finished_on)
    run = msgspec.structs.replace(run, metadata=metadata, provenance_outcome=outcome)
    return Recording(msgspec.structs.replace(recording.statement, run=run), recording.files)


def with_model(recording: Recording, made: Made) -> Recording:
    """Return *recording* about the model that was *made*."""
    statement = recording.statement
    outcome = msgspec.structs.replace(
        statement.run.provenance_outcome,
        untouched=made.untouched,
        rewritten=made.rewritten,
        unseen=made.unseen,
    )
    statement = msgspec.structs.replace(
        statement,
        model_name=made.folder.name or "model",
        model_uri=made.uri,
        manifest=made.manifest,
        run=msgspec.structs.replace(statement.run, provenance_outcome=outcome),
    )
    return Recording(statement, recording.files)


def _recipe(before: Before) -> training.Recipe:
    inputs = before.inputs
    hashed = ((item.place, item.manifest) for item in before.hashed)
    described = {at.key: training.describe_input(at.name, m, role=at.role) for at, m in hashed}
    seeds = {name: parse_seed(value) or value for name, value in inputs.seeds.items()}
    return training.Recipe(
        command=before.recorded.arguments,
        source=before.source.source,
        config=tuple(item for key, item in described.items() if key.startswith("config:")),
        data=tuple(item for key, item in described.items() if key.startswith("data:")),
        base_model=described.get("baseModel"),
        seeds=seeds,
        axes=inputs.axes,
        equality=inputs.equality,
    )


def _environment(before: Before, after: After, result: CommandResult | None) -> Environment:
    observed: tuple[Literal["start", "end"], ...] = ("start", "end")
    if result is None:
        observed = ("start",) if before.command else ("end",)
    return training.Environment(observed=observed, collectors=before.collectors, drift=after.drift)


def _dependencies(before: Before) -> tuple[ResourceDescriptor, ...]:
    """Return inputs, repositories and distributions."""
    found = []
    for item in before.hashed:
        annotations: dict[str, Any] = {"manifest": training.manifest_digest(item.manifest)}
        digest = {"sha256": item.manifest.root_digest}
        found.append(
            ResourceDescriptor(
                name=item.place.key, uri=item.uri, digest=digest, annotations=annotations
            )
        )
    found += describe_repositories(before.source.repositories)
    return (*found, *before.software.distributions)


@dataclass(frozen=True, slots=True)
class Byproduct:
    """One byproduct; ``data`` is to be put beside the weights, or None if it is inline."""

    description: ResourceDescriptor
    data: bytes | None

    @property
    def sha256(self) -> str:
        """The name of its file."""
        return self.description.digest["sha256"]


def describe_bytes(
    name: str, data: bytes, media_type: str, annotations: dict[str, Any] | None = None
) -> Byproduct:
    """Return *data* as the byproduct *name*."""
    inline = len(data) <= MAX_INLINE_BYTES
    description = ResourceDescriptor(
        name=name,
        digest={"sha256": hashlib.sha256(data).hexdigest()},
        content=strict_base64.format(data) if inline else "",
        media_type=media_type,
        annotations=annotations or {},
    )
    return Byproduct(description, None if inline else data)


def _describe_manifest(item: HashedInput) -> Byproduct:
    """Return the names, sizes and digests of an input, whose ``manifest`` is their digest."""
    rows = [[entry.name, entry.size, entry.sha256] for entry in item.manifest.entries]
    data = strict_json.format(rows)
    return describe_bytes(f"manifest/{item.place.key}", data, "application/json")
