"""Which tensors a weight file holds.

The readers need numpy, so they are imported when a weight file is really there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from provenance.errors import UnreadableError, count
from provenance.report.explain_text import explained, row, rows, value_text
from provenance.weights.names import (
    READABLE_WORDS,
    TORCH,
    UNREAD,
    UNREADABLE,
    is_readable,
    suffix_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.report.explain_text import Explained

SHOWN_TENSORS = 100
"""Tensors listed; the rest is counted."""

MAX_SAFETENSORS_HEADER = 100_000_000
"""Longest header of a safetensors file, in bytes (:mod:`provenance.weights.safetensors`)."""

_ARCHIVES = TORCH | {".keras"}
"""Ends of names of formats that are ZIP archives, as an npz is."""

_MAGIC = {
    b"PK\x03\x04": ".npz",
    b"PK\x05\x06": ".npz",
    b"\x93NUMPY": ".npy",
    b"GGUF": ".gguf",
    b"\x89HDF\r\n\x1a\n": ".h5",
}


class Tensor(msgspec.Struct, frozen=True):
    """A tensor: its name, element type, dimensions, and size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class WeightFile(msgspec.Struct, frozen=True, tag_field="kind", tag="weights"):
    """A weight file: its format, its tensors, and what it says beside them."""

    format: str
    tensors: tuple[Tensor, ...]
    aliases: tuple[tuple[str, ...], ...]
    """Names that stand for the same stored bytes: tied weights."""
    metadata: dict[str, str]


def weight_format(name: str, head: bytes, size: int) -> str | None:
    """Return the ending that tells the format of the file *name*; None: it holds no weights.

    A file of *size* bytes is told by how it begins, *head*, where that says it: safetensors with
    the length of its header, a JSON object (8 bytes, little-endian). Archives are told apart by
    their names, and so is everything else.
    """
    own = suffix_of(name) if is_readable(name) else None
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return own if own in _ARCHIVES and suffix == ".npz" else suffix
    length = int.from_bytes(head[:8], "little")
    fits = head[8:9] == b"{" and length <= min(size - 8, MAX_SAFETENSORS_HEADER)
    return ".safetensors" if fits else own


def explain_weights(path: Path, suffix: str) -> Explained:
    """Return which tensors the weight file at *path*, of the format *suffix*, holds.

    Raises:
        UnreadableError, MalformedError: it cannot be read as that format.
    """
    from provenance.weights.opening import open_tensors  # noqa: PLC0415 - it loads numpy

    with open_tensors(path, suffix=suffix) as opened:
        tensors = tuple(
            Tensor(item.name, item.dtype.name, item.shape, item.nbytes)
            for item in opened.tensors.values()
        )
        content = WeightFile(opened.format, tensors, opened.aliases, dict(opened.metadata))
    total = sum(tensor.bytes for tensor in tensors)
    lines = [
        f"{path}: weights, {content.format} (not verified)",
        row("tensors", f"{count(len(tensors), 'tensor')}, {total:,} bytes"),
    ]
    name_width = max((len(tensor.name) for tensor in tensors[:SHOWN_TENSORS]), default=0)
    listed = [
        f"{tensor.name:<{name_width}}  {tensor.dtype:<5} {_shape_text(tensor.shape)}"
        for tensor in tensors
    ]
    lines += rows("", listed, limit=SHOWN_TENSORS)
    lines += rows("tied", [" = ".join(names) for names in content.aliases])
    metadata = [f"{name}={value_text(text)}" for name, text in sorted(content.metadata.items())]
    lines += rows("metadata", metadata)
    return explained(content, lines)


def is_unread(path: Path) -> bool:
    """Tell whether the file at *path* is called like weights that have no reader here."""
    return suffix_of(path.name) in UNREAD


def unread_error(path: Path) -> UnreadableError:
    """Return the error that says so."""
    return UnreadableError(UNREADABLE, where=str(path), hint=READABLE_WORDS)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(dimension) for dimension in shape)}]"
