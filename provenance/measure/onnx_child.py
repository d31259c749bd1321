"""onnxruntime on a model and its probes: a program of its own that imports nothing of ours.

:mod:`~provenance.measure.onnx_runner` starts it with the descriptor of a file: the length of a
description, the description in JSON, and the bytes of the model, of the files beside it, and of the
probes. The first answer describes the outputs, in JSON; the second is their bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from io import BufferedReader

MAX_OUTPUTS = 2**28
"""Most bytes of all outputs."""

TYPES = {
    f"tensor({word})": np.dtype(word).newbyteorder("<").str
    for word in ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
                 "float16", "double")
} | {"tensor(float)": "<f4"}  # fmt: skip
"""onnxruntime's words for types, and numpy's."""


class RefusedError(Exception):
    """The model does not run: no place, why, and that this is not malformed."""


def session_of(given: BufferedReader, description: dict[str, Any]) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Return the model in *given*, ready to run: one thread, in order, as its graph says."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    model = given.read(description["model"])
    beside = {name: bytearray(given.read(size)) for name, size in description["beside"]}
    if beside:
        options.add_external_initializers_from_files_in_memory(
            list(beside), list(beside.values()), list(map(len, beside.values()))
        )
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def arrays(given: BufferedReader, description: dict[str, Any]) -> dict[str, Any]:
    """Return the probes in *given*, which stand behind the model, by the names of inputs."""
    found: dict[str, Any] = {}
    for name, dtype, shape in description["inputs"]:
        raw = given.read(math.prod(shape) * np.dtype(dtype).itemsize)
        found[name] = np.frombuffer(raw, dtype).reshape(shape)
    return found


def check(session: Any, probes: dict[str, Any]) -> None:  # noqa: ANN401
    """Refuse *probes* that are not the model's inputs."""
    wanted = {given.name: given.type for given in session.get_inputs()}
    if wanted.keys() != probes.keys():
        raise ValueError(f"its inputs are {sorted(wanted)}, the probes' {sorted(probes)}")
    for name, word in wanted.items():
        if TYPES.get(word) != probes[name].dtype.str:
            raise ValueError(f"its input {name!r} is {word}, the probes' {probes[name].dtype}")
    for output in session.get_outputs():
        if output.type not in TYPES:
            raise ValueError(f"its output {output.name!r} is {output.type}, no array of numbers")


def outputs(session: Any, probes: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Return each output of all probes, which are run one by one."""
    names = [output.name for output in session.get_outputs()]
    results: dict[str, list[Any]] = {name: [] for name in names}
    size = 0
    for index in range(len(next(iter(probes.values())))):
        given = {name: np.array(array[index]) for name, array in probes.items()}
        for name, result in zip(names, session.run(names, given), strict=True):
            size += result.nbytes
            if size > MAX_OUTPUTS:
                raise ValueError(f"its outputs take more than {MAX_OUTPUTS} bytes")
            if results[name] and result.shape != results[name][0].shape:
                raise ValueError(f"its output {name!r} has another shape for each probe")
            results[name].append(result)
    return {name: np.stack(found) for name, found in results.items()}


def main(arguments: list[str]) -> Iterator[list[Any]]:
    """Run the model in the file whose descriptor is the only argument."""
    with open(int(arguments[0]), "rb") as given:  # noqa: PTH123 - a descriptor
        given.seek(0)
        (length,) = struct.unpack("<Q", given.read(8))
        description = json.loads(given.read(length))
        try:
            session = session_of(given, description)
            probes = arrays(given, description)
            check(session, probes)
            found = outputs(session, probes)
        except MemoryError:
            raise
        except Exception as error:
            raise RefusedError("", f"does not run: {error}"[:2000], "unreadable") from error
    described = [(name, array.dtype.str, array.shape) for name, array in found.items()]
    yield [json.dumps(described).encode()]
    yield list(found.values())
