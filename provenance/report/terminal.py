"""Text for a terminal, and JSON for programs.

Everything that comes out of a document passes :func:`~provenance.errors.one_line` before it is
shown: a name could otherwise move the cursor or forge a line.
"""

from __future__ import annotations

import json
import re
from typing import Any

import click
import msgspec

_UNUSUAL = re.compile(r"[^\n -~]")
"""What is not printable ASCII, nor the line breaks of the layout."""


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON value or struct
    r"""Print *document* as one indented JSON document on stdout.

    What a terminal could obey, or a reader take for a line's end, is spelled ``\uXXXX``. Bytes of
    a path that are not UTF-8, for which JSON has no spelling, are escaped.
    """
    try:
        encoded = msgspec.json.encode(document, order="sorted")
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_spelled(msgspec.to_builtins(document)), order="sorted")
    text = msgspec.json.format(encoded, indent=2).decode()
    click.echo(_UNUSUAL.sub(lambda found: _escaped(found[0]), text))


def _escaped(character: str) -> str:
    """Return *character*, which stands in a JSON string, so that it can be printed."""
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _spelled(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_spelled(key): _spelled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value


def good(text: str) -> str:
    """Return *text* in green where stdout is a terminal."""
    return click.style(text, fg="green")


def bad(text: str) -> str:
    """Return *text* in red where stdout is a terminal."""
    return click.style(text, fg="red")


def dim(text: str) -> str:
    """Return *text* dimmed where stdout is a terminal."""
    return click.style(text, dim=True)
