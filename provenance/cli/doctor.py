"""``provenance doctor``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from provenance.api.making import inputs_of
from provenance.capture.recorder import observe_before
from provenance.cli.help import Command
from provenance.cli.options import PATH, json_option
from provenance.cli.recording import read_data
from provenance.doctor.diagnosis import diagnose
from provenance.errors import UsageError
from provenance.report.doctor import diagnosis_lines
from provenance.report.terminal import print_json, print_lines, progress


@click.command(
    cls=Command,
    examples=(
        "provenance doctor -- python train.py",
        "provenance doctor --twice --model model -- python train.py --steps 20",
    ),
    next_step="'provenance record' runs the training and signs how the model was made.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.option("--twice", is_flag=True, help="Run COMMAND twice, and find what makes it differ.")
@click.option(
    "--model", type=PATH, default="model", metavar="DIR", help="Folder that COMMAND fills (model)."
)
@click.option(
    "--data", multiple=True, metavar="[ROLE=]PATH", help="Data that COMMAND reads. Repeatable."
)
@click.option("--strict", is_flag=True, help="Exit status 1 where anything but a hint is found.")
@json_option
@click.argument("words", nargs=-1, metavar="[-- COMMAND...]")
def command(
    words: tuple[str, ...],
    *,
    twice: bool,
    model: Path,
    data: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> int:
    """Say, before a training, what will make it hard to repeat, and each remedy.

    Looked at is what 'record' would observe. Of COMMAND the program's text is read, not run: what
    it seems to do is called a hint.

    With --twice, COMMAND runs in fresh copies of the working tree, which are removed: twice, then
    with seeds and settings until the files repeat, and then as on other machines. A training of
    seconds is enough. Whole paths in its own text still lead out of the copy. Exit status 1: two
    runs do not make the same model.
    """
    if twice and not words:
        raise UsageError("there is no command to run twice", hint="doctor --twice -- COMMAND")
    inputs = inputs_of(model, {"data": [read_data(text) for text in data]})
    words = words or ("python" if shutil.which("python") else "python3", "-c", "pass")
    with progress("hashing inputs") as advance:
        before = observe_before(inputs, words, environ=os.environ, progress=advance)
    found = diagnose(before, on_run=_say if twice else None)
    if as_json:
        print_json(found)
    else:
        print_lines(diagnosis_lines(found))
    refused = strict and any(each.about != "hint" for each in found.advice)
    return 1 if refused or (found.twice is not None and not found.twice.repeats) else 0


def _say(text: str) -> None:
    print_lines([f"provenance: {text}"], hang=2, err=True)
