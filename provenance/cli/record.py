"""``provenance record``."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from provenance.capture import process, records
from provenance.capture.recorder import observe_after, plan
from provenance.cli.options import PATH
from provenance.cli.recording import attach, observe, read_request, recording_options, show_plan
from provenance.errors import MalformedError, UnavailableError, UnreadableError, one_line, reason
from provenance.report.progress import progress


@click.command(
    short_help="Run a training command and sign how the model was made.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option(
    "--model", type=PATH, required=True, metavar="DIR", help="Folder that the training fills."
)
@recording_options
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...")
def command(model: Path, words: tuple[str, ...], **options: Any) -> int:  # noqa: ANN401 - click's options, read in one place
    """Run COMMAND, which trains a model into DIR, and sign how it was made.

    Data, configuration and base model are hashed before and after; code, packages, machine and
    environment are recorded. The training statement becomes a line of DIR/claims.jsonl, and the
    files are signed in DIR/model.sig. The exit status is COMMAND's; 125 says that the recorder
    itself failed. A command that fails is recorded too, with its status, if it leaves a model.
    """
    request = read_request(options, model)
    before = observe(request, words, str(uuid.uuid4()))
    if request.dry_run:
        show_plan(plan(before))
        click.echo(
            "provenance: not run; times, metrics and files are added after the run", err=True
        )
        return 0
    run_directory = _run_directory()
    try:
        result = process.run(
            words,
            folder=request.inputs.working_folder,
            environ=os.environ,
            clock=lambda: datetime.now(UTC),
            run_directory=run_directory,
        )
        if not result.started:
            click.echo(f"provenance: {one_line(shlex.quote(words[0]))}: {result.problem}", err=True)
            return result.status
        try:
            with progress("hashing the model") as advance:
                recording = observe_after(
                    before,
                    result,
                    environ=os.environ,
                    run_directory=run_directory,
                    progress=advance,
                )
        except (UnreadableError, MalformedError) as error:
            if result.status == 0:
                raise UnreadableError(
                    f"the command ended well, but left nothing to attest: {error.what}",
                    where=error.where,
                    hint=error.hint or "--model names the folder that it fills",
                ) from error
            how = result.signal or f"status {result.status}"
            problem = f"the command failed ({how}) and left nothing to attest: {error}"
            click.echo(f"provenance: {problem}", err=True)
            return result.status
        attach(request, recording)
    finally:
        shutil.rmtree(run_directory, ignore_errors=True)
    return result.status


def _run_directory() -> Path:
    """Return a new folder in which the training program leaves what it says of itself."""
    try:
        directory = Path(tempfile.mkdtemp(prefix="provenance-run-"))
        records.prepare(directory)
    except OSError as error:
        raise UnavailableError(
            f"no temporary folder: {reason(error)}", hint="name one in TMPDIR"
        ) from error
    return directory
