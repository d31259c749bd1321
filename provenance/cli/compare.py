"""``provenance compare``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from provenance.cli.options import PATH, json_option, read_equality
from provenance.equality.lattice import AGREES
from provenance.errors import UnreadableError, UsageError
from provenance.judge.comparators import apply
from provenance.judge.measured import MeasuredWeights, wanted_by
from provenance.judge.side_by_side import list_differences
from provenance.report.comparison import comparison_lines, outcome_lines
from provenance.report.progress import progress
from provenance.report.terminal import print_json, print_lines
from provenance.weights.model import SideBySide, model_of_file, model_of_folder

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.judge.side_by_side import FileComparison
    from provenance.measure.findings import Outcome


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
    model = model_of_folder if folders else model_of_file
    with progress("hashing") as advance:
        sides = SideBySide(model(left, advance), model(right, advance), named=not folders)
    outcome = None
    with progress("comparing") as advance:
        weights = MeasuredWeights(sides, wanted_by(declaration, view=True, on_bytes=advance))
        if declaration is not None:  # first, so that one that does not fit is refused at once
            outcome = apply(declaration, weights, probes=probes)
        compared = list_differences(weights)
    _print(compared, outcome, as_json=as_json)
    if outcome is not None:
        return 0 if outcome.conclusion in AGREES else 1
    return 0 if all(item.same for item in compared) else 1


def _are_folders(left: Path, right: Path) -> bool:
    """Tell whether both are folders, and refuse what is missing or of two kinds."""
    for path in (left, right):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where it may not look
            raise UnreadableError("no such file or folder", where=str(path))
    if left.is_dir() != right.is_dir():
        raise UsageError("a folder and a file cannot be compared", where=f"{left}, {right}")
    return left.is_dir()


def _print(compared: tuple[FileComparison, ...], outcome: Outcome | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"files": compared, "outcome": outcome})
        return
    lines = comparison_lines(compared)
    lines += outcome_lines(outcome) if outcome is not None else []
    print_lines(lines)
