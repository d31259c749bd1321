"""Fuzz one reader with atheris: ``make fuzz FORMAT=gguf SECONDS=600``.

A format is one of weight files, or a target of ``signatures``: ``make fuzz FORMAT=bundle``.

A weight file is written to a file in memory, opened, and read to its end, every tensor. Whatever
comes out must be values or one of our errors: any other exception, a hang or a crash is a finding,
whose input libFuzzer keeps. Two more properties are checked on what opens: the sizes that the view
states are those of what is read, and reading twice gives the same digests.

The corpus begins with the small valid files that the tests of each reader write.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(include=["provenance"]):
    from provenance.errors import ProvenanceError
    from provenance.weights.opening import open_tensors
    from provenance.weights.view import tensor_digest
    from tests.fuzz import signatures

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS: Mapping[str, tuple[str, str]] = {
    "safetensors": (".safetensors", "writing"),
    "npz": (".npz", "writing"),
    "npy": (".npy", "writing"),
    "skops": (".skops", "writing"),
    "torch": (".pt", "torch_writing"),
    "gguf": (".gguf", "gguf_writing"),
    "onnx": (".onnx", "onnx_writing"),
    "hdf5": (".h5", "hdf5_writing"),
    "keras": (".keras", "hdf5_writing"),
}
"""The ending by which a format is opened, and the module that writes samples of it."""

MAX_TENSOR = 2**24
"""Largest file of tensors that is read, in bytes as the view states them."""


LIBFUZZERS_SHARE = 0.3
"""Of the mutations of a signature's documents."""


def seeds(name: str) -> list[bytes]:
    """Return the valid files that the corpus of the format *name* begins with."""
    if name in signatures.TARGETS:
        return signatures.TARGETS[name].seeds()
    suffix, module = FORMATS[name]
    samples = import_module(f"tests.weights.{module}").samples()
    return [data for file, data in sorted(samples.items()) if file.endswith(suffix)]


def read(path: Path) -> None:
    """Open the file at *path* and read it, twice."""
    try:
        with open_tensors(path, name="fuzzed") as file:
            if sum(info.nbytes for info in file.tensors.values()) > MAX_TENSOR:
                return
            for info in file.tensors.values():
                total = sum(len(chunk) for chunk in file.chunks(info.name, 1024))
                if total != info.nbytes:
                    raise AssertionError(f"{info.name}: {total} bytes read, {info.nbytes} stated")
            if any(tensor_digest(file, n) != tensor_digest(file, n) for n in file.tensors):
                raise AssertionError("another digest when read again")
    except ProvenanceError:
        return


def main() -> None:
    """Fuzz the format that the environment names, with libFuzzer's arguments."""
    name = os.environ["PROVENANCE_FUZZ_FORMAT"]
    corpus = Path(os.environ["PROVENANCE_FUZZ_CORPUS"])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        corpus.joinpath(f"seed-{number}").write_bytes(data)
    if name in signatures.TARGETS:
        atheris.Setup(
            [*sys.argv, str(corpus)],
            lambda data: signatures.read(name, data),
            custom_mutator=lambda data, size, seed: _mutate(name, data, size, seed),
        )
        atheris.Fuzz()
        return
    path = Path(f"/dev/shm/provenance-fuzz-{os.getpid()}{FORMATS[name][0]}")  # noqa: S108 - memory

    def one(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    atheris.Setup([*sys.argv, str(corpus)], one)
    try:
        atheris.Fuzz()
    finally:
        path.unlink(missing_ok=True)


def _mutate(name: str, data: bytes, size: int, seed: int) -> bytes:
    """Return *data* mutated as the target says, or as libFuzzer likes."""
    random = Random(seed)
    if random.random() < LIBFUZZERS_SHARE:
        return bytes(atheris.Mutate(data, size))
    try:
        return signatures.TARGETS[name].mutate(data, random)[:size]
    except (ValueError, TypeError, AttributeError, IndexError):  # it is no JSON any more
        return signatures.mutated(data, random)[:size]


if __name__ == "__main__":
    main()
