"""Measure the transparency log and the recorder, as a user types their commands.

    python benchmarks/log_and_recorder.py --entries 70000 1000000     1 GB of disk, some minutes
    python benchmarks/log_and_recorder.py --before PATH/TO/provenance and another version in turn

- publish: ``provenance publish`` of one claim into a log of so many entries;
- audit: ``provenance log audit`` of that log;
- append: the library's function, 10,000 entries in one batch, for a log that others fill;
- record: ``provenance record`` of a shell and of a Python that do nothing but write a small model,
  and in brackets each alone: the difference is what the recorder costs;
- start: the seconds from the command line to the first line of a Python that is recorded
  (``--torch``, or this one), which has so many packages, and alone;
- files: ``record`` with a folder of 20,000 files of 4 KiB as data beyond the same without, and
  ``sha256sum`` of them: they are hashed before the run and after it;
- metric: one call of ``current_run().metric()``, by a program that calls it 100,000 times, when it
  is recorded and when it is not, in microseconds; open: opening and closing one of 1,000 files,
  20,000 times, likewise, also under each ``--trace`` that stops it at each call.

- training (``--only training --torch PYTHON``): a training by torch of about ``--seconds``, in a
  repository of git, recorded and alone in turn; the rows of the training itself are without the
  start of Python and what the recorder does before and after.

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

TRIAL_STEPS = 100
"""Steps of the training that tells how many to measure."""

FILES, FILE_BYTES = 20_000, 4096

SMALL = "import pathlib as p, sys; m = p.Path(sys.argv[1]); m.mkdir(); (m / 'w').touch()"

PROGRAMS = count(1)
"""Numbers the models, so that each has a claim of its own."""


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="*", default=[70_000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=["log", "recorder"])
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that can import torch")
    parser.add_argument("--seconds", type=float, default=60)
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
            measure_start(programs, arguments.torch or sys.executable, arguments.repeat)
            measure_files(programs, arguments.repeat)
        if "training" in arguments.only:
            measure_training(program(arguments.torch), arguments.seconds, min(arguments.repeat, 3))


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
    small = {
        "a shell": ["sh", "-c", 'mkdir "$0" && : > "$0/w"'],
        "a Python": [sys.executable, "-c", SMALL],
    }
    for name, words in small.items():
        recorded, alone = [list[Run]() for _ in programs], []
        for _ in range(repetitions):
            for each, runs in zip(programs, recorded, strict=True):
                model = f"model-{next(PROGRAMS)}"
                options = ["record", "--model", model, "--key", "key", "--"]
                runs.append(run(Command([each, *options, *words, model])))
            alone.append(run(Command([*words, f"model-{next(PROGRAMS)}"])))
        show(f"record {name}", recorded)
        show(f"({name} alone)", [alone])
    under = ["record", "--key", "key"]
    traces = ["seccomp", "strace"] if sys.platform == "linux" and shutil.which("strace") else []
    for name, options in {
        "recorded": under,
        **{f"--trace {each}": [*under, "--trace", each] for each in traces},
        "not recorded": [],
    }.items():
        for each in programs:
            calls = zip(*(reported(each, options) for _ in range(3)), strict=True)
            metric, opened = (statistics.median(one) for one in calls)
            print(f"metric(), {name}, µs {metric:>14.2f}  {each}")
            print(f"open, {name}, µs {opened:>18.2f}  {each}", flush=True)


def measure_start(programs: list[str], python: str, repetitions: int) -> None:
    """Print how long after it was typed a Python gets to its first line."""
    code = "import time; now = time.time(); " + SMALL + "; (m / 'w').write_text(str(now))"
    listed = "import importlib.metadata as m; print(len(list(m.distributions())))"
    count = subprocess.run([python, "-c", listed], capture_output=True, text=True, check=True)
    contenders: dict[str, list[str]] = {"": []} | {
        each: ["record", "--key", "key"] for each in programs
    }
    taken: dict[str, list[float]] = {each: [] for each in contenders}
    for _ in range(repetitions):
        for each, words in contenders.items():
            model = f"model-{next(PROGRAMS)}"
            options = [each, *words, "--model", model, "--"] if each else []
            began = time.time()
            run(Command([*options, python, "-c", code, model]))
            taken[each].append(float((Path(model) / "w").read_text()) - began)
    for each, seconds in taken.items():
        name = f"start, {count.stdout.strip()} packages" if each else "(start alone)"
        print(f"{name:<36}{statistics.median(seconds):>8.3f}  {each}", flush=True)


def measure_files(programs: list[str], repetitions: int) -> None:
    """Print what a folder of many small files costs the recorder, and ``sha256sum``."""
    data = Path("files")
    data.mkdir()
    for number in range(FILES):
        (data / f"{number}").write_bytes(os.urandom(FILE_BYTES))
    words = ["sh", "-c", 'mkdir "$0" && : > "$0/w"']
    for each in programs:
        with_data, without, hashed = (list[Run]() for _ in range(3))
        for _ in range(repetitions):
            for runs, options in ((with_data, ["--data", "files"]), (without, [])):
                model = f"model-{next(PROGRAMS)}"
                named = ["--model", model, "--key", "key", "--"]
                runs.append(run(Command([each, "record", *options, *named, *words, model])))
            hashed.append(run(Command(["sh", "-c", "cd files && sha256sum *"])))
        show("record 20,000 files of 4 KiB", [with_data])
        show("(without them)", [without])
        show("(sha256sum of them)", [hashed])
        more = summary(with_data).processor - summary(without).processor
        ratio = more / summary(hashed).processor
        print(f"they cost, of cpu of sha256sum      {ratio:>8.2f}", flush=True)
    shutil.rmtree(data)


def measure_training(torch: str, seconds: float, repetitions: int) -> None:
    """Print what a training of about so many *seconds* takes, recorded and alone."""
    home = Path("training")
    home.mkdir()
    os.chdir(home)
    shutil.copy(HERE / "train.py", "train.py")
    Path(".gitignore").write_text("data/\nmodel-*\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "Train"]):
        subprocess.run([program("git"), *words], check=True)
    run(Command([torch, "train.py", str(TRIAL_STEPS), "data", "model-0"]))
    steps = round(TRIAL_STEPS * seconds / itself("model-0").seconds)
    kinds = {"alone": [], "recorded": [OURS, "record", "--key", "../key", "--data", "data"]}
    whole: dict[str, list[Run]] = {kind: [] for kind in kinds}
    inner: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(repetitions):
        for kind, words in kinds.items():
            model = f"model-{next(PROGRAMS)}"
            options = [*words, "--model", model, "--"] if words else []
            training = [torch, "train.py", str(steps), "data", model]
            whole[kind].append(run(Command([*options, *training])))
            inner[kind].append(itself(model))
    for kind in kinds:
        show(f"training of {steps:,} steps, {kind}", [whole[kind]])
        show(f"(the training itself, {kind})", [inner[kind]])


def itself(model: str) -> Run:
    """Return what the training of *model* took by its own account."""
    clock, processor = Path(f"{model}.time").read_text().split()
    return Run(float(clock), float(processor), 0)


def reported(each: str, options: list[str]) -> list[float]:
    """Return the microseconds of a metric and of an open in a program that *each* records."""
    model = f"model-{next(PROGRAMS)}"
    python = str(Path(each).with_name("python"))
    words = [python, str(HERE / "metrics.py"), model]
    if options:
        words = [each, *options, "--model", model, "--", *words]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return [float(each) for each in done.stdout.split()]


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
