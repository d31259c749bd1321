"""The tables in ``docs/loaders.md``, written from ``provenance/loaders/table.toml``.

``python -m tools.loaders`` writes them into the page, between their markers.
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provenance.loaders.table import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from provenance.loaders.table import Loader, Opened, Table

PAGE: Final = Path("docs/loaders.md")


def page(text: str, found: Table) -> str:
    """Return the page *text* with the tables of *found* between its markers."""
    parts = {"loaders": _loaders(found), "opens": _opens(found), "values": _values(found)}
    for name, lines in parts.items():
        marker = f"<!-- {name} -->\n"
        before, _, after = text.split(marker)
        text = marker.join([before, "\n" + "\n".join(lines) + "\n\n", after])
    return text


def _loaders(found: Table) -> Iterator[str]:
    yield f"Version {found.version} of the table."
    yield from ("", "| loader | version | read of its code |", "|---|---|---|")
    for loader in found.loader:
        yield f"| {loader.name} | {loader.version} | {_code(loader.read)} |"


def _opens(found: Table) -> Iterator[str]:
    for loader in found.loader:
        yield from (f"### {loader.name} {loader.version}", "")
        yield from ("| as | files | goes by | runs |", "|---|---|---|---|", *_rows(loader), "")
        if loader.formats:
            groups = (_code(value or "no metadata" for value in group) for group in loader.formats)
            yield f"Of safetensors by `format`, alike: {'; '.join(groups)}. It refuses others."
            yield ""


def _rows(loader: Loader) -> Iterator[str]:
    for _, group in groupby(loader.opens, _key):
        entries = list(group)
        first = entries[0]
        files = "; ".join(_file(each) for each in entries)
        yield f"| {first.role} | {files} | {_obeyed(first)} | {_executed(first)} |"


def _key(each: Opened) -> object:
    return each.role, each.obeys, each.ignores, each.executes


def _file(each: Opened) -> str:
    text = f"{each.order}. `{each.file}`" if each.order else f"`{each.file}`"
    if each.part:
        text += f" ({each.part})"
    if each.beside:
        text += f" (beside `{each.beside}`)"
    if each.first:
        text += " (the first by name)"
    if each.above:
        text += " (first where it was asked for a subfolder)"
    return text + (f" (unless {_code(each.unless)})" if each.unless else "")


def _obeyed(each: Opened) -> str:
    beside = "all" if each.obeys == ("**",) else _code(each.obeys)
    if each.role == "weights":
        beside = "tensors, " * bool(beside) + (beside or "tensors")
    return beside + (f"; not {_code(each.ignores)}" if each.ignores else "")


def _executed(each: Opened) -> str:
    return "the file" if each.executes == ("**",) else _code(each.executes)


def _values(found: Table) -> Iterator[str]:
    yield from ("| file | values | why no loader obeys them |", "|---|---|---|")
    for free in sorted(found.free, key=lambda it: (not it.state, it.why)):
        kind = "all: state of a training" if free.state else _all(free.keys)
        yield f"| `{free.file}` | {kind} | {free.why} |"
    for title, readings in (("a set", found.set), ("the name of a base model", found.base)):
        yield from ("", f"| file | keys | why taken for {title} |", "|---|---|---|")
        for each in readings:
            yield f"| `{each.file}` | {_code(each.keys)} | {each.why} |"


def _all(keys: tuple[str, ...]) -> str:
    return "all" if keys == ("**",) else _code(keys)


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{re.sub(r'[|]', '', word)}`" for word in words)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
