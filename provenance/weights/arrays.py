"""Arrays in memory behind the view of a weight file: what a model answered to probes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from provenance.errors import MalformedError
from provenance.weights.dtypes import NUMPY
from provenance.weights.view import TensorInfo, check_count, check_name, describe, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {np.dtype(code).name: name for name, code in NUMPY.items()} | {"bfloat16": "BF16"}
)


class ArraysFile:
    """Arrays by name. See :class:`~provenance.weights.view.TensorFile`."""

    format = "arrays"
    aliases: tuple[tuple[str, ...], ...] = ()
    direct = True

    def __init__(self, arrays: Mapping[str, NDArray[Any]], *, where: str) -> None:
        """Hold *arrays*; errors call them *where*.

        Raises:
            MalformedError: one is of a type that has no name here.
        """
        check_count(len(arrays), where=where)
        self._raw: dict[str, memoryview] = {}
        tensors: dict[str, TensorInfo] = {}
        for name, array in arrays.items():
            dtype = _DTYPES.get(array.dtype.name)
            if dtype is None:
                raise MalformedError(f"{array.dtype} is no type of tensors", where=where)
            check_name(name, where=where)
            tensors[name] = describe(name, dtype, array.shape, where=f"{where}: {name}")
            flat = np.ascontiguousarray(array).reshape(-1)
            if flat.dtype.byteorder == ">":
                flat = flat.astype(flat.dtype.newbyteorder("<"))
            self._raw[name] = flat.view(np.uint8).data
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self.container: Mapping[str, str] = MappingProxyType({})

    def chunks(
        self, name: str, elements: int, start: int = 0, stop: int | None = None
    ) -> Iterator[memoryview]:
        """Yield the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.chunks`."""
        info = self.tensors[name]
        begin, end = part_of(info, start, stop)
        step = info.dtype.nbytes(elements)
        for place in range(begin, end, step):
            yield self._raw[name][place : min(place + step, end)]

    def check_unchanged(self) -> None:
        """Do nothing: nobody else has them."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
