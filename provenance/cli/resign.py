"""``provenance resign``."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.api import signing
from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option, link_root_option, read_password
from provenance.errors import count, one_line
from provenance.report.terminal import print_json, progress


@click.command(
    cls=Command,
    examples=(
        "provenance resign model --old-key alice --new-key alice-2027",
        "provenance resign model --old-key env:OLD --new-key alice-2027",
    ),
    next_step="'provenance verify model --key alice-2027.pub' goes by the new key.",
)
@click.argument("model", type=PATH, metavar="DIR|FILE")
@click.option("--old-key", required=True, metavar="KEY", help="Private key that signed.")
@click.option("--new-key", required=True, metavar="KEY", help="Private key that signs from now on.")
@click.option("--old-password-env", metavar="VAR", help="Variable with the old key's password.")
@click.option("--new-password-env", metavar="VAR", help="Variable with the new key's password.")
@link_root_option
@json_option
def command(
    *,
    model: Path,
    old_key: str,
    new_key: str,
    old_password_env: str | None,
    new_password_env: str | None,
    link_roots: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Move what the old key signed about the model to a new key.

    The new key signs the same statements, if they are about the files in DIR, and both sign that
    one follows the other. What the old key signed stays valid for who trusts that.
    """
    done = signing.resign(
        model,
        old_key=old_key,
        new_key=new_key,
        old_password=read_password(old_password_env),
        new_password=read_password(new_password_env),
        link_roots=link_roots,
        progress=progress,
    )
    if as_json:
        found = {"keyId": done.key_id, "left": done.left, "statements": done.statements}
        print_json({**found, "written": done.written})
        return
    click.echo(f"signed   {count(done.statements, 'statement')} again")
    if done.left:
        click.echo(f"left     {count(done.left, 'statement')} of the old key, of other files")
    click.echo(f"key id   {done.key_id}")
    for path in done.written:
        click.echo(f"written  {one_line(path)}")
