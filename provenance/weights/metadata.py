"""What two weight files say beside their tensors, compared key by key.

Metadata are content: a hyperparameter, a tokenizer, the graph of an ONNX model. The key by which
safetensors files name the framework that wrote them is left out; the normaliser
``safetensors-format-key`` says so.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile

MAX_SHOWN: Final = 120
"""Longest text of a value that is repeated, in characters; of a longer one the SHA-256 stands."""

MAX_LISTED: Final = 1000
"""Most differing keys that are listed of one pair of files."""

_FRAMEWORKS: Final = frozenset({"pt", "tf", "flax", "np", "mlx", "jax"})
"""Values of the key ``format`` that only name a framework."""


class MetadataDifference(msgspec.Struct, frozen=True):
    """A key whose value is not the same on both sides; null: the side has no such key."""

    key: str
    left: str | None
    right: str | None


def metadata_differences(left: TensorFile, right: TensorFile) -> tuple[MetadataDifference, ...]:
    """Return the keys in which the metadata of *left* and *right* differ, by name."""
    mine, theirs = _without_format_key(left), _without_format_key(right)
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    return tuple(
        MetadataDifference(key, _shown(mine.get(key)), _shown(theirs.get(key)))
        for key in keys[:MAX_LISTED]
    )


def format_key(file: TensorFile) -> str | None:
    """Return the framework that a safetensors file names, if that is all that its key says."""
    value = file.metadata.get("format") if file.format == "safetensors" else None
    return value if value in _FRAMEWORKS else None


def _without_format_key(file: TensorFile) -> dict[str, str]:
    left_out = {"format"} if format_key(file) is not None else set[str]()
    return {key: text for key, text in file.metadata.items() if key not in left_out}


def _shown(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_SHOWN:
        return text
    return f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}"
