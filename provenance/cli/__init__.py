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
4       something outside is unavailable: disk, log, a package that an extra brings
70      a defect of this program
125     ``record`` itself failed (otherwise it passes on the command's status)
130     interrupted
======  ==========================================================================
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import re
import signal
import sys
import warnings
from typing import Any, NamedTuple, NoReturn

import click

from provenance import __version__
from provenance.cli.help import Group
from provenance.errors import (
    CommandError,
    MalformedError,
    ProvenanceError,
    RefusedError,
    UnavailableError,
    UnreadableError,
    UsageError,
    one_line,
)
from provenance.report.terminal import PLAIN, print_json, print_lines, wants_colour

COMMANDS = {
    "keygen": "Make a key pair.",
    "doctor": "Say what will make a training hard to repeat.",
    "record": "Run a training command and sign how the model was made.",
    "attest": "Sign how a model was made, after the fact.",
    "sign": "Sign a model's files (OpenSSF model signature).",
    "resign": "Move claims to a new key.",
    "verify": "Check that a key you trust attested these files.",
    "trust": "Write and explain a policy: whom you trust, and for what.",
    "compare": "Show two models side by side: files and tensors.",
    "equality": "Explain and check declarations of what counts as the same model.",
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


class LazyGroup(Group):
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
    examples=("provenance demo", "provenance record --model model --key alice -- python train.py"),
    next_step="'provenance keygen' makes your key; 'provenance COMMAND --help' explains a command.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
def cli(debug: bool) -> None:
    """Prove how a machine-learning model was made.

    Exit status: 0 yes, 1 refused, 2 usage, 3 unreadable or malformed, 4 unavailable.
    """


class Answered(Exception):  # noqa: N818 - it says what happened, and wraps the error
    """The command has printed its own ``--json`` document about *error*."""

    def __init__(self, error: ProvenanceError) -> None:
        """Keep *error*, which is still to be reported on stderr."""
        super().__init__(error)
        self.error = error


class _Heedless(io.FileIO):
    """Standard error; what cannot be written there costs neither a training nor its status."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - a buffer
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    gc.set_threshold(50_000)  # what a start loads is no garbage: to look at it takes a tenth of it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it hides how a command ended
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about what the user cannot mend
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PLAIN)
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(_Heedless(sys.stderr.fileno(), "wb", closefd=False))
        encoding = sys.stderr.encoding
        sys.stderr = io.TextIOWrapper(raw, encoding, PLAIN, line_buffering=True)
    if (place := _find_namesake()) is not None:
        click.echo(
            "provenance: warning: another distribution, 'provenance', is installed in"
            f" {one_line(place)} and has a package of the same name (pip uninstall provenance,"
            " then install training-provenance again)",
            err=True,
        )
    status = run(sys.argv[1:])
    try:
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
    except OSError as error:
        _discard_output()
        if not isinstance(error, BrokenPipeError):
            status = _output_failed(error)
        status = status or 1
    gc.freeze()  # else the interpreter's end searches all that was loaded, for 10 ms
    sys.exit(status)


def _find_namesake() -> str | None:
    """Return the folder in which the index's other package ``provenance`` is installed, if it is.

    Each overwrites files of the other. importlib.metadata would say it too, and takes 30 ms.
    """
    for folder in sys.path:
        with contextlib.suppress(OSError):
            if any(re.fullmatch(_NAMESAKE, name) for name in os.listdir(folder or ".")):  # noqa: PTH208
                return folder
    return None


_NAMESAKE = r"provenance-[^-]*\.(dist-info|egg-info)"


def run(arguments: list[str]) -> int:
    """Run *arguments* and return the exit status; errors become one line on stderr.

    With ``--json`` an error is a document on stdout too: ``{"error": {"message": …, …}}``.
    """
    own = _own_options(arguments)
    colour = wants_colour(os.environ)
    try:
        result = cli.main(arguments, prog_name="provenance", standalone_mode=False, color=colour)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return STATUS[UsageError]
    except (KeyboardInterrupt, click.Abort) as error:
        notes = getattr(error.__cause__ or error, "__notes__", [])
        _report("; ".join(["interrupted", *notes]), as_json=False)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - each kind has its exit status
        if own.debug and not isinstance(error, click.ClickException):
            import traceback

            for line in "".join(traceback.format_exception(error)).splitlines():
                click.echo(one_line(line), err=True)
        status = _explain(error, own)
        if isinstance(error, CommandError):
            return error.status or RECORD_FAILED
        return RECORD_FAILED if own.verb == "record" else status
    return result if isinstance(result, int) else 0


def _explain(error: Exception, own: _Own) -> int:
    if isinstance(error, click.ClickException):
        message = error.format_message()
        if (
            isinstance(error, click.NoSuchOption)
            and (error.ctx is not None and error.ctx.parent is None)
            and own.verb in COMMANDS
        ):
            message = f"No such option '{error.option_name}' here; options follow '{own.verb}'."
        _report(one_line(message), as_json=own.as_json)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
        return STATUS[UsageError]
    problem = error.error if isinstance(error, Answered) else error
    if isinstance(problem, ProvenanceError):
        as_json = own.as_json and problem is error
        _report(str(problem), as_json=as_json, where=problem.where)
        return next((code for kind, code in STATUS.items() if isinstance(problem, kind)), DEFECT)
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        _discard_output()
        return _output_failed(error)
    if isinstance(error, OSError):  # a path that no check foresaw: too long, or not to be looked at
        from provenance.errors import reason

        place = f"{one_line(os.fsdecode(error.filename))}: " if error.filename is not None else ""
        _report(f"{place}{reason(error)}", as_json=own.as_json, where=place or None)
        return STATUS[UnreadableError]
    message = (
        f"a defect: {type(error).__name__}: {one_line(str(error))}"
        " (run 'provenance --debug …' and report what it prints)"
    )
    _report(message, as_json=own.as_json)
    return DEFECT


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write to a stream says where there is no more room; a file's error has its name."""


class _Own(NamedTuple):
    """What of the arguments concerns this function: those of a recorded command do not."""

    verb: str
    debug: bool
    as_json: bool


def _own_options(arguments: list[str]) -> _Own:
    position = next((n for n, word in enumerate(arguments) if not word.startswith("-")), None)
    if position is None:
        return _Own("", "--debug" in arguments, as_json=False)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return _Own(
        verb=arguments[position],
        debug="--debug" in arguments[:position],
        as_json="--json" in arguments[position:end],
    )


def _report(message: str, *, as_json: bool, where: str | None = None) -> None:
    print_lines([f"provenance: {message}"], hang=2, err=True)
    if as_json:
        error = {"message": message} if where is None else {"message": message, "where": where}
        print_json({"error": error})


def _discard_output() -> None:
    """Keep the interpreter from writing at its end what could not be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_failed(error: OSError) -> int:
    why = (error.strerror or type(error).__name__).lower()
    click.echo(f"provenance: standard output cannot be written: {why}", err=True)
    return STATUS[UnavailableError]
