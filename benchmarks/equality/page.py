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
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.equality.answers import DIFFER, ORDER, SAME, numpy_answers, our_answers
from benchmarks.equality.published import holes
from benchmarks.equality.rebuilds import DECLARED, Rebuild, diameter, rebuilds
from benchmarks.equality.traps import TRAPS
from provenance.equality.declaration import builtin_text
from provenance.equality.lattice import LATTICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
        "declaration": f"```toml\n{builtin_text(DECLARED).decode()}```\n",
        "same": traps(EXACT, answers, lambda trap: trap.same),
        "close": traps(TOLERANT, answers, lambda trap: trap.close),
        "published": published(),
        "cnn": rebuild_table(rebuilds("cnn")),
        "tfm": rebuild_table(rebuilds("tfm")),
        "diameter": diameter_table(),
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


def rebuild_table(runs: Sequence[Rebuild]) -> str:
    """Return the distances of *runs* from the base."""
    head = (
        "run", "differ", "as bfloat16", "max abs", "L2 overall", "worst L2", "worst L∞",
        "worst row", "without gradient, L2 / L∞", "key bias alone, L2", "logits", "flips",
        "`close-float32`", "tensors against it",
    )  # fmt: skip
    return table(
        head,
        [
            (
                f"`{run.run}`",
                f"{run.differing:,}",
                f"{run.differing_as_bfloat16:,}",
                f"{run.largest:.2g}",
                f"{run.overall:.2g}",
                f"{run.moved.relative_l2_weights:.2g} (`{short(run.moved.tensor)}`)",
                f"{run.peak.relative_linf_weights:.2g} (`{short(run.peak.tensor)}`)",
                f"{run.row.relative_l2_rows_weights:.2g} (`{short(run.row.tensor)}`)",
                f"{run.idle.relative_l2_weights:.2g} / {run.idle_linf:.2g}",
                "–" if run.key_bias is None else f"{run.key_bias:.2g}",
                f"{run.logits:.2g}",
                f"{run.flips} of {run.rows}",
                f"*{run.conclusion}*",
                f"{len(run.against)} of {run.tensors}",
            )
            for run in runs
        ],
    )


def diameter_table() -> str:
    """Return the largest distances among the runs that only the environment tells apart."""
    rows = []
    for name, network in (("convolutional", "cnn"), ("transformer", "tfm")):
        runs = diameter(network)
        largest = [
            max(numbers)
            for numbers in zip(
                *(
                    (
                        run.moved.relative_l2_weights or 0,
                        run.peak.relative_linf_weights or 0,
                        run.row.relative_l2_rows_weights or 0,
                        run.idle.relative_l2_weights or 0,
                        run.idle_linf,
                        run.logits,
                    )
                    for run in runs
                ),
                strict=True,
            )
        ]
        conclusions = " ".join(f"*{each}*" for each in sorted({run.conclusion for run in runs}))
        rows.append((name, str(len(runs)), *(f"{number:.2g}" for number in largest), conclusions))
    head = (
        "network", "pairs", "L2", "L∞", "row", "without gradient, L2", "L∞", "logits",
        "`close-float32`",
    )  # fmt: skip
    return table(head, rows)


def short(tensor: str) -> str:
    """Return the name of a transformer's *tensor* without what all of them share."""
    return tensor.removeprefix("t.layers.").replace("self_attn.", "")


if __name__ == "__main__":
    sys.exit(main())
