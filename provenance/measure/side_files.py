"""Side files, read by key: how two of one name differ, value by value.

JSON, JSON lines (a list of their values), TOML and plain YAML, by the suffix; and pickles, of which
nothing is imported (:mod:`provenance.weights.torch.objects`). What is not read strictly is no basis
for an exception: MalformedError says why.

YAML is read as trainings write it: block mappings and lists of scalars, each on one line. That is a
part on which all readers of YAML agree (ADR 0024). Anchors, aliases, tags, collections in
brackets, texts over several lines, several documents and a key twice are refused.
"""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any, Final

from provenance.encoding import strict_json
from provenance.equality.declaration import parse_toml
from provenance.errors import MalformedError
from provenance.loaders.keys import Path, spelled
from provenance.weights.beside import Difference, Value, json_value, tree_differences, tree_paths
from provenance.weights.model import Model, Unit
from provenance.weights.pairs import Pair, SideBySide
from provenance.weights.source import Source
from provenance.weights.torch.objects import plain_values

_MAX_DEPTH: Final = 64
_QUOTED: Final = r"\"(?:[^\"\\]|\\[\"\\n])*\"|'(?:[^']|'')*'"
_ENTRY: Final = re.compile(rf"({_QUOTED}|[A-Za-z_][\w./-]*):(?: +(.+))?", re.ASCII)
_SCALAR: Final = re.compile(
    rf"{_QUOTED}|(?:-(?=\S)|[^\s\-?:,\[\]{{}}#&*!|>'\"%@`])(?:[^:#]|:(?=\S)|(?<=\S)#)*"
)
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?")
_BOOLEANS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false"})

_Line = tuple[int, str]
"""How far a line is indented, and the rest of it."""


def parse_yaml(data: bytes, where: str) -> object:
    """Return the mappings, lists and values that *data* spells."""
    try:
        return _document(data.decode().removeprefix("---\n").removesuffix("\n"))
    except ValueError as error:
        what = "not YAML of block mappings and lists, each scalar on one line"
        raise MalformedError(what, where=where) from error


def _document(text: str) -> object:
    rows = text.split("\n")
    if any(not row.isprintable() or row.startswith(("---", "...", "%")) for row in rows):
        raise ValueError
    said = ((len(row) - len(row.lstrip(" ")), row.strip(" ")) for row in rows)
    lines = [line for line in said if line[1] and not line[1].startswith("#")]
    tree, end = _block(lines, 0, 0) if lines else (None, 0)
    if end != len(lines):
        raise ValueError
    return tree


def _block(lines: list[_Line], at: int, depth: int) -> tuple[object, int]:
    """Return what begins at the line *at*, and the line after it."""
    indent, text = lines[at]
    if depth > _MAX_DEPTH:
        raise ValueError
    if _is_item(text):
        items: list[object] = []
        while at < len(lines) and lines[at][0] == indent and _is_item(lines[at][1]):
            rest = lines[at][1][1:].lstrip(" ")
            if rest:  # the dash is as good as two spaces
                lines[at] = (indent + len(lines[at][1]) - len(rest), rest)
            item, at = (
                _block(lines, at, depth + 1) if rest else _below(lines, at + 1, indent, depth)
            )
            items.append(item)
        return items, at
    if not _ENTRY.fullmatch(text):
        return _scalar(text), at + 1
    found: dict[str, object] = {}
    while at < len(lines) and lines[at][0] == indent and (it := _ENTRY.fullmatch(lines[at][1])):
        key = _scalar(it[1])
        if not isinstance(key, Value) or key.kind != "text" or key.text in found:
            raise ValueError
        if it[2] is not None:
            found[key.text], at = _scalar(it[2]), at + 1
        else:
            found[key.text], at = _below(lines, at + 1, indent, depth, lists=True)
    return {json.loads(key): value for key, value in found.items()}, at


def _below(
    lines: list[_Line], at: int, indent: int, depth: int, *, lists: bool = False
) -> tuple[object, int]:
    """Return what is below a key or a dash, a list also as far left as its key; or null."""
    if at < len(lines):
        beside = lists and lines[at][0] == indent and _is_item(lines[at][1])
        if lines[at][0] > indent or beside:
            return _block(lines, at, depth + 1)
    return None, at


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _scalar(text: str) -> object:
    """Return the value that *text* spells; of a text the kind is ``text`` and the text is JSON."""
    if text in ("{}", "[]"):
        return {} if text == "{}" else []
    if not _SCALAR.fullmatch(text):
        raise ValueError
    if text.startswith('"'):
        return Value("text", json.dumps(json.loads(text), ensure_ascii=False))
    if text.startswith("'"):
        return Value("text", json.dumps(text[1:-1].replace("''", "'"), ensure_ascii=False))
    if _NUMBER.fullmatch(text):
        return Value("number", text)
    if text.lower() in ("null", "~"):
        return None
    kind = "boolean" if text.lower() in _BOOLEANS else "text"
    if text[0] in "+-.=<" or text[0].isdecimal():  # a number or a time, to some readers
        kind = "unquoted"
    return Value(kind, json.dumps(text, ensure_ascii=False))


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
