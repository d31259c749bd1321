"""What commands share: how their help ends, what a mistyped name was meant to be, and options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from provenance.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.keys import PublicKey
    from provenance.transparency.note import VerifierKey

F = TypeVar("F", bound="Callable[..., Any]")

PATH = click.Path(path_type=Path)
"""A path that the library checks itself, so that its error has one wording."""


class Command(click.Command):
    """A command whose help ends with *examples* and the *next_step*."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401 - click's own
        examples: tuple[str, str],
        next_step: str,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Keep *examples*, command lines of at most 76 columns, and the *next_step*."""
        super().__init__(*arguments, **options)
        self.examples = examples
        self.next_step = next_step

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write how the help ends."""
        with formatter.section("Examples"):
            for example in self.examples:
                for line in example.splitlines():
                    formatter.write(f"  {line}\n")
        formatter.write_paragraph()
        formatter.write_text(f"Next: {self.next_step}")


class Group(Command, click.Group):
    """A group of such commands, which says what a mistyped name was meant to be."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order in which they were added."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first of *args* names."""
        name, names = args[0], self.list_commands(ctx)
        if name not in names and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(name, names, n=1) if name != "help" else ["--help"]
            meant = f" Did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(f"No such command '{name}'.{meant}", ctx)
        return super().resolve_command(ctx, args)


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


def read_trusted_keys(paths: tuple[Path, ...]) -> dict[PublicKey, str]:
    """Return the public keys at *paths*, each once, with the name of its file."""
    from provenance.keys import load_public

    return {load_public(path): path.name for path in paths}


def read_log_key(text: str) -> VerifierKey:
    """Return the log key that *text* is, or that the file *text* holds."""
    from provenance.transparency.log import find_vkey

    return find_vkey(text)
