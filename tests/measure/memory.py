"""Arrays as an open weight file, without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import ml_dtypes

from provenance.weights.dtypes import DTYPES
from provenance.weights.view import TensorInfo, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

    Array = np.ndarray[Any, Any]

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16",
    "uint16": "U16", "int32": "I32", "uint32": "U32", "int64": "I64", "uint64": "U64",
    "complex64": "C64", "int4": "I4",
}  # fmt: skip
BFLOAT16: Any = ml_dtypes.bfloat16


class InMemory:
    """The arrays of a weight file."""

    format = "memory"
    aliases: tuple[tuple[str, ...], ...] = ()
    direct = True
    metadata: Mapping[str, str] = {}
    container: Mapping[str, str] = {}

    def __init__(self, **arrays: Array) -> None:
        self._raw = {name: array.tobytes() for name, array in arrays.items()}
        self.tensors = {
            name: TensorInfo(
                name, DTYPES[_NAMES[array.dtype.name]], array.shape, array.size, array.nbytes
            )
            for name, array in arrays.items()
        }

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        step = info.dtype.nbytes(elements)
        buffer = bytearray(step)  # one, so that a chunk that is kept shows another's bytes
        for place in range(begin, end, step):
            part = self._raw[name][place : min(place + step, end)]
            buffer[: len(part)] = part
            yield memoryview(buffer)[: len(part)]

    def check_unchanged(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
