"""An ONNX model run on probes, always in the same way.

onnxruntime (extra ``onnx``) runs on the processor alone, with one thread, one operator after the
other, and no optimisation of the graph (``ORT_DISABLE_ALL``): what is run is the graph that the
file says, and on one machine the same model gives the same bits each time. Between processors and
versions of onnxruntime outputs differ by rounding. No library of custom operators is loaded.

The model is read strictly first (:mod:`~provenance.weights.onnx.model`) and copied, with the files
beside it and the probes, into one unnamed file: what runs is what was hashed, and nothing is left
behind. It runs in a process of its own with limits (:mod:`~provenance.weights.isolated`), which is
no sandbox.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from contextlib import closing
from math import prod
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from provenance.errors import MalformedError, UnreadableError, UsageError
from provenance.weights.dtypes import DTYPES, NUMPY
from provenance.weights.isolated import Isolated, Limits
from provenance.weights.onnx.model import OnnxFile
from provenance.weights.view import TensorFile

SECONDS: Final = 600
"""Processor time for all probes of one model."""

_MEMORY: Final = (2**32, 4, 2**34)
"""Address space: so much, and so many times the model, and no more. The libraries map some 350 MB;
a model is held as its file, as its message, as its tensors, and as these are packed for use."""

MAX_PROBES: Final = 2**28
"""Most bytes of all probes."""

_CHILD: Final = Path(__file__).with_name("onnx_child.py")
_STEP: Final = 2**20
_ELEMENTS: Final = 2**16

_TYPES: Final = frozenset(name for name in NUMPY if DTYPES[name].kind != "complex")
"""The types of probes and outputs."""

Output = tuple[str, str, tuple[int, ...]]
"""Name, type and shape, as the child describes it."""


def probes_of(file: TensorFile, *, where: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of *file*, which is open, by their names; errors call it *where*."""
    if sum(info.nbytes for info in file.tensors.values()) > MAX_PROBES:
        raise UnreadableError(f"probes of more than {MAX_PROBES} bytes", where=where)
    found: dict[str, NDArray[Any]] = {}
    for key, info in file.tensors.items():
        if info.dtype.name not in _TYPES:
            raise UnreadableError(f"probes of the type {info.dtype.name}", where=f"{where}: {key}")
        raw = b"".join(map(bytes, file.chunks(key, _ELEMENTS)))
        found[key] = np.frombuffer(raw, NUMPY[info.dtype.name]).reshape(info.shape)
    file.check_unchanged()
    return found


def outputs_of(
    file: TensorFile,
    probes: Mapping[str, NDArray[Any]],
    *,
    where: str,
    limits: Limits | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the outputs of *file*, an open ONNX model, on *probes*, by name.

    What runs is a copy of what is open. Errors call the model *where*; UnreadableError: it is not
    ONNX, or does not run on these probes within *limits*.
    """
    if not isinstance(file, OnnxFile):
        raise UnreadableError(f"is {file.format}, not ONNX: it cannot be run", where=where)
    _check(probes)
    least, times, most = _MEMORY
    size = sum(source.size for source in file.sources)
    with tempfile.TemporaryFile() as copy:
        _write(copy, file, probes)
        file.check_unchanged()
        copy.flush()
        child = Isolated(
            _CHILD,
            [str(copy.fileno())],
            limits=limits or Limits(SECONDS, min(least + times * size, most)),
            where=where,
            needs=("onnxruntime", "onnx"),
            descriptor=copy.fileno(),
        )
        with closing(child):
            described = child.answer()
            data = child.answer(b"")
    try:
        return _arrays(msgspec.json.decode(described, type=list[Output]), data)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise MalformedError("has outputs that cannot be read", where=where) from error


def _check(probes: Mapping[str, NDArray[Any]]) -> None:
    if not probes or any(array.ndim == 0 for array in probes.values()):
        raise UsageError("probes are arrays whose first axis is the probe")
    counts = {len(array) for array in probes.values()}
    if len(counts) != 1 or counts == {0}:
        raise UsageError("the inputs have different numbers of probes, or none")
    codes = {NUMPY[name] for name in _TYPES}
    for key, array in probes.items():
        if array.dtype.newbyteorder("<").str not in codes:
            raise UsageError(f"probes of the type {array.dtype}", where=key)
    if sum(array.nbytes for array in probes.values()) > MAX_PROBES:
        raise UsageError(f"probes of more than {MAX_PROBES} bytes")


def _write(target: IO[bytes], file: OnnxFile, probes: Mapping[str, NDArray[Any]]) -> None:
    """Write what the child reads: length of the description, description (JSON), bytes."""
    little = {key: array.astype(array.dtype.newbyteorder("<")) for key, array in probes.items()}
    description = {
        "model": file.sources[0].size,
        "beside": [[name, source.size] for name, source in file.beside.items()],
        "inputs": [(key, array.dtype.str, array.shape) for key, array in little.items()],
    }
    text = json.dumps(description).encode()
    target.write(struct.pack("<Q", len(text)) + text)
    for source in file.sources:
        for chunk in source.chunks(0, source.size, _STEP):
            target.write(chunk)
    for array in little.values():
        target.write(array.tobytes())


def _arrays(outputs: list[Output], data: bytearray) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    position = 0
    for name, code, shape in outputs:
        dtype = np.dtype(code)
        array = np.frombuffer(data, dtype, prod(shape), position)
        found[name] = array.reshape(shape)
        position += array.nbytes
    return found
