"""Rounding of floats to a narrower type, once, and two tensors compared after it (P2).

A conversion through a third type rounds twice and can differ: float64 to bfloat16 through float32
turns ``1 + 2^-8 + 2^-40`` into 1, where one rounding gives ``1 + 2^-7``. Here a bit pattern becomes
another by integer arithmetic alone; docs/spec/equality.md, "Rounding", says how. Targets: the
narrower ones of F32, F16, BF16 and the eight-bit floats; formats as in the sources that
:mod:`~provenance.weights.dtypes` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from provenance.errors import UsageError
from provenance.measure.pieces import BLOCK, place_in
from provenance.measure.squares import Bits, Codes
from provenance.weights.dtypes import Buffer, DType, codes
from provenance.weights.view import TensorFile


@dataclass(frozen=True, slots=True)
class Layout:
    """A binary float format: sign, exponent with a bias, mantissa."""

    mantissa: int
    """Bits after the point."""
    bias: int
    largest: int
    """Code of the largest finite value."""
    infinity: bool = False
    """Whether the code after the largest is infinity."""
    negative_zero: bool = True


LAYOUTS: Final[Mapping[str, Layout]] = {
    "F64": Layout(52, 1023, 0x7FEF_FFFF_FFFF_FFFF, infinity=True),
    "F32": Layout(23, 127, 0x7F7F_FFFF, infinity=True),
    "F16": Layout(10, 15, 0x7BFF, infinity=True),
    "BF16": Layout(7, 127, 0x7F7F, infinity=True),
    "F8_E3M4": Layout(4, 3, 0x6F, infinity=True),
    "F8_E4M3": Layout(3, 7, 0x7E),
    "F8_E4M3_IEEE": Layout(3, 7, 0x77, infinity=True),
    "F8_E4M3B11FNUZ": Layout(3, 11, 0x7F, negative_zero=False),
    "F8_E4M3FNUZ": Layout(3, 8, 0x7F, negative_zero=False),
    "F8_E5M2": Layout(2, 15, 0x7B, infinity=True),
    "F8_E5M2FNUZ": Layout(2, 16, 0x7F, negative_zero=False),
}
"""The float types by name."""

_RANKS: Final[Mapping[str, int]] = {"F64": 0, "F32": 1, "F16": 2, "BF16": 2}
"""The types that values are rounded from; a type of a higher rank, or of none, is narrower."""


class RoundedCodes(NamedTuple):
    """Values, rounded."""

    codes: Codes
    """In the target type; zero where there is no counterpart."""
    overflow: Bits
    nan: Bits


@dataclass(frozen=True, slots=True)
class Rounding:
    """Two tensors, compared after rounding."""

    differing: int
    """Elements that are not the same after rounding: those of other codes, those without a code on
    either side, and NaN of which the bits before rounding are not the same."""
    overflow: int
    """Elements beyond the target's range on either side."""
    nan: int
    """Elements with NaN on either side."""
    zero_signs: int
    """Elements of ``differing`` whose codes are zeros of two signs."""
    lost: int
    """Elements that are not zero, and of which rounding leaves no digit on either side: they become
    zero, or the target's least number."""
    nonzero: int
    """Elements that are not zero on both sides."""
    first: tuple[int, ...] | None
    """Place of the first element that differs."""
    first_value: tuple[int, ...] | None
    """The same, zeros of two signs not counted."""


def is_narrower(target: DType, source: DType) -> bool:
    """Tell whether values of *source* can be rounded to *target*."""
    rank = _RANKS.get(target.name, len(_RANKS))
    return target.name in LAYOUTS and rank > _RANKS.get(source.name, rank)


def round_codes(raw: Buffer, source: DType, target: DType) -> RoundedCodes:
    """Return the values in *raw*, of the type *source*, rounded to *target*, a narrower float."""
    if not is_narrower(target, source):
        raise UsageError(f"{source.name} is not rounded to {target.name}")
    bits, wide = codes(raw, source), "F64" if source.name == "F64" else "F32"
    if source.name == "F16":
        bits = bits.view("<f2").astype("<f4").view("<u4")
    elif source.name == "BF16":
        bits = bits.astype("<u4") << np.uint32(16)
    kind, to = LAYOUTS[wide], LAYOUTS[target.name]
    whole = bits.dtype.type
    top = whole(bits.dtype.itemsize * 8 - 1)
    magnitude = bits & ~(whole(1) << top)
    nan: Bits = magnitude > whole(kind.largest + 1)
    infinite: Bits = magnitude == whole(kind.largest + 1)
    found = _rounded_magnitudes(magnitude, kind, to)
    overflow: Bits = found > whole(to.largest)
    if to.infinity:
        found[infinite] = to.largest + 1
        overflow &= ~infinite
    overflow &= ~nan
    sign = (bits >> top) << whole(target.bits - 1)
    if not to.negative_zero:
        sign[found == 0] = 0
    found |= sign
    found[overflow | nan] = 0
    return RoundedCodes(found.astype(f"<u{target.bits // 8}"), overflow, nan)


def _rounded_magnitudes(magnitude: Codes, source: Layout, target: Layout) -> Codes:
    """Return *magnitude*, codes without signs, rounded; codes beyond the largest mean overflow.

    A finite value is ``significand * 2^(exponent - bias - mantissa)`` with an exponent of at least
    1. In the target the least exponent is higher by *lift* at most, so more bits are dropped.
    """
    whole = magnitude.dtype.type
    exponent = magnitude >> whole(source.mantissa)
    significand = magnitude & whole((1 << source.mantissa) - 1)
    significand |= np.minimum(exponent, whole(1)) << whole(source.mantissa)
    exponent = np.maximum(exponent, whole(1))
    lift = whole(source.bias - target.bias + 1)
    least = np.maximum(exponent, lift)
    # From two bits more than the significand has on, what is left is zero.
    most = whole(source.mantissa + 2)
    dropped = np.minimum(least - exponent + whole(source.mantissa - target.mantissa), most)
    odd = (significand >> dropped) & whole(1)
    significand += (whole(1) << (dropped - whole(1))) - whole(1) + odd
    significand >>= dropped
    # The hidden bit of a normal number, and a carry out of the mantissa, raise the exponent by one.
    significand += (least - lift) << whole(target.mantissa)
    return significand


class Rounded:
    """The running comparison of one pair of tensors, or of a part of it, after rounding."""

    def __init__(self, source: DType, target: DType) -> None:
        """Begin with nothing: elements of the type *source* are rounded to *target*."""
        self._types = source, target
        self._counts = [0] * 6
        self._firsts: list[tuple[int | None, int | None]] = [(None, None)]

    def add(self, start: int, left: Buffer, right: Buffer) -> None:
        """Add a chunk that begins at the element *start*."""
        one, other = (round_codes(chunk, *self._types) for chunk in (left, right))
        overflow = one.overflow | other.overflow
        nan = one.nan | other.nan
        before = [codes(chunk, self._types[0]) for chunk in (left, right)]
        unequal: Bits = one.codes != other.codes
        unequal |= nan & (before[0] != before[1])
        unequal |= overflow
        both = (one.codes | other.codes) << one.codes.dtype.type(1)
        zero_signs: Bits = unequal & (both == 0) & ~overflow & ~nan
        nonzero = ((before[0] | before[1]) << before[0].dtype.type(1)) != 0
        lost = nonzero & (both <= both.dtype.type(2)) & ~overflow & ~nan
        marked = (unequal, overflow, nan, zero_signs, lost, nonzero)
        counts = [int(np.count_nonzero(each)) for each in marked]
        self._counts = list(map(sum, zip(self._counts, counts, strict=True)))
        self._firsts.append((_first(unequal, start), _first(unequal & ~zero_signs, start)))

    def merge(self, other: Rounded) -> None:
        """Add another part of the tensor."""
        self._counts = list(map(sum, zip(self._counts, other._counts, strict=True)))
        self._firsts += other._firsts

    def rounding(self, shape: tuple[int, ...]) -> Rounding:
        """Return what was found of the tensor of this *shape*."""
        firsts = [
            min((place for place in places if place is not None), default=None)
            for places in zip(*self._firsts, strict=True)
        ]
        first, value = (place_in(shape, place) for place in firsts)
        differing, overflow, nan, zero_signs, lost, nonzero = self._counts
        return Rounding(differing, overflow, nan, zero_signs, lost, nonzero, first, value)


def is_rounding(name: str, target: DType, wide: TensorFile, narrow: TensorFile) -> bool:
    """Tell whether the tensor *name* of *narrow* is that of *wide*, rounded to *target*."""
    info, shipped = wide.tensors[name], narrow.tensors.get(name)
    if shipped is None or (shipped.dtype, shipped.shape) != (target, info.shape):
        return False
    for raw, codes_there in zip(wide.chunks(name, BLOCK), narrow.chunks(name, BLOCK), strict=True):
        found = round_codes(raw, info.dtype, target)
        if ((found.codes != codes(codes_there, target)) | found.overflow | found.nan).any():
            return False
    return True


def _first(marked: Bits, start: int) -> int | None:
    return start + int(np.argmax(marked)) if marked.any() else None
