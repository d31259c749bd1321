"""What two weight files state beside their tensors: metadata, and facts of their containers.

Metadata are content (a hyperparameter, a tokenizer, the graph of an ONNX model) and are compared
key by key. Facts are dropped, each by its normaliser; so is the key by which a safetensors file
names the framework that wrote it, where the table of loaders says that they take both sides alike.
"""

from __future__ import annotations

from typing import Final

from provenance.loaders.table import table
from provenance.weights.beside import Difference, stated_value
from provenance.weights.normalisers import Normalised, Normaliser
from provenance.weights.view import TensorFile

MAX_LISTED: Final = 1000
"""Most differing keys that are listed for a pair of files."""

FRAMEWORK: Final = "format"
"""The key by which safetensors name a framework."""


def metadata_differences(left: TensorFile, right: TensorFile) -> tuple[Difference, ...]:
    """Return the keys in which the metadata of *left* and *right* differ, by name."""
    alike = _load_alike(left, right)
    mine, theirs = dict(left.metadata), dict(right.metadata)
    for said, file in ((mine, left), (theirs, right)):
        if alike and file.format == "safetensors":
            said.pop(FRAMEWORK, None)
        if not alike and file.frameworks != {""}:
            words = {"": "no metadata", None: "metadata without it"}
            said[FRAMEWORK] = ", ".join(sorted(words.get(it, it or "") for it in file.frameworks))
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


def _load_alike(left: TensorFile, right: TensorFile) -> bool:
    one, other = left.frameworks, right.frameworks
    return one == other or table().loads_alike(one | other)


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
        if left.frameworks != right.frameworks and _load_alike(left, right):
            found.add(Normaliser.FORMAT_KEY)
    if tied or left.aliases != right.aliases:
        found.add(Normaliser.TIED_WEIGHTS)
    if not found and content_equal:
        if left.format not in ("npz", "skops"):
            return None
        found = {Normaliser.COMPRESSION}
    return tuple(each.had_effect_on(file) for each in Normaliser if each in found)
