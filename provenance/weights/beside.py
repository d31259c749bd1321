"""Values beside tensors, in metadata and in side files: typed, so that a change can be judged.

Of two weight files, metadata are content (a hyperparameter, a tokenizer, the graph of an ONNX
model) and are compared key by key. Facts of their containers are dropped, each by its normaliser;
so is the key by which a safetensors file names the framework that wrote it, where the table of
loaders says that they take both sides alike.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from provenance.errors import MalformedError
from provenance.loaders.keys import Path, spelled
from provenance.loaders.table import table
from provenance.weights.normalisers import Normalised, Normaliser
from provenance.weights.view import TensorFile

_NUMBER: Final = re.compile(
    r"(?:^|[ :])(-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?)\}?\Z", re.DOTALL
)
_TAG: Final = re.compile(r'\{"([^"\\]+)":')
_KINDS: Final = {'"': "text", "{": "object", "[": "list", "t": "boolean", "f": "boolean"}
_TYPED: Final = frozenset({"gguf", "hdf5", "keras", "npy", "npz", "skops"})
"""Formats whose texts begin with the value's type."""
_ABSENT: Final = object()
_in_json: Final = json.JSONEncoder(ensure_ascii=False, default=str).encode

MAX_DEPTH: Final = 64
"""Deepest value, in keys and places."""

MAX_SHOWN: Final = 120
"""Longest value that is shown, in characters; of a longer one, length and SHA-256 are."""


class Value(NamedTuple):
    """A value: its type, and its text."""

    kind: str
    text: str

    @property
    def number(self) -> Decimal | None:
        """Return the number that it is, if it is a finite one."""
        array = "[" in self.text  # of HDF5 in hexadecimal
        found = None if self.kind == "text" or array else _NUMBER.search(self.text)
        return None if found is None else Decimal(found[1])


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs; a side that lacks it is None."""

    key: str
    """What it is called where it is shown."""
    path: Path | None
    """Where it is; None where the sides do not agree on that."""
    left: Value | None
    right: Value | None
    inside: tuple[Difference, ...] = ()
    """Of a list whose other side has the same elements in another order: each place."""

    @property
    def shown(self) -> tuple[str | None, str | None]:
        """Return the texts of both sides; of a long one its length and digest."""
        left, right = (None if it is None else _shown(it.text) for it in (self.left, self.right))
        return left, right


def _shown(text: str) -> str:
    if len(text) <= MAX_SHOWN:
        return text
    return f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def stated_value(text: str, container: str) -> Value:
    """Return the value that metadata of a file of the format *container* have as *text*."""
    if container == "torch":
        return json_value(text)
    return Value(text.partition(" ")[0] if container in _TYPED else "text", text)


def json_value(text: str) -> Value:
    """Return the value that *text* is in JSON; an object of one member has its type for a key."""
    if (tag := _TAG.match(text)) is not None:
        return Value(tag[1], text)
    return Value("null" if text == "null" else _KINDS.get(text[:1], "number"), text)


def is_within(left: Value, right: Value, tolerance: float) -> bool:
    """Tell whether both are numbers that differ by at most *tolerance*, in decimals as written."""
    one, other = left.number, right.number
    return one is not None and other is not None and abs(one - other) <= Decimal(repr(tolerance))


def tree_differences(left: object, right: object, path: Path = ()) -> Iterator[Difference]:
    """Yield every value in which two trees of JSON or TOML values differ.

    What only one side has is listed with all that is in it, of which a collection is shown empty. A
    list whose elements are in another order is one difference, and so are an object's keys.
    """
    if len(path) > MAX_DEPTH:
        raise MalformedError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(left, list) and isinstance(right, list) and _reordered(left, right):
        inside = tuple(_inside(left, right, path))
        yield Difference(spelled(path), path, _value(left), _value(right), inside)
    elif isinstance(left, dict | list) and type(left) is type(right):
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _order(left, right, path)
        yield from _inside(left, right, path)
    elif left is _ABSENT or right is _ABSENT:
        shown = (type(it)() if isinstance(it, dict | list) else it for it in (left, right))
        one, other = map(_value, shown)
        yield Difference(spelled(path), path, one, other)
        yield from _inside(left, right, path)
    elif (one := _value(left)) != (other := _value(right)):
        yield Difference(spelled(path), path, one, other)


def tree_paths(tree: object) -> list[Path]:
    """Return the path of every value in *tree*, and of every object and list."""
    return [each.path for each in tree_differences(tree, _ABSENT) if each.path is not None]


def _inside(left: Any, right: Any, path: Path) -> Iterator[Difference]:  # noqa: ANN401 - JSON
    mine, theirs = (
        dict(enumerate(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else {}
        for tree in (left, right)
    )
    for key in sorted(mine.keys() | theirs.keys()):
        yield from tree_differences(mine.get(key, _ABSENT), theirs.get(key, _ABSENT), (*path, key))


def _order(left: dict[str, Any], right: dict[str, Any], path: Path) -> Iterator[Difference]:
    """Yield the orders of the keys that two objects share, where they are two.

    Loaders go by them: PEFT takes the first of ``alpha_pattern`` that fits a module.
    """
    mine, theirs = [it for it in left if it in right], [it for it in right if it in left]
    if mine != theirs:
        one, other = (Value("order", json.dumps(it, ensure_ascii=False)) for it in (mine, theirs))
        yield Difference(spelled(path), path, one, other)


def _reordered(left: list[object], right: list[object]) -> bool:
    """Tell whether two lists have the same elements, which are no collections, in another order."""
    if left == right or len(left) != len(right):
        return False
    if any(isinstance(it, dict | list) for it in (*left, *right)):
        return False
    return Counter(map(_value, left)) == Counter(map(_value, right))


def _value(tree: object) -> Value | None:
    """Return the value that *tree* is, a collection in JSON; None: it is absent."""
    if tree is _ABSENT or isinstance(tree, Value):
        return tree if isinstance(tree, Value) else None
    if isinstance(tree, dt.date | dt.time):
        return Value("time", tree.isoformat())
    text = _in_json(tree)
    if isinstance(tree, dict | list):
        return Value("list" if isinstance(tree, list) else "object", text)
    return json_value(text)


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
