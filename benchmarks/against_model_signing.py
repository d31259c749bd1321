"""Measure provenance against the OpenSSF reference tool, model_signing, in the same run.

    make bench                                 everything: 5 GB of disk, some minutes
    make bench ARGS="--only start small"       a part
    python benchmarks/against_model_signing.py --peer PATH/TO/model_signing --folder /tmp/bench

Each case runs both tools in turn, several times, on the same warm files, and prints the median
time in seconds, the largest resident size in MB, and the ratio of the medians (provenance / peer)
beside its goal. Machines are noisy: the ratio counts, not the seconds. Where the peer is not
installed, its columns say so.
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
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Measured:
    """Median wall time in seconds and largest resident size in MB."""

    seconds: float
    megabytes: float


def main() -> None:
    """Make the data, run the cases, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peer", default=os.environ.get("PROVENANCE_PEER", "model_signing"))
    parser.add_argument("--folder", type=Path, help="where the data goes, and stays")
    parser.add_argument("--only", nargs="*", default=["start", "big", "small"])
    arguments = parser.parse_args()
    peer = shutil.which(arguments.peer)
    if peer is None:
        print("model_signing is not installed (requirements/peer.txt): its columns stay empty")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="provenance-bench-"))
    try:
        run_cases(folder, peer, arguments.only)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def run_cases(folder: Path, peer: str | None, only: list[str]) -> None:
    """Run the cases named in *only* on data below *folder*."""
    ours = [str(Path(sys.executable).parent / "provenance")]
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key"
    if not key.exists():
        subprocess.run([*ours, "keygen", str(key)], check=True, stdout=subprocess.DEVNULL)
    print(f"{'case':<28}{'ours s':>9}{'MB':>6}{'peer s':>9}{'MB':>6}{'ratio':>8}  goal")
    for case in make_cases(folder, ours, [peer or "model_signing"], only):
        mine, theirs = [], []
        for _ in range(case.repetitions):
            mine.append(measure(case.ours))
            if peer:
                theirs.append(measure(case.theirs))
        print(row(case, summarise(mine), summarise(theirs) if theirs else None), flush=True)


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
                "< 0.33",
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


def measure(command: list[str]) -> Measured:
    """Return what one run of *command* takes."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {message.decode()}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Measured(seconds, usage.ru_maxrss / unit)


def summarise(runs: list[Measured]) -> Measured:
    """Return the median time and the largest size of *runs*."""
    return Measured(statistics.median(r.seconds for r in runs), max(r.megabytes for r in runs))


def row(case: Case, ours: Measured, theirs: Measured | None) -> str:
    """Return the table's row for *case*."""
    mine = f"{case.name:<28}{ours.seconds:>9.3f}{ours.megabytes:>6.0f}"
    if theirs is None:
        return f"{mine}{'-':>9}{'-':>6}{'-':>8}  {case.goal}"
    ratio = ours.seconds / theirs.seconds
    return f"{mine}{theirs.seconds:>9.3f}{theirs.megabytes:>6.0f}{ratio:>8.2f}  {case.goal}"


if __name__ == "__main__":
    main()
