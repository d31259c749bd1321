"""Command-line transcripts: what a user types, and what comes back.

::

    # a remark
    $ provenance verify model --key alice.pub
    ✓ 1 parse                …
    …
    (exit status 1)

A line that begins with ``$`` is run by bash, with those that begin with ``>`` right after it, where
the one before left off (``cd``). The lines after it are what it writes to standard output and
standard error together: ``…`` stands for anything in a line, and alone on a line for any lines. A
status other than 0 is the last line, in parentheses. In a transcript with tabs or trailing spaces
nothing is trimmed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT = "$ "
MORE = "> "
ANYTHING = "…"
STATUS = re.compile(r"\(exit status (\d+)\)")

SET_UP = ("make demo", "make test")
"""Commands that are not run: they set up what runs this."""

OF_THE_CHECKOUT = re.compile(
    r"^provenance: warning: not committed: editable/training-provenance/.*\n", re.MULTILINE
)
"""What is said while this package, editable in the tests' environment, is worked on."""

TIMEOUT_SECONDS = 600  # against a hang, not a measure of speed


@dataclass(frozen=True)
class Command:
    """One command line, the lines that it shall write, and the status that it shall end with."""

    line: str
    expected: tuple[str, ...]
    status: int = 0


def parse(text: str) -> Iterator[Command]:
    """Yield the commands of a transcript."""
    line = ""
    expected: list[str] = []
    for each in [*text.splitlines(), PROMPT]:
        if each.startswith(PROMPT):
            if line:
                yield _command(line, expected)
            line, expected = each.removeprefix(PROMPT), []
        elif line and not expected and (each + " ").startswith(MORE):
            line += "\n" + each.removeprefix(MORE.strip()).removeprefix(" ")
        elif line:
            expected.append(each)
        else:
            assert not each or each.startswith("#"), f"neither remark nor command: {each!r}"


def _command(line: str, expected: list[str]) -> Command:
    while expected and (not expected[-1] or expected[-1].startswith("# ")):
        expected.pop()  # what introduces the next command
    status = 0
    if expected and (found := STATUS.fullmatch(expected[-1])):
        status = int(found[1])
        expected.pop()
    return Command(line, tuple(expected), status)


def console_blocks(markdown: str) -> list[str]:
    """Return the blocks of *markdown* that are marked ``console``."""
    return re.findall(r"^```console\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def as_pattern(expected: tuple[str, ...]) -> re.Pattern[str]:
    """Return the pattern of the whole output that *expected* describes."""
    parts = []
    for line in expected:
        if line == ANYTHING:
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(".*".join(map(re.escape, line.split(ANYTHING))) + "\n")
    return re.compile("".join(parts))


def environment(folder: Path) -> dict[str, str]:
    """Return variables in which ``provenance`` and ``python3`` are those that run this."""
    shims = folder.parent / "shims"
    shims.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    for name, words in (("python3", python), ("provenance", f"{python} -m provenance")):
        (shims / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (shims / name).chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k.startswith(("COVERAGE", "PYTHON", "TMPDIR"))}
    return {
        **kept,
        "PATH": f"{shims}:{os.environ['PATH']}",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def run(commands: Iterator[Command], folder: Path) -> int:
    """Run *commands* in *folder*, check what each does, and return how many were run."""
    variables = environment(folder)
    place = folder.parent / "shims" / "place"
    keeping = f"\nstatus=$?; pwd > {shlex.quote(str(place))}; exit $status"
    number, at = 0, str(folder)
    for command in commands:
        if command.line in SET_UP:
            continue
        number += 1
        done = subprocess.run(
            ["bash", "-c", command.line + keeping],
            cwd=at,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        at = place.read_text().rstrip("\n")
        output = OF_THE_CHECKOUT.sub("", done.stdout.decode())
        shown = f"$ {command.line}\n{output}(exit status {done.returncode})"
        assert done.returncode == command.status, shown
        assert as_pattern(command.expected).fullmatch(output), f"{shown}\nexpected:\n" + "\n".join(
            command.expected
        )
    return number
