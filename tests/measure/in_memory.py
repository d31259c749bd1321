"""Weight files without a file, and arrays of any bits for every type that has distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.measure.distances import Job, measure_each
from provenance.measure.pieces import Workers
from provenance.weights.dtypes import DTYPES, NUMPY
from provenance.weights.view import TensorFile, TensorInfo, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provenance.measure.distances import Measured, Wanted

Array = np.ndarray[Any, Any]

COMPONENTS: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "F8_E3M4": ml_dtypes.float8_e3m4,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3_IEEE": ml_dtypes.float8_e4m3,
    "F8_E4M3B11FNUZ": ml_dtypes.float8_e4m3b11fnuz,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "C32": "<f2",
    "BC32": ml_dtypes.bfloat16,
    "C64": "<f4",
    "C128": "<f8",
}
"""Every type that has distances, and numpy's type of its values (of their parts)."""


class InMemory(TensorFile):
    """A weight file of one tensor, ``t``."""

    format = "memory"

    def __init__(self, array: Array, dtype: str, shape: tuple[int, ...] | None = None) -> None:
        self._raw = array.tobytes()
        info = describe("t", dtype, array.shape if shape is None else shape, where="memory")
        assert info.nbytes == len(self._raw)
        self.tensors: dict[str, TensorInfo] = {"t": info}

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        assert name in self.tensors
        buffer = bytearray(step)  # one, so that a chunk that is kept shows another's bytes
        for place in range(begin, end, step):
            part = self._raw[place : min(place + step, end)]
            buffer[: len(part)] = part
            yield memoryview(buffer)[: len(part)]


def of_array(array: Array) -> InMemory:
    """Return *array*, whose type is one of numpy's own or bfloat16."""
    names = {np.dtype(code).name: name for name, code in NUMPY.items()} | {"bfloat16": "BF16"}
    return InMemory(array, names[array.dtype.name])


def in_memory(values: Array, dtype: str) -> InMemory:
    """Return the vector of elements whose parts are *values*."""
    return InMemory(values, dtype, (values.size // DTYPES[dtype].components,))


def arrays(
    dtype: str, others: int = 1, elements: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[tuple[Array, ...]]:
    """Return arrays of one length, of any bits: one, and *others* that share some of its bits."""
    width = np.dtype(COMPONENTS[dtype]).itemsize
    size = elements if elements is not None else st.integers(0, 6)

    def several(count: int) -> st.SearchStrategy[tuple[Array, ...]]:
        codes = hnp.arrays(f"<u{width}", count * DTYPES[dtype].components)
        return codes.flatmap(
            lambda first: st.tuples(
                st.just(first), *[codes | codes.map(lambda flip: first ^ (flip & 1))] * others
            )
        )

    return size.flatmap(several).map(
        lambda found: tuple(array.view(COMPONENTS[dtype]) for array in found)
    )


def measure(
    name: str,
    left: TensorFile,
    right: TensorFile,
    wanted: Wanted,
    *,
    initial: TensorFile | None = None,
) -> Measured:
    """Return how far the tensors *name* of *left* and *right* are apart."""
    files = [left, right, *([initial] if initial is not None else [])]
    job = Job(name, files, [(0, 1)], initial=initial is not None)
    with Workers(wanted.threads, left.tensors[name].nbytes) as workers:
        (((found, _),),) = measure_each([job], wanted, workers)
    return found
