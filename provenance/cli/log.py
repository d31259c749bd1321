"""``provenance log``: a transparency log in a folder."""

from __future__ import annotations

from pathlib import Path

import click

from provenance.cli.help import Group
from provenance.cli.options import PATH, json_option, read_password, signing_options
from provenance.errors import count, one_line
from provenance.files.reading import read_file
from provenance.report.terminal import print_json
from provenance.transparency import log as logs
from provenance.transparency.audit import audit
from provenance.transparency.note import MAX_NOTE_BYTES, format_vkey


@click.group(
    cls=Group,
    examples=(
        "provenance log init log --origin example.org/log --key keeper",
        "provenance log audit log --key log/vkey",
    ),
    next_step="'provenance publish model --log log' puts claims into the log.",
)
def command() -> None:
    """Make and audit a transparency log: a folder of tiles (C2SP tlog-tiles)."""


@command.command(
    "init",
    short_help="Make an empty log.",
    examples=(
        "provenance keygen keeper --algorithm ed25519",
        "provenance log init log --origin example.org/log --key keeper",
    ),
    next_step="'provenance publish model --log log' puts claims into the log.",
)
@click.argument("log", type=PATH, metavar="LOGDIR")
@click.option(
    "--origin", required=True, metavar="NAME", help="The log's name, such as example.org/log."
)
@signing_options
@json_option
def init(
    log: Path, origin: str, key_path: Path, password_env: str | None, *, as_json: bool
) -> None:
    """Make an empty log in LOGDIR, signed by an Ed25519 key.

    The log remembers where the private key is and never holds it. Give the log's key, which is
    printed, to verifiers.
    """
    vkey = format_vkey(logs.init(log, origin, key_path, password=read_password(password_env)))
    if as_json:
        print_json({"log": str(log), "origin": origin, "vkey": vkey})
        return
    click.echo(f"log      {one_line(str(log))}")
    click.echo(f"log key  {one_line(vkey)}  (also in {one_line(str(log / logs.VKEY))})")


@command.command(
    "audit",
    short_help="Recompute a whole log and check what it signed.",
    examples=(
        "provenance log audit log --key log/vkey",
        "provenance log audit log --key log/vkey --older kept-checkpoint",
    ),
    next_step="keep a copy of log/checkpoint, and name it with --older at the next audit.",
)
@click.argument("log", type=PATH, metavar="LOGDIR")
@click.option(
    "--key", "key", required=True, metavar="VKEY", help="The log's key, or a file with it."
)
@click.option(
    "--older",
    type=PATH,
    metavar="FILE",
    help="A checkpoint of this log that you kept: check that the log still extends it.",
)
@json_option
def audit_command(log: Path, key: str, older: Path | None, *, as_json: bool) -> None:
    """Recompute every hash of the log in LOGDIR, and check the checkpoint that it signed."""
    earlier = read_file(older, MAX_NOTE_BYTES) if older is not None else None
    report = audit(log, logs.find_vkey(key), older=earlier)
    checkpoint = report.checkpoint
    if as_json:
        print_json(
            {
                "entries": checkpoint.size,
                "files": report.files,
                "interrupted": report.interrupted,
                "log": checkpoint.origin,
                "root": {"sha256": checkpoint.root.hex()},
            }
        )
        return
    click.echo(f"log      {one_line(checkpoint.origin)}")
    click.echo(f"entries  {checkpoint.size:,}, root sha256 {checkpoint.root.hex()}")
    click.echo(f"files    {report.files:,}, every hash recomputed: the log holds what it signed")
    if report.extends is not None:
        entries = count(report.extends.size, "entry", "entries")
        click.echo(f"older    {entries}, all still there, in the same order")
    if report.interrupted:
        click.echo("an append was interrupted; the next one undoes what it left")
