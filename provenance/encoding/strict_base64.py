"""Base64 with one spelling for each byte string (RFC 4648, section 4; canonical per section 3.5).

The alphabet is the standard one, padding is required, and the unused bits of the last character
are zero. :func:`parse` therefore accepts exactly what :func:`format` emits.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec

from provenance.errors import MalformedError

_C = "[A-Za-z0-9+/]"

Base64 = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": rf"^({_C}{{4}})*({_C}{{2}}==|{_C}{{3}}=)?$"})
]
"""A text that :func:`parse` reads, as a field of a document; the pattern is for its schema only."""


def format(data: bytes) -> str:  # noqa: A001 - the pair parse/format is the house's naming
    """Return *data* in base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def parse(text: str, *, where: str | None = None) -> bytes:
    """Return the bytes that *text* spells."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise MalformedError(f"not base64: {error}", where=where) from error
    # CPython ignores the unused bits of the last character; only its last group can hold them.
    if format(data[-(len(data) % 3 or 3) :]) != text[-4:]:
        raise MalformedError("not canonical base64", where=where)
    return data
