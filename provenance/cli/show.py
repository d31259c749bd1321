"""``provenance show``."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option
from provenance.report.explain import NOT_VERIFIED, explain, shown
from provenance.report.terminal import print_json, print_lines


@click.command(
    cls=Command,
    examples=("provenance show model", "provenance show model/claims.jsonl --json"),
    next_step="'provenance verify' checks the claims of a model, 'provenance log audit' a log.",
)
@click.argument("path", type=PATH)
@json_option
def command(path: Path, *, as_json: bool) -> None:
    """Explain the file or folder PATH: claims, signatures, verdicts, keys, weights, logs.

    Nothing is verified here: what is shown is what the file says. 'verify', 'agree' and 'log audit'
    check it. Exit status 3: PATH, or part of it, cannot be read.
    """
    explained = explain(path)
    if as_json:
        print_json(shown(str(path), explained))
    else:
        print_lines([*explained.lines, NOT_VERIFIED])
    for problem in explained.problems:
        raise problem
