"""The measures of whole blocks in one pass over their bits, compiled by numba (the extra ``fast``).

numpy makes a pass over memory for each operation and takes the interpreter's lock between them;
here a block is read once, without the lock. The functions below are Python that numba compiles to
vector instructions: no loop carries a value from one column to the next, since floats are added
lane by lane (see :mod:`~provenance.equality.norms`). Nothing is relaxed: no ``fastmath``, so each
operation is the one IEEE 754 rounding that numpy's is, and the lanes have the same bits.

A block that needs more than the usual (NaN, infinities, squares out of range) is told by its sums
and left to numpy: what is returned of it means nothing.

Compiled code is not kept on disk. numba's cache is a pickle that the next process would run, in a
folder that need not be the package's; compiling takes about half a second for each type of floats
and is for large tensors alone.

Arrays of a chunk have the axes block, row and lane: bit patterns as unsigned integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from provenance.equality.norms import LANES
from provenance.errors import UnavailableError
from provenance.tensors.dtypes import codes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from provenance.equality.norms import Floats
    from provenance.tensors.dtypes import DType

    Codes = NDArray[np.unsignedinteger[Any]]
    Compiled = Callable[..., None]
    Widen = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Kernel:
    """The compiled functions for a type of floats; each is compiled when it is first called."""

    count: Compiled
    """``count(left, right, differing, least)``: of each block the number of elements whose bits
    differ, and the least of both sides' bits together without the sign: zero where both are zero
    somewhere."""
    square: Compiled
    """``square(left, right, sums, largest)``: of each block the lanes' sums of squares, and their
    largest squares: the difference, left, right."""
    square_updates: Compiled
    """``square_updates(left, right, initial, sums, largest)``: the same, and both updates."""
    apart: Compiled
    """``apart(left, right, most)``: of each block the most units of last place."""


def is_installed() -> bool:
    """Tell whether numba is there, without importing it."""
    return find_spec("numba") is not None


def has_kernel(dtype: DType) -> bool:
    """Tell whether there are compiled functions for *dtype*: single floats of two bytes or more."""
    return dtype.name in _WIDEN


def in_blocks(chunk: memoryview, dtype: DType, block: int) -> Codes:
    """Return the bits of *chunk*, whole blocks of *block* elements, by block, row and lane."""
    found = codes(chunk, dtype).reshape(-1, block // LANES, LANES)
    found.flags.writeable = False  # of bytes or of a buffer: one type, compiled once
    return found


@lru_cache(maxsize=8)
def kernel_for(dtype: DType) -> Kernel:
    """Return the functions for *dtype*.

    Raises:
        UnavailableError: numba is missing or does not work with this Python or numpy.
    """
    try:
        from numba import njit  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise UnavailableError(
            f"the compiled comparison needs the extra 'fast': {error}"
        ) from error
    compiled = njit(nogil=True, error_model="numpy")
    widen = compiled(_WIDEN[dtype.name])
    top = np.dtype(f"u{dtype.bits // 8}").type(1 << (dtype.bits - 1))
    return Kernel(
        count=compiled(_count),
        square=compiled(_square(widen)),
        square_updates=compiled(_square_updates(widen)),
        apart=compiled(_apart(top)),
    )


def _widen_bfloat16(code: Any) -> Any:  # noqa: ANN401 - a scalar of numba
    return np.float64(np.uint32(code << np.uint32(16)).view(np.float32))


def _widen_float16(code: Any) -> Any:  # noqa: ANN401
    """Widen by moving exponent and mantissa to a float32's place, and its bias by a product."""
    magnitude = code & np.uint32(0x7FFF)
    value = np.float64(np.uint32(magnitude << np.uint32(13)).view(np.float32)) * 2.0**112
    if magnitude >= np.uint32(0x7C00):  # NaN or infinite: either leaves the block to numpy
        value = np.inf
    return -value if code >= np.uint32(0x8000) else value


def _widen_float32(code: Any) -> Any:  # noqa: ANN401
    return np.float64(np.uint32(code).view(np.float32))


def _widen_float64(code: Any) -> Any:  # noqa: ANN401
    return np.uint64(code).view(np.float64)


_WIDEN: Final[Mapping[str, Widen]] = MappingProxyType(
    {
        "BF16": _widen_bfloat16,
        "F16": _widen_float16,
        "F32": _widen_float32,
        "F64": _widen_float64,
    }
)


def _square(widen: Widen) -> Compiled:
    def square(left: Codes, right: Codes, sums: Floats, largest: Floats) -> int:
        moved = 0
        for block in range(left.shape[0]):
            for row in range(left.shape[1]):
                for lane in range(LANES):
                    a, b = widen(left[block, row, lane]), widen(right[block, row, lane])
                    d = a - b
                    moved += d != 0
                    d, a, b = d * d, a * a, b * b
                    sums[0, block, lane] += d
                    sums[1, block, lane] += a
                    sums[2, block, lane] += b
                    largest[0, block, lane] = max(largest[0, block, lane], d)
                    largest[1, block, lane] = max(largest[1, block, lane], a)
                    largest[2, block, lane] = max(largest[2, block, lane], b)
        return moved

    return square


def _square_updates(widen: Widen) -> Compiled:
    def square_updates(
        left: Codes, right: Codes, initial: Codes, sums: Floats, largest: Floats
    ) -> int:
        moved = 0
        for block in range(left.shape[0]):
            for row in range(left.shape[1]):
                for lane in range(LANES):
                    a, b = widen(left[block, row, lane]), widen(right[block, row, lane])
                    start = widen(initial[block, row, lane])
                    d, u, v = a - b, a - start, b - start
                    moved += d != 0
                    d, a, b, u, v = d * d, a * a, b * b, u * u, v * v
                    sums[0, block, lane] += d
                    sums[1, block, lane] += a
                    sums[2, block, lane] += b
                    sums[3, block, lane] += u
                    sums[4, block, lane] += v
                    largest[0, block, lane] = max(largest[0, block, lane], d)
                    largest[1, block, lane] = max(largest[1, block, lane], a)
                    largest[2, block, lane] = max(largest[2, block, lane], b)
                    largest[3, block, lane] = max(largest[3, block, lane], u)
                    largest[4, block, lane] = max(largest[4, block, lane], v)
        return moved

    return square_updates


def _apart(top) -> Compiled:
    ones = np.uint64(2 * int(top) - 1)
    top = np.uint64(top)
    def apart(left: Codes, right: Codes) -> int:
        most = np.uint64(0)
        for block in range(left.shape[0]):
            for row in range(left.shape[1]):
                for lane in range(LANES):
                    one, other = np.uint64(left[block, row, lane]), np.uint64(right[block, row, lane])
                    one ^= ones if one & top else top
                    other ^= ones if other & top else top
                    gap = one - other if one > other else other - one
                    most = max(most, gap)
        return most

    return apart
