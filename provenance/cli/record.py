"""``provenance record``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from provenance.capture.python.asking import begun
from provenance.capture.trace import MECHANISMS
from provenance.cli.help import Command
from provenance.cli.options import PATH, key_variables, trusted_signer_options
from provenance.cli.recording import print_recorded, read_given, read_stated, recording_options
from provenance.errors import UnfinishedError, UsageError, as_typed

_FINISHING = frozenset(
    "allowed_secrets as_json finish identity_token key_path link_roots log log_password_env models"
    " password_env redact tensors trust_config".split()
)
"""The parameters that ``--finish`` takes; the others state what the run already has."""

_PUBLISHER = tuple(
    f"publisher_{each}"
    for each in ("keys", "certificate_chain", "identity", "identity_provider", "trust_config")
)
"""Parameters that say whom to trust as the publisher."""

_GO_WITH = {"redact": "finish", **dict.fromkeys((*_PUBLISHER, "yes"), "rebuild_of")}
"""Parameters that are for another one."""


@click.command(
    cls=Command,
    examples=(
        "provenance record --model model --key alice -- python train.py",
        """provenance record --model model --key alice --data train=data.csv \\
    --seed 0 --equality tensors -- python train.py --seed 0""",
    ),
    next_step="'provenance verify model --key alice.pub' checks the claim as others will.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option(
    "--model",
    "models",
    type=PATH,
    multiple=True,
    metavar="DIR",
    help="Folder that the training fills; a pattern means the one that it fills. Repeatable.",
)
@recording_options
@click.option(
    "--finish", metavar="RUN", help="Complete the claim of a run that failed after its command."
)
@click.option(
    "--redact", multiple=True, metavar="FIELD", help="With --finish: leave this value out."
)
@click.option(
    "--rebuild-of",
    type=PATH,
    metavar="FOLDER|CLAIM",
    help="Repeat the training of this published model, or of this file of its claim.",
)
@click.option(
    "--publisher-key",
    "publisher_keys",
    type=PATH,
    multiple=True,
    metavar="PUB",
    help="With --rebuild-of: public key of who published it. Repeatable.",
)
@partial(trusted_signer_options, of="publisher-", when="For --rebuild-of. ")
@click.option(
    "--trace",
    type=click.Choice(MECHANISMS),
    default="auto",
    help="How the files that COMMAND opens are seen; 'seccomp' sees most, and forbids sudo.",
)
@click.option("--yes", is_flag=True, help="With --rebuild-of: run the command without asking.")
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

    With --rebuild-of, command, seeds and equality are those of a published claim, which is verified
    first. The command is shown, and run only if you say so.
    """
    _check(ctx)
    models: tuple[Path, ...] = options["models"]
    model, key = next(iter(models), Path()), options["key_path"]
    secret = key_variables(options)
    environ = {name: value for name, value in os.environ.items() if name not in secret}
    asked = () if options["dry_run"] else options["words"]
    with _options_that_finish(options), begun(asked, environ):
        from provenance.api import finishing, making

        if options["finish"] is not None:
            recorded = finishing.finish(
                options["finish"],
                model=model if models else None,
                key=key,
                redact=options["redact"],
                **read_given(options),
            )
        elif options["rebuild_of"] is not None:
            from provenance.api import repeating

            recorded = repeating.rebuild(
                options["rebuild_of"],
                **{name: options[name] for name in _PUBLISHER},
                model=model,
                key=key,
                confirm=partial(_confirm, unasked=options["yes"] or options["dry_run"]),
                **read_stated(options),
            )
        else:
            stated = read_stated(options)
            recorded = making.record(options["words"], model=models, key=key, **stated)
    print_recorded(recorded, options)
    if options["dry_run"]:
        click.echo(
            "provenance: not run; times, metrics and files are added after the run", err=True
        )
    return recorded.status


def _check(ctx: click.Context) -> None:
    """Refuse what is missing, or contradicts ``--finish`` or ``--rebuild-of``."""
    given = {
        parameter.name: "COMMAND" if parameter.name == "words" else parameter.opts[0]
        for parameter in ctx.command.params
        if ctx.get_parameter_source(parameter.name or "") == click.core.ParameterSource.COMMANDLINE
    }
    if len(ctx.params["models"]) > 1 and given.keys() & {"finish", "rebuild_of"}:
        raise click.UsageError("--model is given more than once.", ctx)
    if "finish" in given:
        for name, shown in given.items():
            if name not in _FINISHING:
                raise click.UsageError(f"{shown} was stated for the run: not with --finish.", ctx)
        return
    needed = ("models",) if "rebuild_of" in given else ("models", "words")
    for parameter in ctx.command.params:
        if parameter.name in needed and not ctx.params[parameter.name]:
            raise click.MissingParameter(ctx=ctx, param=parameter)
    for name, with_it in _GO_WITH.items():
        if name in given and with_it not in given:
            raise click.UsageError(f"{given[name]} goes with --{with_it.replace('_', '-')}.", ctx)
    if "rebuild_of" in given and "words" in given:
        raise click.UsageError(
            "COMMAND comes from the published claim: not with --rebuild-of.", ctx
        )


def _confirm(command: tuple[str, ...], *, unasked: bool) -> bool:
    """Show a published *command*, exactly as it will be run, and ask whether to run it."""
    click.echo(f"provenance: the published command, here:\n  {as_typed(command)}", err=True)
    if unasked:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        what = "a published command is not run unasked, and this is no terminal"
        raise UsageError(what, hint="--yes runs it")
    return click.confirm("Run this?", err=True)


@contextmanager
def _options_that_finish(options: Mapping[str, Any]) -> Iterator[None]:
    """Add to what an error says of ``--finish`` the options that the library does not know."""
    names = {"password_env": "--password-env", "log_password_env": "--log-password-env"}
    if options["finish"] is not None:  # the run knows those that were given for it
        names |= {"key_path": "--key", "log": "--log"}
    said = {name: str(options[name] or "") for name in names}
    said = {n: it.partition("?")[0] if "pkcs11:" in it else it for n, it in said.items()}  # no PIN
    words = [w for name, option in names.items() if said[name] for w in (option, said[name])]
    words += [w for name in options["allowed_secrets"] for w in ("--unsafe-allow-secret", name)]
    given = f" {as_typed(map(str, words))}" if words else ""
    try:
        yield
    except UnfinishedError as error:
        error.hint = f"{error.hint}{given}"
        raise
    except KeyboardInterrupt as error:
        error.__notes__ = [f"{note}{given}" for note in getattr(error, "__notes__", ())]
        raise
