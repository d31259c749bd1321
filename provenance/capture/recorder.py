"""The recorder: observe, run, observe again, and draft the statement.

::

    before = observe_before(inputs, command, environ=os.environ)
    environ = startup.install(folder, os.environ, **heard(before))
    result = run(command, environ=environ, run_directory=folder, …)  # provenance.capture.process
    before, after = look_after(before, environ=os.environ, run_directory=folder)
    recording = draft(before, after, result)

What can fail (unreadable inputs, a read-only model folder, unpublishable names) fails in
:func:`observe_before`, before a training of weeks starts. Later problems with collectors or inputs
are recorded in the statement.

Nothing is signed here. :func:`~provenance.capture.secrecy.leaks.refuse_secrets_in` comes first,
before the training (on :func:`plan`) and after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from provenance import __version__
from provenance.capture.code.named import is_piped, program_files, program_folders, redacted_files
from provenance.capture.code.reread import look_again
from provenance.capture.code.source import ObservedSource, observe_source
from provenance.capture.code.worktrees import Surroundings
from provenance.capture.command import Places, RecordedCommand, record_command
from provenance.capture.draft import After, Before, Recording, draft
from provenance.capture.environment import collect_environment, find_drift
from provenance.capture.inputs import (
    HashedInput,
    Inputs,
    check_model_folders,
    hash_again,
    hash_input,
    input_paths,
)
from provenance.capture.process import check_that_ends_are_told, find_program
from provenance.capture.python.distribution import describe_distribution
from provenance.capture.python.libraries import describe_libraries
from provenance.capture.python.packages import (
    Software,
    no_software,
    observe_software,
    read_software,
)
from provenance.capture.python.records import Reads, Records, parse_seed, read_records
from provenance.capture.python.trained import (
    describe_states,
    environment_of,
    those_that_trained,
    who_trained,
)
from provenance.capture.secrecy.redact import redact_text
from provenance.capture.secrecy.scan import live_secrets
from provenance.capture.trace.tracer import Trace
from provenance.errors import UnreadableError, UsageError
from provenance.keys import is_private_key
from provenance.statement.training import Collected, Drift


def observe_before(
    inputs: Inputs,
    command: Sequence[str] | None,
    *,
    environ: Mapping[str, str],
    invocation_id: str = "",
    root: Path = Path("/"),
    progress: Callable[[int], None] | None = None,
) -> Before:
    """Observe everything before *command* runs; None: it ran some other time.

    *environ* is the command's, except that nothing started here gets ``inputs.secret_variables``.
    *root* contains ``proc``, ``sys`` and ``etc``. *progress* is called with the bytes hashed.
    Raises UsageError where the declaration contradicts itself.
    """
    check_that_ends_are_told()
    words = tuple(command or ())
    folder = inputs.located(Path())
    if not folder.is_dir():
        raise UnreadableError("no such folder", where=str(inputs.working_folder))
    model = check_model_folders(inputs) if words else inputs.located(inputs.model)
    if model.is_file():  # a link to one has its own name, also where it is verified
        model = inputs.located(inputs.model.parent) / inputs.model.name
    for value in inputs.seeds.values():
        if parse_seed(value) is None:
            hint = "write --seed 0, or --seed numpy=0"
            raise UsageError(f"the seed {value!r} is not an integer", hint=hint)
    hashed = tuple(hash_input(place, progress) for place in input_paths(inputs))
    places = _places(inputs, hashed, environ)
    environ = inputs.without_secrets(environ)
    software = observe_software(words, folder, environ, start=not inputs.dry_run)
    recorded = record_command(words, places)
    around = Surroundings.of(
        environ,
        model,
        known=[path for item in hashed for path in item.paths()]
        + [inputs.located(path) for path in inputs.others]
        + ([inputs.located(inputs.info)] if inputs.info else []),
        files=(path for item in hashed for path in item.behind_links()),
        secret=redacted_files(words, folder, recorded.redacted),
    )
    source = _observe_code(words, folder, around, software, recorded.redacted)
    if inputs.from_inside and words[-1] == "ipykernel_launcher":
        source = source.lacking("no file of the notebook is known", hint="name it as a config")
    collectors = {
        **collect_environment(environ, root),
        **software.collectors,
        **source.collectors,
        "recorder": _describe_recorder(inputs, recorded),
    }
    return Before(
        inputs=inputs,
        model=model,
        command=words,
        recorded=recorded,
        hashed=hashed,
        source=source,
        software=software,
        collectors=_without_paths(collectors, places),
        root=root,
        invocation_id=invocation_id,
    )


def _observe_code(
    words: tuple[str, ...],
    folder: Path,
    around: Surroundings,
    software: Software,
    redacted: Collection[int],
) -> ObservedSource:
    """Return the code that the command *words* runs in *folder*, less the program itself."""
    program = words[0] if words else ""
    installed = find_program(Path(program).name, around.environ, folder) if "/" in program else None
    tools = {Path(os.path.realpath(tool)) for tool in (software.executable, installed) if tool}
    source = observe_source(
        folder,
        around,
        files=program_files(
            words,
            folder,
            leave_out=lambda path: path in tools or around.holds(path) or is_private_key(path),
            redacted=redacted,
        ),
        folders=[folder / place for place in program_folders(words, redacted)],
        editable=software.editable,
    )
    if is_piped(words):
        what = "the program comes from standard input"
        return source.lacking(what, hint="name a file of it")
    return source


def about_model(before: Before, model: Path, environ: Mapping[str, str]) -> Before:
    """Return *before* as the claim about this *model* of the run has it."""
    inputs = replace(before.inputs, model=model)
    recorded = record_command(before.command, _places(inputs, before.hashed, environ))
    collectors = before.collectors | {"recorder": _describe_recorder(inputs, recorded)}
    located = inputs.located(model)
    return replace(before, inputs=inputs, model=located, recorded=recorded, collectors=collectors)


def _describe_recorder(inputs: Inputs, recorded: RecordedCommand) -> Collected:
    about: dict[str, Any] = {"version": __version__}
    if inputs.from_inside:
        about["from"] = "inside"
    if recorded.redacted:
        about["redactedArguments"] = list(recorded.redacted)
    return Collected("ok", about)


def plan(before: Before) -> Recording:
    """Return the statement as known before the training: without a model."""
    return draft(before, After(), None)


def heard(before: Before) -> dict[str, list[str]]:
    """Return of which files the run's Pythons will tell."""
    roots = (repository.root for repository in before.source.repositories)
    places = {
        "watched": [before.inputs.located(Path()), *roots],
        "left_out": [path for item in before.hashed for path in item.paths()],
        "models": [before.model, *map(before.inputs.located, before.inputs.others)],
    }
    return {name: [*map(str, paths)] for name, paths in places.items()}


def look_after(
    before: Before,
    *,
    environ: Mapping[str, str],
    run_directory: Path,
    trace: Trace | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Before, After]:
    """Return what was observed of the training, to be drafted, without the model's files.

    *trace* is what was seen of files.
    """
    records, said = read_said(run_directory)
    folder, own = before.inputs.located(Path()), before.software
    before = _with_python_that_trained(before, records, environ)
    environ = before.inputs.without_secrets(environ)
    software = before.software
    if software is own:
        software = observe_software(before.command, folder, environ, known=own)
    now = collect_environment(environ, before.root) | software.collectors
    code = look_again(
        before.source,
        folder,
        trace.own_reads(records) if trace else records.reads,
        editable=tuple(dict.fromkeys((*before.software.editable, *own.editable))),
        interpreter=own.executable if before.software is own else "",
    )
    drift = find_drift(before.collectors, now) + _package_drift(before.software, software)
    after = After(
        records=records,
        said=said,
        changed=hash_again(before.hashed, progress) + code.changed,
        drift=drift + code.drift,
        trace=trace.described(records) if trace else None,
    )
    return replace(before, source=code.observed), after


def _with_python_that_trained(
    before: Before, records: Records, environ: Mapping[str, str]
) -> Before:
    """Return *before* with the Python that trained, if it is not the one that the command names.

    What was installed during the run then counts as there before.
    """
    known = before.collectors["variables"].values.get("variables", {})
    places = _places(before.inputs, before.hashed, environ)
    told = {
        "reads": _describe_reads(records.reads, from_inside=before.inputs.from_inside),
        "program": describe_states(records, known, environ),
        "libraries": describe_libraries(those_that_trained(records)),
        "distribution": describe_distribution(records),
    }
    if records.told.arguments:
        told["arguments"] = records.told.described(places)
    before = replace(before, collectors=before.collectors | told)
    said = who_trained(records, before.model, before.software)
    if isinstance(said, str):
        software = no_software("error" if records.processes else "absent", said)
    elif environment_of(said.executable, said.prefix) == before.software.environment:
        return before
    else:
        software = read_software(said)
    return replace(
        before,
        software=software,
        collectors=before.collectors | _without_paths(software.collectors, places),
    )


def _describe_reads(reads: Reads, *, from_inside: bool) -> Collected:
    if not reads.processes:
        return Collected("absent", reason="no Python of the run reported")
    by = "from inside the program, since then" if from_inside else "start-up folder"
    values = {"by": by, "complete": False, "processes": reads.processes}
    return Collected("ok", values | {"lost": reads.lost})


_QUOTED_PATH = re.compile(r"(['\"])/[^'\"]*\1")
_PATH = re.compile(r"(?<![\w.$}/~])/(?!(?:proc|sys|etc|dev)/)[^\s'\":;,]+")


def _without_paths(collectors: Mapping[str, Collected], places: Places) -> dict[str, Collected]:
    """Remove paths and users from the reasons of *collectors*, which quote git or the system."""

    def public(text: str) -> str:
        text = _PATH.sub("…", _QUOTED_PATH.sub(r"\1…\1", text))
        for private in (places.home, places.user):
            if len(private) > 1 and private != "root":
                text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", "…", text)
        return redact_text(text)

    return {
        name: Collected(item.status, item.values, public(item.reason)) if item.reason else item
        for name, item in collectors.items()
    }


def _places(inputs: Inputs, hashed: tuple[HashedInput, ...], environ: Mapping[str, str]) -> Places:
    live = live_secrets(environ, named=inputs.secret_variables)
    return Places(
        paths={"model": inputs.model} | {item.place.key: item.place.path for item in hashed},
        folder=inputs.located(Path()),
        home=environ.get("HOME", "").rstrip("/"),
        user=environ.get("USER", "") or environ.get("LOGNAME", ""),
        secrets=tuple(secret.value for secret in live),
    )


def _package_drift(start: Software, end: Software) -> tuple[Drift, ...]:
    """Return the distributions that were installed, removed or replaced during the run."""
    before = {item.name: (item.uri, item.annotations) for item in start.distributions}
    after = {item.name: (item.uri, item.annotations) for item in end.distributions}
    return tuple(
        Drift("packages", name, before.get(name, (None,))[0], after.get(name, (None,))[0])
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def read_said(run_directory: Path) -> tuple[Records, Collected]:
    """Return what the program reported, and how well it was kept."""
    try:
        records = read_records(run_directory)
    except UnreadableError as error:
        return Records(), Collected("error", reason=error.what)
    lost = {"dropped": records.dropped, "damaged": records.damaged}
    counts = {"records": records.count} | {name: n for name, n in lost.items() if n}
    return records, Collected("ok", counts)
