"""Measure how fast two models are compared, against what the machine can do, in the same run.

    python benchmarks/compare_speed.py                     4 GB of disk, a minute
    python benchmarks/compare_speed.py --gib 4             16 GB, with tensors of 1 GiB
    python benchmarks/compare_speed.py --folder /dev/shm   where the models are made

Makes bfloat16 models of ``--gib`` GiB each below ``--folder`` (a temporary one by default), keeps
them in the page cache, and takes the median of ``--repeat`` runs, each in a process of its own:

- reading: both files once by ``pread`` into a reused buffer, on all cores: the physical limit;
- equal: tensors equal in every bit, in files that differ in their metadata;
- different: every element differs; L2 and L-infinity relative to the weights;
- with initial: the same, and relative to the update from a third file;
- different and initial, numpy: both without the compiled kernel;
- allclose: what a user would write: ``safetensors``, widened to float32, ``numpy.allclose``;
- open: the structure of a file of 100,000 tensors, read and checked.

Beside seconds stand the largest resident size in MB (the page cache is not in it) and the ratio to
reading. Machines are noisy: the ratios count, and the processor's seconds where others are at work.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import struct
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
from safetensors import safe_open

from provenance.measure.contents import read_contents
from provenance.measure.distances import Wanted
from provenance.weights.opening import open_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 2**30
STEP = 2**24
"""Bytes written, or read of the limit in one piece of work."""

SHARES = {"embedding": 2, "head": 2, "mlp": 1, "gate": 1, "attention": 1, "output": 1}
"""The tensors, and how many eighths of the model each takes."""

GOALS = {
    "equal": "<= 1.5 x reading",
    "different": "<= 6 x reading",
    "allclose": ">= 5 x different",
    "open": "< 1 s",
}


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1, help="size of a model")
    parser.add_argument("--folder", type=Path, help="where the models are made and removed")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CASES, help="besides reading")
    arguments, _ = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="provenance-compare-", dir=arguments.folder))
    try:
        make_models(folder, int(arguments.gib * GIB))
        make_header(folder / "many.safetensors", 100_000)
        print(f"{'case':<17}{'s':>9}{'cpu s':>9}{'MB':>6}{'ratio':>8}  goal")
        limit = None
        chosen = arguments.only or list(CASES)
        for name, case in ((name, CASES[name]) for name in CASES if name in ("reading", *chosen)):
            runs = [in_process(case, folder) for _ in range(arguments.repeat)]
            seconds, processor = (statistics.median(r[i] for r in runs) for i in (0, 1))
            limit = limit or seconds
            megabytes = max(run[2] for run in runs)
            row = f"{name:<17}{seconds:>9.3f}{processor:>9.3f}{megabytes:>6.0f}"
            print(f"{row}{seconds / limit:>8.2f}  {GOALS.get(name, '')}", flush=True)
    finally:
        shutil.rmtree(folder)


def in_process(case: Callable[[Path], None], folder: Path) -> tuple[float, float, float]:
    """Return seconds, processor's seconds and MB that *case* takes, in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(case, folder, there))
    process.start()
    found: tuple[float, float, float] = here.recv()
    process.join()
    return found


def _measure(case, folder, pipe) -> None:  # noqa: ANN001 - a Connection has no public name
    began, processor = time.perf_counter(), time.process_time()
    case(folder)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    pipe.send((seconds, processor, largest_size()))


def largest_size() -> float:
    """Return the largest resident size of this process, in MB.

    Linux carries what getrusage reports over from the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def make_models(folder: Path, size: int) -> None:
    """Write the models: ``same`` equals ``left``, ``right`` and ``initial`` differ everywhere."""
    generator = np.random.default_rng(1)
    left = generator.standard_normal(STEP // 2).astype(ml_dtypes.bfloat16)
    right = (left.astype(np.float32) * np.float32(1.02)).astype(ml_dtypes.bfloat16)
    initial = generator.standard_normal(STEP // 2).astype(ml_dtypes.bfloat16)
    make_model(folder / "left.safetensors", size, left.tobytes(), {"format": "pt"})
    make_model(folder / "same.safetensors", size, left.tobytes(), {"format": "pt", "by": "b"})
    make_model(folder / "right.safetensors", size, right.tobytes(), {"format": "pt"})
    make_model(folder / "initial.safetensors", size, initial.tobytes(), {"format": "pt"})


def make_model(path: Path, size: int, pattern: bytes, metadata: dict[str, str]) -> None:
    """Write a model of about *size* bytes, *pattern* again and again."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, share in SHARES.items():
        begin, end = end, end + size * share // 8 // STEP * STEP
        header[name] = {
            "dtype": "BF16",
            "shape": [(end - begin) // 2],
            "data_offsets": [begin, end],
        }
    with path.open("wb") as file:
        file.write(head(header))
        for _ in range(end // STEP):
            file.write(pattern)


def make_header(path: Path, count: int) -> None:
    """Write a file of *count* tensors of two bytes."""
    entries = {
        f"model.layers.{number}.weight": {
            "dtype": "BF16",
            "shape": [1],
            "data_offsets": [2 * number, 2 * number + 2],
        }
        for number in range(count)
    }
    path.write_bytes(head(entries) + bytes(2 * count))


def head(header: dict[str, object]) -> bytes:
    """Return the length and the header of a safetensors file."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


def read_both(folder: Path) -> None:
    """Read two models on all cores."""
    cores = os.cpu_count() or 1

    def read(first: int) -> None:
        buffer = memoryview(bytearray(2**20))
        for name in ("left", "right"):
            descriptor = os.open(folder / f"{name}.safetensors", os.O_RDONLY)
            size = os.fstat(descriptor).st_size
            for start in range(first * STEP, size, cores * STEP):
                for place in range(start, min(start + STEP, size), len(buffer)):
                    assert os.preadv(descriptor, [buffer], place)
            os.close(descriptor)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def compare(
    folder: Path, right: str, initial: str | None = None, *, compiled: bool = True
) -> list[int | None]:
    """Return how many elements of each tensor differ between ``left`` and *right*."""
    with ExitStack() as stack:
        one, two, *start = (
            stack.enter_context(open_tensors(folder / f"{name}.safetensors"))
            for name in ("left", right, *([initial] if initial else []))
        )
        wanted = Wanted(compiled=compiled)
        contents = read_contents(
            "model", (one, two), wanted, ("initial", *start) if start else None
        )
    if right == "right":
        assert all(
            pair.distance is not None and pair.distance.relative_l2_weights
            for pair in contents.tensors
        )
    return [pair.differing for pair in contents.tensors]


def equal(folder: Path) -> None:
    """Compare two models of the same tensors."""
    assert not any(compare(folder, "same"))


def different(folder: Path) -> None:
    """Compare two models that differ everywhere."""
    assert all(compare(folder, "right"))


def with_initial(folder: Path) -> None:
    """Compare them as parts of the update."""
    assert all(compare(folder, "right", "initial"))


def different_uncompiled(folder: Path) -> None:
    """Compare two models that differ everywhere, without the compiled kernel."""
    assert all(compare(folder, "right", compiled=False))


def with_initial_uncompiled(folder: Path) -> None:
    """Compare them as parts of the update, without the compiled kernel."""
    assert all(compare(folder, "right", "initial", compiled=False))


def with_numpy(folder: Path) -> None:
    """Compare them as a user would."""
    left, right = (
        safe_open(folder / f"{name}.safetensors", framework="numpy") for name in ("left", "right")
    )
    with left as one, right as two:
        for name in one.keys():  # noqa: SIM118 - no mapping
            values = (file.get_tensor(name).astype(np.float32) for file in (one, two))
            assert not np.allclose(*values)


def open_many(folder: Path) -> None:
    """Open a file of many tensors."""
    with open_tensors(folder / "many.safetensors") as file:
        assert len(file.tensors) == 100_000


CASES: dict[str, Callable[[Path], None]] = {
    "reading": read_both,
    "equal": equal,
    "different": different,
    "with initial": with_initial,
    "different, numpy": different_uncompiled,
    "initial, numpy": with_initial_uncompiled,
    "allclose": with_numpy,
    "open": open_many,
}

if __name__ == "__main__":
    main()
