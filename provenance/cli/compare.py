"""``provenance compare``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from provenance.cli.options import PATH, json_option, read_equality
from provenance.equality.comparators import Model, compare_models
from provenance.equality.findings import AGREES
from provenance.equality.side_by_side import compare_files, compare_folders
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import hash_folder
from provenance.files.reserved import RESERVED
from provenance.report.comparison import comparison_lines, outcome_lines
from provenance.report.progress import progress
from provenance.report.terminal import print_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.equality.findings import Outcome
    from provenance.equality.side_by_side import FileComparison


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
    folders = _are_folders(left, right)
    if declaration is not None and not folders:
        raise UsageError("an equality is declared for whole models", mend="name two folders")
    with progress("comparing") as advance:
        if folders:
            compared, outcome = _compare_folders(left, right, declaration, advance)
        else:
            compared, outcome = (compare_files(left, right, on_bytes=advance),), None
    if as_json:
        print_json({"files": compared, "outcome": outcome})
    else:
        lines = comparison_lines(compared)
        lines += outcome_lines(outcome) if outcome is not None else []
        click.echo("\n".join(lines))
    if outcome is not None:
        return 0 if outcome.conclusion in AGREES else 1
    return 0 if all(item.state == "equal" for item in compared) else 1


def _are_folders(left: Path, right: Path) -> bool:
    for path in (left, right):
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where it may not look
            raise UnreadableError("no such file or folder", where=str(path))
    if left.is_dir() != right.is_dir():
        raise UsageError("a folder and a file cannot be compared", where=f"{left}, {right}")
    return left.is_dir()


def _compare_folders(
    left: Path,
    right: Path,
    declaration: Declaration | None,
    advance: Callable[[int], None] | None,
) -> tuple[tuple[FileComparison, ...], Outcome | None]:
    one, other = (Model(p, hash_folder(p, ignore=RESERVED).by_name()) for p in (left, right))
    compared = compare_folders(one, other, on_bytes=advance)
    return compared, compare_models(one, other, declaration) if declaration else None
