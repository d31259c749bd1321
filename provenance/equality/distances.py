"""The distance of two tensors, in one pass and constant memory, with a stated error bound.

Every element is widened to float64, exactly, and the arithmetic is float64:

- differences have one rounding each; sums of squares are numpy's pairwise sum over blocks of
  ``BLOCK`` elements, and the blocks' sums are added exactly (``math.fsum``). The blocks are fixed
  by position, so neither the size of reads nor the processor changes the result;
- where squares could leave float64's range, a block is scaled by a power of two first;
- ``RELATIVE_ERROR`` bounds the relative error of every norm and ratio, with room to spare: any
  order of summing a block gives at most ``(BLOCK + 8) * 2^-53``, under 2^-36, for the sum, and half
  of that for its root. A test of a limit adds it (:func:`at_most`).

Whether two elements are the same is told by their bits alone: -0 is not +0, NaN is NaN only with
the same payload. Elements of which one is NaN or infinite have no distance; where their bits
differ they are counted apart, and no limit admits them. Units of last place count the
representable values between two, -0 and +0 being two: bits as ordered unsigned integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from provenance.errors import UnavailableError, UsageError
from provenance.tensors.dtypes import codes, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from provenance.tensors.dtypes import DType
    from provenance.tensors.view import TensorFile

    Floats = NDArray[np.float64]
    Codes = NDArray[np.unsignedinteger[Any]]

BLOCK: Final = 2**16
"""Elements read and summed together: fewer cost more calls, more leave the caches."""

RELATIVE_ERROR: Final = 2.0**-36
"""Bound of the relative error of a norm or of a ratio of two."""

_SAFE_LOW: Final = 2.0**-400
_SAFE_HIGH: Final = 2.0**400
"""Between these, no square of a block's largest value leaves the range of normal numbers."""

_FOLD: Final = 4096
"""Block sums kept before they are added up."""


def at_most(value: float, limit: float) -> bool:
    """Tell whether *value* is certainly within *limit*: its error bound is added first."""
    return value * (1 + RELATIVE_ERROR) <= limit


@dataclass(frozen=True, slots=True)
class Norm:
    """L2 and L-infinity of a vector; the L2 norm is ``root * 2^exponent``."""

    largest: float
    root: float
    """From 0.5 to 1; 0 for a vector of zeros, infinite where a value is."""
    exponent: int

    @property
    def l2(self) -> float:
        """Return the L2 norm, infinite beyond float64."""
        try:
            return math.ldexp(self.root, self.exponent)
        except OverflowError:
            return math.inf

    def l2_ratio(self, base: Norm) -> float:
        """Return this L2 norm as a part of *base*'s, infinite beyond float64."""
        try:
            return math.ldexp(self.root / base.root, self.exponent - base.exponent)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be measured beside the bits that differ."""

    norms: bool = True
    """The tensors' own norms."""
    ulp: bool = False
    on_bytes: Callable[[int], None] | None = None
    """Told the bytes of each side as they are done."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one pass over two tensors found."""

    differing: int
    not_finite: int
    """Places whose bits differ and where one of both is NaN or infinite."""
    difference: Norm
    left: Norm | None
    right: Norm | None
    """None where not wanted."""
    left_update: Norm | None
    right_update: Norm | None
    """None without initial weights, or where these are not finite."""
    max_ulp: int | None


class _Sum:
    """Norms of a vector that arrives in blocks."""

    __slots__ = ("_largest", "_parts")

    def __init__(self) -> None:
        self._largest = 0.0
        self._parts: dict[int, list[float]] = {}

    def add(self, values: Floats, extent: float, scratch: Floats) -> None:
        """Add a block whose largest magnitude is *extent*."""
        if extent == 0:
            return
        if not math.isfinite(extent):
            self._largest = math.inf
            return
        self._largest = max(self._largest, extent)
        exponent = 0
        if _SAFE_LOW <= extent <= _SAFE_HIGH:
            np.square(values, out=scratch)
        else:
            exponent = math.frexp(extent)[1]
            np.ldexp(values, -exponent, out=scratch)
            np.square(scratch, out=scratch)
        parts = self._parts.setdefault(exponent, [])
        parts.append(float(np.add.reduce(scratch)))
        if len(parts) == _FOLD:
            parts[:] = [math.fsum(parts)]

    def norm(self) -> Norm:
        """Return the norms of all blocks."""
        if self._largest == math.inf:
            return Norm(math.inf, math.inf, 0)
        if not self._parts:
            return Norm(0.0, 0.0, 0)
        top = max(self._parts)
        total = math.fsum(
            math.ldexp(part, 2 * (exponent - top))
            for exponent, parts in self._parts.items()
            for part in parts
        )
        root, shift = math.frexp(math.sqrt(total))
        return Norm(self._largest, root, top + shift)


class _Meter:
    """The running measures of one pair of tensors."""

    def __init__(self, dtype: DType, wanted: Wanted, *, initial: bool) -> None:
        self._dtype = dtype
        self._norms = wanted.norms
        self._ulp = wanted.ulp
        self._initial_finite = initial
        # Scratch, taken once: the allocator gives freed blocks of this size back to the system.
        count = BLOCK * dtype.components
        self._floats = tuple(np.empty(count) for _ in range(5))
        self._keys = tuple(np.empty(count, codes(b"", dtype).dtype) for _ in range(2))
        self._difference, self._left, self._right = _Sum(), _Sum(), _Sum()
        self._left_update, self._right_update = _Sum(), _Sum()
        self._differing = 0
        self._not_finite = 0
        self._max_ulp = 0

    def add(self, left: memoryview, right: memoryview, initial: memoryview | None) -> None:
        """Add a block of at most ``BLOCK`` elements."""
        left_codes, right_codes = codes(left, self._dtype), codes(right, self._dtype)
        unequal: NDArray[np.bool_] = left_codes != right_codes
        if self._dtype.kind == "exact":
            self._differing += _elements(unequal, unequal.shape[1] if unequal.ndim > 1 else 1)
            return
        differing = _elements(unequal, self._dtype.components)
        self._differing += differing
        if not differing and not self._norms:
            return
        a, b, w, out, scratch = (buffer[: unequal.size] for buffer in self._floats)
        widen(left, self._dtype, a, scratch)
        widen(right, self._dtype, b, scratch)
        if initial is not None:
            widen(initial, self._dtype, w, scratch)
        extents = _extent(a), _extent(b)
        finite: NDArray[np.bool_] | None = None
        if not (math.isfinite(extents[0]) and math.isfinite(extents[1])):
            finite = np.logical_and(np.isfinite(a), np.isfinite(b))
            self._not_finite += int(np.count_nonzero(unequal & ~finite))
            for values in (a, b, w):
                values[~finite] = 0
            extents = _extent(a), _extent(b)
        if differing:
            _add_difference(self._difference, a, b, out, scratch)
            if self._ulp:
                self._add_ulp(left_codes, right_codes, finite)
        if self._norms:
            self._left.add(a, extents[0], scratch)
            self._right.add(b, extents[1], scratch)
        if initial is not None and self._initial_finite:
            self._add_updates(a, b, w, (out, scratch))

    def _add_updates(self, a: Floats, b: Floats, w: Floats, spare: tuple[Floats, Floats]) -> None:
        extents = (
            _add_difference(self._left_update, a, w, *spare),
            _add_difference(self._right_update, b, w, *spare),
        )
        if not all(map(math.isfinite, extents)) and not np.isfinite(w).all():
            self._initial_finite = False

    def _add_ulp(self, left: Codes, right: Codes, finite: NDArray[np.bool_] | None) -> None:
        a, b = (keys[: left.size] for keys in self._keys)
        _order(left, a)
        _order(right, b)
        apart = _apart(a, b)
        if finite is not None:
            apart[~finite] = 0
        self._max_ulp = max(self._max_ulp, int(np.maximum.reduce(apart)))

    def measured(self) -> Measured:
        """Return the measures of all blocks."""
        updates = self._initial_finite
        return Measured(
            differing=self._differing,
            not_finite=self._not_finite,
            difference=self._difference.norm(),
            left=self._left.norm() if self._norms else None,
            right=self._right.norm() if self._norms else None,
            left_update=self._left_update.norm() if updates else None,
            right_update=self._right_update.norm() if updates else None,
            max_ulp=self._max_ulp if self._ulp and self._dtype.kind != "exact" else None,
        )


def _elements(unequal: NDArray[np.bool_], width: int) -> int:
    """Count the elements, *width* places each, in which a place is unequal."""
    if width > 1:
        return int(np.count_nonzero(np.any(unequal.reshape(-1, width), axis=1)))
    return int(np.count_nonzero(unequal))


def _extent(values: Floats) -> float:
    """Return the largest magnitude; NaN if there is one."""
    return (
        max(float(np.maximum.reduce(values)), -float(np.minimum.reduce(values)))
        if values.size
        else 0.0
    )


def _add_difference(total: _Sum, a: Floats, b: Floats, out: Floats, scratch: Floats) -> float:
    """Add ``a - b`` to *total*, and return its largest magnitude."""
    np.subtract(a, b, out=out)
    extent = _extent(out)
    total.add(out, extent, scratch)
    return extent


def _order(bits: Codes, out: Codes) -> None:
    """Write sign-and-magnitude *bits* to *out* as unsigned integers in the order of the values."""
    top = bits.dtype.itemsize * 8 - 1
    signed = f"<i{bits.dtype.itemsize}"
    np.right_shift(bits.view(signed), top, out=out.view(signed))
    out |= bits.dtype.type(1 << top)  # all ones where the sign is set, else the sign bit
    out ^= bits


def _apart(a: Codes, b: Codes) -> Codes:
    """Return the distances of unsigned integers, which no unsigned type can overflow, in *b*."""
    less = np.minimum(a, b)
    np.maximum(a, b, out=b)
    b -= less
    return b


def check_arithmetic() -> None:
    """Check that this thread's float64 keeps subnormal numbers.

    A library built with ``-ffast-math`` may have set the processor to take them for zero, and
    then tensors that differ in them would have no distance.

    Raises:
        UnavailableError: it does not.
    """
    tiny = np.array([2.0**-149, 2.0**-140], dtype=np.float32)
    wide = tiny.astype(np.float64)
    least = np.array([2.0**-1074])
    if not (wide == (2.0**-149, 2.0**-140)).all() or not (least + least == 2.0**-1073).all():
        raise UnavailableError("the processor is set to take subnormal numbers for zero")


def measure(
    name: str,
    left: TensorFile,
    right: TensorFile,
    wanted: Wanted,
    *,
    initial: TensorFile | None = None,
) -> Measured:
    """Return how far the tensors *name* of *left* and *right* are apart.

    *initial* holds the weights that the updates start from.

    Raises:
        UsageError: the tensors are of two types or shapes.
        MalformedError: the bytes do not decode.
        UnreadableError: a file cannot be read.
        UnavailableError: see :func:`check_arithmetic`.
    """
    files = [left, right] if initial is None else [left, right, initial]
    infos = [file.tensors[name] for file in files]
    dtype = infos[0].dtype
    if any((info.dtype, info.shape) != (dtype, infos[0].shape) for info in infos):
        raise UsageError("tensors of two types or shapes have no distance", where=name)
    check_arithmetic()
    meter = _Meter(dtype, wanted, initial=initial is not None)
    streams = [file.chunks(name, BLOCK) for file in files]
    with np.errstate(all="ignore"):
        for blocks in zip(*streams, strict=True):
            meter.add(blocks[0], blocks[1], blocks[2] if initial is not None else None)
            if wanted.on_bytes is not None:
                wanted.on_bytes(len(blocks[0]))
    return meter.measured()
