"""What two weight files state beside their tensors: metadata, and facts of their containers.

Metadata are content (a hyperparameter, a tokenizer, the graph of an ONNX model) and are compared
key by key. Facts are dropped, each by its normaliser. Between two formats the key by which a
safetensors file names the framework that wrote it is dropped; within one, accelerate goes by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from provenance.weights.beside import Difference, stated_value
from provenance.weights.normalisers import Normalised, Normaliser

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile

MAX_LISTED: Final = 1000
"""Most differing keys that are listed for a pair of files."""

_FRAMEWORKS: Final = frozenset({"pt", "tf", "flax", "np", "mlx", "jax"})
"""Values of the key ``format`` that only name a framework."""


def metadata_differences(left: TensorFile, right: TensorFile) -> tuple[Difference, ...]:
    """Return the keys in which the metadata of *left* and *right* differ, by name."""
    one_format = left.format == right.format
    mine, theirs = (
        {k: v for k, v in file.metadata.items() if one_format or not _names_framework(file, k, v)}
        for file in (left, right)
    )
    found = []
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            sides = ((left, mine.get(key)), (right, theirs.get(key)))
            paths = {file.path_of(key) for file, text in sides if text is not None}
            path = paths.pop() if len(paths) == 1 else None
            one, other = (
                None if it is None else stated_value(it, file.format) for file, it in sides
            )
            found.append(Difference(key, path, one, other))
    return tuple(found)


def _names_framework(file: TensorFile, key: str, value: str) -> bool:
    return file.format == "safetensors" and key == "format" and value in _FRAMEWORKS


def effects(
    file: str, left: TensorFile, right: TensorFile, *, content_equal: bool, tied: bool = False
) -> tuple[Normalised, ...] | None:
    """Return the normalisers that had an effect on the pair *file*.

    Between two formats, one normaliser drops all facts. None: facts and content are equal, and
    nothing explains why the files differ. In NPZ the deflate stream, which is no fact, explains it.
    *tied*: a tensor that one side leaves out is another one.
    """
    if left.format != right.format:
        found = {Normaliser.CONTAINER_FORMAT}
    else:
        facts, others = left.container, right.container
        found = {each for each in Normaliser if facts.get(each) != others.get(each)}
    if tied or left.aliases != right.aliases:
        found.add(Normaliser.TIED_WEIGHTS)
    if not found and content_equal:
        if left.format not in ("npz", "skops"):
            return None
        found = {Normaliser.COMPRESSION}
    return tuple(each.had_effect_on(file) for each in Normaliser if each in found)
