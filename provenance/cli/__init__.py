"""The command line: parse, one library call, render.

Each command lives in the module of its name and is imported when it is called, so that
``provenance --help`` loads click and nothing else. :func:`main` maps errors to exit statuses:

======  ==========================================================================
status  meaning
======  ==========================================================================
0       yes
1       refused: bad signature, other files, mismatch, inconclusive
2       usage
3       unreadable or malformed input
4       something outside is unavailable: disk, log, network
70      a defect of this program
125     ``record`` itself failed (otherwise it passes on the command's status)
130     interrupted
======  ==========================================================================
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NoReturn

import click

from provenance import __version__
from provenance.errors import (
    MalformedError,
    ProvenanceError,
    RefusedError,
    UnavailableError,
    UnreadableError,
    UsageError,
    one_line,
)

COMMANDS = {
    "keygen": "Make a key pair.",
    "record": "Run a training command and sign how the model was made.",
    "attest": "Sign how a model was made, after the fact.",
    "sign": "Sign a model's files (OpenSSF model signature).",
    "verify": "Check that a key you trust attested these files.",
    "compare": "Show two models side by side: files and tensors.",
    "agree": "Judge whether rebuilds are the same model, as declared beforehand.",
    "publish": "Put a model's claims into a transparency log.",
    "log": "Make and audit a transparency log.",
    "show": "Explain any file that this program writes.",
    "demo": "Do the whole job on a small real model.",
}

STATUS: dict[type[ProvenanceError], int] = {
    RefusedError: 1,
    UsageError: 2,
    MalformedError: 3,
    UnreadableError: 3,
    UnavailableError: 4,
}

DEFECT = 70
RECORD_FAILED = 125
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names, in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command, from the module of its name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"provenance.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list from :data:`COMMANDS`, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 yes, 1 refused, 2 usage, 3 unreadable or malformed, 4 unavailable.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
def cli(debug: bool) -> None:  # noqa: FBT001, ARG001 - click's signature; main reads it
    """Prove how a machine-learning model was made."""


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    arguments = sys.argv[1:]
    status = run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (`provenance show … | head`): keep the interpreter from retrying.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = status or 1
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run *arguments* and return the exit status; errors become one line on stderr."""
    before_command = (
        [a for a in arguments[: arguments.index("--")] if a] if "--" in arguments else arguments
    )
    words = [argument for argument in before_command if not argument.startswith("-")]
    recording = words[:1] == ["record"]
    try:
        result = cli.main(arguments, prog_name="provenance", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        click.echo(f"provenance: {one_line(error.format_message())}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        return RECORD_FAILED if recording else 2
    except ProvenanceError as error:
        if "--debug" in before_command:
            raise
        click.echo(f"provenance: {error}", err=True)
        own = next(code for kind, code in STATUS.items() if isinstance(error, kind))
        return RECORD_FAILED if recording else own
    except (KeyboardInterrupt, click.Abort):
        click.echo("provenance: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if "--debug" in before_command:
            raise
        click.echo(
            f"provenance: a defect: {type(error).__name__}: {one_line(str(error))}"
            " (run 'provenance --debug …' and report what it prints)",
            err=True,
        )
        return RECORD_FAILED if recording else DEFECT
    return result if isinstance(result, int) else 0
