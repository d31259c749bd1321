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
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance import __version__
from provenance.capture.draft import After, Before, Recording, draft
from provenance.capture.environment import collect_environment, find_drift
from provenance.capture.inputs import (
    HashedInput,
    Inputs,
    check_model_folder,
    hash_again,
    hash_input,
    input_paths,
    located,
    without_secrets,
)
from provenance.capture.packages import Software, observe_software
from provenance.capture.process import find_program
from provenance.capture.records import Records, parse_seed, read_records
from provenance.capture.redact import Places, RecordedCommand, record_command, redact_text
from provenance.capture.scan import live_secrets, refuse_secrets
from provenance.capture.source import (
    describe_repositories,
    observe_source,
    program_files,
)
from provenance.encoding import strict_base64
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import Manifest, hash_folder
from provenance.files.names import RESERVED
from provenance.statement import intoto
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import (
    Collected,
    Drift,
    to_statement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from provenance.capture.process import CommandResult
    from provenance.statement.training import ProgramFile

__all__ = [
    "Before",
    "Recording",
    "observe_after",
    "observe_before",
    "plan",
    "refuse_secrets_in",
]


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

    *environ* are the variables that the command will have, less ``inputs.secret_variables``, which
    are given to nothing that is started here. *root* holds ``proc``, ``sys`` and ``etc``.
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
    places = _places(inputs, hashed, environ)
    environ = without_secrets(inputs, environ)
    software = observe_software(words, folder, environ, inputs.interpreter)
    recorded = record_command(words, places)
    known = (*(item.place.path for item in hashed), model)
    files = _program_files(recorded, words, folder, known, software.executable, environ)
    source = observe_source(folder, environ, model=model, files=files)
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
        collectors=_without_paths(collectors, places),
        root=root,
        invocation_id=invocation_id,
    )
    intoto.format(to_statement(plan(before).statement))  # what has no canonical form fails now
    return before


def plan(before: Before) -> Recording:
    """Return the statement as far as it is known before the training: without a model."""
    return draft(before, After(manifest=Manifest(())), None)


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
    """
    manifest = hash_folder(before.model, ignore=RESERVED, progress=progress)
    records, said = _read_records(run_directory)
    if result is None:
        return draft(before, After(manifest=manifest, records=records, said=said), None)
    folder = located(before.inputs, Path())
    before = _with_interpreter_that_spoke(before, records, environ)
    environ = without_secrets(before.inputs, environ)
    software = observe_software(before.command, folder, environ, before.inputs.interpreter)
    now = {
        **collect_environment(environ, before.root),
        "interpreter": software.interpreter,
        "packages": software.packages,
    }
    after = After(
        manifest=manifest,
        records=records,
        said=said,
        changed=hash_again(before.hashed, progress),
        drift=find_drift(before.collectors, now) + _package_drift(before.software, software),
    )
    return draft(before, after, result)


def _own_interpreters(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the interpreters that the recorder would start: its own, and those on the path."""
    found = (shutil.which(name, path=environ.get("PATH")) for name in ("python3", "python"))
    return frozenset(path for path in (sys.executable, *found) if path)


def _with_interpreter_that_spoke(
    before: Before, records: Records, environ: Mapping[str, str]
) -> Before:
    """Return *before* with the Python that trained, where the command did not tell it.

    It is asked only now, so what was installed during the run cannot be told from what was there.
    The program names it, and a program that is confined must not have another one run outside: only
    an interpreter that the recorder itself would start is asked.
    """
    if before.software.interpreter.status != "absent" or not records.interpreters:
        return before
    python = Path(records.interpreters[0])
    if str(python) not in _own_interpreters(environ):
        return before
    folder = located(before.inputs, Path())
    places = _places(before.inputs, before.hashed, environ)
    environ = without_secrets(before.inputs, environ)
    software = observe_software(before.command, folder, environ, python)
    observed = {"interpreter": software.interpreter, "packages": software.packages}
    observed = _without_paths(observed, places)
    return replace(
        before,
        inputs=replace(before.inputs, interpreter=python),
        software=software,
        editable=_describe_editable(software, folder, environ),
        collectors=before.collectors | observed,
    )


def refuse_secrets_in(
    recording: Recording,
    environ: Mapping[str, str],
    *,
    allowed: frozenset[str] = frozenset(),
    secret_variables: frozenset[str] = frozenset(),
) -> bytes:
    """Return the statement's bytes, in which, as in every byproduct, there is no live secret.

    The *secret_variables* hold passwords, whatever they are called.

    Raises:
        SecretError: there is one, of a variable that is not *allowed*.
    """
    live = live_secrets(environ, allowed=allowed, named=secret_variables)
    payload = intoto.format(to_statement(recording.statement))
    refuse_secrets(payload, live)
    for item in recording.statement.run.byproducts:
        if item.content:
            data = strict_base64.parse(item.content)
            refuse_secrets(data, live, where=f"the byproduct {item.name}")
    for sha256, data in recording.files.items():
        refuse_secrets(data, live, where=f"the byproduct {sha256}")
    return payload


def _check_seeds(seeds: Mapping[str, str]) -> None:
    for name, value in seeds.items():
        if parse_seed(value) is None:
            raise UsageError(f"not an integer: {value!r}", where=f"seed {name!r}")


def _program_files(
    recorded: RecordedCommand,
    words: tuple[str, ...],
    folder: Path,
    known: tuple[Path, ...],
    executable: str,
    environ: Mapping[str, str],
) -> tuple[ProgramFile, ...]:
    """Return the files that the command names, less inputs, the interpreter, and tools on PATH."""
    program = words[0] if words else ""
    installed = find_program(Path(program).name, environ, folder) if "/" in program else None
    left_out = {executable, os.path.realpath(installed) if installed else ""}

    def leave_out(path: Path) -> bool:
        return str(path) in left_out or any(path.is_relative_to(one) for one in known)

    return program_files(words, folder, leave_out=leave_out, redacted=recorded.redacted)


_QUOTED_PATH = re.compile(r"(['\"])/[^'\"]*\1")
_PATH = re.compile(r"(?<![\w.$}/~])/(?!(?:proc|sys|etc|dev)/)[^\s'\":;,]+")


def _without_paths(collectors: Mapping[str, Collected], places: Places) -> dict[str, Collected]:
    """Return *collectors* whose reasons name no path of this machine, and no user.

    A reason quotes what git or the system said.
    """

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
    """Return what has a placeholder: each path as given, and what is private."""
    paths = {"model": inputs.model}
    paths |= {item.place.key: item.place.path for item in hashed}
    return Places(
        paths=paths,
        folder=located(inputs, Path()),
        home=environ.get("HOME", "").rstrip("/"),
        user=environ.get("USER", "") or environ.get("LOGNAME", ""),
        secrets=tuple(
            secret.value for secret in live_secrets(environ, named=inputs.secret_variables)
        ),
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
