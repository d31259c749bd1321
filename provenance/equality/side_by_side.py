"""Two models or two weight files side by side, without a declaration: what differs, how far.

This judges nothing and proves nothing: it is a view for a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from provenance.equality.contents import Contents, TensorPair, WeightFile, read_contents
from provenance.equality.distances import Wanted
from provenance.equality.findings import TensorDistance
from provenance.equality.normalisers import Normalised
from provenance.errors import MalformedError, UnreadableError
from provenance.tensors.opening import carries_tensors
from provenance.tensors.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.comparators import Model
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
    """A file of either model."""

    name: str
    state: FileState
    tensors: tuple[TensorComparison, ...] | None = None
    """Of a changed weight file that could be read."""
    metadata_equal: bool | None = None
    normalisers: tuple[Normalised, ...] = ()
    """The differences of the containers that reach no tensor."""
    unread: str | None = None
    """Why the tensors of a changed weight file are not listed."""


def compare_folders(
    left: Model, right: Model, *, on_bytes: Callable[[int], None] | None = None
) -> tuple[FileComparison, ...]:
    """Return every file of either model, by name, compared.

    Raises:
        MalformedError: a file's name leaves its folder.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    compared: list[FileComparison] = []
    for name in sorted(left.files.keys() | right.files.keys()):
        if name not in right.files:
            compared.append(FileComparison(name=name, state="missing-right"))
        elif name not in left.files:
            compared.append(FileComparison(name=name, state="missing-left"))
        elif left.same_file(right, name):
            compared.append(FileComparison(name=name, state="equal"))
        elif carries_tensors(name):
            compared.append(_changed(name, left.weights(name), right.weights(name), on_bytes))
        else:
            compared.append(FileComparison(name=name, state="changed"))
    return tuple(compared)


def compare_files(
    left: Path, right: Path, *, on_bytes: Callable[[int], None] | None = None
) -> FileComparison:
    """Return two files compared; of weight files, the formats may be two.

    Raises:
        UnreadableError: a file cannot be read.
        UnavailableError: float64 arithmetic does not work as it should.
    """
    name = left.name if left.name == right.name else f"{left.name} | {right.name}"
    if _same_bytes(left, right):
        return FileComparison(name=name, state="equal")
    if carries_tensors(left.name) and carries_tensors(right.name):
        return _changed(name, WeightFile(left), WeightFile(right), on_bytes)
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


def _changed(
    name: str, left: WeightFile, right: WeightFile, on_bytes: Callable[[int], None] | None
) -> FileComparison:
    wanted = Wanted(norms=True, ulp=True, on_bytes=on_bytes)
    try:
        contents = read_contents(name, left, right, wanted)
    except (MalformedError, UnreadableError) as error:
        return FileComparison(name=name, state="changed", unread=str(error))
    return _listed(name, contents)


def _listed(name: str, contents: Contents) -> FileComparison:
    return FileComparison(
        name=name,
        state="changed",
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
        metadata_equal=contents.metadata_equal,
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
