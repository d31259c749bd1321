"""Patterns that select files and tensors: globs (:mod:`provenance.loaders.globs`) in order.

The syntax is that of ``.gitignore``, without escapes and directories. File patterns are globs of
paths; in tensor patterns ``/`` is an ordinary character. A pattern that begins with ``!`` excludes;
the last one that matches decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from provenance.files.names import is_plain
from provenance.loaders.globs import Globs

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
    return _last(tuple(patterns), name, paths=True)


def selects_tensor(patterns: Sequence[str], name: str) -> bool:
    """Tell whether *patterns* select the tensor *name*."""
    return _last(tuple(patterns), name, paths=False)


def _last(patterns: tuple[str, ...], name: str, *, paths: bool) -> bool:
    matching = _globs(patterns, paths=paths).matching(name)
    return bool(matching) and not patterns[matching[-1]].startswith("!")


@lru_cache(maxsize=1024)  # MAX_PATTERNS of a declaration
def _globs(patterns: tuple[str, ...], *, paths: bool) -> Globs:
    return Globs([pattern.removeprefix("!") for pattern in patterns], paths=paths)
