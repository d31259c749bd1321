"""How an explanation is laid out: aligned rows of a label and a text, with limits.

Everything that is shown may come from a document that nobody verified, so :func:`explained` passes
each line through :func:`~provenance.errors.one_line`: a text can neither forge a line nor move the
cursor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.errors import ProvenanceError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LABEL_WIDTH = 13
"""Columns of a label, the space after it included."""

MAX_TEXT = 1000
"""Longest text shown of one value, in characters; ``--json`` has all of it."""

MAX_VALUE = 48
"""Longest text shown of one of many values in a line, in characters."""

MAX_ROWS = 20
"""Rows shown of one list; the rest is counted."""

DIGEST_DIGITS = 16
"""Hexadecimal digits shown where a digest only tells things apart."""


class Explained(msgspec.Struct, frozen=True):
    """What a file says, for programs and in lines; nothing of it is verified.

    ``problems`` are the parts that could not be understood: the lines name them in their place, and
    they decide the exit status.
    """

    content: Any
    lines: tuple[str, ...]
    problems: tuple[ProvenanceError, ...] = ()


def explained(
    content: object, lines: Iterable[str], problems: Sequence[ProvenanceError] = ()
) -> Explained:
    """Return the explanation *content* with *lines* made safe for a terminal."""
    return Explained(content, tuple(one_line(line) for line in lines), tuple(problems))


def row(label: str, text: str, depth: int = 1) -> str:
    """Return *label* and *text*, indented by *depth* steps."""
    return f"{'  ' * depth}{label:<{LABEL_WIDTH}}{shorten(text)}".rstrip()


def rows(label: str, texts: Sequence[str], depth: int = 1, limit: int = MAX_ROWS) -> list[str]:
    """Return a row for each of *texts*, at most *limit*; only the first has the label."""
    shown = [row("" if number else label, text, depth) for number, text in enumerate(texts[:limit])]
    if len(texts) > limit:
        shown.append(row("", f"and {len(texts) - limit:,} more", depth))
    return shown


def shorten(text: str, limit: int = MAX_TEXT) -> str:
    """Return *text*, cut after *limit* characters, with the number of those left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def sha256_text(digest: str) -> str:
    """Return the beginning of *digest*, enough to tell it from others."""
    return f"sha256 {digest[:DIGEST_DIGITS]}…" if digest else "no sha256"


def value_text(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return the JSON *value* in a few words; what is nested is counted."""
    if isinstance(value, str):
        return shorten(value, MAX_VALUE)
    if isinstance(value, dict) and len(value) > 1:
        return f"{{{len(value)} values}}"
    if isinstance(value, list) and len(value) > 1:
        return f"[{len(value)} values]"
    return shorten(msgspec.json.encode(value).decode(), MAX_VALUE)


def pairs_text(values: dict[str, Any], limit: int = MAX_ROWS) -> str:
    """Return *values* as ``name=value`` with commas between, at most *limit* of them."""
    parts = [f"{name}={value_text(values[name])}" for name in sorted(values)]
    more = [f"and {len(parts) - limit:,} more"] if len(parts) > limit else []
    return ", ".join([*parts[:limit], *more])
