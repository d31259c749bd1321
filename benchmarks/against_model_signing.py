"""Measure provenance against the OpenSSF reference tool, model_signing, in the same run.

    make bench                                 everything: 5 GB of disk, some minutes
    make bench ARGS="--only start small"       a part (start, big, small)
    python benchmarks/against_model_signing.py --peer PATH/TO/model_signing --folder /tmp/bench

Each case runs both tools in turn, several times, on the same warm files, and prints the median
time in seconds, the largest resident size in MB, and the ratio of the medians (provenance / peer),
also of the processor's seconds, beside its goal. Machines are noisy: the ratio counts, not the
seconds, and that of the processor's where others are at work. Where the peer is not installed, its
columns say so. With ``--before``, another version of provenance runs in turn with them, and the
last columns are the ratios of both times to it. Last comes what ``import provenance`` adds to the
start of Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.commands import OURS, Command, Run, in_turn, program

BIG_FILES, BIG_BYTES = 8, 512 * 2**20
SMALL_FILES, SMALL_BYTES = 100_000, 4096


@dataclass(frozen=True)
class Case:
    """One comparison: both command lines, repetitions, and the goal for the ratio."""

    name: str
    ours: list[str]
    theirs: list[str]
    repetitions: int
    goal: str


def main() -> None:
    """Make the data, run the cases, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", default=os.environ.get("PROVENANCE_PEER", "model_signing"))
    parser.add_argument("--folder", type=Path, help="where the data goes, and stays")
    parser.add_argument("--before", metavar="PROGRAM", help="'provenance' of another version")
    parser.add_argument("--only", nargs="+", default=["start", "big", "small"])
    parser.add_argument("--repeat", type=int, default=15, help="at most so many runs of a case")
    arguments, _ = parser.parse_known_args()
    before = program(arguments.before) if arguments.before else None
    peer = shutil.which(arguments.peer)
    if peer is None:
        print("model_signing is not installed (requirements/peer.txt): its columns stay empty")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="provenance-bench-"))
    try:
        run_cases(folder, (peer, before), arguments.only, arguments.repeat)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def run_cases(
    folder: Path, others: tuple[str | None, str | None], only: list[str], most: int
) -> None:
    """Run the cases named in *only* on data below *folder*, in turn with the peer and before."""
    peer, before = others
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    if not key.exists():
        subprocess.run([OURS, "keygen", str(key)], check=True, stdout=subprocess.DEVNULL)
    print(
        f"{'case':<24}{'ours s':>9}{'MB':>6}{'peer s':>9}{'MB':>6}{'ratio':>8}{'of cpu':>8}  goal"
    )
    for case in make_cases(folder, [OURS], [peer or "model_signing"], only):
        commands = {"ours": Command(case.ours)}
        if peer:
            commands["peer"] = Command(case.theirs)
        if before:
            commands["before"] = Command([before, *case.ours[1:]])
        found = in_turn(commands, min(case.repetitions, most))
        print(row(case, found["ours"], found.get("peer"), found.get("before")), flush=True)
    if "start" in only:
        words = {"with": "import provenance", "without": "pass"}
        found = in_turn({k: Command([sys.executable, "-c", v]) for k, v in words.items()}, 15)
        added = (found["with"].processor - found["without"].processor) * 1000
        print(f"import provenance adds {added:.1f} ms of the processor; goal < 30")


def make_cases(folder: Path, ours: list[str], peer: list[str], only: list[str]) -> list[Case]:
    """Return the cases; each makes the files that it needs."""
    key, cases = str(folder / "key"), []

    def sign(name: str, model: Path, repetitions: int, goal: str) -> Case:
        theirs = [
            "sign",
            "key",
            str(model),
            "--private_key",
            key,
            "--signature",
            f"{model}.peer.sig",
        ]
        return Case(
            name, [*ours, "sign", str(model), "--key", key], [*peer, *theirs], repetitions, goal
        )

    if "start" in only:
        tiny = make_files(folder / "tiny", 4, 100)
        subprocess.run(
            [*ours, "sign", str(tiny), "--key", key], check=True, stdout=subprocess.DEVNULL
        )
        cases.append(Case("--help", [*ours, "--help"], [*peer, "--help"], 15, "< 0.33"))
        cases.append(
            Case(
                "verify 4 files",
                [*ours, "verify", str(tiny), "--key", f"{key}.pub"],
                [
                    *peer,
                    "verify",
                    "key",
                    str(tiny),
                    "--public_key",
                    f"{key}.pub",
                    "--signature",
                    str(tiny / "model.sig"),
                ],
                15,
                "<= 0.28",
            )
        )
    if "big" in only:
        cases.append(
            sign("sign 8 x 512 MiB", make_files(folder / "big", BIG_FILES, BIG_BYTES), 5, "<= 1")
        )
    if "small" in only:
        small = make_files(folder / "small", SMALL_FILES, SMALL_BYTES)
        cases.append(sign("sign 100,000 x 4 KiB", small, 3, "< 0.167, < 200 MB"))
    return cases


def make_files(folder: Path, count: int, size: int) -> Path:
    """Return *folder* with *count* files of *size* random bytes, a thousand a subfolder."""
    if not folder.exists():
        for number in range(count):
            part = folder / f"part-{number // 1000:03d}"
            part.mkdir(parents=True, exist_ok=True)
            with (part / f"{number:06d}.safetensors").open("wb") as file:
                for start in range(0, size, 2**24):
                    file.write(os.urandom(min(2**24, size - start)))
    return folder


def row(case: Case, ours: Run, theirs: Run | None, before: Run | None) -> str:
    """Return the table's row for *case*."""
    line = f"{case.name:<24}{ours.seconds:>9.3f}{ours.megabytes:>6.0f}"
    if theirs is None:
        line += f"{'-':>9}{'-':>6}{'-':>8}{'-':>8}"
    else:
        ratios = ours.seconds / theirs.seconds, ours.processor / theirs.processor
        line += f"{theirs.seconds:>9.3f}{theirs.megabytes:>6.0f}"
        line += "".join(f"{ratio:>8.2f}" for ratio in ratios)
    line += f"  {case.goal:<20}"
    if before is not None:
        ratios = ours.seconds / before.seconds, ours.processor / before.processor
        line += "/before {:.2f}, cpu {:.2f}".format(*ratios)
    return line


if __name__ == "__main__":
    main()
