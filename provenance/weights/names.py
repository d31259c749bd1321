"""What the name of a file says of its tensors. Needs no numpy.

The format is told by the end of the name, as every loader does. An index of shards
(``model.safetensors.index.json``, as Hugging Face's writers call it) stands for the weights behind
it, which are known as ``model.safetensors``.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

TORCH: Final = frozenset({".pt", ".pth", ".bin", ".ckpt", ".tar"})
"""What ``torch.save`` writes; ``.tar`` is that of ``.pth.tar``."""

READABLE: Final = TORCH | {
    ".safetensors", ".npz", ".npy", ".gguf", ".onnx", ".h5", ".hdf5", ".keras",
}  # fmt: skip
"""Ends of names of files that have a reader."""

UNREAD: Final = frozenset(
    {".ggml", ".msgpack", ".pb", ".tflite", ".pkl", ".pickle", ".joblib", ".jit"}
)
"""Ends of names of files that usually hold tensors, in formats without a reader here."""

UNREADABLE: Final = "its tensors cannot be read by this version"
READABLE_WORDS: Final = "safetensors, torch zip, GGUF, ONNX, HDF5, Keras, npz and npy can"
"""What is said of a file without a reader, and which have one."""

_INDEX: Final = ".index.json"


def whole_name(name: str) -> str | None:
    """Return the name of the weights that the file *name* is an index of; None: it is no index."""
    whole = name.removesuffix(_INDEX)
    return whole if whole != name and PurePosixPath(whole).suffix else None


def suffix_of(name: str) -> str:
    """Return the end of *name* by which its format is known; of an index, that of the weights."""
    return PurePosixPath(whole_name(name) or name).suffix.lower()


def is_readable(name: str) -> bool:
    """Tell whether a file of this *name* has a reader."""
    return suffix_of(name) in READABLE


def carries_tensors(name: str) -> bool:
    """Tell whether a file of this *name* holds tensors, readable here or not."""
    return is_readable(name) or suffix_of(name) in UNREAD
