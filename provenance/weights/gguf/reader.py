"""GGUF: typed keys and values, the tensors' descriptions, their bytes.

Format: docs/gguf.md of ggml-org/ggml, versions 2 and 3, little-endian; element types as in
:mod:`~provenance.weights.gguf.types`. Shapes are given in C order, as in numpy and torch: the file
has the innermost dimension first.

The keys and values are the file's metadata (:mod:`~provenance.weights.gguf.values`), except
``general.alignment``, which only places tensors. Stricter than llama.cpp and the package ``gguf``
where these leave room for two readings:

- tensors cover the data from its start to the end of the file, each aligned, in any order; padding
  is zero, and optional after the last, which some writers do not pad;
- names and texts are UTF-8, keys ASCII; booleans are 0 or 1;
- a tensor has one to four dimensions, all non-zero, and its rows are whole blocks.

The container facts are version, order of keys, order of tensors, alignment, and whether the end is
padded. Together with tensors and metadata they determine the file's bytes.
"""

from __future__ import annotations

from typing import Final

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.gguf.types import GGML_TYPES
from provenance.weights.gguf.values import U32, Header, read_key, read_value
from provenance.weights.normalisers import Normaliser
from provenance.weights.source import Source
from provenance.weights.view import (
    PlacedFile,
    TensorInfo,
    check_count,
    check_name,
    describe,
    stated,
)

MAX_KEYS: Final = 65_536
"""Most keys. Language models have about 40."""

MAX_NAME: Final = 64
"""Longest name of a tensor, in bytes (docs/gguf.md)."""

MAX_DIMENSIONS: Final = 4
"""Most dimensions of a tensor: ``GGML_MAX_DIMS``."""

MIN_ALIGNMENT: Final = 8
MAX_ALIGNMENT: Final = 65_536
"""In bytes: docs/gguf.md asks for a multiple of 8, llama.cpp for a power of two; the largest page
of the processors that models are mapped on."""

DEFAULT_ALIGNMENT: Final = 32
"""The alignment where no key states it, in bytes (docs/gguf.md)."""

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = "general.alignment"

_Placed = tuple[TensorInfo, int]
"""A tensor, and where its bytes begin, from the beginning of the data."""


class GgufFile(PlacedFile):
    """An open GGUF file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "gguf"

    def __init__(self, source: Source) -> None:
        """Read and check everything of *source* but the tensors' bytes."""
        super().__init__(source)
        header = Header(source)
        version = _version(header)
        tensors, keys = header.natural(8), header.natural(8)
        check_count(tensors, where=source.name)
        if keys > MAX_KEYS:
            raise MalformedError(f"more than {MAX_KEYS} keys", where=source.name)
        metadata, alignment, stated_at = _keys(header, keys)
        placed = _tensors(header, tensors)
        source.head = header.since(0)
        in_order = sorted(placed, key=lambda tensor: tensor[1])
        start = _aligned(header.position, alignment) if placed else header.position
        padded = _check_places(source, header.position, start, in_order, alignment)
        self._offsets = {info.name: start + offset for info, offset in placed}
        self.tensors = {info.name: info for info, _ in in_order}
        self.metadata = metadata
        orders = [[info.name for info, _ in order] for order in (placed, in_order)]
        where = "by default" if stated_at is None else f"stated after {stated_at} keys"
        end = "padded" if padded else "unpadded"
        self.container = stated(
            {
                Normaliser.VERSION: str(version),
                Normaliser.ORDER: [list(metadata), *orders],
                Normaliser.LAYOUT: f"{alignment} {where}, {end}",
            }
        )


def _version(header: Header) -> int:
    if header.take(4) != _MAGIC:
        raise MalformedError("does not begin as GGUF does", where=header.where)
    raw = header.take(4)
    version = int.from_bytes(raw, "little")
    if int.from_bytes(raw, "big") in _VERSIONS:
        hint = "convert it with gguf-convert-endian"
        raise UnreadableError("is big-endian GGUF", where=header.where, hint=hint)
    if version == 1:
        raise UnreadableError("is GGUF version 1, which llama.cpp dropped", where=header.where)
    if version not in _VERSIONS:
        raise MalformedError(f"there is no GGUF version {version}", where=header.where)
    return version


def _keys(header: Header, number: int) -> tuple[dict[str, str], int, int | None]:
    """Return the metadata, the alignment, and how many keys precede it (None: it is not stated)."""
    metadata: dict[str, str] = {}
    alignment, stated_at = DEFAULT_ALIGNMENT, None
    for place in range(number):
        key = read_key(header)
        where = f"{header.where}: {key}"
        if key in metadata or (key == _ALIGNMENT and stated_at is not None):
            raise MalformedError("duplicate key", where=where)
        if key != _ALIGNMENT:
            metadata[key] = read_value(header, where=where)
            continue
        if header.natural(4) != U32:
            raise MalformedError("is not of type u32", where=where)
        stated_at, alignment = place, header.natural(4)
        if not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            what = f"{alignment} is not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}"
            raise MalformedError(what, where=where)
    return metadata, alignment, stated_at


def _tensors(header: Header, number: int) -> list[_Placed]:
    placed: dict[str, _Placed] = {}
    for _ in range(number):
        info, offset = _tensor(header)
        if info.name in placed:
            raise MalformedError("duplicate tensor name", where=f"{header.where}: {info.name}")
        placed[info.name] = info, offset
    return list(placed.values())


def _tensor(header: Header) -> _Placed:
    name = check_name(header.text(MAX_NAME, "the name of a tensor"), where=header.where)
    where = f"{header.where}: {name}"
    rank = header.natural(4)
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise MalformedError(f"has {rank} dimensions, not 1 to {MAX_DIMENSIONS}", where=where)
    inner_first = [header.natural(8) for _ in range(rank)]
    number = header.natural(4)
    dtype = GGML_TYPES.get(number)
    if dtype is None:
        raise MalformedError(f"the element type {number} is not known", where=where)
    if 0 in inner_first:
        raise MalformedError("has a dimension of size 0", where=where)
    info = describe(name, dtype, inner_first[::-1], where=where)
    if inner_first[0] % info.dtype.block:
        what = f"its rows of {inner_first[0]} elements are not whole blocks of {info.dtype.block}"
        raise MalformedError(what, where=where)
    return info, header.natural(8)


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _check_places(
    source: Source, position: int, start: int, tensors: list[_Placed], alignment: int
) -> bool:
    """Check that *tensors*, in order, fill *source* from *start* on; return whether it is padded.

    *position* is where the descriptions end.
    """
    last, end = position, 0  # where data ends: in the file, and from *start*
    for info, offset in tensors:
        expected = _aligned(end, alignment)
        if offset != expected:
            what = "overlaps the one before" if offset < end else "is not where the one before ends"
            raise MalformedError(f"the tensor {what}", where=f"{source.name}: {info.name}")
        end = offset + info.nbytes
        if start + end > source.size:
            raise MalformedError("the tensor is cut off", where=f"{source.name}: {info.name}")
        _check_zeros(source, last, start + offset)
        last = start + end
    rest = source.size - last
    padding = _aligned(last, alignment) - last
    if rest not in (0, padding):
        raise MalformedError(
            f"{rest} bytes follow the last tensor, its padding has {padding}", where=source.name
        )
    _check_zeros(source, last, source.size)
    return rest == padding


def _check_zeros(source: Source, begin: int, end: int) -> None:
    if begin < end and source.read(begin, end - begin).strip(b"\0"):
        raise MalformedError(f"the padding at byte {begin} is not zero", where=source.name)
