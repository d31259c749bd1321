"""Measure ``provenance compare``, ``verify`` and ``agree`` as typed, against reading the files.

    make bench ARGS="--folder /dev/shm"                               8 GiB there, 5 minutes
    python benchmarks/compare_speed.py --gib 1 --only equal folder    a part, smaller

Below ``--folder`` (a temporary one by default) it makes bfloat16 models of ``--gib`` GiB and runs
each command of a group in turn, ``--repeat`` times (the last two groups once), on warm files; what
it made is removed:

- equal: two files of one content, then of other metadata; beside ``cmp``, and hashing each file on
  a core of its own, which nothing that signs or checks can beat;
- different: no element is equal; with ``close-float32``, too;
- signed: ``verify`` and ``agree`` of two signed folders of these;
- script: models an eighth as large, beside a script of ``safetensors`` and ``numpy.allclose``; with
  initial weights, and by numpy alone, as where the package was installed without a compiler;
- folder: 10,000 files of 4 KB, equal and different, as safetensors and as npy;
- many: two files of 100,000 tensors of two elements; with 64 patterns in eight rules, too.

"reading" is both models once, by ``pread`` on all cores: the physical limit. Beside seconds stand
those of all processors together, the largest resident size in MB (the page cache is not in it), the
ratios of both times to reading, and how many bytes were read for each byte of the models (Linux).
Machines are noisy: the ratios count, and the processor's seconds where others are at work.
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
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.speed.commands import HERE, OURS, Command, Run, in_turn, program

GIB = 2**30
STEP = 2**24
"""Bytes written in one piece."""

SHARES = {"embedding": 2, "head": 2} | {f"layers.{number}": 1 for number in range(12)}
"""The tensors, and how many sixteenths of the model each takes."""

ROW = 4096
"""Elements of a row of a tensor."""

ANY = frozenset({0, 1})
"""The exit statuses of a comparison that was made, whatever it found."""

CLOSE = """
[[any.all]]
equality = "close"
relative_l2 = 0.5
relative_linf = 0.9
reason = "every element is measured, and none is far away"
"""

HEAD = """
format = 1
name = "benchmark"
version = 1
[[any]]
"""

PATTERNS = """
import sys, ml_dtypes, numpy
random = numpy.random.default_rng(1)
left, initial = (random.standard_normal(2**23, dtype="f4") for _ in range(2))
for name, values in {"left": left, "right": left * numpy.float32(1.02), "initial": initial}.items():
    values.astype(ml_dtypes.bfloat16).tofile(f"{sys.argv[1]}/{name}.pattern")
"""


def main() -> None:
    """Make the data, measure, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gib", type=float, default=4, help="size of a model")
    parser.add_argument("--folder", type=Path, help="where the models are made and removed")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--before", metavar="PROGRAM", help="'provenance' of another version")
    parser.add_argument("--only", nargs="+", default=list(GROUPS), help=" ".join(GROUPS))
    arguments, _ = parser.parse_known_args()
    folder = Path(tempfile.mkdtemp(prefix="provenance-compare-", dir=arguments.folder))
    try:
        subprocess.run([sys.executable, "-c", PATTERNS, str(folder)], check=True)
        heads = ["s", "cpu s", "MB", "ratio", "of cpu", "read"]
        print(f"{'case':<36}" + "".join(f"{each:>9}" for each in heads))
        for name in (each for each in arguments.only if each in GROUPS):
            for models, commands in GROUPS[name](folder, int(arguments.gib * GIB)):
                for case, command in [*commands.items()] if arguments.before else ():
                    words = [program(arguments.before), *command.words[1:]]
                    if command.words[0] == OURS:
                        commands[f"{case} (before)"] = Command(words, command.statuses)
                times = 1 if name in ("folder", "many") else arguments.repeat
                for line in rows(in_turn(commands, times), nbytes(models)):
                    print(line, flush=True)
            print()
    finally:
        shutil.rmtree(folder)


def rows(found: Mapping[str, Run], size: int) -> Iterator[str]:
    """Yield a row for each case; *size* is the bytes of both models."""
    limit = next(iter(found.values()))
    for name, each in found.items():
        row = f"{name:<36}{each.seconds:>9.3f}{each.processor:>9.3f}{each.megabytes:>9.0f}"
        row += f"{each.seconds / limit.seconds:>9.2f}{each.processor / limit.processor:>9.2f}"
        yield row + f"{each.read / size:>9.2f}"


Group = Iterator[tuple[list[str], dict[str, Command]]]
"""Models, and the commands that are run in turn on them; the first is the limit."""


def equal(folder: Path, size: int) -> Group:
    """Two files of the same bytes, then of other metadata."""
    one, two = files(folder, "left", "right")
    make_model(Path(one), size, "left", by="a")
    make_model(Path(two), size, "left", by="a")
    yield (
        [one, two],
        {
            "reading": script("read_files", one, two),
            "compare A B, one content": Command([OURS, "compare", one, two]),
            "cmp A B": Command(["cmp", one, two]),
            "SHA-256 of both, a core each": script("hash_files", one, two),
        },
    )
    with Path(two).open("r+b") as file:  # the same length
        file.write(head(header_of(size, by="b")))
    yield (
        [one, two],
        {
            "reading": script("read_files", one, two),
            "compare A B, other metadata": Command([OURS, "compare", one, two], ANY),
        },
    )


def different(folder: Path, size: int) -> Group:
    """Two files of which no element is equal."""
    one, two = files(folder, "left", "right")
    make_model(Path(one), size, "left", by="a")
    make_model(Path(two), size, "right", by="a")
    words = [OURS, "compare", one, two]
    yield (
        [one, two],
        {
            "reading": script("read_files", one, two),
            "compare A B, every element": Command(words, ANY),
            "  --equality close-float32": Command([*words, "--equality", "close-float32"], ANY),
        },
    )


def signed(folder: Path, size: int) -> Group:
    """Two signed folders of different models."""
    models = [str(folder / name) for name in ("one", "two")]
    declared = declare(folder, CLOSE + 'relative_to = "weights"\n')
    trusting: list[str] = []
    for name, pattern in zip(models, ("left", "right"), strict=True):
        Path(name).mkdir()
        (made,) = files(folder, pattern)
        make_model(Path(made), size, pattern, by="a")
        os.link(made, Path(name) / "model.safetensors")
        attest = [OURS, "attest", name, "--key", f"{name}.key", "--equality", declared]
        for words in ([OURS, "keygen", f"{name}.key"], attest):
            subprocess.run(words, check=True, capture_output=True)
        trusting += ["--key", f"{name}.key.pub"]
    agree = [OURS, "agree", *models, *trusting]
    for chosen, command in (
        (models[:1], {"verify A": Command([OURS, "verify", models[0], *trusting])}),
        (models, {"agree A B, every element": Command(agree, ANY)}),
    ):
        yield chosen, {"reading": script("read_files", *chosen)} | command
    for name in models:
        shutil.rmtree(name)


def script_group(folder: Path, size: int) -> Group:
    """Models an eighth as large, with other ways to compare them."""
    size = max(size // 8, 16 * STEP)
    names = ("small-left", "small-right", "small-initial")
    one, two, start = files(folder, *names)
    for name, pattern in zip((one, two, start), ("left", "right", "initial"), strict=True):
        make_model(Path(name), size, pattern, by="a")
    pure = {"PYTHONPATH": str(copy_without_kernel(folder))}
    python = [sys.executable, "-P", "-m", "provenance"]
    yield (
        [one, two],
        {
            "reading": script("read_files", one, two),
            "compare A B, every element": Command([OURS, "compare", one, two], ANY),
            "  without the compiled kernel": Command([*python, "compare", one, two], ANY, pure),
            "safetensors and numpy.allclose": Command(script("allclose", one, two).words, ANY),
        },
    )
    models = [folder / "a", folder / "b"]
    for model, name in zip(models, (one, two), strict=True):
        model.mkdir()
        os.link(name, model / "model.safetensors")
        os.link(start, model / "initial.safetensors")
    declared = declare(folder, CLOSE + 'initial = "initial.safetensors"\n')
    words = [OURS, "compare", *map(str, models), "--equality", declared]
    yield (
        [*map(str, models)],
        {
            "reading, with initial weights": script("read_files", *map(str, models)),
            "compare A B --equality CLOSE": Command(words, ANY),
        },
    )


def many_files(folder: Path, _size: int) -> Group:
    """Folders of 10,000 files of 4 KB."""
    import numpy as np  # noqa: PLC0415 - start-up of what is measured does not wait for it

    values = np.random.default_rng(1).standard_normal((10_000, 1000), dtype="f4")
    for form in ("safetensors", "npy"):
        models = {name: folder / f"{form}-{name}" for name in ("a", "same", "other")}
        for name, model in models.items():
            model.mkdir()
            for number, row in enumerate(values * np.float32(1 + (name == "other") / 128)):
                path = model / f"part-{number:05}.{form}"
                if form == "npy":
                    np.save(path, row)
                    continue
                tensor = {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}
                header = {"__metadata__": {"by": "a" if name == "a" else "b"}, "weight": tensor}
                path.write_bytes(head(header) + row.tobytes())
        one, same, other = map(str, models.values())
        yield (
            [one, same],
            {
                "reading": script("read_files", one, same),
                f"compare A B, {form}, equal": Command([OURS, "compare", one, same], ANY),
                f"compare A B, {form}, different": Command([OURS, "compare", one, other], ANY),
            },
        )


def many_tensors(folder: Path, _size: int) -> Group:
    """Two files of 100,000 tensors of two elements."""
    one, same, other = files(folder, "many", "same", "other")
    for name, by, value in ((one, "a", 1.0), (same, "b", 1.0), (other, "b", 1.25)):
        header: dict[str, object] = {"__metadata__": {"by": by}}
        for number in range(100_000):
            place = [8 * number, 8 * number + 8]
            tensor = {"dtype": "F32", "shape": [1, 2], "data_offsets": place}
            header[f"model.layers.{number}.weight"] = tensor
        Path(name).write_bytes(head(header) + struct.pack("<f", value) * 200_000)
    rules = []
    for last in range(8):  # a rule for each last digit but 8 and 9, and the first for all others
        these = [f"model.layers.{'[0-9]' * places}{last}.weight" for places in range(8)]
        not_these = ["*", *(f"!*{other}.weight" for other in range(1, 8))]
        tensors = json.dumps(these if last else not_these)
        rules.append(f'{CLOSE}relative_to = "weights"\ntensors = {tensors}\n')
    declared = declare(folder, "".join(rules))
    yield (
        [one, other],
        {
            "reading": script("read_files", one, other),
            "compare A B, equal": Command([OURS, "compare", one, same], ANY),
            "compare A B, different": Command([OURS, "compare", one, other], ANY),
            "  --equality with 64 patterns": Command(
                [OURS, "compare", one, other, "--equality", declared], ANY
            ),
        },
    )


GROUPS = {
    "equal": equal,
    "different": different,
    "signed": signed,
    "script": script_group,
    "folder": many_files,
    "many": many_tensors,
}


def script(name: str, *words: str) -> Command:
    """Return the command that runs a script beside this one."""
    return Command([sys.executable, str(HERE / f"{name}.py"), *words])


def declare(folder: Path, rules: str) -> str:
    """Write a declaration of *rules* and return its path."""
    path = folder / "equality.toml"
    path.write_text(HEAD + rules)
    return str(path)


def files(folder: Path, *names: str) -> list[str]:
    """Return the paths of files of safetensors."""
    return [str(folder / f"{name}.safetensors") for name in names]


def nbytes(models: list[str]) -> int:
    """Return the bytes of *models*, files or folders."""
    found = [it for name in models for it in [Path(name), *Path(name).glob("*")]]
    return sum(it.stat().st_size for it in found if it.is_file())


def copy_without_kernel(folder: Path) -> Path:
    """Copy the package without what was compiled, and return the folder that holds it."""
    package = Path(__file__).parents[1] / "provenance"
    target = folder / "pure"
    left_out = shutil.ignore_patterns("_kernel.lib", "__pycache__")
    shutil.copytree(package, target / "provenance", ignore=left_out)
    return target


def make_model(path: Path, size: int, pattern: str, *, by: str) -> None:
    """Write a model of about *size* bytes: a pattern again and again."""
    data = (path.parent / f"{pattern}.pattern").read_bytes()
    header = header_of(size, by=by)
    steps = sum(size * share // 16 // STEP for share in SHARES.values())
    with path.open("wb") as file:
        file.write(head(header))
        for _ in range(steps):
            file.write(data)


def header_of(size: int, *, by: str) -> dict[str, object]:
    """Return the header of a model of about *size* bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", "by": by}}
    end = 0
    for name, share in SHARES.items():
        begin, end = end, end + size * share // 16 // STEP * STEP
        shape = [(end - begin) // 2 // ROW, ROW]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    return header


def head(header: dict[str, object]) -> bytes:
    """Return the length and the header of a safetensors file."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text


if __name__ == "__main__":
    main()
