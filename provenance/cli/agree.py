"""``provenance agree``."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from provenance import __version__
from provenance.cli.options import (
    PATH,
    json_option,
    read_equality,
    read_password,
    read_trusted_keys,
    trusted_keys_option,
)
from provenance.equality.lattice import AGREES
from provenance.errors import PolicyError, ProvenanceError, UsageError, one_line
from provenance.files.atomic import create_file
from provenance.folder import claims
from provenance.keys import load_private
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import Verifier, to_statement
from provenance.report.agreement import verdict_lines
from provenance.report.progress import progress
from provenance.report.terminal import print_json, print_lines
from provenance.trust.verification import Request, verify_model

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.keys import PublicKey
    from provenance.trust.verification import Verified


@click.command(short_help="Judge whether rebuilds are the same model, as declared beforehand.")
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="DIR DIR...")
@trusted_keys_option
@click.option(
    "--equality",
    metavar="FILE|NAME",
    help="The equality that you expect to have been declared; another one is refused.",
)
@click.option(
    "--unsafe-other-equality",
    "unsafe",
    is_flag=True,
    help="Apply --equality although the first attestation declared another one, or none.",
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
    help="Builders (keys) that must agree, the first among them.",
)
@click.option(
    "--sign-with", type=PATH, metavar="KEY", help="Sign the verdict with this private key."
)
@click.option("--out", type=PATH, metavar="FILE", help="Where the signed verdict goes.")
@click.option("--password-env", metavar="VAR", help="Environment variable with the key's password.")
@json_option
def command(
    *,
    models: tuple[Path, ...],
    key_paths: tuple[Path, ...],
    equality: str | None,
    unsafe: bool,
    probes: Path | None,
    quorum: int,
    sign_with: Path | None,
    out: Path | None,
    password_env: str | None,
    as_json: bool,
) -> int:
    """Judge whether the models in the folders DIR are the same one.

    The first DIR is the published model. Each is verified, the recipes are compared, and the
    equality that the first attestation declared is applied to the files. Exit status 0: it held
    (match, consistent, plausible); 1: mismatch or inconclusive. Every verdict can be signed, the
    negative ones too.
    """
    if (sign_with is None) != (out is None):
        raise UsageError("--sign-with and --out go together")
    if out is not None and os.path.lexists(out):  # found out before hours of comparison
        raise UsageError("exists already", where=str(out), hint="choose another name")
    key = None
    if sign_with is not None:
        key = load_private(sign_with, read_password(password_env))
    keys = read_trusted_keys(key_paths)
    verified = _verify_all(models, tuple(keys))
    override = _override(verified[0], equality, unsafe=unsafe)
    with progress("comparing") as advance:
        verdict = agree(
            verified, quorum=quorum, unsafe_equality=override, probes=probes, on_bytes=advance
        )
    if key is not None and out is not None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        statement = to_statement(verdict, Verifier(__version__, now))
        create_file(out, claims.sign_statement(statement, key) + b"\n")
    if as_json:
        print_json({"verdict": verdict, "models": [str(model) for model in models]})
    else:
        names = {key.key_id: name for key, name in keys.items()}
        print_lines(verdict_lines(verdict, [str(model) for model in models], names))
        if out is not None:
            click.echo(f"signed    {one_line(str(out))}")
    return 0 if verdict.conclusion in AGREES else 1


def _verify_all(models: tuple[Path, ...], keys: tuple[PublicKey, ...]) -> list[Verified]:
    verified = []
    for model in models:
        try:
            with progress("hashing") as advance:
                verified.append(verify_model(Request(model, keys), progress=advance))
        except ProvenanceError as error:
            raise error.inside(str(model)) from error
    return verified


def _override(published: Verified, equality: str | None, *, unsafe: bool) -> Declaration | None:
    """Return the declaration that replaces the declared one, if one does."""
    if equality is None:
        if unsafe:
            raise UsageError("--unsafe-other-equality needs --equality")
        return None
    expected = read_equality(equality)
    declared = published.declaration
    if declared is not None and declared.digest == expected.digest:
        return None
    if not unsafe:
        raise PolicyError(
            "the first attestation declared another equality"
            if declared
            else "the first attestation declared no equality",
            where=equality,
            hint="--unsafe-other-equality applies it all the same, and the verdict says so",
        )
    return expected
