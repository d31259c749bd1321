"""Small models, written and described."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance.judge.comparators import apply
from provenance.judge.measured import MeasuredWeights
from provenance.judge.side_by_side import list_differences
from provenance.weights.model import Model, model_of_file
from provenance.weights.pairs import SideBySide
from tests.weights.writing import simple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from provenance.equality.declaration import Declaration
    from provenance.judge.side_by_side import FileComparison
    from provenance.measure.findings import Outcome

    Content = bytes | Mapping[str, np.ndarray[Any, Any]]


RUN = b"""
format = 1
version = 1
name = "run"

[[any]]
[[any.all]]
equality = "behaviour"
kind = "values"
run = "m.onnx"
max_difference = 0.6
reason = "made up"
"""
"""An equality of what the model ``m.onnx`` answers to probes from outside."""


def described(root: Path, files: Mapping[str, bytes]) -> Model:
    """Return the model of *files* in the folder *root*, with their digests."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return Model(root, {name: len(data) for name, data in files.items()}, digests)


def side_by_side(left: Model | Path, right: Model | Path) -> tuple[FileComparison, ...]:
    """Return two models, or two files, as a person is shown them."""
    return list_differences(MeasuredWeights(_sides(left, right), None, view=True))


def compare_models(
    left: Model | Path,
    right: Model | Path,
    declaration: Declaration,
    *,
    probes: Path | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Outcome:
    """Return what *declaration* says of two models, or of two files that somebody named."""
    weights = MeasuredWeights(_sides(left, right), declaration, on_bytes=on_bytes)
    return apply(declaration, weights, probes=probes)


def both_ways(
    root: Path, declared: Declaration, left: Mapping[str, Content], right: Mapping[str, Content]
) -> Outcome:
    """Write two models below *root* and compare them both ways: the order must not matter."""
    one, two = write(root / "left", left), write(root / "right", right)
    there, back = compare_models(one, two, declared), compare_models(two, one, declared)
    assert (there.conclusion, there.strongest) == (back.conclusion, back.strongest)
    return there


def _sides(left: Model | Path, right: Model | Path) -> SideBySide:
    if isinstance(left, Model) and isinstance(right, Model):
        return SideBySide(left, right)
    assert isinstance(left, Path)
    assert isinstance(right, Path)
    return SideBySide(model_of_file(left), model_of_file(right))


def write(root: Path, files: Mapping[str, Content]) -> Model:
    """Write *files*, each bytes or the arrays of a safetensors file, below *root*."""
    written = {}
    for name, content in files.items():
        data = content if isinstance(content, bytes) else simple(content)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        written[name] = data
    return described(root, written)
