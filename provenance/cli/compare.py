"""``provenance compare``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from provenance.cli.options import PATH, json_option, read_equality
from provenance.equality.comparators import compare_models
from provenance.equality.lattice import AGREES
from provenance.equality.model import Model, model_of_file
from provenance.equality.side_by_side import compare_files, compare_folders
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import hash_folder
from provenance.files.reserved import RESERVED
from provenance.report.comparison import comparison_lines, outcome_lines
from provenance.report.progress import progress
from provenance.report.terminal import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.equality.findings import Outcome
    from provenance.equality.side_by_side import FileComparison


@click.command(short_help="Show two models side by side: files and tensors.")
@click.argument("left", type=PATH, metavar="A")
@click.argument("right", type=PATH, metavar="B")
@click.option("--equality", metavar="FILE|NAME", help="Judge by this equality too.")
@click.option(
    "--probes",
    type=PATH,
    metavar="FILE",
    help="Probes for rules that run the model, in place of those that they name.",
)
@json_option
def command(
    left: Path, right: Path, equality: str | None, probes: Path | None, *, as_json: bool
) -> int:
    """Show two models, or two weight files of any formats, side by side.

    Every file and, in weight files, every tensor: equal, changed or missing, with the distances of
    what changed. Exit status 0: the equality holds, or without one the files or their tensors and
    metadata are the same; 1: otherwise. Nothing is verified here; 'verify' and 'agree' do.
    """
    declaration = read_equality(equality) if equality is not None else None
    if probes is not None and declaration is None:
        raise UsageError("--probes needs --equality")
    folders = _are_folders(left, right)
    outcome = None
    with progress("comparing") as advance:
        if folders:
            compared = compare_folders(_folder(left), _folder(right), on_bytes=advance)
        else:
            compared = (compare_files(left, right, on_bytes=advance),)
        if declaration is not None:
            model = _folder if folders else model_of_file
            outcome = compare_models(
                model(left), model(right), declaration, probes=probes, on_bytes=advance
            )
    _print(compared, outcome, as_json=as_json)
    if outcome is not None:
        return 0 if outcome.conclusion in AGREES else 1
    return 0 if all(item.state == "equal" or item.same_tensors for item in compared) else 1


def _are_folders(left: Path, right: Path) -> bool:
    for path in (left, right):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where it may not look
            raise UnreadableError("no such file or folder", where=str(path))
    if left.is_dir() != right.is_dir():
        raise UsageError("a folder and a file cannot be compared", where=f"{left}, {right}")
    return left.is_dir()


def _folder(path: Path) -> Model:
    return Model(path, hash_folder(path, ignore=RESERVED).by_name())


def _print(compared: tuple[FileComparison, ...], outcome: Outcome | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"files": compared, "outcome": outcome})
        return
    lines = comparison_lines(compared)
    lines += outcome_lines(outcome) if outcome is not None else []
    click.echo("\n".join(lines))
