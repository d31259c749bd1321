"""``provenance demo``: the whole job on a small real model.

Every step is printed as the command that a user would type, and then run. A step that ends with
another status than it should makes the demo fail, so the demo is a check too.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import click

from provenance.cli.help import Command
from provenance.cli.options import PATH
from provenance.errors import RefusedError, UnavailableError, UsageError, one_line, reason

_FILES = resources.files("provenance.cli") / "demo_files"
STEPS = _FILES / "steps.txt"

MARKER = ".provenance-demo"
"""A folder with this file was made by the demo and may be made anew."""

PROGRAM_FILES = ("train.py", "config.toml", "equality.toml", "data.py")


@click.command(
    cls=Command,
    examples=("provenance demo", "provenance demo --folder /tmp/demo"),
    next_step="'provenance show demo/alice/model' explains what the demo made.",
)
@click.option(
    "--folder", type=PATH, default=Path("demo"), show_default=True, help="Where everything goes."
)
def command(folder: Path) -> None:
    """Train a small network on digits four times; record, verify and compare the results.

    Needs git and the extra 'demo' (scikit-learn, safetensors). Everything stays in the folder;
    'provenance show' explains any file in it.
    """
    _check_requirements()
    _lay_out(folder)
    number = 0
    for line in STEPS.read_text("utf-8").splitlines():
        if line.startswith("## "):
            number += 1
            click.secho(f"\n{number}. {line.removeprefix('## ')}", bold=True)
        elif line and not line.startswith("#"):
            status, place, words = line.split(" ", 2)
            _run(words, folder, place, int(status))
    click.echo()
    click.secho("Every step ended as it should.", bold=True)
    click.echo(f"Look around in {one_line(str(folder))}/, for example:")
    for path in ("alice/model/claims.jsonl", "verdict.json", "log/checkpoint"):
        click.echo(f"  {_own_name()} show {shlex.quote(one_line(str(folder / path)))}")


def _own_name() -> str:
    """Return how the user calls this program from here."""
    if shutil.which("provenance") is not None:
        return "provenance"
    beside = Path(sys.executable).parent / "provenance"
    return os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m provenance"


def _check_requirements() -> None:
    for module in ("sklearn", "safetensors"):
        if importlib.util.find_spec(module) is None:
            raise UsageError(
                f"the demo needs {module}", hint="pip install 'training-provenance[demo]'"
            )
    if shutil.which("git") is None:
        raise UsageError("the demo needs git", hint="install it")


def _lay_out(folder: Path) -> None:
    """Make the demo's folder with what Alice has before she starts."""
    if folder.exists() and not (folder / MARKER).is_file():
        raise UsageError(
            "exists, and was not made by the demo",
            where=str(folder),
            hint="name another one with --folder",
        )
    try:
        if folder.exists():
            shutil.rmtree(folder)
        (folder / "keys").mkdir(parents=True)
        (folder / MARKER).touch()
        (folder / "alice").mkdir()
        for name in PROGRAM_FILES:
            (folder / "alice" / name).write_bytes((_FILES / name).read_bytes())
        (folder / "alice" / ".gitignore").write_bytes((_FILES / "gitignore").read_bytes())
        (folder / "tamper.py").write_bytes((_FILES / "tamper.py").read_bytes())
    except OSError as error:
        raise UnavailableError(f"cannot be made: {reason(error)}", where=str(folder)) from error


def _run(line: str, folder: Path, place: str, status: int) -> None:
    shown = click.style(place, dim=True) if place != "." else ""
    click.echo(f"\n{shown}$ {click.style(line, fg='cyan')}")
    words = shlex.split(line)
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[0] == "provenance":  # the one that runs now, wherever it is installed
        words[:1] = [sys.executable, "-m", "provenance"]
    sys.stdout.flush()
    done = subprocess.run(words, cwd=folder / place, env=environment, check=False)
    if done.returncode != status:
        raise RefusedError(
            f"ended with status {done.returncode}, and should have with {status}", where=line
        )
    if status:
        click.echo(click.style(f"(exit status {status}, as it should be)", dim=True))
