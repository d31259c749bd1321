"""``provenance attest``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from provenance.capture.recorder import observe_after
from provenance.cli.options import PATH
from provenance.cli.recording import (
    attach,
    misfit,
    observe,
    read_request,
    recording_options,
    show_plan,
)
from provenance.folder import claims
from provenance.report.progress import progress

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Sign how a model was made, after the fact.")
@click.argument("model", type=PATH, metavar="DIR")
@recording_options
def command(model: Path, **options: Any) -> int:  # noqa: ANN401 - click's options, read in one place
    """Sign how the model in DIR was made, as you state it, without running anything.

    The statement says that the run itself was not observed: code, packages and machine are those of
    now.
    """
    request = read_request(options, model)
    claims.require_folder(model)
    before = observe(request, None, "")
    with progress("hashing the model") as advance:
        recording = observe_after(before, None, environ=os.environ, progress=advance)
    if request.dry_run:
        show_plan(recording)
        return 0
    if (problem := misfit(request, recording)) is not None:
        raise problem
    attach(request, recording)
    return 0
