"""``provenance keygen``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from provenance.cli.options import PATH, json_option, read_password
from provenance.errors import one_line
from provenance.keys import ALGORITHMS, generate, write_pair
from provenance.report.terminal import print_json

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Make a key pair.")
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
    key = generate(algorithm)
    public_path = write_pair(key, path, read_password(password_env))
    if as_json:
        print_json(
            {
                "algorithm": algorithm,
                "keyId": key.public.key_id,
                "private": str(path),
                "public": str(public_path),
            }
        )
        return
    click.echo(f"private key  {one_line(str(path))}  (keep it secret)")
    click.echo(f"public key   {one_line(str(public_path))}  (hand it to whoever shall verify)")
    click.echo(f"key id       {key.public.key_id}")
