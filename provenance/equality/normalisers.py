"""The container differences that an equality of tensors drops, each a named and versioned value.

A reader reports what its format can vary without changing a tensor as *facts*
(:mod:`provenance.tensors.view`). A normaliser drops one fact, and is listed in the outcome for each
file in which that fact differed. The list is closed: a fact without a normaliser is a mismatch.
Why such a list must be in the signed outcome: google/oss-rebuild issue 135.

Never dropped: the content of ``__metadata__``, names, types, shapes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Normaliser(msgspec.Struct, frozen=True):
    """A difference that is dropped, and why that is right."""

    name: str
    version: int
    reason: str


class Normalised(msgspec.Struct, frozen=True):
    """A normaliser that had an effect on a file."""

    file: str
    name: str
    version: int
    reason: str


NORMALISERS: Final[Mapping[str, Normaliser]] = MappingProxyType(
    {
        normaliser.name: normaliser
        for normaliser in (
            Normaliser(
                "safetensors-metadata-order",
                1,
                "the library writes the keys of __metadata__ in random order (safetensors #584)",
            ),
            Normaliser(
                "safetensors-header-order",
                1,
                "the header is an unordered JSON object; offsets, not its order, place tensors",
            ),
            Normaliser(
                "safetensors-tensor-order",
                1,
                "tensors are found by name; writers sort them by type or leave them as given",
            ),
            Normaliser(
                "safetensors-header-padding",
                1,
                "spaces after the header only align the tensors' bytes",
            ),
            Normaliser(
                "safetensors-header-spelling",
                1,
                "white space and escapes of JSON do not change the header's value",
            ),
            Normaliser("npz-member-order", 1, "arrays are found by name, not by place"),
            Normaliser("npz-compression", 1, "deflate is lossless; the CRC-32 is checked"),
            Normaliser(
                "npz-member-fields",
                1,
                "times, versions, attributes and extra fields of ZIP members reach no array",
            ),
            Normaliser(
                "npz-compressed-bytes",
                1,
                "one array has many deflate streams of the same length",
            ),
            Normaliser(
                "npy-header-spelling",
                1,
                "version, key order and padding of the array's header do not change its value",
            ),
            Normaliser(
                "npy-byte-order", 1, "the canonical tensor is little-endian; values are the same"
            ),
            Normaliser("npy-memory-order", 1, "the canonical tensor is in C order"),
        )
    }
)


def effects(
    file: str, left: Mapping[str, str], right: Mapping[str, str], *, content_equal: bool
) -> tuple[Normalised, ...] | None:
    """Return the normalisers that had an effect on *file*, from the facts of both containers.

    Returns None where the facts are not comparable (two formats), one has no normaliser, or they
    are all equal and so is the content: then nothing explains why the files differ.
    """
    if left.keys() != right.keys():
        return None
    named = [name for name in left if left[name] != right[name]]
    if not named and content_equal:
        named = ["npz-compressed-bytes"] if "npz-compression" in left else []
        if not named:
            return None
    if any(name not in NORMALISERS for name in named):
        return None
    return tuple(
        Normalised(file, name, NORMALISERS[name].version, NORMALISERS[name].reason)
        for name in named
    )
