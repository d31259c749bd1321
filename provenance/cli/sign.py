"""``provenance sign``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from provenance.api import signing
from provenance.cli.help import Command
from provenance.cli.options import (
    PATH,
    json_option,
    link_root_option,
    read_password,
    signing_options,
)
from provenance.errors import count, one_line
from provenance.report.recording import not_covered_lines
from provenance.report.terminal import print_json, print_lines, progress


@click.command(
    cls=Command,
    examples=(
        "provenance sign model --key alice",
        'provenance sign model --identity-token "$TOKEN"',
    ),
    next_step="'provenance verify model --key alice.pub' checks it, and so does model_signing.",
)
@click.argument("model", type=PATH, metavar="DIR|FILE")
@partial(signing_options, or_identity=True)
@click.option(
    "--signature", type=PATH, metavar="PATH", help="Where to write it, if not DIR/model.sig."
)
@click.option(
    "--signing-certificate", type=PATH, metavar="PEM", help="The certificate of the key's owner."
)
@click.option(
    "--certificate-chain", type=PATH, multiple=True, metavar="PEM",
    help="Certificates from there to a root. Repeatable.",
)  # fmt: skip
@click.option(
    "--ignore-paths",
    type=PATH,
    multiple=True,
    metavar="PATH",
    help="File or folder in DIR to leave out, which the signature says. Repeatable.",
)
@link_root_option
@json_option
def command(
    *,
    model: Path,
    key_path: Path | None,
    password_env: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the library's own, passed on
) -> None:
    """Sign the files in DIR and write DIR/model.sig; or FILE, and write FILE.sig.

    The signature says which files these are, not how they were made; 'record' and 'attest' do.
    """
    signed = signing.sign(
        model, key=key_path, password=read_password(password_env), progress=progress, **options
    )
    manifest = signed.manifest
    if as_json:
        print_json(
            {
                "files": len(manifest.entries),
                "identity": signed.identity or None,
                "keyId": signed.key_id,
                "notCovered": signed.not_covered,
                "rootDigest": {"sha256": manifest.root_digest},
                "signature": str(signed.path),
                "warnings": signed.warnings,
            }
        )
        return
    click.echo(f"signed   {count(len(manifest.entries), 'file')}, {count(manifest.size, 'byte')}")
    click.echo(f"root     sha256 {manifest.root_digest}")
    click.echo(f"identity {signed.identity}" if signed.identity else f"key id   {signed.key_id}")
    for warning in signed.warnings:
        print_lines([one_line(f"provenance: warning: {warning}")], hang=2, err=True)
    for line in not_covered_lines(signed.not_covered):
        click.echo(one_line(line))
    click.echo(f"written  {one_line(str(signed.path))}")
