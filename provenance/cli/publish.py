"""``provenance publish``."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.api import signing
from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option, read_password
from provenance.errors import one_line
from provenance.report.terminal import print_json


@click.command(
    cls=Command,
    examples=(
        "provenance publish model --log log",
        "provenance publish model --log log --password-env PASSWORD",
    ),
    next_step="'provenance verify model --key alice.pub --log log/vkey' checks the proof.",
)
@click.argument("model", type=PATH, metavar="DIR|FILE")
@click.option("--log", type=PATH, required=True, metavar="LOGDIR", help="Folder of the log.")
@click.option(
    "--key",
    "key_paths",
    type=PATH,
    multiple=True,
    metavar="PUB",
    help="Public key of a claim that does not name its signer.",
)
@click.option(
    "--password-env", metavar="VAR", help="Environment variable with the password of the log's key."
)
@json_option
def command(
    model: Path, log: Path, key_paths: tuple[Path, ...], password_env: str | None, *, as_json: bool
) -> None:
    """Put the claims beside the model in DIR, or the verdict in FILE, into a log, with the proof.

    A log cannot forget. What it holds of a claim is a digest, the signature, and the public key.
    """
    published = signing.publish(
        model, log=log, password=read_password(password_env), keys=key_paths
    )
    if as_json:
        print_json(published)
        return
    for claim in published.claims:
        state = "published as" if claim.new else "is already"
        click.echo(f"claim {claim.line} {state} entry {claim.index} of {one_line(published.log)}")
    click.echo(f"log key  {one_line(published.vkey)}")
