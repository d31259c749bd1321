"""The container differences that an equality of tensors drops, each a named and versioned value.

A reader reports what its format can vary without changing a tensor as *facts*
(:mod:`provenance.weights.view`). A normaliser drops one fact, and is listed in the outcome for each
file in which that fact differed. The list is closed: a fact without a normaliser is a mismatch.
Why such a list must be in the signed outcome: google/oss-rebuild issue 135.

Never dropped: the content of ``__metadata__``, names, types, shapes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from provenance.weights.metadata import format_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from provenance.weights.view import TensorFile


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
            Normaliser(
                "gguf-version", 1, "version 3 added big-endian files, which are not read; else as 2"
            ),
            Normaliser("gguf-kv-order", 1, "keys and values are found by key, not by place"),
            Normaliser(
                "gguf-tensor-order", 1, "tensors are found by name; offsets, not order, place them"
            ),
            Normaliser(
                "gguf-alignment", 1, "alignment places tensors, the padding between them is zero"
            ),
            Normaliser("gguf-end-padding", 1, "zeros after the last tensor reach no tensor"),
            Normaliser("onnx-initializer-order", 1, "initialisers are found by name, not by place"),
            Normaliser(
                "onnx-map-order",
                1,
                "attributes, value information, properties, operator sets are found by name",
            ),
            Normaliser(
                "onnx-data-field",
                1,
                "the same numbers in raw_data, a typed field, or a file beside the model",
            ),
            Normaliser(
                "onnx-external-layout",
                1,
                "names and offsets place the tensors beside the model; zeros between them align",
            ),
            Normaliser(
                "onnx-protobuf-spelling",
                1,
                "protobuf is not canonical: one message has many spellings, each strictly read",
            ),
            Normaliser(
                "hdf5-byte-order", 1, "the canonical tensor is little-endian; values are the same"
            ),
            Normaliser(
                "hdf5-storage",
                1,
                "chunks, filters and offsets place the numbers; the filters are lossless",
            ),
            Normaliser("hdf5-compressed-bytes", 1, "one chunk has many deflate streams"),
            Normaliser(
                "hdf5-structure",
                1,
                "trees, heaps, times and free space; what they say of datasets is compared",
            ),
            Normaliser("keras-date-saved", 1, "the date, and the spelling of metadata.json"),
            Normaliser("keras-member-order", 1, "members are found by name, not by place"),
            Normaliser(
                "keras-member-fields",
                1,
                "times, versions, attributes and compression of ZIP members reach no tensor",
            ),
            Normaliser(
                "sharding",
                1,
                "loaders put the shards together by the index; each tensor is in one of them",
            ),
            Normaliser(
                "container-format",
                1,
                "two formats hold the same tensors; each was read by its own strict reader",
            ),
            Normaliser(
                "safetensors-format-key",
                1,
                "'format' in __metadata__ only names the framework that wrote the file",
            ),
            Normaliser(
                "weight-file-name",
                1,
                "each model has one set of weights left, under two names; loaders look for either",
            ),
            Normaliser(
                "tied-weights",
                1,
                "tied names have equal bits, whether they share stored bytes or repeat them",
            ),
            Normaliser(
                "torch-root-folder",
                1,
                "torch.save names the archive's folder after the file",
            ),
            Normaliser(
                "torch-serialization-id",
                1,
                "the identifier only tells saved files apart",
            ),
            Normaliser(
                "torch-version",
                1,
                "the version of the archive; tensors are laid out alike in all that are read",
            ),
            Normaliser(
                "torch-format-version",
                1,
                "the version of the records beside the tensors",
            ),
            Normaliser(
                "torch-byte-order",
                1,
                "the canonical tensor is little-endian; values are the same",
            ),
            Normaliser(
                "torch-storage-alignment",
                1,
                "alignment places storages, which are found by name",
            ),
            Normaliser(
                "torch-member-order",
                1,
                "members are found by name, not by place",
            ),
            Normaliser(
                "torch-member-fields",
                1,
                "times, versions, attributes and padding of ZIP members reach no tensor",
            ),
            Normaliser(
                "torch-pickle-spelling",
                1,
                "protocol, memo, widths of numbers and rebuilding calls spell the same values",
            ),
            Normaliser(
                "torch-entry-order",
                1,
                "entries are found by key, not by place",
            ),
            Normaliser(
                "torch-container-types",
                1,
                "dict or OrderedDict, list or tuple give the same values for the same keys",
            ),
            Normaliser(
                "torch-module-versions",
                1,
                "modules of versions 1 and 2 load the tensors that they are given alike",
            ),
            Normaliser(
                "torch-requires-grad",
                1,
                "whether a tensor is trained, or a parameter, does not change its value",
            ),
            Normaliser(
                "torch-storage-layout",
                1,
                "storage, offset and strides only place elements; the tensor is in C order",
            ),
            Normaliser(
                "torch-storage-location",
                1,
                "the device that a storage was saved from; its bytes are the same",
            ),
            Normaliser(
                "torch-unreached-bytes",
                1,
                "torch saves whole storages; bytes that no tensor reaches are in no loaded tensor",
            ),
        )
    }
)


_FORMAT_KEY: Final = "safetensors-format-key"


def effects(
    file: str, left: TensorFile, right: TensorFile, *, content_equal: bool
) -> tuple[Normalised, ...] | None:
    """Return the normalisers that had an effect on the pair *file*.

    Between two formats one normaliser drops all that their containers say; within one, each fact
    that differs is dropped by its own. Returns None where a fact has no normaliser, or where all
    facts are equal and so is the content: then nothing explains why the files differ.
    """
    facts, others = dict(left.container), dict(right.container)
    names = [name for name in {**facts, **others} if facts.get(name) != others.get(name)]
    if left.format != right.format:
        names = ["container-format"] if left.aliases == right.aliases else [
            "container-format", "tied-weights",
        ]  # fmt: skip
    if format_key(left) != format_key(right):
        names.append(_FORMAT_KEY)
    if not names and content_equal:
        names = ["npz-compressed-bytes"] if left.format == "npz" else []
        if not names:
            return None
    if any(name not in NORMALISERS for name in names):
        return None
    return tuple(normalised(file, name) for name in names)


def normalised(file: str, name: str) -> Normalised:
    """Return that the normaliser *name* had an effect on the pair *file*."""
    return Normalised(file, name, NORMALISERS[name].version, NORMALISERS[name].reason)
