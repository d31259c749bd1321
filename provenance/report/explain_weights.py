"""Which tensors a weight file holds.

The readers need numpy, so they are imported when a weight file is really there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from provenance.errors import UnreadableError, count
from provenance.report.explain_text import explained, row, rows, value_text
from provenance.tensors.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.report.explain_text import Explained
    from provenance.tensors.view import TensorFile

SHOWN_TENSORS = 100
"""Tensors listed; the rest is counted."""

MAX_SAFETENSORS_HEADER = 100_000_000
"""Longest header of a safetensors file, in bytes (:mod:`provenance.tensors.safetensors`)."""

_MAGIC = {b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"\x93NUMPY": "npy"}


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
    metadata: dict[str, str]


def weight_format(head: bytes, size: int) -> str | None:
    """Return the format of the weight file of *size* bytes that begins with *head*; None: no such.

    A safetensors file begins with the length of its header, a JSON object (8 bytes, little-endian).
    """
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    length = int.from_bytes(head[:8], "little")
    fits = head[8:9] == b"{" and length <= min(size - 8, MAX_SAFETENSORS_HEADER)
    return "safetensors" if fits else None


def explain_weights(path: Path, kind: str) -> Explained:
    """Return which tensors the weight file at *path*, of the format *kind*, holds.

    Raises:
        UnreadableError, MalformedError: it cannot be read as that format.
    """
    if kind == "npz" and is_unread(path):  # torch's and Keras's files are ZIP archives too
        raise unread_error(path)
    with Source(path) as source, _reader(kind)(source) as opened:
        tensors = tuple(
            Tensor(item.name, item.dtype.name, item.shape, item.nbytes)
            for item in opened.tensors.values()
        )
        content = WeightFile(opened.format, tensors, dict(opened.metadata))
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
    metadata = [f"{name}={value_text(text)}" for name, text in sorted(content.metadata.items())]
    lines += rows("metadata", metadata)
    return explained(content, lines)


def is_unread(path: Path) -> bool:
    """Tell whether the file at *path* is called like weights that have no reader here."""
    from provenance.tensors.opening import UNREAD_SUFFIXES  # noqa: PLC0415 - it loads numpy

    return path.suffix.lower() in UNREAD_SUFFIXES


def unread_error(path: Path) -> UnreadableError:
    """Return the error that says so."""
    return UnreadableError(
        "its tensors cannot be read by this version",
        where=str(path),
        mend="safetensors, npz and npy can",
    )


def _reader(kind: str) -> Callable[[Source], TensorFile]:
    from provenance.tensors.npy import NpyFile  # noqa: PLC0415 - these load numpy
    from provenance.tensors.npz import NpzFile  # noqa: PLC0415
    from provenance.tensors.safetensors import SafetensorsFile  # noqa: PLC0415

    readers: dict[str, Callable[[Source], TensorFile]] = {
        "npy": NpyFile,
        "npz": NpzFile,
        "safetensors": SafetensorsFile,
    }
    return readers[kind]


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(dimension) for dimension in shape)}]"
