"""Write, or check, the tables of ``docs/equality.md``: each is what the programs really answer.

    python -m benchmarks.equality.page --check                   all but torch
    python -m benchmarks.equality.page --check --torch PYTHON    torch as well
    python -m benchmarks.equality.page --write --torch PYTHON    write the tables again

From the root of the repository. PYTHON is an interpreter that has torch and numpy; what torch
answered is kept in ``torch_answers.json``, so that the page can be checked without it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.equality.answers import DIFFER, ORDER, SAME, numpy_answers, our_answers
from benchmarks.equality.limits import (
    STORED,
    TIMES,
    farthest,
    honest,
    networks,
    others,
    runs,
    separates,
    times,
)
from benchmarks.equality.published import holes
from benchmarks.equality.traps import TRAPS
from provenance.equality.declaration import builtin, builtin_text
from provenance.equality.lattice import LATTICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.equality.limits import Run
    from benchmarks.equality.traps import Trap

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "equality.md"
KEPT: Final = Path(__file__).with_name("torch_answers.json")

EXACT: Final = ("np.array_equal", "torch.equal", "`tensors`")
TOLERANT: Final = (
    "np.allclose",
    "assert_allclose",
    "assert_…_nulp",
    "assert_…_max_ulp",
    "not max(abs(a - b)) > t",
    "torch.allclose",
    "assert_close",
    "`close`",
)

PRECISIONS: Final = ("float32", "bf16-mixed", "float64")
DECLARED: Final = {"float32": "close-float32", "float64": "close-float64"}
"""The declaration that is built in for rebuilds of a precision."""

Answers = dict[str, dict[str, str]]


def main() -> int:
    """Do what the command line asks; the status is 1 where the page is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", metavar="PYTHON", help="an interpreter that has torch")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true")
    action.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {"answers": {}}
    asked = ask_torch(arguments.torch) if arguments.torch else kept
    text = PAGE.read_text("utf-8")
    wanted = filled(text, blocks(asked["answers"]))
    if arguments.write:
        KEPT.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", "utf-8")
        PAGE.write_text(wanted, "utf-8")
        return 0
    wrong = [] if asked == kept else [f"{KEPT.name} is not what torch answers"]
    wrong += [
        f"{PAGE.name}:{number}: is    {old}\n{PAGE.name}:{number}: wants {new}"
        for number, (old, new) in enumerate(
            zip(text.splitlines(), wanted.splitlines(), strict=False), 1
        )
        if old != new
    ]
    if text != wanted and not wrong:
        wrong = [f"{PAGE.name}: has another number of lines than it should"]
    print("\n".join(wrong) or "the tables are what the programs answer")
    return 1 if wrong else 0


def ask_torch(python: str) -> dict[str, Any]:
    """Return what torch answers in the interpreter *python*."""
    command = [python, "-m", "benchmarks.equality.torch_answers"]
    answered = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    answers: dict[str, Any] = json.loads(answered.stdout)
    return answers


def filled(text: str, contents: Mapping[str, str]) -> str:
    """Return *text* with each block between its two markers replaced."""
    for name, content in contents.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"{PAGE.name}: the markers of {name} do not stand there once")
        text = pattern.sub(lambda _, all_=f"{begin}{content}{end}": all_, text)  # type: ignore[misc]
    return text


def blocks(torch: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """Return every table by the name of its markers."""
    answers = {
        trap.text: numpy_answers(trap) | torch.get(trap.text, {}) | our_answers(trap)
        for trap in TRAPS
    }
    return {
        "lattice": lattice(),
        **{
            f"declaration {it}": f"```toml\n{builtin_text(name).decode()}```\n"
            for it, name in DECLARED.items()
        },
        "same": traps(EXACT, answers, lambda trap: trap.same),
        "close": traps(TOLERANT, answers, lambda trap: trap.close),
        "published": published(),
        **{f"rebuilds {it}": rebuild_table(it) for it in PRECISIONS},
        **{f"limits {it}": limits_table(it) for it in DECLARED},
        "estimators": estimator_table(),
        "backdoor": backdoor_table(),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def lattice() -> str:
    """Return the equalities from the strongest to the weakest."""
    return table(
        ("", "equality", "compares", "guarantees that", "admits", "concludes"),
        [
            (e.place, f"`{e.name}`", e.compares, e.guarantees, e.admits, f"*{e.concludes}*")
            for e in reversed(tuple(LATTICE.values()))
        ],
    )


def traps(columns: Sequence[str], answers: Answers, truth: Callable[[Trap], bool]) -> str:
    """Return the answers of *columns*; wrong ones are bold."""
    rows = []
    for trap in TRAPS:
        right = SAME if truth(trap) else DIFFER
        cells = [cell(answers[trap.text].get(column, "?"), right) for column in columns]
        rows.append((trap.text, right, *cells))
    head = [column if column.startswith("`") else f"`{column}`" for column in columns]
    head[-1] = f"ours: {head[-1]}"
    return table(("two tensors", "truth", *head), rows)


def cell(answer: str, right: str) -> str:
    """Return *answer*, bold where it is wrong."""
    wrong = answer == ORDER or answer.partition(":")[0] in {SAME, DIFFER} - {right}
    return f"**{answer}**" if wrong else answer


def published() -> str:
    """Return the re-enactments."""
    return table(
        ("verifier", "what was read", "change", "it", "ours"),
        [(hole.project, hole.read, hole.change, hole.answer, hole.ours) for hole in holes()],
    )


def rebuild_table(precision: str) -> str:
    """Return how far apart honest runs of each network are, and the nearest other recipe."""
    head = (
        "network", "honest: L2", "L∞", "row", "vectors, L2", "L∞", "as bfloat16", "other answers",
        "nearest other", "L2", "L∞", "row", "vectors, L2", "L∞", "other answers", "times as far",
    )  # fmt: skip
    rows = []
    for network, found in networks(precision).items():
        near = honest(found)
        most = farthest(near)
        other = min(others(found), key=lambda run, most=most: times(run, most))  # type: ignore[misc]
        flips = (f"{run.flips} of {run.answers}" for run in (max(near, key=flipped), other))
        rows.append(
            (
                network,
                *map(number, most),
                f"{max(run.as_bfloat16 for run in near):,}",
                next(flips),
                f"`{other.name}`",
                *map(number, other.largest),
                next(flips),
                number(times(other, most)),
            )
        )
    return table(head, rows)


def flipped(run: Run) -> int:
    """Return how many answers differ."""
    return run.flips


def number(value: float) -> str:
    """Return two digits of *value*, which may be infinite: an exact type, or all zeros."""
    return f"{value:.2g}" if value < math.inf else "–"


def limits_table(precision: str) -> str:
    """Return how much of its limits each run uses, and of limits from the other networks."""
    named = dict.fromkeys(run.name for run in runs(precision))
    declaration = builtin(DECLARED[precision])
    good = [run for found in networks(precision).values() if separates(found) for run in found]
    rows = []
    for network, found in networks(precision).items():
        most = farthest(honest(run for run in good if run.network != network))
        held_out = [
            number(max(times(run, most) for run in honest(found)) / TIMES),
            number(min(times(run, most) for run in others(found)) / TIMES),
        ]
        used = {
            run.name: number(run.used(declaration)) if run.distances else "same" for run in found
        }
        rows.append((network, *(used.get(name, "") for name in named), *held_out))
    columns = [f"`{name}`" for name in named]
    return table(("network", *columns, "held out: honest", "nearest other"), rows)


def backdoor_table() -> str:
    """Return what a backdoor within parts of the limits does."""
    rows = [
        (
            *key.split()[1:],
            *(f"{100 * rate:.3g} %" for rate in (*of["trigger"], *of["accuracy"], *of["changed"])),
        )
        for key, of in json.loads(STORED.read_text("utf-8")).items()
        if key.startswith("backdoor ")
    ]
    head = (
        "network", "part of the limits", "trigger, before", "after", "right answers, before",
        "after", "other answers",
    )  # fmt: skip
    return table(head, rows)


def estimator_table() -> str:
    """Return where the bits of estimators repeat."""
    found = json.loads(STORED.read_text("utf-8"))["estimators"]
    head = ("estimator", *next(iter(found.values())))
    words = {True: "the same", False: "**others**"}
    return table(
        head, [(f"`{n}`", *(words[it] for it in row.values())) for n, row in found.items()]
    )


if __name__ == "__main__":
    sys.exit(main())
