"""``provenance equality``: declarations of what counts as the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import declaring
from provenance.cli.help import Group
from provenance.cli.options import PATH, json_option, link_root_option
from provenance.equality.declaration import BUILT_IN, builtin, builtin_text, find
from provenance.errors import one_line
from provenance.report.explain_equality import (
    UNREAD,
    consequences,
    declaration_rows,
    equality_content,
    heading_rows,
)
from provenance.report.terminal import print_json, print_lines, progress


@click.group(
    cls=Group,
    examples=("provenance equality list", "provenance equality check tensors model"),
    next_step="declare an equality when you train: 'provenance record --equality FILE|NAME …'.",
)
def command() -> None:
    """Explain and check declarations of what counts as the same model."""


@command.command(
    "list",
    short_help="List the built-in declarations.",
    examples=("provenance equality list", "provenance equality list --json"),
    next_step="'provenance equality show NAME' prints a declaration.",
)
@json_option
def list_(*, as_json: bool) -> None:
    """List the built-in declarations: name, version, what they conclude, digest."""
    declarations = [builtin(name) for name in BUILT_IN]
    if as_json:
        print_json({"declarations": [equality_content(each) for each in declarations]})
        return
    width = max(len(name) for name in BUILT_IN)
    for each in declarations:
        summary = builtin_text(each.name).decode().partition("\n")[0].removeprefix("# ")
        click.echo(f"{each.name:<{width}}  {each.version}  {summary}")
        click.echo(f"{'':<{width}}     sha256 {each.digest}")


@command.command(
    "show",
    short_help="Print a built-in declaration.",
    examples=(
        "provenance equality show tensors",
        "provenance equality show close-float32 > equality.toml",
    ),
    next_step="change your copy, and check it: 'provenance equality check equality.toml model'.",
)
@click.argument("name", metavar="NAME")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Print the built-in declaration NAME as TOML: as it is, or as a start for your own."""
    text = builtin_text(name)
    if as_json:
        print_json({"declaration": equality_content(builtin(name)), "toml": text.decode()})
        return
    click.echo(text.decode(), nl=False)


@command.command(
    "check",
    short_help="Say what a declaration demands, guarantees and admits.",
    examples=(
        "provenance equality check close-float32",
        "provenance equality check equality.toml model",
    ),
    next_step="declare it when you train: 'provenance record --equality equality.toml …'.",
)
@click.argument("declaration", metavar="FILE|NAME")
@click.argument("model", type=PATH, metavar="[MODEL]", required=False)
@link_root_option
@json_option
def check(
    declaration: str, model: Path | None, *, link_roots: tuple[Path, ...], as_json: bool
) -> None:
    """Say in plain words what a declaration demands, guarantees, and admits.

    With MODEL, a folder, it is also checked to fit: every rule selects something there, and every
    tensor is covered by a rule. Weight files that no rule can read are listed. Exit status 0: it is
    a declaration, and fits; 1: it does not fit; 3: it is not a declaration.
    """
    declared, fit = find(declaration), declaring.Fit((), (), ())
    if model is not None:
        fit = declaring.check(declared, model, link_roots=link_roots)
    if as_json:
        print_json(
            {
                "declaration": equality_content(declared),
                "consequences": consequences(declared),
                "selections": fit.selections,
                "excepted": fit.excepted,
                "unread": fit.unread,
            }
        )
        return
    lines = [
        f"{one_line(declaration)}: equality declaration",
        *heading_rows(declared),
        *declaration_rows(declared, selections=fit.selections, excepted=fit.excepted),
        "",
        *consequences(declared),
    ]
    if model is not None:
        lines += ["", f"fits {model}"]
        lines += [f"  not read: {why}" for why in fit.unread]
        lines += [f"  {UNREAD}"] if fit.unread else []
    print_lines(one_line(line) for line in lines)


@command.command(
    "suggest",
    short_help="Propose a declaration from two rebuilds of your own.",
    examples=(
        "provenance equality suggest first second",
        "provenance equality suggest first second --output equality.toml",
    ),
    next_step="fill in why each may differ, and check it: 'provenance equality check FILE first'.",
)
@click.argument("left", type=PATH, metavar="A")
@click.argument("right", type=PATH, metavar="B")
@click.option("--output", type=PATH, metavar="FILE", help="Where the declaration goes.")
@link_root_option
@json_option
def suggest(
    left: Path, right: Path, output: Path | None, *, link_roots: tuple[Path, ...], as_json: bool
) -> None:
    """Propose a declaration under which the models in the folders A and B are the same.

    Both are rebuilds of your own, with equal weights. What else differs is proposed as an exception
    without a reason, which no command takes until you fill it in: say only what you know. What a
    loader may go by is not proposed. Exit status 1: the weights are not equal.
    """
    found = declaring.suggest(left, right, link_roots=link_roots, progress=progress)
    from provenance.judge.suggestion import to_toml

    text = to_toml(found)
    _deliver(text, {"suggestion": found, "toml": text}, output, as_json=as_json)


def _deliver(text: str, document: object, output: Path | None, *, as_json: bool) -> None:
    from provenance.files.atomic import create_file

    if output is not None:
        create_file(output, text.encode())
    if as_json:
        print_json(document)
    elif output is None:
        click.echo(text, nl=False)


@command.command(
    "calibrate",
    short_help="Propose limits from several rebuilds of your own.",
    examples=(
        "provenance equality calibrate first second third --other other-seed",
        "provenance equality calibrate a.safetensors b.safetensors --output mine.toml",
    ),
    next_step="check what it admits: 'provenance equality check FILE first', then declare it.",
)
@click.argument("rebuilds", type=PATH, metavar="REBUILD...", nargs=-1, required=True)
@click.option(
    "--other",
    "others",
    type=PATH,
    multiple=True,
    metavar="MODEL",
    help="Made by another recipe (seed, order, precision): must lie outside. Repeatable.",
)
@click.option("--initial", metavar="FILE", help="Weights before training, in each folder.")
@click.option("--name", default="mine", metavar="NAME", help="Of the declaration (mine).")
@click.option("--output", type=PATH, metavar="FILE", help="Where the declaration goes.")
@link_root_option
@json_option
def calibrate(
    rebuilds: tuple[Path, ...],
    *,
    output: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the library's own, passed on
) -> int:
    """Propose limits within which each REBUILD agrees with each, and no other recipe does.

    They are folders, or weight files, made by one recipe, the one to publish first: with other
    thread counts, instruction sets, machines. Limits are three times the largest distance of two.
    What differs beside the tensors is refused. Exit status 1: no limit is of use.
    """
    found = declaring.calibrate(rebuilds, progress=progress, **options)
    _deliver(found.toml, found, None if found.against else output, as_json=as_json)
    said = [f"no limits: {each}" for each in found.against]
    for each in (*said, *(f"warning: {each}" for each in found.warnings)):
        print_lines([one_line(f"provenance: {each}")], err=True)
    return 1 if found.against else 0
