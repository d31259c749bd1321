"""Measure ``provenance compare``, as a user types it, against reading both files, in one run.

    python benchmarks/compare_speed.py --gib 2 --folder /dev/shm      6 GiB there, some minutes
    python benchmarks/compare_speed.py --before PATH/TO/provenance    and another version in turn

Makes bfloat16 models of ``--gib`` GiB below ``--folder`` (a temporary one by default) and runs
each command of a group in turn, ``--repeat`` times, on warm files:

- reading: both files once, by ``pread`` on all cores: the physical limit;
- equal: ``compare A B``: tensors equal in every bit, in files that differ in their metadata;
- different: ``compare A B``: every element differs;
- initial: ``compare A B --equality``: two folders of changed weights and the same initial ones, so
  that the distance of each tensor is taken relative to its update as well;
- no kernel: the same by numpy alone, as where the package was installed without a compiler;
- allclose: a script of ``safetensors``, widened to float32, and ``numpy.allclose``;
- (hashing), (tensors): the two parts of ``compare A B``, each with a start of its own;
- many: ``compare A B`` of two files of 100,000 tensors of two bytes, which are equal.

Beside seconds stand those of all processors together and the largest resident size in MB (the page
cache is not in it); then the ratios of both times to reading. Machines are noisy: the ratios count,
and the processor's seconds where others are at work. With ``--before``, the last columns are
the ratios to the other version.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.speed.commands import HERE, OURS, Command, Run, in_turn, program

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30
STEP = 2**24
"""Bytes written in one piece."""

SHARES = {"embedding": 2, "head": 2} | {f"layers.{number}": 1 for number in range(12)}
"""The tensors, and how many sixteenths of the model each takes."""

DIFFER = frozenset({1})
"""The exit status: metadata differ, or the tensors do."""

EQUALITY = """
format = 1
name = "benchmark"
version = 1
[[any]]
[[any.all]]
equality = "close"
initial = "initial.safetensors"
relative_l2 = 0.5
relative_linf = 0.5
reason = "every element is measured, and none is far away"
"""

PATTERNS = """
import sys, ml_dtypes, numpy
random = numpy.random.default_rng(1)
left, initial = (random.standard_normal(2**23, dtype="f4") for _ in range(2))
for name, values in {"left": left, "right": left * numpy.float32(1.02), "initial": initial}.items():
    values.astype(ml_dtypes.bfloat16).tofile(f"{sys.argv[1]}/{name}.pattern")
"""


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=1, help="size of a model")
    parser.add_argument("--folder", type=Path, help="where the models are made and removed")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--before", metavar="PROGRAM", help="'provenance' of another version")
    parser.add_argument("--only", nargs="+", default=list(GROUPS), help=" ".join(GROUPS))
    arguments, _ = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="provenance-compare-", dir=arguments.folder))
    try:
        subprocess.run([sys.executable, "-c", PATTERNS, str(folder)], check=True)
        make_model(folder / "left.safetensors", int(arguments.gib * GIB), "left")
        without_kernel = copy_without_kernel(folder)
        heads = ["s", "cpu s", "MB", "ratio", "of cpu", "/before", "of cpu"]
        print(f"{'case':<24}" + "".join(f"{each:>9}" for each in heads))
        for name in (each for each in arguments.only if each in GROUPS):
            commands = GROUPS[name](folder, int(arguments.gib * GIB))
            for case in [case for case in commands if case in ("different", "initial")]:
                words = [sys.executable, "-P", "-m", "provenance", *commands[case].words[1:]]
                commands[f"{case}, no kernel"] = Command(
                    words, commands[case].statuses, {"PYTHONPATH": str(without_kernel)}
                )
            if arguments.before:
                words = [program(arguments.before), *commands[name].words[1:]]
                commands["before"] = Command(words, commands[name].statuses)
            found = in_turn(commands, arguments.repeat)
            for line in rows(name, found):
                print(line, flush=True)
    finally:
        shutil.rmtree(folder)


def rows(group: str, found: dict[str, Run]) -> Iterator[str]:
    """Yield a row for each case; reading, and the other version, are compared with."""
    limit, before = found.get("reading"), found.pop("before", None)
    for name, each in found.items():
        row = f"{name:<24}{each.seconds:>9.3f}{each.processor:>9.3f}{each.megabytes:>9.0f}"
        for other in (limit, before if name == group else None):
            if other is not None:
                ratios = each.seconds / other.seconds, each.processor / other.processor
                row += "".join(f"{ratio:>9.2f}" for ratio in ratios)
        yield row


def equal(folder: Path, size: int) -> dict[str, Command]:
    """Two files of the same tensors."""
    one, two = files(folder, "left", "same")
    make_model(Path(two), size, "left", {"by": "b"})
    return compared("equal", one, two, DIFFER)


def different(folder: Path, size: int) -> dict[str, Command]:
    """Two files of which no element is equal."""
    (folder / "same.safetensors").unlink(missing_ok=True)
    one, two = files(folder, "left", "right")
    make_model(Path(two), size, "right")
    allclose = Command([sys.executable, str(HERE / "allclose.py"), one, two], DIFFER)
    return compared("different", one, two, DIFFER) | {"allclose": allclose}


def initial(folder: Path, size: int) -> dict[str, Command]:
    """Two folders of changed weights, with the initial ones beside them."""
    one, two = files(folder, "left", "right")
    start = folder / "initial.safetensors"
    make_model(Path(two), size, "right")
    make_model(start, size, "initial")
    for name, model in (("a", one), ("b", two)):
        (folder / name).mkdir()
        os.link(model, folder / name / "model.safetensors")
        os.link(start, folder / name / "initial.safetensors")
    declared = folder / "equality.toml"
    declared.write_text(EQUALITY)
    words = ["compare", str(folder / "a"), str(folder / "b"), "--equality", str(declared)]
    return {"reading": reading(one, two), "initial": Command([OURS, *words])}


def many(folder: Path, _size: int) -> dict[str, Command]:
    """Two files of 100,000 tensors of two bytes."""
    one, two = files(folder, "many", "more")
    for path, metadata in ((one, {"by": "a"}), (two, {"by": "b"})):
        make_small(Path(path), 100_000, metadata)
    return {"many": Command([OURS, "compare", one, two], DIFFER)}


GROUPS = {"equal": equal, "different": different, "initial": initial, "many": many}


def compared(name: str, one: str, two: str, statuses: frozenset[int]) -> dict[str, Command]:
    """Return the commands that every pair of files is measured by."""
    inner = [sys.executable, str(HERE / "inner.py")]
    return {
        "reading": reading(one, two),
        name: Command([OURS, "compare", one, two], statuses),
        "  (hashing)": Command([*inner, "hashing", one, two]),
        "  (tensors)": Command([*inner, "tensors", one, two]),
    }


def reading(*names: str) -> Command:
    """Return the command that reads files."""
    return Command([sys.executable, str(HERE / "read_files.py"), *names])


def files(folder: Path, *names: str) -> list[str]:
    """Return the paths of files of safetensors."""
    return [str(folder / f"{name}.safetensors") for name in names]


def copy_without_kernel(folder: Path) -> Path:
    """Copy the package without what was compiled, and return the folder that holds it."""
    package = Path(__file__).parents[1] / "provenance"
    target = folder / "pure"
    left_out = shutil.ignore_patterns("_kernel.lib", "__pycache__")
    shutil.copytree(package, target / "provenance", ignore=left_out)
    return target


def make_model(path: Path, size: int, pattern: str, metadata: dict[str, str] | None = None) -> None:
    """Write a model of about *size* bytes, if it is not there: a pattern again and again."""
    if path.exists():
        return
    header: dict[str, object] = {"__metadata__": {"format": "pt"} | (metadata or {})}
    end = 0
    for name, share in SHARES.items():
        begin, end = end, end + size * share // 16 // STEP * STEP
        place = [begin, end]
        header[name] = {"dtype": "BF16", "shape": [(end - begin) // 2], "data_offsets": place}
    data = (path.parent / f"{pattern}.pattern").read_bytes()
    with path.open("wb") as file:
        file.write(head(header))
        for _ in range(end // STEP):
            file.write(data)


def make_small(path: Path, count: int, metadata: dict[str, str]) -> None:
    """Write a file of *count* tensors of two bytes."""
    header: dict[str, object] = {"__metadata__": metadata}
    for number in range(count):
        place = [2 * number, 2 * number + 2]
        tensor = {"dtype": "BF16", "shape": [1], "data_offsets": place}
        header[f"model.layers.{number}.weight"] = tensor
    path.write_bytes(head(header) + bytes(2 * count))


def head(header: dict[str, object]) -> bytes:
    """Return the length and the header of a safetensors file."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


if __name__ == "__main__":
    main()
