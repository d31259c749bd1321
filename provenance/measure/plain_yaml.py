"""YAML as trainings write it: block mappings and lists of scalars, each on one line.

That is a part on which all readers of YAML agree (ADR 0024). Anchors, aliases, tags, collections in
brackets, texts over several lines, several documents and a key twice are refused.
"""

from __future__ import annotations

import json
import re
from typing import Final

from provenance.errors import MalformedError
from provenance.weights.beside import Value

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
