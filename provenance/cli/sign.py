"""``provenance sign``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from provenance.cli.options import (
    PATH,
    check_model_name,
    json_option,
    read_signing_key,
    signing_options,
)
from provenance.errors import count, one_line
from provenance.files.manifest import hash_folder
from provenance.files.names import MODEL_SIGNATURE, RESERVED
from provenance.folder import claims
from provenance.report.progress import progress
from provenance.report.terminal import print_json

if TYPE_CHECKING:
    from pathlib import Path


@click.command(short_help="Sign a model's files (OpenSSF model signature).")
@click.argument("model", type=PATH, metavar="DIR")
@signing_options
@json_option
def command(model: Path, key_path: Path, password_env: str | None, *, as_json: bool) -> None:
    """Sign the files in DIR and write DIR/model.sig.

    The signature says which files these are, not how they were made; 'record' and 'attest' do.
    """
    key = read_signing_key(key_path, password_env)
    claims.require_folder(model)
    claims.refuse_to_replace(model, key.public)
    check_model_name(model)
    with progress("hashing") as advance:
        manifest = hash_folder(model, ignore=RESERVED, progress=advance)
    claims.write_model_signature(model, claims.sign_model(model.resolve().name, manifest, key))
    if as_json:
        print_json(
            {
                "files": len(manifest.entries),
                "keyId": key.public.key_id,
                "rootDigest": {"sha256": manifest.root_digest},
                "signature": str(model / MODEL_SIGNATURE),
            }
        )
        return
    click.echo(f"signed   {count(len(manifest.entries), 'file')}, {manifest.size:,} bytes")
    click.echo(f"root     sha256 {manifest.root_digest}")
    click.echo(f"key id   {key.public.key_id}")
    click.echo(f"written  {one_line(str(model / MODEL_SIGNATURE))}")
