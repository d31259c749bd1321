"""Two models or weight files side by side, without a declaration; nothing is judged or proven."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from provenance.errors import MalformedError, UnreadableError
from provenance.judge.measured import MeasuredWeights
from provenance.measure.contents import Contents, TensorPair
from provenance.measure.findings import Divergence, TensorDistance
from provenance.measure.side_files import side_differences
from provenance.weights.beside import MAX_LISTED, Difference
from provenance.weights.normalisers import Normalised
from provenance.weights.pairs import Pair

FileState = Literal["equal", "changed", "missing-left", "missing-right"]
TensorState = Literal["equal", "changed", "missing-left", "missing-right", "dtype", "shape"]


class TensorComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of either file."""

    name: str
    state: TensorState
    left_dtype: str | None
    right_dtype: str | None
    left_shape: tuple[int, ...] | None
    right_shape: tuple[int, ...] | None
    distance: TensorDistance | None = None


class MetadataDifference(msgspec.Struct, frozen=True):
    """A key whose value differs; null where the side has no such key."""

    key: str
    left: str | None
    right: str | None


class FileComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A file of either model, or the files that hold one set of weights.

    Of a changed weight file: whether tensors and metadata are the same in every bit, where the
    tensors begin to differ (in the order of the left file), the tensors, the differences of the
    metadata and of the containers; or why it cannot be read, or not judged.
    """

    name: str
    state: FileState
    same_tensors: bool = False
    first: Divergence | None = None
    tensors: tuple[TensorComparison, ...] | None = None
    metadata: tuple[MetadataDifference, ...] = ()
    normalisers: tuple[Normalised, ...] = ()
    unread: str | None = None
    doubts: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the two hold the same: the bytes, or the tensors and the metadata."""
        return self.state == "equal" or self.same_tensors


def list_differences(weights: MeasuredWeights) -> tuple[FileComparison, ...]:
    """Return every file of either model, by name, compared."""
    return tuple(_compared(pair, weights) for pair in weights.sides.pairs)


def _compared(pair: Pair, weights: MeasuredWeights) -> FileComparison:
    if pair.both is None:
        state: FileState = "missing-left" if pair.left is None else "missing-right"
        return FileComparison(name=pair.name, state=state)
    same = weights.same_files(pair)
    if same or not all(unit.weights for unit in pair.both):
        same = same or weights.sides.renamed(pair)
        return FileComparison(name=pair.name, state="equal" if same else "changed")
    contents = weights.of(pair, None)
    if not isinstance(contents, Contents):
        if pair.state:
            with suppress(MalformedError, UnreadableError):
                values = _listed(side_differences(pair, weights.sides))
                return FileComparison(name=pair.name, state="changed", metadata=values)
        return FileComparison(name=pair.name, state="changed", unread=contents)
    equal = all(each.differing == 0 for each in contents.tensors)
    return FileComparison(
        name=pair.name,
        state="changed",
        same_tensors=equal
        and not (contents.metadata or contents.doubts)
        and contents.normalisers is not None,
        first=contents.first,
        tensors=tuple(map(_tensor, contents.tensors)),
        metadata=_listed(contents.metadata),
        normalisers=contents.normalisers or (),
        doubts=contents.doubts,
    )


def _listed(differences: Sequence[Difference]) -> tuple[MetadataDifference, ...]:
    return tuple(MetadataDifference(each.key, *each.shown) for each in differences[:MAX_LISTED])


def _tensor(pair: TensorPair) -> TensorComparison:
    left, right = pair.left, pair.right
    return TensorComparison(
        name=pair.name,
        state=_state(pair),
        left_dtype=left.dtype.name if left else None,
        right_dtype=right.dtype.name if right else None,
        left_shape=left.shape if left else None,
        right_shape=right.shape if right else None,
        distance=pair.distance,
    )


def _state(pair: TensorPair) -> TensorState:
    if pair.differing == 0:
        return "equal"
    if pair.left is None:
        return "missing-left"
    if pair.right is None:
        return "missing-right"
    if pair.left.dtype != pair.right.dtype:
        return "dtype"
    if pair.left.shape != pair.right.shape:
        return "shape"
    return "changed"
