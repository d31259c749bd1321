"""The recorder: observe, run, observe again, and state it.

::

    before = observe_before(inputs, command, environ=os.environ)
    result = run(command, …)                      # provenance.capture.process
    recording = observe_after(before, result, environ=os.environ, run_directory=folder)

Whatever can fail fails in :func:`observe_before`, before a training of weeks is started: inputs
that cannot be read, a model's folder that cannot be written, names that cannot be published. What
goes wrong with a collector, or later with an input, is stated and does not lose the recording; only
a model that cannot be read does.

Nothing here is signed: :func:`refuse_secrets_in` is to be asked about what will be, before the
training (of :func:`plan`) and after it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance import __version__
from provenance.capture import secrets
from provenance.capture.byproducts import Byproduct, describe_manifest, describe_metrics
from provenance.capture.command import Places, RecordedCommand, record_command
from provenance.capture.environment import collect_environment, find_drift
from provenance.capture.inputs import (
    HashedInput,
    Inputs,
    check_model_folder,
    hash_again,
    hash_input,
    input_paths,
    located,
)
from provenance.capture.packages import Software, observe_software
from provenance.capture.records import Records, merge_seeds, parse_seed, read_records
from provenance.capture.source import (
    ObservedSource,
    describe_repositories,
    observe_source,
    program_files,
)
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import Manifest, hash_folder
from provenance.files.reserved import RESERVED
from provenance.statement import intoto
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import (
    BuildDefinition,
    Builder,
    Collected,
    Drift,
    Environment,
    Metadata,
    Outcome,
    Recipe,
    RunDetails,
    TrainingStatement,
    manifest_digest,
    to_statement,
)
from provenance.statement.uris import BUILD_TYPE, LOCAL_BUILDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from provenance.capture.process import CommandResult
    from provenance.statement.training import ProgramFile

DISTRIBUTION = "training-provenance"


@dataclass(frozen=True, slots=True)
class Before:
    """Everything that was observed before the training."""

    inputs: Inputs
    model: Path
    command: tuple[str, ...] = field(repr=False)
    recorded: RecordedCommand
    hashed: tuple[HashedInput, ...]
    source: ObservedSource
    software: Software
    editable: tuple[ResourceDescriptor, ...]
    collectors: dict[str, Collected]
    root: Path
    invocation_id: str

    @property
    def ran_here(self) -> bool:
        """Whether a command is recorded, or a model attested after the fact."""
        return bool(self.command)


@dataclass(frozen=True, slots=True)
class Recording:
    """An unsigned statement, and the files that belong beside the weights under their SHA-256."""

    statement: TrainingStatement
    files: Mapping[str, bytes]


def observe_before(
    inputs: Inputs,
    command: Sequence[str] | None,
    *,
    environ: Mapping[str, str],
    invocation_id: str = "",
    root: Path = Path("/"),
    progress: Callable[[int], None] | None = None,
) -> Before:
    """Observe everything that is there before *command* runs; None: it ran some other time.

    *environ* are the variables that the command will have. *root* holds ``proc``, ``sys``, ``etc``.
    *progress* is told the bytes hashed.

    Raises:
        UsageError: the declaration contradicts itself.
        UnreadableError, MalformedError: an input cannot be read safely, or what would be stated
            has no canonical form.
    """
    words = tuple(command or ())
    folder = located(inputs, Path())
    if not folder.is_dir():
        raise UnreadableError("no such folder", where=str(inputs.working_folder))
    model = check_model_folder(inputs) if words else located(inputs, inputs.model)
    _check_seeds(inputs.seeds)
    hashed = tuple(hash_input(place, progress) for place in input_paths(inputs))
    software = observe_software(words, folder, environ, inputs.interpreter)
    source = observe_source(
        folder, environ, model=model, files=_program_files(words, folder, model, hashed, software)
    )
    recorded = record_command(words, _places(inputs, hashed, environ))
    collectors = {
        **collect_environment(environ, root),
        "interpreter": software.interpreter,
        "packages": software.packages,
        "source": source.collected,
        "recorder": _recorder(recorded),
    }
    before = Before(
        inputs=inputs,
        model=model,
        command=words,
        recorded=recorded,
        hashed=hashed,
        source=source,
        software=software,
        editable=_describe_editable(software, folder, environ),
        collectors=collectors,
        root=root,
        invocation_id=invocation_id,
    )
    intoto.format(to_statement(plan(before).statement))  # what has no canonical form fails now
    return before


def plan(before: Before) -> Recording:
    """Return the statement as far as it is known before the training: without a model."""
    return _state(before, _After(manifest=Manifest(())), None)


def observe_after(
    before: Before,
    result: CommandResult | None,
    *,
    environ: Mapping[str, str],
    run_directory: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Return the statement about the model that *before* was to make, and *result* made.

    Without a *result* the inputs are not hashed a second time and nothing can have drifted.

    Raises:
        UnreadableError, MalformedError: the model's folder is missing, empty, or cannot be read
            safely.
    """
    manifest = hash_folder(before.model, ignore=RESERVED, progress=progress)
    records, said = _read_records(run_directory)
    if result is None:
        return _state(before, _After(manifest=manifest, records=records, said=said), None)
    folder = located(before.inputs, Path())
    software = observe_software(before.command, folder, environ, before.inputs.interpreter)
    now = {
        **collect_environment(environ, before.root),
        "interpreter": software.interpreter,
        "packages": software.packages,
    }
    after = _After(
        manifest=manifest,
        records=records,
        said=said,
        changed=hash_again(before.hashed, progress),
        drift=find_drift(before.collectors, now) + _package_drift(before.software, software),
    )
    return _state(before, after, result)


def refuse_secrets_in(
    recording: Recording, environ: Mapping[str, str], *, allowed: frozenset[str] = frozenset()
) -> bytes:
    """Return the statement's bytes, in which, as in the files, there is no live secret.

    Raises:
        SecretError: there is one, of a variable that is not *allowed*.
    """
    live = secrets.live_secrets(environ, allowed=allowed)
    payload = intoto.format(to_statement(recording.statement))
    secrets.refuse_secrets(payload, live)
    for sha256, data in recording.files.items():
        secrets.refuse_secrets(data, live, where=f"the byproduct {sha256}")
    return payload


@dataclass(frozen=True, slots=True)
class _After:
    manifest: Manifest
    records: Records = field(default_factory=Records)
    said: Collected | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    drift: tuple[Drift, ...] = ()


def _state(before: Before, after: _After, result: CommandResult | None) -> Recording:
    """Return what is known as a statement."""
    byproducts = [describe_manifest(item.place.key, item.manifest) for item in before.hashed]
    if (metrics := describe_metrics(after.records)) is not None:
        byproducts.append(metrics)
    build = BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters=_recipe(before, after.records),
        internal_parameters=_environment(before, after, result),
        resolved_dependencies=_dependencies(before, after.changed),
    )
    statement = TrainingStatement(
        model_name=before.model.name or "model",
        manifest=after.manifest,
        build=build,
        run=_run_details(before, after, result, byproducts),
    )
    files = {item.sha256: item.data for item in byproducts if item.data is not None}
    return Recording(statement, files)


def _recipe(before: Before, records: Records) -> Recipe:
    inputs = before.inputs
    described = {item.place.key: item.description for item in before.hashed}
    seeds = {name: parse_seed(value) or value for name, value in inputs.seeds.items()}
    for name, value in records.seeds.items():
        seeds[name] = merge_seeds(seeds.get(name), value)
    return Recipe(
        command=before.recorded.arguments,
        source=before.source.source,
        config=tuple(item for key, item in described.items() if key.startswith("config:")),
        data=tuple(item for key, item in described.items() if key.startswith("data:")),
        base_model=described.get("baseModel"),
        seeds=seeds,
        axes=inputs.axes,
        equality=inputs.equality,
    )


def _environment(before: Before, after: _After, result: CommandResult | None) -> Environment:
    collectors = dict(before.collectors)
    if after.said is not None:
        collectors["metrics"] = after.said
    if result is not None:
        return Environment(collectors, after.drift)
    return Environment(collectors, observed=("start",) if before.ran_here else ("end",))


def _dependencies(before: Before, changed: Mapping[str, str]) -> tuple[ResourceDescriptor, ...]:
    """Return inputs, repositories and distributions."""
    found = []
    for item in before.hashed:
        annotations: dict[str, Any] = {"manifest": manifest_digest(item.manifest)}
        if item.place.key in changed:
            annotations["digestAfter"] = changed[item.place.key] or None
        digest = {"sha256": item.manifest.root_digest}
        found.append(
            ResourceDescriptor(name=item.place.key, digest=digest, annotations=annotations)
        )
    found += describe_repositories(before.source.repositories)
    return (*found, *before.editable, *before.software.distributions)


def _run_details(
    before: Before,
    after: _After,
    result: CommandResult | None,
    byproducts: list[Byproduct],
) -> RunDetails:
    outcome = Outcome()
    metadata = Metadata(invocation_id=before.invocation_id)
    if result is not None:
        outcome = Outcome(result.exit_status, result.signal, tuple(sorted(after.changed)))
        metadata = Metadata(before.invocation_id, result.started_on, result.finished_on)
    return RunDetails(
        builder=Builder(LOCAL_BUILDER, version={DISTRIBUTION: __version__}),
        metadata=metadata,
        byproducts=tuple(item.description for item in byproducts),
        provenance_outcome=outcome,
    )


def _check_seeds(seeds: Mapping[str, str]) -> None:
    for name, value in seeds.items():
        if parse_seed(value) is None:
            raise UsageError(f"the seed {name} is not an integer: {value!r}")


def _program_files(
    words: tuple[str, ...],
    folder: Path,
    model: Path,
    hashed: tuple[HashedInput, ...],
    software: Software,
) -> tuple[ProgramFile, ...]:
    known = [item.place.path for item in hashed] + [model]

    def leave_out(path: Path) -> bool:
        return str(path) == software.executable or any(path.is_relative_to(one) for one in known)

    return program_files(words, folder, leave_out=leave_out)


def _places(inputs: Inputs, hashed: tuple[HashedInput, ...], environ: Mapping[str, str]) -> Places:
    """Return what has a placeholder: each path as given, and what is private."""
    paths = {"model": inputs.model}
    paths |= {item.place.key: item.place.path for item in hashed}
    return Places(
        paths=paths,
        folder=located(inputs, Path()),
        home=environ.get("HOME", "").rstrip("/"),
        user=environ.get("USER", "") or environ.get("LOGNAME", ""),
        secrets=tuple(secret.value for secret in secrets.live_secrets(environ)),
    )


def _recorder(recorded: RecordedCommand) -> Collected:
    values: dict[str, Any] = {"version": __version__}
    if recorded.redacted:
        values["redactedArguments"] = list(recorded.redacted)
    return Collected("ok", values)


def _describe_editable(
    software: Software, folder: Path, environ: Mapping[str, str]
) -> tuple[ResourceDescriptor, ...]:
    """Return the repositories of editable distributions outside the working folder."""
    found: list[ResourceDescriptor] = []
    for name, path in software.editable:
        if not path.is_dir() or Path(os.path.realpath(path)).is_relative_to(folder):
            continue
        for item in describe_repositories(observe_source(path, environ).repositories):
            inner = item.name.removeprefix("source")
            found.append(
                ResourceDescriptor(
                    name=f"editable/{name}{inner}",
                    uri=item.uri,
                    digest=item.digest,
                    annotations=item.annotations,
                )
            )
    return tuple(found)


def _package_drift(start: Software, end: Software) -> tuple[Drift, ...]:
    """Return the distributions that were installed, removed or replaced during the run."""
    before = {item.name: (item.uri, item.annotations) for item in start.distributions}
    after = {item.name: (item.uri, item.annotations) for item in end.distributions}
    return tuple(
        Drift("packages", name, before.get(name, (None,))[0], after.get(name, (None,))[0])
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _read_records(run_directory: Path | None) -> tuple[Records, Collected | None]:
    """Return what the program said, and how well it could be kept."""
    if run_directory is None:
        return Records(), None
    try:
        records = read_records(run_directory)
    except UnreadableError as error:
        return Records(), Collected("error", reason=error.what)
    counts = {"records": records.count}
    counts |= {"dropped": records.dropped} if records.dropped else {}
    counts |= {"damaged": records.damaged} if records.damaged else {}
    return records, Collected("ok", counts)
