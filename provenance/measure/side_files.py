"""Side files, read by key: how two of one name differ, value by value.

JSON, JSON lines (a list of their values), TOML and plain YAML, by the suffix; and pickles, of which
nothing is imported (:mod:`provenance.weights.torch.objects`). What is not read strictly is no basis
for an exception: MalformedError says why.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from provenance.encoding import strict_json
from provenance.equality.declaration import parse_toml
from provenance.errors import MalformedError
from provenance.loaders.keys import Path, spelled
from provenance.measure.plain_yaml import parse_yaml
from provenance.weights.beside import Difference, Value, json_value, tree_differences, tree_paths
from provenance.weights.model import Model, Unit
from provenance.weights.pairs import Pair, SideBySide
from provenance.weights.source import Source
from provenance.weights.torch.objects import plain_values

MAX_BYTES: Final = 64 * 2**20
"""Longest side file that is read by key, in bytes."""

MAX_VALUES: Final = 300_000
"""Most values in it."""

MAX_TOML: Final = 2**20
"""Longest TOML file, which Python's parser reads slowly."""


def side_differences(pair: Pair, sides: SideBySide) -> tuple[Difference, ...]:
    """Return the values in which the two files of *pair* differ."""
    if pair.both is None:
        return ()
    both = sides.each(pair)
    if not pair.weights:
        trees = [parse_values(it.main, model.read(it.main, MAX_BYTES)) for model, it, _ in both]
        return tuple(tree_differences(*trees))
    (left, names), (right, others) = (pickled_values(it.main, model) for model, it, _ in both)
    if names != others:
        raise MalformedError("the two pickles ask for other names", where=pair.name)
    return tuple(
        Difference(spelled(path), path, left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys(), key=spelled)
        if left.get(path) != right.get(path)
    )


def paths_in(unit: Unit, model: Model, member: str | None) -> list[Path]:
    """Return where the values of *unit* are, or those of a *member* of it: what has a key."""
    if not unit.weights:
        return tree_paths(parse_values(unit.main, model.read(unit.main, MAX_BYTES)))
    if unit.state:
        return list(pickled_values(unit.main, model)[0])
    with model.open(unit, unit.name) as file:
        if member is None:
            return [file.path_of(key) for key in file.metadata]
        return tree_paths(parse_values(member, file.metadata.get(member, "{}").encode()))


def pickled_values(name: str, model: Model) -> tuple[dict[Path, Value], frozenset[str]]:
    """Return the values of the pickle or archive of torch *name*, and the names it asks for."""
    stated = None if model.sha256 is None else model.sha256[name]
    with Source(model.path(name), name=name, sha256=stated) as source:
        texts, names = plain_values(source)
    return {path: json_value(text) for path, text in texts.items()}, names


def parse_values(name: str, data: bytes) -> Any:  # noqa: ANN401 - a JSON or TOML value
    """Return the values of the file *name*, whose bytes are *data*."""
    if sum(map(data.count, (b",", b"[", b"{", b"\n"))) > MAX_VALUES:
        raise MalformedError(f"more than {MAX_VALUES} values or lines", where=name)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".json":
        return strict_json.parse(data, where=name)
    if suffix == ".jsonl":
        lines = data.removesuffix(b"\n").split(b"\n")
        return [strict_json.parse(line, where=name) for line in lines]
    if suffix == ".toml":
        return parse_toml(data, name, MAX_TOML)
    if suffix in (".yaml", ".yml"):
        return parse_yaml(data, name)
    raise MalformedError("no values are read in files of its suffix", where=name)
