"""Patterns that select files and tensors, matched in time linear in pattern times name.

The syntax is that of ``.gitignore``, without escapes and directories:

- ``*`` matches any characters, ``?`` one, ``[a-z]`` and ``[!a-z]`` one of a set;
- in file patterns these do not match ``/``; ``**`` matches any number of whole folders; a pattern
  without ``/`` is matched with the last part of the name, one with ``/`` with the whole;
- in tensor patterns ``/`` is an ordinary character;
- a pattern that begins with ``!`` excludes; the last one that matches decides.

No library is used: ``*a*a*a*a*b`` would become a regular expression that takes exponential time,
and patterns come from untrusted documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

from provenance.files.names import is_plain

MAX_LENGTH: Final = 256
"""Longest pattern, in characters."""


def fault(pattern: str) -> str | None:
    """Return what is wrong with *pattern*; None: nothing."""
    body = pattern.removeprefix("!")
    if not body or len(pattern) > MAX_LENGTH:
        return f"is empty or longer than {MAX_LENGTH} characters"
    if not pattern.isprintable() or "\\" in pattern or body.startswith("!"):
        return "holds a control character, a backslash or a second '!'"
    if not is_plain(body.removeprefix("/")):
        return "has an empty part, '.' or '..'"
    return None


def selects_file(patterns: Sequence[str], name: str) -> bool:
    """Tell whether *patterns* select the file *name* (parts joined by ``/``)."""
    return _last(patterns, lambda pattern: _matches_path(pattern, name))


def selects_tensor(patterns: Sequence[str], name: str) -> bool:
    """Tell whether *patterns* select the tensor *name*."""
    return _last(patterns, lambda pattern: _glob(pattern).match(name) is not None)


def _last(patterns: Sequence[str], matches: Callable[[str], bool]) -> bool:
    for pattern in reversed(patterns):
        if matches(pattern.removeprefix("!")):
            return not pattern.startswith("!")
    return False


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> re.Pattern[str]:
    """Return *pattern* compiled; each star is atomic, so that nothing is tried twice."""
    return re.compile(translate(pattern))


def _matches_path(pattern: str, name: str) -> bool:
    parts = name.split("/")
    if "/" not in pattern:
        return _glob(pattern).match(parts[-1]) is not None
    # reached[i]: the pattern's parts so far match the first i parts of the name.
    reached = [True] + [False] * len(parts)
    for wanted in pattern.removeprefix("/").split("/"):
        if wanted == "**":
            for index in range(1, len(reached)):
                reached[index] = reached[index] or reached[index - 1]
        else:
            glob = _glob(wanted)
            reached = [False] + [
                before and glob.match(part) is not None
                for before, part in zip(reached, parts, strict=False)
            ]
    return reached[-1]
