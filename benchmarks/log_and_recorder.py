"""Measure the transparency log and the recorder, as a user types their commands.

    python benchmarks/log_and_recorder.py --entries 70000 1000000     1 GB of disk, some minutes
    python benchmarks/log_and_recorder.py --before PATH/TO/provenance and another version in turn

- publish: ``provenance publish`` of one claim into a log of so many entries;
- audit: ``provenance log audit`` of that log;
- append: the library's function, 10,000 entries in one batch, for a log that others fill;
- record: ``provenance record`` of a program that does nothing but write a small model, and in
  brackets the program alone: the difference is what the recorder costs;
- metric: one call of ``current_run().metric()``, by a program that calls it 100,000 times, when it
  is recorded and when it is not, in microseconds.

With ``--before``, the last column is the time of the first program to that of the other.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from benchmarks.speed.commands import HERE, OURS, Command, Run, program, run, summary
from provenance.transparency import log as logs

BATCH = 10_000
ENTRY_BYTES = 512

PROGRAMS = count()
"""Numbers the models, so that each has a claim of its own."""


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="*", default=[70_000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=["log", "recorder"])
    parser.add_argument("--before", metavar="PROGRAM", help="'provenance' of another version")
    arguments, _ = parser.parse_known_args()
    programs = [OURS, *([program(arguments.before)] if arguments.before else [])]
    with tempfile.TemporaryDirectory(prefix="provenance-log-") as name:
        os.chdir(name)  # outside of any repository of git
        key = ["--algorithm", "ed25519"]
        subprocess.run([OURS, "keygen", "key", *key], check=True, stdout=subprocess.DEVNULL)
        print(f"{'case':<36}{'s':>8}{'cpu s':>8}{'MB':>6}{'/before':>9}")
        for entries in arguments.entries if "log" in arguments.only else ():
            measure_log(entries, programs, arguments.repeat)
        if "recorder" in arguments.only:
            measure_recorder(programs, arguments.repeat)


def measure_log(entries: int, programs: list[str], repetitions: int) -> None:
    """Print what a log of so many *entries* takes, made afresh for each program."""
    folders = [Path(f"log-{number}") for number in range(len(programs))]
    subprocess.run(
        [OURS, "log", "init", folders[0], "--origin", "example.org/log", "--key", "key"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    signer = logs.load_signer(folders[0])
    batches = []
    while (size := len(batches) * BATCH) < entries:
        new = [os.urandom(ENTRY_BYTES) for _ in range(min(BATCH, entries - size))]
        began = time.perf_counter()
        logs.append(folders[0], new, signer)
        batches.append(time.perf_counter() - began)
    for other in folders[1:]:
        shutil.copytree(folders[0], other)
    publish, audit = ([list[Run]() for _ in programs] for _ in range(2))
    for _ in range(repetitions):
        for each, folder, published in zip(programs, folders, publish, strict=True):
            model = claimed(each)
            published.append(run(Command([each, "publish", str(model), "--log", str(folder)])))
    for _ in range(min(repetitions, 3)):
        for each, folder, audited in zip(programs, folders, audit, strict=True):
            words = ["log", "audit", str(folder), "--key", str(folder / "vkey")]
            audited.append(run(Command([each, *words])))
    show(f"publish into a log of {entries:,}", publish)
    show(f"audit a log of {entries:,}", audit)
    print(f"(append 10,000 entries at once)     {statistics.median(batches):>8.3f}", flush=True)
    for folder in folders:
        shutil.rmtree(folder)


def measure_recorder(programs: list[str], repetitions: int) -> None:
    """Print what it takes to record a program, and to report a metric."""
    small = "import pathlib as p, sys; m = p.Path(sys.argv[1]); m.mkdir(); (m / 'w').touch()"
    recorded, alone = [list[Run]() for _ in programs], []
    for _ in range(repetitions):
        for each, runs in zip(programs, recorded, strict=True):
            model = f"model-{next(PROGRAMS)}"
            words = [sys.executable, "-c", small, model]
            options = ["record", "--model", model, "--key", "key", "--"]
            runs.append(run(Command([each, *options, *words])))
        alone.append(run(Command([sys.executable, "-c", small, f"model-{next(PROGRAMS)}"])))
    show("record", recorded)
    show("(the program alone)", [alone])
    for name, options in (("recorded", ["record", "--key", "key"]), ("not recorded", [])):
        for each in programs:
            calls = [metric(each, options) for _ in range(3)]
            print(f"metric(), {name}, µs {statistics.median(calls):>14.2f}  {each}", flush=True)


def metric(each: str, options: list[str]) -> float:
    """Return the microseconds of a call in a program that *each* records, or none does."""
    model = f"model-{next(PROGRAMS)}"
    python = str(Path(each).with_name("python"))
    words = [python, str(HERE / "metrics.py"), model]
    if options:
        words = [each, *options, "--model", model, "--", *words]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


def claimed(each: str) -> Path:
    """Return a new model with one claim, made by the program *each*."""
    model = Path(f"model-{next(PROGRAMS)}")
    model.mkdir()
    (model / "weights.bin").write_bytes(os.urandom(1000))
    words = [each, "attest", str(model), "--key", "key"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return model


def show(name: str, found: list[list[Run]]) -> None:
    """Print a row: what ours takes, and its ratio to the other program, if there is one."""
    ours, *others = (summary(runs) for runs in found)
    row = f"{name:<36}{ours.seconds:>8.3f}{ours.processor:>8.3f}{ours.megabytes:>6.0f}"
    print(row + "".join(f"{ours.seconds / each.seconds:>9.2f}" for each in others), flush=True)


if __name__ == "__main__":
    main()
