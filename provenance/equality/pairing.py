"""Files of outputs or scores of two models, opened side by side; their arrays, matched by name."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from provenance.equality.findings import Finding
from provenance.equality.patterns import selects_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from provenance.equality.model import Model, Pair, Unit
    from provenance.tensors.view import TensorFile, TensorInfo

Models = tuple["Model", "Model"]


@contextmanager
def opened(
    name: str, units: tuple[Unit, Unit], models: Models
) -> Iterator[tuple[TensorFile, TensorFile]]:
    """Open both units of the pair *name*; when left without an error, check that neither changed.

    Raises:
        ContentError: a file is not the one that was hashed.
        MalformedError, UnreadableError: it cannot be read as its format demands.
    """
    with (
        models[0].open(units[0], f"{name} (left)") as left,
        models[1].open(units[1], f"{name} (right)") as right,
    ):
        yield left, right
        left.check_unchanged()
        right.check_unchanged()


def absent(pair: Pair, models: Models) -> Finding:
    """Return the finding that only one of *models* has *pair*, with its digest."""
    left, right = (
        None if unit is None else model.files[unit.main].sha256
        for model, unit in zip(models, (pair.left, pair.right), strict=True)
    )
    return Finding(file=pair.name, measure="presence", held=False, left=left, right=right)


def matched(
    file: str, patterns: Sequence[str], left: TensorFile, right: TensorFile
) -> tuple[list[str], list[Finding]]:
    """Return the arrays that *patterns* select and both sides have alike, and what is against it.

    An array on one side only, or of another type or shape, is against any rule.
    """
    alike, against = [], []
    for name in {**left.tensors, **right.tensors}:
        if not selects_tensor(patterns, name):
            continue
        one, other = left.tensors.get(name), right.tensors.get(name)
        if one and other and (one.dtype, one.shape) == (other.dtype, other.shape):
            alike.append(name)
            continue
        against.append(
            Finding(
                file=file,
                tensor=name,
                measure="type-and-shape" if one and other else "presence",
                held=False,
                left=_described(one),
                right=_described(other),
            )
        )
    return alike, against


def _described(info: TensorInfo | None) -> str | None:
    return None if info is None else f"{info.dtype.name}{list(info.shape)}"
