"""safetensors: an eight-byte length, a JSON header, the tensors' bytes.

Format: the README of huggingface/safetensors, section "Format". Stricter than the reference
library (0.8.0) where a file could be read in two ways:

- duplicate keys are refused (the library takes the last);
- the header holds only tensors and ``__metadata__``, an entry only its three keys;
- control characters in names are refused; only spaces (0x20) may follow the header's ``}``.

As in the library, tensors cover the whole buffer: no gap, no overlap, nothing after the last.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError
from provenance.weights.kinds import MAX_HEADER
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

_MAX_VALUES: Final = 2**20
"""Most JSON values in a header: that of 100,000 tensors has 900,000."""

_MAX_METADATA: Final = 2**16

_METADATA: Final = "__metadata__"
_DTYPES: Final = frozenset(
    {
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0",
        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64",
        "F64", "I64", "U64",
    }
)  # fmt: skip
"""The element types of the format: ``Dtype`` of the reference library, 0.8.0."""

_ENTRY: Final = frozenset({"dtype", "shape", "data_offsets"})
_MAX_DEPTH: Final = 4


class SafetensorsFile(PlacedFile):
    """An open safetensors file. See :class:`~provenance.weights.view.TensorFile`."""

    format = "safetensors"

    def __init__(self, source: Source) -> None:
        """Read and check the header of *source*."""
        super().__init__(source)
        header, self._start = _read_header(source)
        source.head = (self._start - 8).to_bytes(8, "little") + header
        # The header begins with a brace, so what it spells is an object.
        entries = strict_json.parse(
            header, where=source.name, max_values=_MAX_VALUES, max_depth=_MAX_DEPTH
        )
        check_count(len(entries) - (_METADATA in entries), where=source.name)
        self.metadata = _metadata(entries, source.name)
        named = self.metadata.get("format") if _METADATA in entries else ""
        self.frameworks = frozenset({named})
        tensors = ((name, entry) for name, entry in entries.items() if name != _METADATA)
        places = [_place(name, entry, source.name) for name, entry in tensors]
        places.sort(key=lambda place: place[1:])
        end = 0
        for info, begin, stop in places:
            if begin != end:
                what = "overlaps the one before" if begin < end else "leaves a gap before it"
                raise MalformedError(f"the tensor {what}", where=f"{source.name}: {info.name}")
            end = stop
        if self._start + end != source.size:
            what = f"the tensors take {end} bytes, the file has {source.size - self._start}"
            raise MalformedError(what, where=source.name)
        self._offsets = {info.name: self._start + begin for info, begin, _ in places}
        self.tensors = {info.name: info for info, _, _ in places}
        self.container = _container(header, entries, list(self.tensors))


def _read_header(source: Source) -> tuple[bytes, int]:
    if source.size < 8:  # noqa: PLR2004 - the length field
        raise MalformedError("too short to be safetensors", where=source.name)
    (length,) = struct.unpack("<Q", source.read(0, 8))
    if length > MAX_HEADER:
        raise MalformedError(f"the header is longer than {MAX_HEADER} bytes", where=source.name)
    if 8 + length > source.size:
        raise MalformedError("the header is longer than the file", where=source.name)
    header = source.read(8, length)
    if not header.startswith(b"{") or not header.rstrip(b" ").endswith(b"}"):
        raise MalformedError("the header is not one object and spaces", where=source.name)
    return header, 8 + length


def _metadata(entries: dict[str, Any], where: str) -> Mapping[str, str]:
    metadata = entries.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise MalformedError(f"{_METADATA} is not an object of strings", where=where)
    if len(metadata) > _MAX_METADATA:
        raise MalformedError(f"{_METADATA} has more than {_MAX_METADATA} values", where=where)
    return dict(metadata)


def _place(name: str, entry: object, where: str) -> tuple[TensorInfo, int, int]:
    check_name(name, where=where)
    place = f"{where}: {name}"
    if not isinstance(entry, dict) or entry.keys() != _ENTRY:
        raise MalformedError("an entry has the keys dtype, shape and data_offsets", where=place)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list):
        raise MalformedError("dtype is a string and shape a list", where=place)
    if dtype not in _DTYPES:
        raise MalformedError(f"unknown element type {dtype!r}", where=place)
    info = describe(name, dtype, shape, where=place)
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise MalformedError("data_offsets are two integers", where=place)
    begin, end = offsets
    if begin < 0 or end - begin != info.nbytes:
        what = f"takes {end - begin} bytes, its type and shape {info.nbytes}"
        raise MalformedError(what, where=place)
    return info, begin, end


def _container(header: bytes, entries: dict[str, Any], order: list[str]) -> Mapping[str, str]:
    """Return the facts that, with the content, determine every byte of the file.

    *order* is that of the tensors' bytes, which gives the offsets. The header's text is the compact
    one that the library writes, or given by digest.
    """
    body = header.rstrip(b" ")
    compact = body == msgspec.json.encode(entries)
    return stated(
        {
            # Of each tensor, the order of its three keys; of the metadata, that of all its keys.
            Normaliser.ORDER: [[(name, *entry) for name, entry in entries.items()], order],
            Normaliser.LAYOUT: str(len(header) - len(body)),
            Normaliser.SPELLING: "compact" if compact else hashlib.sha256(body).hexdigest(),
        }
    )
