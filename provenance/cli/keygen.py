"""``provenance keygen``."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.api import signing
from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option, read_password
from provenance.errors import one_line
from provenance.keys import ALGORITHMS
from provenance.report.terminal import print_json


@click.command(
    cls=Command,
    examples=(
        "provenance keygen alice",
        "provenance keygen keeper --algorithm ed25519 --password-env PASSWORD",
    ),
    next_step="give alice.pub to verifiers, and sign with alice: 'provenance record --help'.",
)
@click.argument("path", type=PATH)
@click.option(
    "--algorithm", type=click.Choice(ALGORITHMS), default=ALGORITHMS[0], show_default=True
)
@click.option(
    "--password-env", metavar="VAR", help="Encrypt with the password in this environment variable."
)
@json_option
def command(path: Path, algorithm: str, password_env: str | None, *, as_json: bool) -> None:
    """Make a key pair: the private key at PATH (mode 0600), the public one at PATH.pub.

    Nothing is ever overwritten. A log's key must be ed25519.
    """
    made = signing.keygen(path, algorithm=algorithm, password=read_password(password_env))
    if as_json:
        print_json(
            {
                "algorithm": algorithm,
                "keyId": made.key_id,
                "private": str(made.private),
                "public": str(made.public),
            }
        )
        return
    click.echo(f"private key  {one_line(str(made.private))}  (keep it secret)")
    click.echo(f"public key   {one_line(str(made.public))}  (give it to verifiers)")
    click.echo(f"key id       {made.key_id}")
