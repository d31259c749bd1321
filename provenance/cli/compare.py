"""``provenance compare``."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.cli.options import PATH, json_option, read_equality
from provenance.equality.comparators import Model, compare_models
from provenance.equality.side_by_side import compare_files, compare_folders
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import hash_folder
from provenance.files.reserved import RESERVED
from provenance.report.comparison import comparison_lines, outcome_lines
from provenance.report.progress import progress
from provenance.report.terminal import print_json


@click.command(short_help="Show two models side by side: files and tensors.")
@click.argument("left", type=PATH, metavar="A")
@click.argument("right", type=PATH, metavar="B")
@click.option("--equality", metavar="FILE|NAME", help="Judge by this equality too.")
@json_option
def command(left: Path, right: Path, equality: str | None, *, as_json: bool) -> int:
    """Show two models, or two files, side by side.

    Every file and, in weight files, every tensor: equal, changed or missing, with the distances of
    what changed. Exit status 0: no difference, or the equality holds; 1: otherwise. Nothing is
    verified here; 'verify' and 'agree' do.
    """
    declaration = read_equality(equality) if equality is not None else None
    for path in (left, right):
        if not path.exists():
            raise UnreadableError("no such file or folder", where=str(path))
    if left.is_dir() != right.is_dir():
        raise UsageError("a folder and a file cannot be compared", where=f"{left}, {right}")
    outcome = None
    with progress("comparing") as advance:
        if left.is_dir():
            models = [Model(p, hash_folder(p, ignore=RESERVED).by_name()) for p in (left, right)]
            compared = compare_folders(models[0], models[1], on_bytes=advance)
            if declaration is not None:
                outcome = compare_models(models[0], models[1], declaration)
        elif declaration is not None:
            raise UsageError("an equality is declared for whole models", mend="name two folders")
        else:
            compared = (compare_files(left, right, on_bytes=advance),)
    if as_json:
        print_json({"files": compared, "outcome": outcome})
    else:
        for line in comparison_lines(compared):
            click.echo(line)
        if outcome is not None:
            for line in outcome_lines(outcome):
                click.echo(line)
    if outcome is not None:
        return 0 if outcome.conclusion in ("match", "consistent") else 1
    return 0 if all(item.state == "equal" for item in compared) else 1
