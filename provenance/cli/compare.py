"""``provenance compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import checking
from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option, link_root_option
from provenance.report.comparison import comparison_lines, outcome_lines
from provenance.report.terminal import print_json, print_lines, progress


@click.command(
    cls=Command,
    examples=(
        "provenance compare published rebuilt",
        "provenance compare a.safetensors b.gguf --equality close-float32",
    ),
    next_step="'provenance agree' judges attested models by the equality that was declared.",
)
@click.argument("left", type=PATH, metavar="A")
@click.argument("right", type=PATH, metavar="B")
@click.option("--equality", metavar="FILE|NAME", help="Judge by this equality too.")
@click.option(
    "--probes",
    type=PATH,
    metavar="FILE",
    help="Probe inputs that replace those named in the declaration.",
)
@link_root_option
@json_option
def command(
    left: Path,
    right: Path,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the library's own, passed on
) -> int:
    """Show two models, or two weight files of any formats, side by side.

    Every file and, in weight files, every tensor: equal, changed or missing, with the distances of
    what changed. Exit status 0 if the equality holds (without --equality: if files, or their
    tensors and metadata, are the same), else 1. Nothing is verified here; 'verify' and 'agree' do.
    """
    compared = checking.compare(left, right, progress=progress, **options)
    if as_json:
        print_json(compared)
    else:
        lines = comparison_lines(compared.files, compared.not_compared, compared.apart)
        lines += outcome_lines(compared.outcome) if compared.outcome is not None else []
        print_lines(lines)
    return 0 if compared.same else 1
