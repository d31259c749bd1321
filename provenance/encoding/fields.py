"""Fields of a JSON value that was read strictly: each check names the field that fails.

For formats of others, whose objects are read by hand; a document of ours is one frozen type.
"""

from __future__ import annotations

from typing import Any

from provenance.errors import MalformedError


def as_object(value: object, name: str, where: str | None) -> dict[str, Any]:
    """Return *value*, called *name*, which must be a JSON object.

    Raises:
        MalformedError: it is something else.
    """
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is not a JSON object", where=where)
    return value


def as_closed_object(
    value: object,
    name: str,
    where: str | None,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return *value* as :func:`as_object`, with all *required* fields and no unknown one.

    Raises:
        MalformedError: it is no object, has no field of *required*, or one of another name.
    """
    document = as_object(value, name, where)
    for field in required:
        if field not in document:
            raise MalformedError(f"{name} has no {field}", where=where)
    for field in document:
        if field not in required and field not in optional:
            raise MalformedError(f"{name} has the unknown field {field!r}", where=where)
    return document


def as_text(value: object, name: str, where: str | None) -> str:
    """Return *value*, called *name*, which must be a text.

    Raises:
        MalformedError: it is something else.
    """
    if not isinstance(value, str):
        raise MalformedError(f"{name} is not a text", where=where)
    return value
