"""The layout of explanations: the fields of a value as rows of a label and a text, with limits.

What is shown may come from unverified documents, so :func:`explained` passes each line through
:func:`~provenance.errors.one_line`: no text can forge a line or move the cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from provenance.errors import ProvenanceError, count, cut, one_line
from provenance.report.terminal import table

LABEL_WIDTH = 13
"""Columns of a label, the space after it included."""

MAX_TEXT, MAX_VALUE = 1000, 48
"""Longest text shown of a value, and of one of many values in a line, in characters."""

MAX_ROWS, MAX_PAIRS = 20, 8
"""Rows shown of one list, and values shown of an object in one row."""

MAX_SHOWN_BYTES = 2**26
"""Largest file of signed documents or of a manifest that is explained, in bytes."""

MAX_SHOWN_VALUES = 2**19
"""Most JSON values in one document that is explained: a claim about 130,000 files. They take up to
150 bytes of memory each; what ``verify`` parses, a trusted key has signed."""

MAX_SHOWN_DOCUMENTS = 100
"""Most signed documents of one file that are explained."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLANKS = re.compile(r" {4,}")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Kind = Literal[
    "bundles", "byproduct", "byproducts", "checkpoint", "entry-bundle", "equality-declaration",
    "link", "log", "log-state", "manifest", "metrics", "model", "private-key", "public-key",
    "signed-note", "statement", "tile", "vkey", "weights",
]  # fmt: skip
"""What a file or folder can be."""


class Explained(msgspec.Struct, frozen=True):
    """What a file says: *content* for programs, and *lines*; nothing of it is verified.

    ``problems`` are the parts that could not be understood: *lines* name them, and they decide the
    exit status.
    """

    kind: Kind
    content: dict[str, Any]
    lines: tuple[str, ...]
    problems: tuple[ProvenanceError, ...] = ()


def explained(
    kind: Kind,
    title: str,
    value: object,
    lines: Iterable[str] | None = None,
    problems: Sequence[ProvenanceError] = (),
) -> Explained:
    """Return the explanation of *value*, in *lines* or else field by field, under *title*."""
    shown = [f"{title} (not verified)", *(fields(value) if lines is None else lines)]
    content = msgspec.to_builtins(value)
    return Explained(kind, content, tuple(one_line(line) for line in shown), tuple(problems))


def fields(value: object, depth: int = 1, limit: int = MAX_ROWS) -> list[str]:
    """Return the fields of *value*, a struct or a JSON object, as rows; empty ones are left out.

    A list of objects becomes a table. Of each list and object at most *limit* items are shown.
    """
    items = list(msgspec.to_builtins(value).items())
    lines: list[str] = []
    for name, item in items[:limit]:
        label = _WORD.sub(" ", shorten(name, MAX_VALUE)).lower()
        if item is None or item in ("", (), [], {}):
            continue
        if isinstance(item, dict) and item.keys() != {"sha256"}:
            lines += [row(label, "", depth), *fields(item, depth + 1, limit)]
        elif isinstance(item, list | tuple) and isinstance(item[0], dict):
            lines += [row(label, f"{len(item):,}", depth), *_table(item, depth + 1, limit)]
        elif isinstance(item, list | tuple):
            lines += rows(label, [cell(each) for each in item], depth, limit)
        else:
            whole = item["sha256"] if isinstance(item, dict) else item
            text = whole if isinstance(whole, str) else cell(whole)
            lines.append(row(label, f"{text} bytes" if name == "size" else text, depth))
    return lines + _more(len(items), limit, depth)


def row(label: str, text: str, depth: int = 1) -> str:
    """Return a line with *label* and *text*, indented by *depth* steps."""
    return f"{'  ' * depth}{label:<{LABEL_WIDTH - 1}} {shorten(text)}".rstrip()


def rows(label: str, texts: Sequence[str], depth: int = 1, limit: int = MAX_ROWS) -> list[str]:
    """Return a row for each of *texts*, at most *limit*; only the first has the label."""
    shown = cut(texts, limit)
    return [row("" if number else label, text, depth) for number, text in enumerate(shown)]


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text*, cut after *limit* characters, with the number of those left out.

    Many blanks are a number: on a terminal, what follows them could begin a line like a heading.
    """
    text = _BLANKS.sub(lambda run: f" ({len(run[0]):,} blanks) ", text)
    left = len(text) - limit
    return f"{text[:limit]}… ({left:,} more characters)" if left > 0 else text


def cell(value: Any, *, brief: bool = False) -> str:  # noqa: ANN401 - any JSON value
    """Return the JSON *value* in a few words, with SHA-256 digests cut.

    With *brief*, the values of an object are only counted.
    """
    if isinstance(value, str):
        digest = _SHA256.fullmatch(value)
        return f"{value[:16]}…" if digest else shorten(value, MAX_VALUE if brief else MAX_TEXT)
    if isinstance(value, list | tuple):
        text = ", ".join(cell(item, brief=True) for item in value[:MAX_ROWS])
        return f"[{text}]" if all(type(item) is int for item in value) else text
    if isinstance(value, dict):
        if value.keys() == {"sha256"}:
            return cell(value["sha256"])
        parts = [f"{name}={cell(value[name], brief=True)}" for name in sorted(value)]
        return count(len(value), "value") if brief else ", ".join(cut(parts, MAX_PAIRS))
    if isinstance(value, float):
        return f"{value:.10g}"
    words = {None: "null", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else f"{value:,}"


def _table(items: Sequence[dict[str, Any]], depth: int, limit: int) -> list[str]:
    shown = items[:limit]
    names = list(dict.fromkeys(name for item in shown for name in item))
    numeric = {n for n, name in enumerate(names) if all(type(i.get(name)) is int for i in shown)}
    header = ["bytes" if name == "size" else _WORD.sub(" ", name).lower() for name in names]
    texts = [[cell(item[name]) if name in item else "" for name in names] for item in shown]
    lines = [f"{'  ' * depth}{line}" for line in table(header, texts, right=frozenset(numeric))]
    return lines + _more(len(items), limit, depth)


def _more(number: int, limit: int, depth: int) -> list[str]:
    return [row("", f"and {number - limit:,} more", depth)] if number > limit else []
