"""Side files, read by key: how two of one name differ, value by value.

JSON, JSON lines (a list of their values) and TOML, by the suffix. What is not read strictly is no
basis for an exception: MalformedError says why.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from provenance.encoding import strict_json
from provenance.equality.declaration import parse_toml
from provenance.equality.exceptions import JSON, LINES, TOML
from provenance.errors import MalformedError
from provenance.weights.beside import Difference, tree_differences

if TYPE_CHECKING:
    from provenance.weights.model import Pair, SideBySide

MAX_BYTES: Final = 64 * 2**20
"""Longest side file that is read by key, in bytes."""

MAX_VALUES: Final = 1_000_000
"""Most values in it."""

MAX_TOML: Final = 2**20
"""Longest TOML file, which Python's parser reads slowly."""


def side_differences(pair: Pair, sides: SideBySide) -> tuple[Difference, ...]:
    """Return the values in which the two files of *pair* differ."""
    trees = [
        parse_values(unit.main, model.read(unit.main, MAX_BYTES))
        for model, unit in zip((sides.left, sides.right), pair.both or (), strict=True)
    ]
    return tuple(tree_differences(*trees))


def parse_values(name: str, data: bytes) -> Any:  # noqa: ANN401 - a JSON or TOML value
    """Return the values of the file *name*, whose bytes are *data*."""
    if sum(map(data.count, (b",", b"[", b"{", b"\n"))) > MAX_VALUES:
        raise MalformedError(f"more than {MAX_VALUES} values or lines", where=name)
    match PurePosixPath(name).suffix.lower():
        case s if s == JSON:
            return strict_json.parse(data, where=name)
        case s if s == LINES:
            lines = data.removesuffix(b"\n").split(b"\n")
            return [strict_json.parse(line, where=name) for line in lines]
        case s if s == TOML:
            return parse_toml(data, name, MAX_TOML)
    raise MalformedError("no values are read in files of its suffix", where=name)
