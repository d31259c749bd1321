"""How far real rebuilds are apart, and what their distances say of limits.

Those of two small networks are in ``tests/judge/vectors``; of the others the distances alone are
kept, in ``real.json`` (:mod:`benchmarks.equality.real`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from provenance.equality.rules import Close, takes
from provenance.judge.measured import MeasuredWeights
from provenance.judge.side_by_side import list_differences
from provenance.weights.model import model_of_file
from provenance.weights.pairs import SideBySide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from provenance.equality.declaration import Declaration

STORED: Final = Path(__file__).with_name("real.json")
VECTORS: Final = Path(__file__).parents[2] / "tests" / "judge" / "vectors"

VECTOR_RUNS: Final = {
    "t2": "t2",
    "aten_avx2": "avx2",
    "aten_default": "sse",
    "amp_bf16": "bf16-mixed",
    "accum2": "accum",
    "order_seed1": "order1",
    "seed1": "seed1",
}
"""The runs in ``tests/judge/vectors`` that are compared with ``base_t1``, and what we call them."""

HONEST: Final = (
    *("t2", "avx2", "avx2_t2", "sse", "mkl", "aten"),
    *("no_amx", "no_amx_aten_avx2", "no_amx_aten_avx2_t2", "no_amx_mkl"),
)
SAME_SUMS: Final = (("lstm", "accum"), ("gpt", "accum"))
"""Without BatchNorm and dropout, two half batches are the same sums in another order."""

TIMES: Final = 3
"""How far other recipes must be beyond the farthest honest run."""

MEASURES: Final = ("relative_l2_weights", "relative_linf_weights", "relative_l2_rows_weights")

Largest = tuple[float, ...]
"""Of matrices L2, L-infinity and rows, then of vectors L2 and L-infinity."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, compared with the base of its network."""

    network: str
    name: str
    shapes: Mapping[str, list[int]]
    distances: Mapping[str, list[float | None]]
    """Of each tensor that differs :data:`MEASURES`; None is that there is none."""
    as_bfloat16: int
    """Floats that differ when both are rounded to bfloat16."""
    flips: int
    answers: int

    @property
    def largest(self) -> Largest:
        """The largest of each measure; infinite where a tensor has none."""
        found = [0.0] * 5
        for tensor, values in self.distances.items():
            matrix = len(self.shapes[tensor]) > 1
            for at, value in enumerate(values if matrix else values[:2], 0 if matrix else 3):
                found[at] = max(found[at], math.inf if value is None else value)
        return tuple(found)

    def used(self, declaration: Declaration) -> float:
        """Return how much of a declaration's limits the run uses: above 1 is a mismatch."""
        if not self.distances:
            return 0
        return min(
            max((part for rule in each.all for part in self._parts(rule)), default=math.inf)
            for each in declaration.any
        )

    def _parts(self, rule: object) -> Iterator[float]:
        if not isinstance(rule, Close):
            return
        sizes = {n: math.prod(it) for n, it in self.shapes.items() if takes(rule, n, len(it))}
        limits = (rule.relative_l2, rule.relative_linf, rule.relative_l2_rows)
        for tensor in sizes.keys() & self.distances.keys():
            used = limits if len(self.shapes[tensor]) > 1 else limits[:2]
            for limit, value in zip(used, self.distances[tensor], strict=False):
                if limit is not None:
                    yield math.inf if value is None else value / limit
        share = sum(sizes.values()) / sum(map(math.prod, self.shapes.values()))
        if rule.max_share and share > rule.max_share and sizes.keys() & self.distances.keys():
            yield math.inf


def distances(base: Path, other: Path) -> dict[str, Any]:
    """Return how far two files of weights are apart."""
    sides = SideBySide(model_of_file(base), model_of_file(other))
    (compared,) = list_differences(MeasuredWeights(sides, None, view=True))
    mine, theirs = load_file(base), load_file(other)
    floats = [name for name, tensor in mine.items() if tensor.dtype.kind == "f"]
    return {
        "distances": {
            each.name: [_short(getattr(each.distance, measure, None)) for measure in MEASURES]
            for each in compared.tensors or ()
            if each.state != "equal"
        },
        "as_bfloat16": sum(
            int(np.count_nonzero(_narrow(mine[name]) != _narrow(theirs[name]))) for name in floats
        ),
    }


def answered(base: Path, other: Path) -> dict[str, int]:
    """Return how many answers differ in two files of them."""
    one, two = np.load(base), np.load(other)
    flips = int(np.count_nonzero(one.argmax(1) != two.argmax(1)))
    return {"flips": flips, "answers": len(one)}


def _short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.3g}")


def _narrow(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(ml_dtypes.bfloat16).view(np.uint16)


def shapes(path: Path) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a file."""
    return {name: list(tensor.shape) for name, tensor in load_file(path).items()}


@cache
def runs(precision: str) -> tuple[Run, ...]:
    """Return every run of *precision*, compared with the base of its network."""
    stored = json.loads(STORED.read_text("utf-8"))
    found = {key: it for key, it in stored.items() if key.endswith(f" {precision}")}
    if precision == "float32":
        for network, before in (("cnn", ""), ("tfm", "tfm_")):
            names = {
                run: (
                    VECTORS / f"{before}{run}.safetensors",
                    VECTORS / f"{network}_logits_{run}.npy",
                )
                for run in ("base_t1", *VECTOR_RUNS)
            }
            base, answers = names.pop("base_t1")
            each = {
                VECTOR_RUNS[run]: distances(base, file) | answered(answers, theirs)
                for run, (file, theirs) in names.items()
            }
            found[network] = {"shapes": shapes(base), "runs": each}
    return tuple(
        Run(key.split()[0], name, of["shapes"], **run)
        for key, of in found.items()
        for name, run in of["runs"].items()
    )


def honest(found: Iterable[Run]) -> list[Run]:
    """Return those of *found* from which only the environment differs."""
    return [run for run in found if run.name in HONEST]


def others(found: Iterable[Run]) -> list[Run]:
    """Return those of another recipe."""
    kept = (run for run in found if run.name not in HONEST)
    return [run for run in kept if (run.network, run.name) not in SAME_SUMS]


def farthest(found: Iterable[Run]) -> Largest:
    """Return the largest of each measure."""
    return tuple(map(max, zip(*(run.largest for run in found), strict=True)))


def times(run: Run, most: Largest) -> float:
    """Return how many times as far as *most* the run is, in the measure that shows it most."""
    pairs = zip(run.largest, most, strict=True)
    return max((value / it if it else math.inf for value, it in pairs if value), default=0)


def separates(found: Sequence[Run]) -> bool:
    """Tell whether the recipes of one network are all far from its honest runs."""
    most = farthest(honest(found))
    return all(times(run, most) >= TIMES for run in others(found))


def networks(precision: str) -> dict[str, list[Run]]:
    """Return the runs of *precision* by network."""
    found: dict[str, list[Run]] = {}
    for run in runs(precision):
        found.setdefault(run.network, []).append(run)
    return found
