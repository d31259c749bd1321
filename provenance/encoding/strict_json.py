"""JSON: strict in, canonical out.

Accepted (RFC 8259 with the restrictions of I-JSON, RFC 7493):

- UTF-8 without a byte-order mark, one value, nothing after it but white space;
- no object with the same key twice;
- no ``NaN`` or infinity, no lone surrogate;
- no integer beyond 2^53 - 1 in magnitude, unless JCS writes a float so (:func:`parse`);
- at most ``max_bytes`` bytes, ``max_values`` values and ``max_depth`` levels of nesting.

Emitted: JCS (RFC 8785), in UTF-8.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec
import rfc8785

from provenance.errors import MalformedError

T = TypeVar("T")

MAX_BYTES = 256 * 2**20
"""Largest document read, in bytes. A signature over a million files is about 150 MB."""

MAX_VALUES = 10_000_000
"""Most values in one document (not keys), at most 1.5 GB in memory: 256 MiB could hold 85 million.
The signature of a million files has 4 million."""

MAX_DEPTH = 64
"""Deepest nesting read, in levels. The deepest document of ours has 12."""

MAX_INTEGER = 2**53 - 1
"""Largest magnitude of an integer that every JSON reader keeps exactly (RFC 7493, section 2.2)."""

_SAFE_CHARACTERS = 15
"""No integer of so few digits is beyond 2^53 - 1, which has 16."""

_MAX_CHARACTERS = 22
"""The longest integer that JCS writes: a sign and 21 digits."""

_AT_ONCE = (msgspec.MsgspecError, ArithmeticError, RecursionError, UnicodeError)
"""What msgspec refuses, and is then read slowly, to say what is wrong with it."""

_CONTAINERS = (dict, list, tuple)

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(
    data: bytes,
    *,
    where: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    max_depth: int = MAX_DEPTH,
) -> Any:  # noqa: ANN401 - a JSON value has no narrower type before its schema is checked
    """Return the value that *data* spells, as dict, list, str, int, float, bool and None.

    JCS writes the float 1e16 as ``10000000000000000``, so an integer beyond 2^53 - 1 is read as the
    float whose JCS form it is, and refused if there is none.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"longer than {max_bytes} bytes", where=where)
    if _most_values(data) > max_values:  # before any is made
        raise MalformedError(f"more than {max_values} values", where=where)
    try:
        with contextlib.suppress(*_AT_ONCE):
            value = msgspec.json.decode(data)
            if msgspec.json.encode(value) == data and _check_depth(value, max_depth):
                return value  # as it is spelled with nothing lost, no key was there twice
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_decimal,
            parse_constant=_constant,
        )
        _check_depth(value, max_depth)
        if _SURROGATE_ESCAPE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError("a string holds a lone surrogate", where=where) from error
    except UnicodeDecodeError as error:
        raise MalformedError(f"not UTF-8 at byte {error.start}", where=where) from error
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise MalformedError(what, where=where) from error
    except RecursionError as error:
        raise MalformedError(f"nested deeper than {max_depth} levels", where=where) from error
    except MalformedError as error:  # from the functions below, which do not know *where*
        raise MalformedError(error.what, where=where) from error
    return value


def convert(value: object, kind: type[T], *, where: str | None = None, what: str = "") -> T:
    """Return the JSON value *value* as a *kind* (a ``msgspec.Struct``); errors call it *what*."""
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        problem = str(error).replace("`", "'")
        raise MalformedError(f"not {what}: {problem}" if what else problem, where=where) from error


def _most_values(data: bytes) -> int:
    """Return an upper bound of the values in *data*: all but one follow a comma or a bracket."""
    return 1 + sum(map(data.count, (b",", b"[", b"{")))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedError(f"the key {key!r} is duplicated in one object")
            seen.add(key)
    return result


def _integer(text: str) -> int | float:
    """Return the integer *text*; beyond 2^53 - 1 the float whose JCS form *text* is (to 10^21)."""
    if len(text) <= _SAFE_CHARACTERS:
        return int(text)
    if len(text) <= _MAX_CHARACTERS:
        number = int(text)
        if -MAX_INTEGER <= number <= MAX_INTEGER:
            return number
        if rfc8785.dumps(float(number)) == text.encode("ascii"):
            return float(number)
    shown = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
    raise MalformedError(f"the integer {shown} is beyond 2^53 - 1")


def _decimal(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedError("a number is too large")
    return number


def _constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON")


def _check_depth(root: Any, max_depth: int) -> bool:  # noqa: ANN401
    """Refuse what is nested too deep; return whether no integer in *root* is beyond 2^53 - 1."""
    level, depth, small = [root], 0, True
    while level:
        small = small and not any(type(it) is int and abs(it) > MAX_INTEGER for it in level)
        containers = [it for it in level if isinstance(it, _CONTAINERS)]
        depth += bool(containers)
        if depth > max_depth:
            raise MalformedError(f"nested deeper than {max_depth} levels")
        level = [
            item
            for value in containers
            for item in (value.values() if isinstance(value, dict) else value)
            if type(item) is not str
        ]
    return small


def format(value: Any) -> bytes:  # noqa: A001, ANN401 - see strict_base64; a struct or a JSON value
    """Return *value* (a ``msgspec.Struct`` or a JSON value) in JCS."""
    try:
        plain = msgspec.to_builtins(value)
        if _check_depth(plain, MAX_DEPTH) and _sorts_alike(plain):
            data = msgspec.json.encode(plain, order="sorted")
        else:
            data = rfc8785.dumps(plain)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise MalformedError(f"cannot be written as canonical JSON: {error}") from error
    if len(data) > MAX_BYTES:
        raise MalformedError(f"longer than {MAX_BYTES} bytes")
    if _most_values(data) > MAX_VALUES:
        raise MalformedError(f"more than {MAX_VALUES} values")
    return data


def _sorts_alike(root: Any) -> bool:  # noqa: ANN401
    """Tell whether msgspec's sorted JSON of *root* is its JCS.

    Both write strings and small integers alike. They differ in floats (JCS writes them as
    ECMAScript does) and may differ in key order outside ASCII (JCS sorts by UTF-16 code units).
    rfc8785 needs 1.4 s for the manifest of 100,000 files, msgspec 0.06 s.
    """
    stack = [root]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind is str:
            continue
        if kind is dict:
            if not all(type(key) is str and key.isascii() for key in value):
                return False
            stack.extend(value.values())
        elif kind is list or kind is tuple:
            stack.extend(value)
        elif kind not in (int, bool) and value is not None:
            return False
    return True
