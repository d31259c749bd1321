"""The differences between containers that do not count: a closed list, each with a version.

A reader states what its format can vary without changing a tensor as *facts*, each under the
normaliser that drops it (:func:`~provenance.weights.view.stated`). The outcome lists a normaliser
for each pair of files in which its fact differed; google/oss-rebuild issue 135 says why it must.

Never dropped: any other content of ``__metadata__``, names, types, shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Self

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError

MAX_DEPTH = 512
"""Of the description of a model, in levels: one of scikit-learn needs ten for each in another."""


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
    FORMAT_KEY = "format-key", 1, "loaders take safetensors that name either framework alike"
    TIED_WEIGHTS = "tied-weights", 2, "tied names have equal bits, stored once or repeated"
    OBJECT_IDS = "object-ids", 1, "numbers of objects only say which are the same, and that is kept"
    WEIGHT_FILE_NAME = "weight-file-name", 1, "loaders look for the weights under either name"

    def had_effect_on(self, file: str) -> Normalised:
        """Return the entry of the outcome for the pair *file*."""
        return Normalised(file, self.value, self.version, self.reason)


def renumbered(text: str, key: str, beside: frozenset[str]) -> tuple[str, list[str]]:
    """Return the JSON *text* with the number under *key* of each object counted from 1, and those.

    Equal numbers remain equal, so which objects are the same is kept. Everything else stays byte
    for byte; all of it does where *key* stands for anything else: in an object without the keys
    *beside*, with another value than a positive integer, or in JSON that is not strict.
    """
    found = re.findall(rf'(?<!\\)"{key}"\s*:\s*([1-9][0-9]{{0,15}})(?![0-9.eE])', text)
    if not found:
        return text, []
    try:
        tree = strict_json.parse(text.encode(), max_depth=MAX_DEPTH)
    except MalformedError:
        return text, []
    having = [it for _, it in objects_in(tree) if key in it]
    if len(having) != len(found) or not all(beside <= it.keys() for it in having):
        return text, []
    numbers = {number: str(place) for place, number in enumerate(dict.fromkeys(found), 1)}
    written = re.compile(rf'((?<!\\)"{key}"\s*:\s*)([1-9][0-9]*)')
    return written.sub(lambda it: it[1] + numbers[it[2]], text), found


def objects_in(tree: object) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield every object in the JSON value *tree*, in order, and the keys and places to it.

    These are one list, which changes.
    """
    way: list[str] = []
    levels: list[Iterator[tuple[object, Any]]] = [iter(((0, tree),))]
    while levels:
        key, value = next(levels[-1], (None, None))
        if key is None:
            levels.pop()
        elif isinstance(value, dict | list):
            way[max(len(levels) - 2, 0) :] = [str(key)] if len(levels) > 1 else []
            if isinstance(value, dict):
                yield way, value
            levels.append(iter(value.items() if isinstance(value, dict) else enumerate(value)))
