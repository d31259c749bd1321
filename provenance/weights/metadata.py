"""What two weight files state beside their tensors: metadata, and facts of their containers.

Metadata are content (a hyperparameter, a tokenizer, the graph of an ONNX model) and are compared
key by key, except for the key by which a safetensors file names the framework that wrote it: the
normaliser ``format-key``. Facts are dropped, each by its normaliser.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from provenance.weights.normalisers import Normalised, Normaliser

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile

MAX_SHOWN: Final = 120
"""Longest value that is shown, in characters; of a longer one, length and SHA-256 are."""

MAX_LISTED: Final = 1000
"""Most differing keys that are listed for a pair of files."""

_FRAMEWORKS: Final = frozenset({"pt", "tf", "flax", "np", "mlx", "jax"})
"""Values of the key ``format`` that only name a framework."""


class MetadataDifference(msgspec.Struct, frozen=True):
    """A key whose value differs; null where the side has no such key."""

    key: str
    left: str | None
    right: str | None


def metadata_differences(left: TensorFile, right: TensorFile) -> tuple[MetadataDifference, ...]:
    """Return the keys in which the metadata of *left* and *right* differ, by name."""
    mine, theirs = (
        {k: v for k, v in file.metadata.items() if k != "format" or format_key(file) is None}
        for file in (left, right)
    )
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    return tuple(
        MetadataDifference(key, _shown(mine.get(key)), _shown(theirs.get(key)))
        for key in keys[:MAX_LISTED]
    )


def format_key(file: TensorFile) -> str | None:
    """Return the framework that a safetensors file names, if that is all that its key says."""
    value = file.metadata.get("format") if file.format == "safetensors" else None
    return value if value in _FRAMEWORKS else None


def effects(
    file: str, left: TensorFile, right: TensorFile, *, content_equal: bool
) -> tuple[Normalised, ...] | None:
    """Return the normalisers that had an effect on the pair *file*.

    Between two formats, one normaliser drops all facts. None: facts and content are equal, and
    nothing explains why the files differ. In NPZ the deflate stream, which is no fact, explains it.
    """
    if left.format != right.format:
        found = {Normaliser.CONTAINER_FORMAT}
    else:
        facts, others = left.container, right.container
        found = {each for each in Normaliser if facts.get(each) != others.get(each)}
    if left.aliases != right.aliases:
        found.add(Normaliser.TIED_WEIGHTS)
    if format_key(left) != format_key(right):
        found.add(Normaliser.FORMAT_KEY)
    if not found and content_equal:
        if left.format != "npz":
            return None
        found = {Normaliser.COMPRESSION}
    return tuple(each.had_effect_on(file) for each in Normaliser if each in found)


def _shown(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_SHOWN:
        return text
    return f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}"
