"""``provenance record``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import click

from provenance.api import making
from provenance.api.finishing import finish
from provenance.cli.help import Command
from provenance.cli.options import PATH
from provenance.cli.recording import (
    print_recorded,
    read_given,
    read_stated,
    recording_options,
)
from provenance.errors import UnfinishedError

_FINISHING = frozenset(
    "allowed_secrets as_json finish key_path log log_password_env model password_env redact".split()
)
"""The parameters that ``--finish`` takes; the others state what the run already has."""


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
@click.option("--model", type=PATH, metavar="DIR", help="Folder that the training fills.")
@partial(recording_options, key_required=False)
@click.option(
    "--finish", metavar="RUN", help="Complete the claim of a run that failed after its command."
)
@click.option(
    "--redact", multiple=True, metavar="FIELD", help="With --finish: leave this value out."
)
@click.argument("words", nargs=-1, metavar="-- COMMAND...")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> int:  # noqa: ANN401 - click's options, read in one place
    """Run COMMAND, which trains a model into DIR, and sign how it was made.

    Data, configuration and base model are hashed before and after; code, packages, machine and
    environment are recorded. The training statement becomes a line of DIR/claims.jsonl, and the
    files are signed in DIR/model.sig. The exit status is COMMAND's; 125 says that the recorder
    itself failed. A command that fails is recorded too, with its status, if it leaves a model.

    What was seen of a run is kept until its claim is made: 'record --finish RUN', which an error
    names, completes it with the model, key and log of the run unless others are given.
    """
    _check(ctx)
    model, key = options["model"], options["key_path"]
    with _options_that_finish(options):
        if options["finish"] is not None:
            recorded = finish(
                options["finish"],
                model=model,
                key=key,
                redact=options["redact"],
                **read_given(options),
            )
        else:
            stated = read_stated(options)
            recorded = making.record(options["words"], model=model, key=key, **stated)
    print_recorded(recorded, options)
    if options["dry_run"]:
        click.echo(
            "provenance: not run; times, metrics and files are added after the run", err=True
        )
    return recorded.status


def _check(ctx: click.Context) -> None:
    """Refuse what is missing, or contradicts ``--finish``."""
    given = {
        parameter.name: parameter
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") == click.core.ParameterSource.COMMANDLINE
    }
    if "finish" not in given:
        for parameter in ctx.command.params:
            if parameter.name in ("model", "key_path", "words") and not ctx.params[parameter.name]:
                raise click.MissingParameter(ctx=ctx, param=parameter)
        if "redact" in given:
            raise click.UsageError("--redact goes with --finish.", ctx)
        return
    for name, parameter in given.items():
        if name not in _FINISHING:
            shown = "COMMAND" if name == "words" else parameter.opts[0]
            raise click.UsageError(f"{shown} was stated for the run: not with --finish.", ctx)


@contextmanager
def _options_that_finish(options: Mapping[str, Any]) -> Iterator[None]:
    """Add to what an error says of ``--finish`` the options that the library does not know."""
    try:
        yield
    except UnfinishedError as error:
        names = ("password_env", "log_password_env")
        given = [f" --{name.replace('_', '-')} {options[name]}" for name in names if options[name]]
        error.hint = f"{error.hint}{''.join(given)}"
        raise
