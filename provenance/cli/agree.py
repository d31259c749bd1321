"""``provenance agree``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from provenance.api import checking
from provenance.cli.help import Command
from provenance.cli.options import (
    PATH,
    json_option,
    link_root_option,
    read_password,
    read_trusted_keys,
    trusted_keys_option,
    trusted_signer_options,
)
from provenance.equality.lattice import AGREES
from provenance.errors import one_line
from provenance.report.agreement import verdict_lines
from provenance.report.terminal import print_json, print_lines, progress


@click.command(
    cls=Command,
    examples=(
        "provenance agree published rebuilt --key alice.pub --key bob.pub",
        """provenance agree published rebuilt --key alice.pub --key bob.pub \\
    --sign-with bob --out verdict.json""",
    ),
    next_step="'provenance compare published rebuilt' shows where two models differ.",
)
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="DIR DIR...")
@trusted_keys_option
@trusted_signer_options
@click.option(
    "--equality", metavar="FILE|NAME", help="Refuse unless this is the declared equality."
)
@click.option(
    "--unsafe-other-equality",
    is_flag=True,
    help="Apply --equality even if the first attestation declared another one, or none.",
)
@click.option(
    "--probes",
    type=PATH,
    metavar="FILE",
    help="Probes drawn after all models were published, for rules that run the model.",
)
@click.option(
    "--quorum",
    type=click.IntRange(min=2),
    default=2,
    show_default=True,
    metavar="K",
    help="How many distinct signers must agree, counting the publisher.",
)
@click.option(
    "--independent",
    is_flag=True,
    help="State in the signed verdict that different people operate the builders.",
)
@click.option(
    "--sign-with", type=PATH, metavar="KEY", help="Sign the verdict with this private key."
)
@click.option("--out", type=PATH, metavar="FILE", help="Where the signed verdict goes.")
@click.option("--password-env", metavar="VAR", help="Environment variable with the key's password.")
@link_root_option
@json_option
def command(
    *,
    models: tuple[Path, ...],
    key_paths: tuple[Path, ...],
    password_env: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - the library's own, passed on
) -> int:
    """Judge whether the models in the folders DIR are the same model.

    The first DIR is the published model. Each is verified, the recipes are compared, and the
    equality that the first attestation declared is applied to the files. Exit status 0: it held
    (match, consistent, plausible); 1: mismatch or inconclusive. Every verdict can be signed,
    including a negative one.
    """
    keys = read_trusted_keys(key_paths)
    password = read_password(password_env)
    verdict = checking.agree(
        models, keys=tuple(keys), password=password, progress=progress, **options
    )
    if as_json:
        print_json({"verdict": verdict, "models": [str(model) for model in models]})
    else:
        names = {key.key_id: name for key, name in keys.items()}
        print_lines(verdict_lines(verdict, [str(model) for model in models], names))
        if options["out"] is not None:
            click.echo(f"signed    {one_line(str(options['out']))}")
    return 0 if verdict.conclusion in AGREES else 1
