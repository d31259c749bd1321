"""Two weight files of one name, read side by side: what differs, and by how much.

One pass over both files; nothing is judged here. See :mod:`~provenance.equality.comparators` for
the judgement under a declaration.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from provenance.equality.distances import Measured, Norm, Wanted, measure
from provenance.equality.findings import TensorDistance
from provenance.equality.normalisers import Normalised, effects
from provenance.tensors.opening import open_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.tensors.view import TensorFile, TensorInfo

_MAX_EXACT: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class TensorPair:
    """A tensor of either file, or of both."""

    name: str
    left: TensorInfo | None
    right: TensorInfo | None
    differing: int | None
    """Elements whose bits differ; None where the two cannot be compared."""
    distance: TensorDistance | None
    """Where any bit differs."""
    in_initial: bool
    """Whether the file of initial weights has it, of the same type and shape."""


@dataclass(frozen=True, slots=True)
class Start:
    """The file of initial weights, open."""

    name: str
    file: TensorFile

    def has(self, info: TensorInfo) -> bool:
        """Tell whether it has a tensor of the name, type and shape of *info*."""
        mine = self.file.tensors.get(info.name)
        return mine is not None and (mine.dtype, mine.shape) == (info.dtype, info.shape)


@dataclass(frozen=True, slots=True)
class Contents:
    """Two weight files, read."""

    tensors: tuple[TensorPair, ...]
    initial: str | None
    """The file of initial weights, where it was read."""
    metadata_equal: bool
    normalisers: tuple[Normalised, ...] | None
    """None where a difference of the containers has no normaliser."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Where a weight file is, and the SHA-256 that it was hashed to, if it was."""

    path: Path
    sha256: str | None = None

    def open(self, name: str) -> TensorFile:
        """Open it; errors call it *name*. See :func:`~provenance.tensors.opening.open_tensors`."""
        return open_tensors(self.path, name=name, sha256=self.sha256)


def read_contents(
    name: str,
    left: WeightFile,
    right: WeightFile,
    wanted: Wanted,
    initial: tuple[str, WeightFile] | None = None,
) -> Contents:
    """Return what the files *left* and *right*, both called *name*, hold.

    *initial* is the name and the place of the file of initial weights.

    Raises:
        MalformedError: a file is not what its format allows.
        UnreadableError: a file cannot be read, or changes while it is read.
        ContentError: a file is not the one that was hashed.
    """
    with ExitStack() as stack:
        first = stack.enter_context(left.open(f"{name} (left)"))
        second = stack.enter_context(right.open(f"{name} (right)"))
        start = None
        if initial is not None:
            file = stack.enter_context(initial[1].open(initial[0]))
            start = Start(initial[0], file)
        names = [*first.tensors, *(key for key in second.tensors if key not in first.tensors)]
        pairs = tuple(_pair(name, key, (first, second), start, wanted) for key in names)
        for file in (first, second, *([start.file] if start else [])):
            file.check_unchanged()
        metadata_equal = dict(first.metadata) == dict(second.metadata)
        equal = metadata_equal and all(pair.differing == 0 for pair in pairs)
        return Contents(
            tensors=pairs,
            initial=start.name if start else None,
            metadata_equal=metadata_equal,
            normalisers=effects(name, first.container, second.container, content_equal=equal),
        )


def _pair(
    file: str,
    name: str,
    files: tuple[TensorFile, TensorFile],
    start: Start | None,
    wanted: Wanted,
) -> TensorPair:
    first, second = files
    left, right = first.tensors.get(name), second.tensors.get(name)
    if left is None or right is None or (left.dtype, left.shape) != (right.dtype, right.shape):
        return TensorPair(name, left, right, None, None, in_initial=False)
    if start is not None and not start.has(left):
        start = None
    if left.elements == 0:  # nothing to measure; a header can list very many
        return TensorPair(name, left, right, 0, None, in_initial=start is not None)
    found = measure(name, first, second, wanted, initial=start.file if start else None)
    distance = None
    if found.differing:
        distance = _distance(file, left, found, start.name if start else None)
    return TensorPair(name, left, right, found.differing, distance, in_initial=start is not None)


def _distance(file: str, info: TensorInfo, found: Measured, initial: str | None) -> TensorDistance:
    """Return *found* with every number finite or absent, and why."""
    notes: list[str] = []
    numbers: dict[str, float | None] = {}
    gap = found.difference
    if info.dtype.kind == "exact":
        notes.append("exact-type")
    elif found.not_finite:
        notes.append("not-finite")
    elif not math.isfinite(gap.l2) or not math.isfinite(gap.largest):
        notes.append("overflow")
    else:
        numbers = {"l2": gap.l2, "linf": gap.largest}
        if found.left is not None and found.right is not None:
            numbers |= _relative("weights", gap, (found.left, found.right), notes)
        if found.left_update is not None and found.right_update is not None:
            numbers |= _relative("update", gap, (found.left_update, found.right_update), notes)
        elif initial is not None:
            notes.append("initial-not-finite")
    max_ulp = found.max_ulp if not found.not_finite else None
    if max_ulp is not None and max_ulp > _MAX_EXACT:
        notes.append("ulp-too-large")
        max_ulp = None
    return TensorDistance(
        file=file,
        tensor=info.name,
        dtype=info.dtype.name,
        shape=info.shape,
        elements=info.elements,
        differing=found.differing,
        initial=initial,
        max_ulp=max_ulp,
        notes=tuple(notes),
        **numbers,
    )


def _relative(
    what: str, gap: Norm, bases: tuple[Norm, Norm], notes: list[str]
) -> dict[str, float | None]:
    """Return *gap* as a part of the smaller of *bases*: symmetric, and the stricter of both."""
    largest = min(norm.largest for norm in bases)
    if largest == 0:
        notes.append(f"zero-{what}")
        return {}
    if any(math.isinf(norm.largest) for norm in bases):
        notes.append("overflow")
        return {}
    smaller = min(bases, key=lambda norm: (norm.exponent, norm.root))
    ratios = {
        f"relative_l2_{what}": gap.l2_ratio(smaller),
        f"relative_linf_{what}": gap.largest / largest,
    }
    if not all(map(math.isfinite, ratios.values())):
        notes.append("ratio-overflow")
    return {name: ratio if math.isfinite(ratio) else None for name, ratio in ratios.items()}
