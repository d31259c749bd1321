"""The measures of whole blocks in one pass over their bits, compiled by LLVM (the extra ``fast``).

numpy makes a pass over memory for each operation and takes the interpreter's lock between them;
here a block is read once, without the lock. The program is written below in LLVM's intermediate
representation (llvm.org/docs/LangRef), in vectors of ``WIDTH`` floats, of which LLVM makes the
instructions of this processor in about ten milliseconds. A vector holds neighbouring lanes (see
:mod:`~provenance.measure.norms`), so no float is carried from one place of it to another. No
operation has a fast-math flag: each has the one rounding of IEEE 754 that numpy's has, and sums
have the same bits. Nothing compiled is kept on disk.

What is not usual (NaN, infinities, squares out of range) shows in the sums and is for numpy;
whatever else is returned of it means nothing.

Types: F16, BF16, F32 and F64, little-endian machines. llvmlite before 0.45 has an LLVM without the
pointers that are used here.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from string import Template
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from provenance.errors import UnavailableError, UsageError
from provenance.measure.norms import LANES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from provenance.measure.norms import Floats
    from provenance.weights.dtypes import DType

    Codes = NDArray[np.unsignedinteger[Any]]

WIDTH: Final = 16
"""Floats in a vector of the program, a divisor of ``LANES``: two registers of AVX-512, four of
AVX2. LLVM cuts it to what the processor has."""

_SIDES: Final = ("left", "right", "initial")


@dataclass(frozen=True, slots=True)
class Squares:
    """What the blocks of a chunk add, by vector, block and lane.

    Vectors are the difference, left, right, and with initial weights both updates.
    """

    sums: Floats
    largest: Floats
    """The largest square; NaN is passed over."""
    moved: int
    """Elements whose values differ."""


class Kernel:
    """The compiled functions for a type of floats."""

    def __init__(self, dtype: DType) -> None:
        """Compile for *dtype*.

        Raises:
            UnavailableError: llvmlite is missing or too old, or fails on this machine.
        """
        self._bits = dtype.bits
        self._engine, functions = _compiled(_program(dtype))
        self._square, self._square_updates, self._apart = functions

    def square(self, sides: Sequence[Codes], block: int) -> Squares:
        """Return the squares of *sides*, in blocks of *block* elements.

        *sides* are the bits of left, right, and initial if there is: whole blocks, one size.
        """
        number = self._check(sides, block) // block
        updates = len(sides) == len(_SIDES)
        found = np.zeros((2, 5 if updates else 3, number, LANES))
        moved = np.zeros(LANES, np.uint64)
        function = self._square_updates if updates else self._square
        function(*map(_pointer, (*sides, *found, moved)), sides[0].size, block, number * LANES)
        return Squares(found[0], found[1], int(np.add.reduce(moved)))

    def apart(self, left: Codes, right: Codes) -> int:
        """Return the most units of last place by which elements are apart."""
        self._check((left, right), LANES)
        most = np.zeros(WIDTH, left.dtype)
        self._apart(_pointer(left), _pointer(right), _pointer(most), left.size)
        return int(np.maximum.reduce(most))

    def _check(self, sides: Sequence[Codes], block: int) -> int:
        """Return the number of elements: the program reads and writes without asking again."""
        size = sides[0].size
        fit = all(
            side.size == size and side.flags.c_contiguous and side.itemsize * 8 == self._bits
            for side in sides
        )
        if not fit or not size or size % block or block % LANES:
            raise UsageError("the kernel measures whole blocks of one type and size")
        return size


def is_installed() -> bool:
    """Tell whether compiling is possible, without loading what compiles."""
    return sys.byteorder == "little" and find_spec("llvmlite") is not None


def has_kernel(dtype: DType) -> bool:
    """Tell whether there is a kernel for *dtype*."""
    return dtype.name in _WIDEN


@lru_cache(maxsize=4)
def kernel_for(dtype: DType) -> Kernel:
    """Return the kernel for *dtype*. See :class:`Kernel`."""
    return Kernel(dtype)


def _pointer(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _compiled(program: str) -> tuple[object, list[Callable[..., None]]]:
    """Return what owns the code of *program*, and its functions.

    A difference in what LLVM is told of the processor changes no result.
    """
    try:
        from llvmlite import binding as llvm  # noqa: PLC0415 - an extra

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        module = llvm.parse_assembly(program)
        module.verify()
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
    except (ImportError, OSError, RuntimeError) as error:
        raise UnavailableError(f"the extra 'fast' cannot be used: {error}") from error
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    kinds = {
        "square": [pointer] * 5 + [count] * 3,
        "square_updates": [pointer] * 6 + [count] * 3,
        "apart": [pointer] * 3 + [count],
    }
    return engine, [
        ctypes.CFUNCTYPE(None, *kind)(engine.get_function_address(name))
        for name, kind in kinds.items()
    ]


# ------------------------------------------------------------------------------------ the program

_WIDEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        # bfloat16 is the upper half of a float32.
        "BF16": """
          %$side.wide = zext <$width x i16> %$side.bits to <$width x i32>
          %$side.high = shl <$width x i32> %$side.wide, splat (i32 16)
          %$side.single = bitcast <$width x i32> %$side.high to <$width x float>
          %$side = fpext <$width x float> %$side.single to <$width x double>
        """,
        # The magnitude moves to a float32's place, and 2^112 mends the bias. Infinities, and NaN
        # with them, have the magnitudes from 0x7C00 on.
        "F16": """
          %$side.wide = zext <$width x i16> %$side.bits to <$width x i32>
          %$side.magnitude = and <$width x i32> %$side.wide, splat (i32 u0x7FFF)
          %$side.moved = shl <$width x i32> %$side.magnitude, splat (i32 13)
          %$side.single = bitcast <$width x i32> %$side.moved to <$width x float>
          %$side.double = fpext <$width x float> %$side.single to <$width x double>
          %$side.finite = fmul <$width x double> %$side.double, splat (double 0x46F0000000000000)
          %$side.over = icmp uge <$width x i32> %$side.magnitude, splat (i32 u0x7C00)
          %$side.value = select <$width x i1> %$side.over,
            <$width x double> splat (double 0x7FF0000000000000), <$width x double> %$side.finite
          %$side.opposite = fneg <$width x double> %$side.value
          %$side.negative = icmp ugt <$width x i32> %$side.wide, splat (i32 u0x7FFF)
          %$side = select <$width x i1> %$side.negative,
            <$width x double> %$side.opposite, <$width x double> %$side.value
        """,
        "F32": """
          %$side.single = bitcast <$width x i32> %$side.bits to <$width x float>
          %$side = fpext <$width x float> %$side.single to <$width x double>
        """,
        "F64": """
          %$side = bitcast <$width x i64> %$side.bits to <$width x double>
        """,
    }
)
"""How the bits of ``%side.bits`` become the floats ``%side``, exactly, by type."""

_LOAD: Final = """
  %$side.at = getelementptr i$bits, ptr %$side.bytes, i64 %index
  %$side.bits = load <$width x i$bits>, ptr %$side.at, align 1
"""

_SUBTRACT: Final = """
  %$vector = fsub <$width x double> %$one, %$other
"""

_SQUARE: Final = """
  %$vector.first = mul i64 %stride, $number
  %$vector.place = add i64 %$vector.first, %place
  %$vector.square = fmul <$width x double> %$vector, %$vector
  %$vector.sums = getelementptr double, ptr %sums, i64 %$vector.place
  %$vector.sum = load <$width x double>, ptr %$vector.sums, align 8
  %$vector.more = fadd <$width x double> %$vector.sum, %$vector.square
  store <$width x double> %$vector.more, ptr %$vector.sums, align 8
  %$vector.most = getelementptr double, ptr %largest, i64 %$vector.place
  %$vector.old = load <$width x double>, ptr %$vector.most, align 8
  %$vector.above = fcmp ogt <$width x double> %$vector.square, %$vector.old
  %$vector.new = select <$width x i1> %$vector.above,
    <$width x double> %$vector.square, <$width x double> %$vector.old
  store <$width x double> %$vector.new, ptr %$vector.most, align 8
"""

_SQUARES: Final = """
define void @$name($pointers, ptr noalias %sums, ptr noalias %largest, ptr noalias %moved,
                   i64 %count, i64 %block, i64 %stride) {
entry:
  br label %block.begins
block.begins:
  %begin = phi i64 [ 0, %entry ], [ %end, %block.ends ]
  %before = phi i64 [ 0, %entry ], [ %after, %block.ends ]
  %end = add i64 %begin, %block
  br label %loop
loop:
  %index = phi i64 [ %begin, %block.begins ], [ %next, %loop ]
  %lane = urem i64 %index, $lanes
  %place = add i64 %before, %lane
  $body
  %differs = fcmp une <$width x double> %left, %right
  %one = zext <$width x i1> %differs to <$width x i64>
  %counts = getelementptr i64, ptr %moved, i64 %lane
  %some = load <$width x i64>, ptr %counts, align 8
  %all = add <$width x i64> %some, %one
  store <$width x i64> %all, ptr %counts, align 8
  %next = add i64 %index, $width
  %again = icmp ult i64 %next, %end
  br i1 %again, label %loop, label %block.ends
block.ends:
  %after = add i64 %before, $lanes
  %more = icmp ult i64 %end, %count
  br i1 %more, label %block.begins, label %done
done:
  ret void
}
"""
"""A loop over blocks, and in it one over vectors. A block begins at the first lane."""

_ORDER: Final = """
  %$side.sign = ashr <$width x i$bits> %$side.bits, splat (i$bits $shift)
  %$side.mask = or <$width x i$bits> %$side.sign, splat (i$bits $top)
  %$side = xor <$width x i$bits> %$side.bits, %$side.mask
"""
"""Bits of sign and magnitude as unsigned integers in the order of the values."""

_APART: Final = """
define void @apart($pointers, ptr noalias %most, i64 %count) {
entry:
  br label %loop
loop:
  %index = phi i64 [ 0, %entry ], [ %next, %loop ]
  %old = phi <$width x i$bits> [ zeroinitializer, %entry ], [ %new, %loop ]
  $body
  %less = icmp ult <$width x i$bits> %left, %right
  %up = sub <$width x i$bits> %right, %left
  %down = sub <$width x i$bits> %left, %right
  %gap = select <$width x i1> %less, <$width x i$bits> %up, <$width x i$bits> %down
  %above = icmp ugt <$width x i$bits> %gap, %old
  %new = select <$width x i1> %above, <$width x i$bits> %gap, <$width x i$bits> %old
  %next = add i64 %index, $width
  %again = icmp ult i64 %next, %count
  br i1 %again, label %loop, label %done
done:
  store <$width x i$bits> %new, ptr %most, align 1
  ret void
}
"""


def _program(dtype: DType) -> str:
    """Return the functions for *dtype*, in LLVM's intermediate representation."""
    fixed = {"width": WIDTH, "lanes": LANES, "bits": dtype.bits}
    fixed |= {"shift": dtype.bits - 1, "top": 1 << (dtype.bits - 1)}

    def fill(text: str, **names: object) -> str:
        return Template(text).substitute(fixed | names)

    def function(text: str, sides: tuple[str, ...], body: str, **names: object) -> str:
        pointers = ", ".join(f"ptr noalias %{side}.bytes" for side in sides)
        loads = "".join(fill(_LOAD, side=side) for side in sides)
        return fill(text, pointers=pointers, body=loads + body, **names)

    def squares(name: str, sides: tuple[str, ...], updates: tuple[str, ...]) -> str:
        body = "".join(fill(_WIDEN[dtype.name], side=side) for side in sides)
        body += fill(_SUBTRACT, vector="difference", one="left", other="right")
        for side in updates:
            body += fill(_SUBTRACT, vector=f"{side}.update", one=side, other="initial")
        vectors = "difference", "left", "right", *(f"{side}.update" for side in updates)
        for number, vector in enumerate(vectors):
            body += fill(_SQUARE, vector=vector, number=number)
        return function(_SQUARES, sides, body, name=name)

    order = "".join(fill(_ORDER, side=side) for side in _SIDES[:2])
    return (
        squares("square", _SIDES[:2], ())
        + squares("square_updates", _SIDES, _SIDES[:2])
        + function(_APART, _SIDES[:2], order)
    )
