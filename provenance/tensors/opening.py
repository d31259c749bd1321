"""From a path to a reader: the format is told by the file's name, as every loader does."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from provenance.errors import UnreadableError
from provenance.tensors.npy import NpyFile
from provenance.tensors.npz import NpzFile
from provenance.tensors.safetensors import SafetensorsFile
from provenance.tensors.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from provenance.tensors.view import TensorFile

_READERS: Final[Mapping[str, Callable[[Source], TensorFile]]] = MappingProxyType(
    {".safetensors": SafetensorsFile, ".npz": NpzFile, ".npy": NpyFile}
)

UNREAD_SUFFIXES: Final = frozenset(
    {
        ".gguf", ".ggml", ".onnx", ".pt", ".pth", ".bin", ".ckpt", ".h5", ".hdf5", ".keras",
        ".msgpack", ".pb", ".tflite", ".pkl", ".pickle", ".joblib", ".tar",
    }
)  # fmt: skip
"""Ends of names of files that usually hold tensors, in formats without a reader here."""


def is_readable(name: str) -> bool:
    """Tell whether a file of this *name* has a reader."""
    return PurePosixPath(name).suffix.lower() in _READERS


def carries_tensors(name: str) -> bool:
    """Tell whether a file of this *name* holds tensors, readable here or not."""
    return is_readable(name) or PurePosixPath(name).suffix.lower() in UNREAD_SUFFIXES


def open_tensors(path: Path, *, name: str | None = None, sha256: str | None = None) -> TensorFile:
    """Open the weight file at *path*, its structure checked; errors call it *name*.

    *sha256*, in hexadecimal, is what the file should have.

    Raises:
        ContentError: it has another SHA-256.
        MalformedError: the bytes are not what the format allows.
        UnreadableError: the file cannot be read, or its format has no reader.
    """
    shown = name if name is not None else str(path)
    reader = _READERS.get(PurePosixPath(path.name).suffix.lower())
    if reader is None:
        raise UnreadableError(
            "its tensors cannot be read by this version",
            where=shown,
            mend="safetensors, npz and npy can",
        )
    source = Source(path, name=shown, sha256=sha256)
    try:
        return reader(source)
    except BaseException:
        source.close()
        raise
