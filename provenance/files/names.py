"""File names that a manifest may hold.

A name is the path of a file below the folder, with ``/`` between its parts. It is refused where a
reader could be led outside the folder or shown something else than what is there: absolute names,
``.`` and ``..`` and empty parts, NUL and other control characters, line breaks, backslashes (a
separator to some readers), text direction overrides, and names that are not UTF-8.
"""

from __future__ import annotations

import unicodedata

from provenance.errors import MalformedError

MAX_NAME_BYTES = 4096
"""PATH_MAX on Linux, bytes of UTF-8."""

_CONTROL_CATEGORIES = ("Cc", "Zl", "Zp")
"""Control characters and the two line breaks outside ASCII."""

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: str, *, where: str | None = None) -> str:
    """Return *name*.

    Raises:
        MalformedError: *name* is not a name that a manifest may hold.
    """
    if problem := _problem(name):
        raise MalformedError(f"the file name {name!r} {problem}", where=where)
    return name


def is_plain(name: str) -> bool:
    """Tell whether *name* is relative, without backslashes and without parts "", "." and ".."."""
    return _path_problem(name) is None


def _problem(name: str) -> str | None:
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    if not (name.isascii() and name.isprintable()) and any(map(_is_control, name)):
        return "holds a control character"
    if length > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return _path_problem(name)


def _path_problem(name: str) -> str | None:
    if name.startswith("/"):
        return "is absolute"
    if "\\" in name:
        return "holds a backslash"
    parts = name.split("/")
    if ".." in parts:
        return "leaves the folder"
    return "has an empty part or '.'" if "" in parts or "." in parts else None


def _is_control(character: str) -> bool:
    return character in _BIDI_CONTROLS or unicodedata.category(character) in _CONTROL_CATEGORIES


def component_order(name: str) -> list[str]:
    """Return the sort key of *name*: its parts, so ``a/b`` comes before ``a-b``.

    The OpenSSF reference tool orders files so; its specification's text orders by code points.
    """
    return name.split("/")
