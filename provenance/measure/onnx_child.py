"""onnxruntime on a model and its probes: a program of its own.

See :mod:`~provenance.measure.onnx_runner`, which starts it. It imports nothing of ours; its
argument is the descriptor of a file with the length of a description in JSON, the description, and
the bytes of the model, of the files beside it, and of the probes. It writes the same of outputs.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any

MAX_OUTPUTS = 2**28 - 2**20
"""Most bytes of all outputs: what the caller reads, less the description."""

TYPES = {
    "tensor(bool)": "|b1",
    "tensor(uint8)": "|u1",
    "tensor(int8)": "|i1",
    "tensor(uint16)": "<u2",
    "tensor(int16)": "<i2",
    "tensor(uint32)": "<u4",
    "tensor(int32)": "<i4",
    "tensor(uint64)": "<u8",
    "tensor(int64)": "<i8",
    "tensor(float16)": "<f2",
    "tensor(float)": "<f4",
    "tensor(double)": "<f8",
}
"""onnxruntime's words for types, and numpy's."""


class RefusedError(Exception):
    """The model does not fit its probes, or gives what is no array of numbers."""


class Given:
    """What the caller wrote into a file, by parts."""

    def __init__(self, descriptor: int) -> None:
        """Read the description at the beginning of the file."""
        self._descriptor = descriptor
        self._position = 0
        (length,) = struct.unpack("<Q", self.take(8))
        self.description: dict[str, Any] = json.loads(self.take(length))

    def take(self, size: int) -> bytearray:
        """Return the next *size* bytes."""
        data = bytearray(size)
        done = 0
        while done < size:
            read = os.preadv(self._descriptor, [memoryview(data)[done:]], self._position + done)
            if not read:
                raise EOFError
            done += read
        self._position += size
        return data


def session_of(given: Given) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Return the model in *given*, ready to run: one thread, in order, as its graph says."""
    import onnxruntime as ort  # noqa: PLC0415 - slow, and may be missing

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    model = bytes(given.take(given.description["model"]))
    beside = {name: given.take(size) for name, size in given.description["beside"]}
    if beside:
        if not hasattr(options, "add_external_initializers_from_files_in_memory"):
            raise RefusedError("files beside a model need a newer onnxruntime")
        sizes = [len(data) for data in beside.values()]
        options.add_external_initializers_from_files_in_memory(
            list(beside), list(beside.values()), sizes
        )
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def arrays(given: Given) -> dict[str, Any]:
    """Return the probes in *given*, which stand behind the model, by the names of inputs."""
    import numpy as np  # noqa: PLC0415 - slow, and may be missing

    found: dict[str, Any] = {}
    for entry in given.description["inputs"]:
        dtype = np.dtype(entry["dtype"])
        count = 1
        for side in entry["shape"]:
            count *= side
        raw = given.take(count * dtype.itemsize)
        found[entry["name"]] = np.frombuffer(raw, dtype).reshape(entry["shape"])
    return found


def check(session: Any, probes: dict[str, Any]) -> None:  # noqa: ANN401
    """Refuse *probes* that are not the model's inputs."""
    wanted = {given.name: given.type for given in session.get_inputs()}
    if wanted.keys() != probes.keys():
        raise RefusedError(f"its inputs are {sorted(wanted)}, the probes' {sorted(probes)}")
    for name, word in wanted.items():
        if TYPES.get(word) != probes[name].dtype.str:
            raise RefusedError(f"its input {name!r} is {word}, the probes' {probes[name].dtype}")
    for output in session.get_outputs():
        if output.type not in TYPES:
            raise RefusedError(f"its output {output.name!r} is {output.type}, no array of numbers")


def outputs(session: Any, probes: dict[str, Any]) -> list[Any]:  # noqa: ANN401
    """Return each output of all probes, which are run one by one."""
    import numpy as np  # noqa: PLC0415 - slow, and may be missing

    names = [output.name for output in session.get_outputs()]
    results: list[list[Any]] = [[] for _ in names]
    size = 0
    for index in range(len(next(iter(probes.values())))):
        given = {name: np.array(array[index]) for name, array in probes.items()}
        for name, result, found in zip(names, session.run(names, given), results, strict=True):
            size += result.nbytes
            if size > MAX_OUTPUTS:
                raise RefusedError(f"its outputs take more than {MAX_OUTPUTS} bytes")
            if found and result.shape != found[0].shape:
                raise RefusedError(f"its output {name!r} has another shape for each probe")
            found.append(result)
    return [np.stack(found) for found in results]


def answer(given: Given) -> tuple[dict[str, Any], list[Any]]:
    """Return the description of the outputs, and the outputs; or what went wrong."""
    try:
        session = session_of(given)
        probes = arrays(given)
        check(session, probes)
        found = outputs(session, probes)
    except ImportError:
        return {"missing": "onnxruntime"}, []
    except RefusedError as error:
        return {"refused": str(error)}, []
    except MemoryError:
        return {"refused": "too little memory"}, []
    except Exception as error:  # noqa: BLE001 - whatever onnxruntime says is about the model
        return {"refused": str(error)[:2000]}, []
    named = zip(session.get_outputs(), found, strict=True)
    return {
        "outputs": [
            {"name": output.name, "dtype": array.dtype.str, "shape": list(array.shape)}
            for output, array in named
        ]
    }, found


def main(arguments: list[str]) -> None:
    """Run the model in the file whose descriptor is the only argument."""
    description, found = answer(Given(int(arguments[0])))
    text = json.dumps(description).encode()
    sys.stdout.buffer.write(struct.pack("<Q", len(text)) + text)
    for array in found:
        sys.stdout.buffer.write(array.tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
