"""Options that commands share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provenance.errors import UsageError, one_line

if TYPE_CHECKING:
    from provenance.keys import PublicKey

F = TypeVar("F", bound="Callable[..., Any]")

PATH = click.Path(path_type=Path)
"""A path that the library checks itself, so that its error has one wording."""


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")

trusted_keys_option = click.option(
    "--key",
    "key_paths",
    type=PATH,
    multiple=True,
    metavar="PUB",
    help="Public key that you trust; may be repeated. Nothing is trusted by default.",
)


def trusted_identity_options(command: F, of: str = "", when: str = "") -> F:
    """Add what says which identities are trusted, as ``--key`` says which keys.

    The options are *of* somebody, by their names, and their help begins with *when* they are used.
    """
    command = click.option(
        f"--{of}trust-config", type=PATH, metavar="FILE",
        help=f"{when}Trusted root of a Sigstore, not the public one's in the package sigstore.",
    )(command)  # fmt: skip
    command = click.option(
        f"--{of}identity-provider", multiple=True, metavar="URL",
        help=f"{when}Who vouches for an identity: one for all, or one for each, in order.",
    )(command)  # fmt: skip
    return click.option(
        f"--{of}identity", multiple=True, metavar="NAME",
        help=f"{when}Identity that you trust to sign (keyless): a mail, a URL. Repeatable.",
    )(command)  # fmt: skip


def trusted_signer_options(command: F, of: str = "", when: str = "") -> F:
    """Add what says who is trusted to sign without a key of theirs being known."""
    return click.option(
        f"--{of}certificate-chain", type=PATH, multiple=True, metavar="PEM",
        help=f"{when}Certificate of an authority that you trust to name signers. Repeatable.",
    )(trusted_identity_options(command, of, when))  # fmt: skip


link_root_option = click.option(
    "--link-root",
    "link_roots",
    type=PATH,
    multiple=True,
    metavar="DIR",
    help="Folder to whose files symbolic links may lead. Repeatable.",
)


def signing_options(command: F, *, or_identity: bool = False) -> F:
    """Add ``--key`` for a private key and ``--password-env``, and what signs without a key."""
    if or_identity:
        command = click.option(
            "--trust-config", type=PATH, metavar="FILE",
            help="Without --key: the Sigstore that signs, in place of the public one.",
        )(command)  # fmt: skip
        command = click.option(
            "--identity-token", metavar="TOKEN",
            help="Without --key: who signs (OIDC), or env:NAME, fd:N; else a hosted CI's identity.",
        )(command)  # fmt: skip
    command = click.option(
        "--password-env", metavar="VAR", help="Environment variable that holds the key's password."
    )(command)
    return click.option(
        "--key", "key_path", required=not or_identity, metavar="KEY", callback=_private_key,
        help="Private key: a file, env:NAME, fd:N, or a pkcs11:, awskms:, azurekms:, gcpkms: or"
        " hv: URI.",
    )(command)  # fmt: skip


def _private_key(
    _context: click.Context, _option: click.Parameter, key: str | None
) -> str | Path | None:
    """Return *key* as a path, if it is one; warn of a file that others can read."""
    from provenance.keys import is_private_key
    from provenance.keys.elsewhere import scheme_of

    if key is None or scheme_of(key):
        return key
    with suppress(OSError, ValueError):
        shared = Path(key).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        if shared and is_private_key(Path(key)):
            what = f"provenance: warning: {one_line(key)}: others can read this private key"
            click.echo(f"{what} (chmod 600)", err=True)
    return Path(key)


def key_variables(options: Mapping[str, Any]) -> list[str]:
    """Return the environment variables in which *options* say that secrets are."""
    from provenance.keys.elsewhere import scheme_of

    names = [options["password_env"], options.get("log_password_env")]
    key = str(options["key_path"])
    return [*filter(None, names), *([key.partition(":")[2]] if scheme_of(key) == "env" else [])]


def read_password(variable: str | None) -> bytes | None:
    """Return the password in the environment *variable*, or None where none is named.

    Raises:
        UsageError: the variable is not set, or empty.
    """
    if variable is None:
        return None
    password = os.environ.get(variable, "")
    if not password:
        raise UsageError(f"the variable {variable} is not set", hint="export it first")
    return os.fsencode(password)


def read_trusted_keys(paths: tuple[Path, ...]) -> dict[PublicKey, str]:
    """Return the public keys at *paths*, each once, with the name of its file, or its path."""
    from provenance.keys import load_public

    names = [path.name for path in paths]
    return {load_public(it): it.name if names.count(it.name) == 1 else str(it) for it in paths}
