"""``provenance verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from provenance.api import checking
from provenance.api.arguments import log_key
from provenance.cli import Answered
from provenance.cli.help import Command
from provenance.cli.options import (
    PATH,
    json_option,
    read_trusted_keys,
    trusted_keys_option,
)
from provenance.errors import ProvenanceError, UsageError
from provenance.report.progress import progress
from provenance.report.terminal import print_json, print_lines
from provenance.report.verification import (
    STEP_HANG,
    failed_line,
    step_lines,
    summary_lines,
    verified_document,
)
from provenance.trust.outcome import LEVELS

if TYPE_CHECKING:
    from provenance.trust.outcome import Level
    from provenance.trust.verification import Step


@click.command(
    cls=Command,
    short_help="Check that a key you trust attested these files.",
    examples=(
        "provenance verify model --key alice.pub",
        "provenance verify model --key alice.pub --log log/vkey",
    ),
    next_step="'provenance show model' shows everything that the claim states.",
)
@click.argument("model", type=PATH, metavar="DIR")
@trusted_keys_option
@click.option(
    "--claims",
    "claims_path",
    type=PATH,
    metavar="FILE",
    help="Claims to check instead of DIR's own.",
)
@click.option(
    "--log",
    "log",
    metavar="VKEY",
    help="The log's key, or its file: require a proof of that log.",
)
@click.option(
    "--require",
    type=click.Choice(LEVELS[1:]),
    help="Refuse a claim that says less: that the run was attested, or recorded.",
)
@json_option
def command(
    model: Path,
    key_paths: tuple[Path, ...],
    claims_path: Path | None,
    log: str | None,
    require: Level | None,
    *,
    as_json: bool,
) -> None:
    """Check that a key you trust attested the files in DIR, and show how they were made.

    Every file is hashed; one that was changed, is missing, or is extra is refused.
    """
    keys = read_trusted_keys(key_paths)
    vkey = log_key(log) if log is not None else None  # before the steps, as it is none of them
    names = {key.key_id: name for key, name in keys.items()}
    steps: list[Step] = []

    def report(step: Step) -> None:
        steps.append(step)
        if not as_json:
            print_lines(step_lines(step, names), hang=STEP_HANG)

    try:
        verified = checking.verify(
            model,
            keys=tuple(keys),
            claims=claims_path,
            log=vkey,
            require=require,
            on_step=report,
            progress=progress,
        )
    except ProvenanceError as error:
        if as_json:
            problem = {"message": str(error), "where": error.where, "step": len(steps) + 1}
            print_json({"error": problem, "steps": steps, "verified": False})
            raise Answered(error) from error
        if not isinstance(error, UsageError):
            print_lines([failed_line(len(steps), error.what)], hang=STEP_HANG)
        raise
    if as_json:
        print_json(verified_document(verified))
        return
    print_lines(summary_lines(verified, names))
