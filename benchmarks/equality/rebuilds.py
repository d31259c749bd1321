"""How far real rebuilds of two small networks are apart (``tests/judge/vectors/README.md``)."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from provenance.equality.declaration import builtin
from provenance.judge.comparators import compare_models
from provenance.judge.measured import MeasuredWeights
from provenance.judge.side_by_side import list_differences
from provenance.weights.model import SideBySide, model_of_file, model_of_folder

if TYPE_CHECKING:
    from provenance.equality.declaration import Declaration
    from provenance.measure.findings import Outcome, TensorDistance

    Array = np.ndarray[Any, Any]

VECTORS = Path(__file__).parents[2] / "tests" / "judge" / "vectors"
DECLARED = "close-float32"
"""The built-in declaration that judges them."""

RUNS = ("aten_default", "aten_avx2", "t2", "amp_bf16", "accum2", "order_seed1", "seed1")
"""Compared with ``base_t1``, from the nearest to the farthest."""

HONEST = RUNS[:3]
"""Those that differ from it by their environment alone."""

WITHOUT_GRADIENT = {
    "cnn": ("1.bias", "2.running_mean"),
    "tfm": (
        "t.layers.0.self_attn.in_proj_bias",
        "t.layers.1.self_attn.in_proj_bias",
    ),
}
"""Tensors that training should not move, in whole or in a third (the key bias)."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """One run of one network, compared with another."""

    run: str
    differing: int
    """Floats that differ in any bit."""
    differing_as_bfloat16: int
    """Those that still differ when both are rounded to bfloat16."""
    largest: float
    """Largest difference of two floats."""
    overall: float
    """L2 of all floats, as a part of the smaller model's."""
    moved: TensorDistance
    """Of the tensors that have a gradient, the one that is farthest in relative L2."""
    peak: TensorDistance
    """The same, in relative L-infinity."""
    row: TensorDistance
    """Of all, the one with the row that is farthest."""
    idle: TensorDistance
    """Of those that have none, in whole or in part, the farthest in relative L2."""
    idle_linf: float
    """The largest relative L-infinity of these."""
    key_bias: float | None
    """Relative L2 of the key biases alone, the middle third of ``in_proj_bias``."""
    logits: float
    """Largest difference of a logit."""
    flips: int
    rows: int
    conclusion: str
    """Under the declaration."""
    against: frozenset[str]
    """The tensors that were against its tolerance."""
    tensors: int


def rebuild(network: str, start: str, run: str, declaration: Declaration) -> Rebuild:
    """Return how far *run* of *network* is from the run *start*."""
    base, other = (VECTORS / f"{weights(network, name)}.safetensors" for name in (start, run))
    sides = SideBySide(model_of_file(base), model_of_file(other), named=True)
    (compared,) = list_differences(MeasuredWeights(sides, None, view=True))
    tensors = compared.tensors or ()
    distances = [tensor.distance for tensor in tensors if tensor.distance is not None]
    floats = [each for each in distances if each.linf is not None]
    idle = [each for each in floats if each.tensor in WITHOUT_GRADIENT[network]]
    moved = [each for each in floats if each not in idle]
    outcome = compare(base, other, declaration)
    answers = [np.load(VECTORS / f"{network}_logits_{name}.npy") for name in (start, run)]
    return Rebuild(
        run,
        sum(each.differing for each in floats),
        _as_bfloat16(base, other),
        max(each.linf or 0 for each in floats),
        _overall(floats, base, other),
        max(moved, key=lambda each: each.relative_l2_weights or 0),
        max(moved, key=lambda each: each.relative_linf_weights or 0),
        max(floats, key=lambda each: each.relative_l2_rows_weights or 0),
        max(idle, key=lambda each: each.relative_l2_weights or 0),
        max(each.relative_linf_weights or 0 for each in idle),
        _key_bias(base, other),
        float(np.abs(answers[0].astype(np.float64) - answers[1]).max()),
        int(np.count_nonzero(answers[0].argmax(1) != answers[1].argmax(1))),
        len(answers[0]),
        outcome.conclusion,
        frozenset(f.tensor for f in outcome.alternatives[-1].findings if f.tensor and not f.held),
        len(tensors),
    )


def weights(network: str, run: str) -> str:
    """Return the name of the file of weights, without its ending."""
    return run if network == "cnn" else f"{network}_{run}"


def _overall(floats: list[TensorDistance], base: Path, other: Path) -> float:
    gap = math.fsum((each.l2 or 0) ** 2 for each in floats)
    return math.sqrt(gap / min(_square(base), _square(other)))


def _square(path: Path) -> float:
    arrays = [a for a in load_file(path).values() if a.dtype.kind == "f"]
    return math.fsum(float(np.square(array.astype(np.float64)).sum()) for array in arrays)


def _as_bfloat16(base: Path, other: Path) -> int:
    """Return how many floats differ after one rounding to bfloat16."""
    mine, theirs = load_file(base), load_file(other)
    return sum(
        int(np.count_nonzero(_rounded(mine[name]) != _rounded(theirs[name])))
        for name in mine
        if mine[name].dtype == np.float32
    )


def _rounded(array: Array) -> Array:
    return array.astype(ml_dtypes.bfloat16).view(np.uint16)


def _key_bias(base: Path, other: Path) -> float | None:
    """Return how far the key biases are apart, as a part of the smaller: the largest of all."""
    mine, theirs = load_file(base), load_file(other)
    found = []
    for name in (name for name in mine if name.endswith("in_proj_bias")):
        _, one, _ = np.split(mine[name].astype(np.float64), 3)
        _, two, _ = np.split(theirs[name].astype(np.float64), 3)
        smaller = min(np.linalg.norm(one), np.linalg.norm(two))
        found.append(float(np.linalg.norm(one - two) / smaller))
    return max(found, default=None)


def compare(base: Path, other: Path, declaration: Declaration) -> Outcome:
    """Return what *declaration* says of two files, each as the one file of a model."""
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for side, path in (("base", base), ("other", other)):
            root = Path(folder) / side
            root.mkdir()
            shutil.copyfile(path, root / "model.safetensors")
            models.append(model_of_folder(root))
        return compare_models(models[0], models[1], declaration)


def rebuilds(network: str) -> tuple[Rebuild, ...]:
    """Return every run of *network*, compared with the base."""
    declaration = builtin(DECLARED)
    return tuple(rebuild(network, "base_t1", run, declaration) for run in RUNS)


def diameter(network: str) -> tuple[Rebuild, ...]:
    """Return every pair of runs of *network* that only the environment tells apart."""
    declaration = builtin(DECLARED)
    pairs = combinations(("base_t1", *HONEST), 2)
    return tuple(rebuild(network, base, run, declaration) for base, run in pairs)
