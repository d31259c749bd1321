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
from typing import Any

from msgspec.structs import replace

from provenance import __version__
from provenance.capture import chain
from provenance.capture.code.source import ObservedSource, describe_repositories
from provenance.capture.command import RecordedCommand
from provenance.capture.inputs import HashedInput, Inputs
from provenance.capture.made import Made
from provenance.capture.process import CommandResult
from provenance.capture.python.packages import Software
from provenance.capture.python.records import Records, merge_seeds, parse_seed
from provenance.encoding import strict_base64
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
    checkpoints: chain.Chain = field(default_factory=chain.Chain)
    trace: Collected | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """An unsigned statement, and the files to put beside the weights, by SHA-256."""

    statement: training.TrainingStatement
    files: Mapping[str, bytes]

    def data_of(self, byproduct: ResourceDescriptor) -> bytes:
        """Return what *byproduct* is, from the statement or beside the weights."""
        inline = strict_base64.parse(byproduct.content)
        return inline or self.files.get(byproduct.digest.get("sha256", ""), b"")

    def with_byproduct(
        self,
        name: str,
        data: bytes,
        annotations: dict[str, Any] | None = None,
        media_type: str = "application/jsonl",
    ) -> Recording:
        """Return this with *data* as the byproduct *name*."""
        described, kept = describe_bytes(name, data, media_type, annotations)
        byproducts = (*self.statement.run.byproducts, described)
        return Recording(self.statement.with_run(byproducts=byproducts), {**self.files, **kept})


def draft(before: Before, after: After, result: CommandResult | None) -> Recording:
    """Return the unsigned statement about what was observed, without the model's files."""
    statement = training.TrainingStatement(
        model_name=before.model.name or "model",
        manifest=Manifest(()),
        build=training.BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters=_recipe(before),
            internal_parameters=Environment(
                observed=("start", "end") if result else ("start",) if before.command else ("end",),
                collectors=before.collectors,
                drift=after.drift,
            ),
            resolved_dependencies=_dependencies(before),
        ),
        run=training.RunDetails(
            builder=training.Builder(LOCAL_BUILDER, version={DISTRIBUTION: __version__}),
            metadata=training.Metadata(before.invocation_id),
        ),
    )
    recording = Recording(statement, {})
    for it in before.hashed:
        name = f"manifest/{it.place.key}"
        recording = recording.with_byproduct(name, it.listed, media_type="application/json")
    return with_end(recording, after, result)


def with_end(
    recording: Recording, after: After, result: CommandResult | None, started_on: str = ""
) -> Recording:
    """Return *recording* with what the program reported, and how the command ended.

    Without a *result* nobody saw the end of a run that began at *started_on*; "": none did.
    """
    records, checkpoints = after.records, after.checkpoints
    if records.count:
        annotations = {"records": records.count, "last": records.last}
        recording = recording.with_byproduct("metrics", records.metrics, annotations)
    for name, data in records.told.byproducts():
        recording = recording.with_byproduct(name, data)
    if checkpoints.lines:
        summary = checkpoints.summary()
        recording = recording.with_byproduct(chain.BYPRODUCT, checkpoints.data, summary)
    statement = recording.statement
    external, internal = statement.build.external_parameters, statement.build.internal_parameters
    seeds = dict(external.seeds)
    for name, value in records.seeds.items():
        seeds[name] = merge_seeds(seeds.get(name), value)
    collectors = internal.collectors | ({"metrics": after.said} if after.said else {})
    if after.trace is not None:
        collectors["trace"] = after.trace
    if result is not None and result.cost:
        collectors["cost"] = Collected("ok", result.cost)
    elif started_on:
        collectors["cost"] = Collected("absent", reason="the end of the command was not seen")
    outcome, finished_on = training.Outcome(), ""
    if result is not None:
        outcome = training.Outcome(result.exit_status, result.signal, after.changed)
        started_on, finished_on = result.started_on, result.finished_on
    build = replace(
        statement.build,
        external_parameters=replace(external, seeds=seeds),
        internal_parameters=replace(internal, collectors=collectors),
    )
    statement = replace(statement, build=build).with_run(
        metadata=replace(statement.run.metadata, started_on=started_on, finished_on=finished_on),
        provenance_outcome=outcome,
    )
    return Recording(statement, recording.files)


def with_model(recording: Recording, made: Made) -> Recording:
    """Return *recording* about the model that was *made*."""
    outcome = replace(
        recording.statement.run.provenance_outcome,
        untouched=made.untouched,
        rewritten=made.rewritten,
        unseen=made.unseen,
    )
    statement = recording.statement.with_run(provenance_outcome=outcome)
    name = made.folder.name or "model"
    statement = replace(statement, model_name=name, model_uri=made.uri, manifest=made.manifest)
    return Recording(statement, recording.files)


def _recipe(before: Before) -> training.Recipe:
    inputs = before.inputs
    described = {item.place.key: item.described for item in before.hashed}
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


def _dependencies(before: Before) -> tuple[ResourceDescriptor, ...]:
    inputs = (
        ResourceDescriptor(
            name=item.place.key,
            uri=item.uri,
            digest=item.described.digest,
            annotations={"manifest": item.described.manifest},
        )
        for item in before.hashed
    )
    repositories = describe_repositories(before.source.repositories)
    return (*inputs, *repositories, *before.software.distributions)


def describe_bytes(
    name: str, data: bytes, media_type: str, annotations: dict[str, Any] | None = None
) -> tuple[ResourceDescriptor, dict[str, bytes]]:
    """Return *data* as the byproduct *name*, and the file beside the weights if it needs one."""
    inline, sha256 = len(data) <= MAX_INLINE_BYTES, hashlib.sha256(data).hexdigest()
    description = ResourceDescriptor(
        name=name,
        digest={"sha256": sha256},
        content=strict_base64.format(data) if inline else "",
        media_type=media_type,
        annotations=annotations or {},
    )
    return description, {} if inline else {sha256: data}
