"""Paths of values inside a file, and the patterns that select them.

A *path* has a text for each key of an object and an integer for each place in a list:
``("log_history", 3, "train_runtime")``. A *pattern* spells it ``log_history[].train_runtime``:

- keys are separated by dots; what holds a dot, bracket, star or quote is quoted:
  ``"modelspec.date"``;
- ``[]`` stands for any place in a list; in it and nowhere else a pattern enters a list;
- ``*`` stands for any characters of one key: it crosses neither a dot nor a list;
- ``**`` as the last part stands for the value there and everything inside it (the table only).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

Path = tuple[str | int, ...]
"""Where a value is."""

MAX_LENGTH: Final = 256
"""Longest pattern, in characters."""

MAX_PARTS: Final = 32
"""Most keys and lists in a pattern."""

EVERYTHING: Final = "**"

_KEY: Final = r'(?:"(?:[^"\\]|\\["\\])+"|[^\s".\[\]\\]+)'
_LIST: Final = "[]"
_PATTERN: Final = re.compile(rf"(?:{_KEY}|\[\])(?:\[\]|\.{_KEY})*")
_BARE: Final = re.compile(r"[^\s\".\[\]\\*?]+")
_PART: Final = re.compile(rf"\[\]|{_KEY}")


@lru_cache(maxsize=4096)
def parse(pattern: str) -> tuple[re.Pattern[str] | str, ...]:
    """Return the parts of *pattern*: expressions for keys, ``[]`` and ``**`` as they are.

    ValueError says what is wrong with it.
    """
    if len(pattern) > MAX_LENGTH or not pattern.isprintable():
        raise ValueError(f"is not printable, or longer than {MAX_LENGTH} characters")
    if not _PATTERN.fullmatch(pattern):
        raise ValueError("is not keys joined by dots, with [] for a place in a list")
    parts = _PART.findall(pattern)
    if len(parts) > MAX_PARTS:
        raise ValueError(f"has more than {MAX_PARTS} parts")
    if EVERYTHING in parts[:-1]:
        raise ValueError("has '**' elsewhere than at the end")
    return tuple(part if part in (_LIST, EVERYTHING) else _key(part) for part in parts)


def _key(part: str) -> re.Pattern[str]:
    if part.startswith('"'):
        return re.compile(re.escape(re.sub(r"\\(.)", r"\1", part[1:-1])) + r"\Z")
    return re.compile(translate(part.replace("?", "[?]")))


def selects(pattern: str, path: Path) -> bool:
    """Tell whether *pattern* selects the value at *path*."""
    parts = parse(pattern)
    if parts[-1] == EVERYTHING:
        parts, path = parts[:-1], path[: len(parts) - 1]
    return len(parts) == len(path) and all(map(_is_part, parts, path))


def selects_any(patterns: Sequence[str], path: Path) -> bool:
    """Tell whether one of *patterns* selects the value at *path*."""
    return any(selects(pattern, path) for pattern in patterns)


def _is_part(part: re.Pattern[str] | str, step: str | int) -> bool:
    if isinstance(part, str):
        return isinstance(step, int)
    return isinstance(step, str) and part.match(step) is not None


def spelled(path: Path) -> str:
    """Return the pattern that selects *path*, and beside it only other places of its lists."""
    return _spelled(tuple(0 if isinstance(step, int) else step for step in path))


@lru_cache(maxsize=4096)
def _spelled(path: Path) -> str:
    text = ""
    for step in path:
        if isinstance(step, int):
            text += _LIST
            continue
        bare = _BARE.fullmatch(step) is not None
        quoted = '"' + re.sub(r'(["\\])', r"\\\1", step) + '"'
        text += ("." if text else "") + (step if bare else quoted)
    return text


def example(pattern: str) -> Path:
    """Return a path that *pattern* selects: a star is itself, a place in a list 0."""
    parts = [part for part in _PART.findall(pattern) if part != EVERYTHING]
    return tuple(
        0 if part == _LIST else re.sub(r"\\(.)", r"\1", part[1:-1]) if part[0] == '"' else part
        for part in parts
    )
