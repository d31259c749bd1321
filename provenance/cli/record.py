"""``provenance record``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import making
from provenance.cli.help import Command
from provenance.cli.options import PATH
from provenance.cli.recording import print_recorded, read_stated, recording_options


@click.command(
    cls=Command,
    short_help="Run a training command and sign how the model was made.",
    examples=(
        "provenance record --model model --key alice -- python train.py",
        """provenance record --model model --key alice --data train=data.csv \\
    --seed 0 --equality tensors -- python train.py --seed 0""",
    ),
    next_step="'provenance verify model --key alice.pub' checks the claim as others will.",
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
    recorded = making.record(words, model=model, key=options["key_path"], **read_stated(options))
    print_recorded(recorded, options)
    if options["dry_run"]:
        click.echo(
            "provenance: not run; times, metrics and files are added after the run", err=True
        )
    return recorded.status
