"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provenance.errors import MalformedError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.equality.declaration import Declaration
    from provenance.keys import PrivateKey, PublicKey
    from provenance.transparency.note import SignerKey, VerifierKey

F = TypeVar("F", bound="Callable[..., Any]")

PATH = click.Path(path_type=Path)
"""A path that the library checks itself, so that its error has one wording."""


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def signing_options(command: F) -> F:
    """Add ``--key`` for a private key and ``--password-env``."""
    command = click.option(
        "--password-env", metavar="VAR", help="Environment variable that holds the key's password."
    )(command)
    return click.option(
        "--key", "key_path", type=PATH, required=True, metavar="KEY", help="Private key (PEM)."
    )(command)


def trusted_keys_option(command: F) -> F:
    """Add ``--key`` for public keys, any number of them."""
    return click.option(
        "--key",
        "key_paths",
        type=PATH,
        multiple=True,
        metavar="PUB",
        help="Public key that you trust; may be repeated. Nothing is trusted by default.",
    )(command)


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


def read_signing_key(path: Path, password_env: str | None) -> PrivateKey:
    """Return the private key at *path*."""
    from provenance.keys import load_private

    return load_private(path, read_password(password_env))


def read_trusted_keys(paths: tuple[Path, ...]) -> dict[PublicKey, str]:
    """Return the public keys at *paths*, each once, with the name of its file."""
    from provenance.keys import load_public

    return {load_public(path): path.name for path in paths}


def check_model_name(model: Path) -> None:
    """Return if the name of the folder *model*, which is stated, can be.

    Raises:
        MalformedError: it is not UTF-8.
    """
    if any("\ud800" <= character <= "\udfff" for character in os.path.realpath(model)):
        raise MalformedError("the path is not UTF-8", where=str(model), hint="rename the folder")


def read_log_signer(log: Path, password: bytes | None) -> SignerKey:
    """Return the key that signs the log in the folder *log*.

    Raises:
        UnreadableError, MalformedError: there is no log, or its key cannot be read.
        UsageError: the key is another one now.
    """
    from provenance.transparency import log as logs

    if not os.path.lexists(log / logs.CHECKPOINT):
        raise UnreadableError(
            "there is no log here", where=str(log), hint="'provenance log init' makes one"
        )
    return logs.load_signer(log, password=password)


def read_log_key(text: str) -> VerifierKey:
    """Return the log key that *text* is, or that the file *text* holds.

    Raises:
        UnreadableError: the file is not there or cannot be read.
        MalformedError: it is not a verifier key (``name+hex+base64``).
    """
    from provenance.transparency.log import read_vkey
    from provenance.transparency.note import parse_vkey

    if not os.path.lexists(text):
        if "+" not in text:
            raise UnreadableError(
                "no such file, and no log key (NAME+ID+KEY)",
                where=text,
                hint="name the file 'vkey' of the log, or write its content",
            )
        return parse_vkey(text, where="the log's key")
    return read_vkey(Path(text), follow=True)


def read_equality(text: str) -> Declaration:
    """Return the built-in declaration of the name *text*, or the one in the file *text*.

    A built-in name wins, so that a file called ``bytes`` cannot stand in for it.

    Raises:
        UnreadableError, MalformedError: the file cannot be read, or is no declaration.
        UsageError: there is neither a file nor a built-in declaration of that name.
    """
    from provenance.equality import declaration
    from provenance.files.reading import read_file

    if "/" not in text and "." not in text:
        try:
            return declaration.builtin(text)
        except UsageError:
            if not os.path.lexists(text):
                raise
    return declaration.parse(read_file(Path(text), declaration.MAX_BYTES), where=text)
