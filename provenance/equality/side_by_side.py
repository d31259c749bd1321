"""Two models or two weight files side by side, without a declaration: what differs, how far.

This judges nothing and proves nothing: it is a view for a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from provenance.equality.contents import (
    Contents,
    Openable,
    TensorPair,
    WeightFile,
    first_divergence,
    read_contents,
)
from provenance.equality.distances import Wanted
from provenance.equality.findings import Divergence, TensorDistance
from provenance.equality.metadata import MetadataDifference
from provenance.equality.model import Weights, pairs, same
from provenance.equality.normalisers import Normalised
from provenance.errors import MalformedError, UnreadableError
from provenance.tensors.names import carries_tensors
from provenance.tensors.opening import companions
from provenance.tensors.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.model import Model
    from provenance.tensors.view import TensorInfo

_READ: Final = 2**20

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
    """Where the state is ``changed``."""


class FileComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A file of either model, or the files that hold one set of weights."""

    name: str
    state: FileState
    same_tensors: bool = False
    """Whether a changed weight file holds the same tensors and metadata, bit for bit."""
    first: Divergence | None = None
    """Where the tensors begin to differ, in the order of the left file."""
    tensors: tuple[TensorComparison, ...] | None = None
    """Of a changed weight file that could be read."""
    metadata: tuple[MetadataDifference, ...] = ()
    """The keys in which the metadata of a changed weight file differ."""
    normalisers: tuple[Normalised, ...] = ()
    """The differences of the containers that reach no tensor."""
    unread: str | None = None
    """Why the tensors of a changed weight file are not listed."""


def compare_folders(
    left: Model,
    right: Model,
    *,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[FileComparison, ...]:
    """Return every file of either model, by name, compared.

    *threads* is how many compare at once, by default as many as there are cores; *on_bytes* is told
    the bytes of each side as they are compared.

    Raises:
        MalformedError: a file's name leaves its folder.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    wanted = Wanted(norms=True, ulp=True, threads=threads, on_bytes=on_bytes)
    compared: list[FileComparison] = []
    for pair in pairs(left, right):
        if pair.both is None:
            state: FileState = "missing-left" if pair.left is None else "missing-right"
            compared.append(FileComparison(name=pair.name, state=state))
        elif same(left, right, pair):
            compared.append(FileComparison(name=pair.name, state="equal"))
        elif all(unit.weights for unit in pair.both):
            sides = Weights(left, pair.both[0]), Weights(right, pair.both[1])
            compared.append(_changed(pair.name, *sides, wanted))
        else:
            compared.append(FileComparison(name=pair.name, state="changed"))
    return tuple(compared)


def compare_files(
    left: Path,
    right: Path,
    *,
    threads: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> FileComparison:
    """Return two files compared; of weight files, the formats may be two. See compare_folders().

    Raises:
        UnreadableError: a file cannot be read.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    name = left.name if left.name == right.name else f"{left.name} | {right.name}"
    parts = [companions(path) for path in (left, right) if carries_tensors(path.name)]
    if not any(parts) and _same_bytes(left, right):  # an index says nothing of its shards' bytes
        return FileComparison(name=name, state="equal")
    if carries_tensors(left.name) and carries_tensors(right.name):
        wanted = Wanted(norms=True, ulp=True, threads=threads, on_bytes=on_bytes)
        return _changed(name, WeightFile(left), WeightFile(right), wanted)
    return FileComparison(name=name, state="changed")


def _same_bytes(left: Path, right: Path) -> bool:
    with Source(left) as first, Source(right) as second:
        if first.size != second.size:
            return False
        one, two = bytearray(_READ), bytearray(_READ)
        for start in range(0, first.size, _READ):
            count = min(_READ, first.size - start)
            first.read_into(start, memoryview(one)[:count])
            second.read_into(start, memoryview(two)[:count])
            if one != two:
                return False
        return True


def _changed(name: str, left: Openable, right: Openable, wanted: Wanted) -> FileComparison:
    try:
        contents = read_contents(name, left, right, wanted)
    except (MalformedError, UnreadableError) as error:
        return FileComparison(name=name, state="changed", unread=str(error))
    return _listed(name, contents)


def _listed(name: str, contents: Contents) -> FileComparison:
    return FileComparison(
        name=name,
        state="changed",
        same_tensors=not contents.metadata
        and contents.normalisers is not None
        and all(pair.differing == 0 for pair in contents.tensors),
        first=first_divergence(name, contents.tensors),
        tensors=tuple(
            TensorComparison(
                name=pair.name,
                state=_state(pair),
                left_dtype=_dtype(pair.left),
                right_dtype=_dtype(pair.right),
                left_shape=pair.left.shape if pair.left else None,
                right_shape=pair.right.shape if pair.right else None,
                distance=pair.distance,
            )
            for pair in contents.tensors
        ),
        metadata=contents.metadata,
        normalisers=contents.normalisers or (),
    )


def _dtype(info: TensorInfo | None) -> str | None:
    return info.dtype.name if info is not None else None


def _state(pair: TensorPair) -> TensorState:
    if pair.left is None:
        return "missing-left"
    if pair.right is None:
        return "missing-right"
    if pair.left.dtype != pair.right.dtype:
        return "dtype"
    if pair.left.shape != pair.right.shape:
        return "shape"
    return "changed" if pair.differing else "equal"
