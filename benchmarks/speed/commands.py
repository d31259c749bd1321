"""Commands, run and measured as a user types them: start, imports and all."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE = Path(__file__).parent
OURS = str(Path(sys.executable).with_name("provenance"))

_LAUNCHER = """
import json, os, sys, time
def read():
    try:
        return int(open("/proc/self/io").read().split()[1])  # rchar, of those that ended, too
    except OSError:
        return 0
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
before, began = read(), time.perf_counter()
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - began
unit = 2**20 if sys.platform == "darwin" else 2**10
print(json.dumps({
    "status": os.waitstatus_to_exitcode(status),
    "seconds": seconds,
    "processor": usage.ru_utime + usage.ru_stime,
    "megabytes": usage.ru_maxrss / unit,
    "read": read() - before,
}))
"""
"""A small process starts each command: the size of whoever starts one counts as the command's."""


@dataclass(frozen=True)
class Command:
    """What is typed, and the exit statuses that mean that it did its work."""

    words: Sequence[str]
    statuses: frozenset[int] = frozenset({0})
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Seconds by the clock and of all processors, largest resident size in MB, and bytes read."""

    seconds: float
    processor: float
    megabytes: float
    read: float = 0
    """As Linux counts what was asked of it, from a cache or not; 0 elsewhere."""


def run(command: Command) -> Run:
    """Return what one run of *command* takes."""
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command.words]
    environ = os.environ | command.environ
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled once
    done = subprocess.run(launcher, capture_output=True, text=True, check=False, env=environ)
    found = json.loads(done.stdout) if done.returncode == 0 else {"status": None}
    if found.pop("status") not in command.statuses:
        raise SystemExit(f"{' '.join(command.words)} failed: {done.stderr}")
    return Run(**found)


def in_turn(commands: Mapping[str, Command], repetitions: int) -> dict[str, Run]:
    """Run all *commands* in turn, several times; return medians of times, and largest sizes."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(repetitions):
        for name, command in commands.items():
            runs[name].append(run(command))
    return {name: summary(each) for name, each in runs.items()}


def summary(runs: Sequence[Run]) -> Run:
    """Return the medians of the times of *runs*, and the largest size."""
    return Run(
        statistics.median(each.seconds for each in runs),
        statistics.median(each.processor for each in runs),
        max(each.megabytes for each in runs),
        statistics.median(each.read for each in runs),
    )


def program(words: str) -> str:
    """Return where the program *words* is, which may be on the PATH."""
    found = shutil.which(words)
    if found is None:
        raise SystemExit(f"{words}: no such program")
    return found
