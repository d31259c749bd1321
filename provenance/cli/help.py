"""How the help of a command ends, and what a mistyped name was meant to be.

``provenance --help`` loads nothing beside this.
"""

from __future__ import annotations

from typing import Any

import click


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
