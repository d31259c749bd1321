"""Tensors as views of a storage: offset, sizes and strides, as in torch.

The element at index ``i`` is ``sum(i * stride)`` items after the offset. A contiguous view is read
as it lies. Any other is gathered in memory, and refused as unreadable where it, or the part of the
storage that it spans, is larger than ``MAX_TURNED``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.npy import MAX_TRANSPOSED
from provenance.weights.view import MAX_BYTES

_WORDS: Final = (1, 2, 4, 8)
_Item = TypeVar("_Item", bound=np.generic)

MAX_TURNED: Final = MAX_TRANSPOSED
"""Largest view out of C order, in bytes, and largest span of one: both are held in memory."""

MAX_SPREAD: Final = 2 * MAX_TURNED
"""Widest part of a storage, in bytes, in which each byte is marked as reached or not."""

CONTIGUOUS: Final = "save every tensor contiguous"


@dataclass(frozen=True, slots=True)
class View:
    """Where the elements of a tensor lie in a storage."""

    item: int
    """Size of an element, in bytes."""
    offset: int
    """Of the first element, in items."""
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    """In items."""

    @property
    def begin(self) -> int:
        """Return the first element's place in the storage, in bytes."""
        return self.offset * self.item

    @property
    def nbytes(self) -> int:
        """Return the size of all elements, in bytes."""
        return math.prod(self.sizes) * self.item

    @property
    def span(self) -> int:
        """Return the bytes from the first element's begin to the last one's end."""
        if 0 in self.sizes:
            return 0
        last = sum((d - 1) * s for d, s in zip(self.sizes, self.strides, strict=True))
        return (last + 1) * self.item

    @property
    def contiguous(self) -> bool:
        """Tell whether the elements lie in C order without gaps."""
        return _is_packed(self._steps()[::-1])

    @property
    def dense(self) -> bool:
        """Tell whether the elements fill their span, each byte once, in whatever order."""
        return _is_packed(sorted(self._steps(), key=lambda step: step[1]))

    def _steps(self) -> list[tuple[int, int]]:
        """Return size and stride of the dimensions that matter: none of an empty tensor."""
        pairs = zip(self.sizes, self.strides, strict=True)
        return [] if 0 in self.sizes else [pair for pair in pairs if pair[0] > 1]


def _is_packed(steps: Sequence[tuple[int, int]]) -> bool:
    expected = 1
    for size, stride in steps:
        if stride != expected:
            return False
        expected *= size
    return True


def check_view(view: View, nbytes: int, *, where: str) -> None:
    """Check that *view* lies in a storage of *nbytes* bytes."""
    numbers = (view.offset, *view.sizes, *view.strides)
    if len(view.sizes) != len(view.strides):
        raise MalformedError("sizes and strides differ in number", where=where)
    if any(not 0 <= number <= MAX_BYTES for number in numbers):
        raise MalformedError("an offset, size or stride is negative or too large", where=where)
    if 0 not in view.sizes and view.begin + view.span > nbytes:
        what = f"reaches byte {view.begin + view.span} of a storage of {nbytes} bytes"
        raise MalformedError(what, where=where)


def check_turnable(view: View, *, where: str) -> None:
    """Raise UnreadableError where *view*, out of C order, is too large to be gathered."""
    if view.nbytes > MAX_TURNED or view.span > MAX_TURNED:
        what = f"out of C order and larger, or spread wider, than {MAX_TURNED} bytes"
        raise UnreadableError(what, where=where, hint=CONTIGUOUS)


def gathered(view: View, span: memoryview) -> memoryview:
    """Return the bytes of *view* in C order; *span* is the part of the storage that it spans."""
    items = np.frombuffer(span, f"u{view.item}" if view.item in _WORDS else f"V{view.item}")
    strided = _strided(items, view.sizes, view.strides)
    return np.ascontiguousarray(strided).reshape(-1).view(np.uint8).data


def _strided(
    data: NDArray[_Item], sizes: tuple[int, ...], strides: tuple[int, ...]
) -> NDArray[_Item]:
    """Return the view of *data* from its first element on; *strides* are in elements.

    numpy does not check that it stays inside *data*.
    """
    if sum((d - 1) * s for d, s in zip(sizes, strides, strict=True)) >= data.size:
        raise IndexError("the view leaves the data")
    return np.lib.stride_tricks.as_strided(data, sizes, tuple(s * data.itemsize for s in strides))


def unreached(
    views: Iterable[View],
    nbytes: int,
    read: Callable[[int, int], Iterator[memoryview]],
    *,
    where: str,
) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a storage of *nbytes* bytes that no view reaches; *read* gives them."""
    distinct = set(views)
    runs = [(view.begin, view.begin + view.span) for view in distinct if view.dense and view.span]
    sparse = [view for view in distinct if not view.dense]
    if sparse:
        low = min(view.begin for view in sparse)
        high = max(view.begin + view.span for view in sparse)
        if high - low > MAX_SPREAD:
            what = f"views with gaps are spread wider than {MAX_SPREAD} bytes"
            raise UnreadableError(what, where=where, hint=CONTIGUOUS)
        left = np.ones(high - low, np.bool_)
        for view in sparse:
            strides = (*(stride * view.item for stride in view.strides), 1)
            _strided(left[view.begin - low :], (*view.sizes, view.item), strides)[...] = False
        for begin, stop in runs:
            left[max(begin - low, 0) : max(stop - low, 0)] = False
        runs.append((low, high))
        place = 0
        for chunk in read(low, high) if left.any() else ():
            yield np.frombuffer(chunk, np.uint8)[left[place : place + len(chunk)]].tobytes()
            place += len(chunk)
    end = 0
    for begin, stop in [*sorted(runs), (nbytes, nbytes)]:
        if begin > end:
            yield from read(end, begin)
        end = max(end, stop)
