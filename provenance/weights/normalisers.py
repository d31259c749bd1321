"""The differences between containers that do not count: a closed list, each with a version.

A reader states what its format can vary without changing a tensor as *facts*, each under the
normaliser that drops it (:func:`~provenance.weights.view.stated`). The outcome lists a normaliser
for each pair of files in which its fact differed; google/oss-rebuild issue 135 says why it must.

Never dropped: the content of ``__metadata__``, names, types, shapes.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Self

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError

MAX_DEPTH = 512
"""Of the description of a model, in levels: one of scikit-learn needs ten for each in another."""

_MAX_DIGITS = 16
"""Of an address; longer ones would be read as floats."""


class Normalised(msgspec.Struct, frozen=True):
    """A normaliser that had an effect on a file."""

    file: str
    name: str
    version: int
    reason: str


class Normaliser(StrEnum):
    """A difference that is dropped: its name, its version, and why that is right."""

    version: int
    reason: str

    def __new__(cls, name: str, version: int, reason: str) -> Self:
        """Return the member whose value is *name*."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.version, member.reason = version, reason
        return member

    ORDER = "order", 1, "entries are found by name, not by place"
    SPELLING = "spelling", 1, "the format spells one value in several ways; each is read strictly"
    LAYOUT = "layout", 1, "offsets, strides, chunks and padding only place the elements"
    COMPRESSION = "compression", 1, "it is lossless, and what it holds is compared"
    ARCHIVE_FIELDS = "archive-fields", 1, "times, versions and attributes of members are ignored"
    BYTE_ORDER = "byte-order", 1, "tensors are compared as little-endian, whatever the file stores"
    VERSION = "version", 1, "all versions of the format that are read lay out tensors alike"
    CONTAINER_TYPES = "container-types", 1, "container types, devices and flags change no value"
    UNREACHED_BYTES = "unreached-bytes", 1, "bytes that no tensor reaches are never loaded"
    SAVED_DATE = "saved-date", 1, "the date of saving, and how the file that states it is written"
    SHARDING = "sharding", 1, "loaders join the shards by the index, which places each tensor"
    CONTAINER_FORMAT = "container-format", 1, "both formats, read strictly, hold the same tensors"
    TIED_WEIGHTS = "tied-weights", 1, "tied names have equal bits, stored once or repeated"
    FORMAT_KEY = "format-key", 1, "'format' only names the framework that wrote the file"
    OBJECT_IDS = "object-ids", 1, "numbers of objects only say which are the same, and that is kept"
    WEIGHT_FILE_NAME = "weight-file-name", 1, "loaders look for the weights under either name"

    def had_effect_on(self, file: str) -> Normalised:
        """Return the entry of the outcome for the pair *file*."""
        return Normalised(file, self.value, self.version, self.reason)


def renumbered(text: str, key: str, beside: frozenset[str]) -> tuple[str, list[int]]:
    """Return the JSON *text* with the number under *key* of each object counted from 1, and those.

    Equal numbers remain equal, so which objects are the same is kept. Everything else stays byte
    for byte; all of it does where *key* stands for anything else: in an object without the keys
    *beside*, with another value than a positive integer, or in JSON that is not strict.
    """
    found = list(re.finditer(rf'(?<!\\)"{re.escape(key)}"\s*:\s*([1-9][0-9]*)', text))
    try:
        pending = [strict_json.parse(text.encode(), max_depth=MAX_DEPTH)] if found else []
    except MalformedError:
        return text, []
    ids: list[Any] = []
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if key in value:
                ids.append(value[key] if beside <= value.keys() else None)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    written = [int(match[1]) for match in found if len(match[1]) <= _MAX_DIGITS]
    if not all(type(each) is int for each in ids) or sorted(ids) != sorted(written):
        return text, []
    numbers: dict[str, int] = {}
    pieces, end = [], 0
    for match in found:
        number = numbers.setdefault(match[1], len(numbers) + 1)
        pieces += [text[end : match.start(1)], str(number)]
        end = match.end(1)
    return "".join([*pieces, text[end:]]), written
