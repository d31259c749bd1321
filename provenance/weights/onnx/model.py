"""ONNX models: every tensor in the file, those of inner graphs and ``Constant`` nodes too.

Format: ``onnx.proto`` of onnx/onnx. Four steps: ``protobuf`` checks and parses the message, with
the package ``onnx`` (extra ``onnx``); ``graph`` digests it and names its tensors; ``data`` finds
the numbers of each; ``external`` opens the files beside the model that hold some.

A tensor has its numbers in one field, which its type allows, and as many as its shape asks for.
Which of ``raw_data``, a typed field or a file beside the model that is, is a fact and not content.
Refused: tensors in segments, without a type, or with the name of another.

Content but not tensors of the view: texts (in the digest of the graph), and packed elements that
end inside a byte (an entry ``tensor NAME``, at most 64 KiB).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from provenance.errors import MalformedError
from provenance.weights.normalisers import Normaliser
from provenance.weights.onnx import data
from provenance.weights.onnx.external import (
    External,
    check_covered,
    external_place,
    location_of,
    open_beside,
)
from provenance.weights.onnx.graph import content, tensors
from provenance.weights.onnx.protobuf import Parsed, Payload, parse, payloads
from provenance.weights.source import Source
from provenance.weights.view import SourceFile, TensorInfo, check_count, check_name, stated

_STRING: Final = 8
"""``TensorProto.STRING``."""

_OUTSIDE: Final = 1
"""``TensorProto.EXTERNAL``."""


class OnnxFile(SourceFile):
    """An open ONNX model. See :class:`~provenance.weights.view.TensorFile`."""

    format = "onnx"

    def __init__(
        self, source: Source, folder: Path, sha256: Mapping[str, str | None] | None = None
    ) -> None:
        """Read and check the model that *source* is; files beside it are in *folder*.

        *sha256* is what those should have, by name.
        """
        super().__init__(source)
        self.beside: dict[str, Source] = {}
        """The files beside the model, open, by their paths below its folder."""
        try:
            self._read(parse(source), folder, sha256)
        except BaseException:
            self.close()
            raise

    def _read(self, parsed: Parsed, folder: Path, sha256: Mapping[str, str | None] | None) -> None:
        where = self._source.name
        said, orders = content(parsed.model, where=where)
        self._places: dict[str, data.Place] = {}
        externals: dict[str, External] = {}
        infos: dict[str, TensorInfo] = {}
        fields: dict[str, str] = {}
        for count, (name, tensor) in enumerate(tensors(parsed.model)):
            check_count(count, where=where)
            check_name(name, where=where)
            if not name or name in fields:
                what = f"duplicate tensor name {name!r}" if name else "without a name"
                raise MalformedError(what, where=where)
            inside = f"{where}: {name}"
            fields[name] = "string_data"
            numbers, outside = payloads(tensor), tensor.data_location
            if tensor.data_type == _STRING:
                if numbers or outside:  # they would be in no digest
                    raise MalformedError("STRING tensor with numeric data", where=inside)
                continue
            info, dtype = data.describe_numbers(name, tensor, where=inside)
            if not outside:
                if tensor.external_data:
                    raise MalformedError("external data, but data_location DEFAULT", where=inside)
                place = data.place_inside(self._source, tensor, dtype or info.dtype, where=inside)
            else:
                if outside != _OUTSIDE or numbers:
                    raise MalformedError("its numbers are in two places", where=inside)
                external = externals[name] = external_place(tensor, info, where=inside)
                location, offset = external.location, external.offset
                if location not in self.beside:
                    self.beside[location] = open_beside(folder, location, name=where, sha256=sha256)
                payload = Payload(offset, info.nbytes)
                place = data.Place(self.beside[location], "external_data", payload)
            data.check_numbers(place, info, where=inside)
            fields[name] = place.field
            if dtype is None:
                infos[name], self._places[name] = info, place
            else:
                said[f"tensor {name}"] = data.loose_text(place, info, tensor, dtype, inside)
        check_covered(self.beside, externals.values())
        self.tensors: Mapping[str, TensorInfo] = dict(
            sorted(infos.items(), key=lambda pair: self._order(pair[0]))
        )
        self.metadata: Mapping[str, str] = said
        places = sorted((name, external.fields) for name, external in externals.items())
        self.container = stated(
            {
                Normaliser.ORDER: orders,
                Normaliser.LAYOUT: [sorted(fields.items()), places],
                Normaliser.SPELLING: "plain" if parsed.plain else _spelling(self._source, parsed),
            }
        )
        self.aliases = _aliases(infos, externals)
        self.direct = all(not data.is_packed(place.field) for place in self._places.values())

    def _order(self, name: str) -> tuple[str, int]:
        place = self._places[name]
        beside = "" if place.source is self._source else place.source.name
        return beside, place.payload.start

    def pieces(self, name: str, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Return the tensor's bytes. See :meth:`~provenance.weights.view.TensorFile.pieces`."""
        where = f"{self._source.name}: {name}"
        return data.chunks(self._places[name], self.tensors[name], (begin, end), step, where)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The model's own file, and those beside it."""
        return self._source, *self.beside.values()

    def check_unchanged(self) -> None:
        """Raise UnreadableError if a file was written to since it was opened."""
        for source in self.sources:
            source.check_unchanged()

    def close(self) -> None:
        """Close the model and the files beside it."""
        for source in self.sources:
            source.close()


def external_files(path: Path) -> tuple[str, ...]:
    """Return the files that the model at *path* keeps tensors in: sorted paths below its folder."""
    with Source(path) as source:
        found = {
            location_of(tensor, where=f"{source.name}: {name}")
            for name, tensor in tensors(parse(source).model)
            if tensor.data_location
        }
    return tuple(sorted(found))


def _aliases(
    infos: Mapping[str, TensorInfo], externals: Mapping[str, External]
) -> tuple[tuple[str, ...], ...]:
    """Return the names that share their bytes in a file beside the model."""
    groups: dict[object, list[str]] = {}
    for name, external in externals.items():
        info = infos.get(name)
        if info is not None and info.nbytes:
            key = (external.location, external.offset, info.dtype.name, info.shape)
            groups.setdefault(key, []).append(name)
    return tuple(sorted(tuple(sorted(names)) for names in groups.values() if len(names) > 1))


def _spelling(source: Source, parsed: Parsed) -> str:
    """Return the digest of the file less the bytes of its tensors."""
    hasher = hashlib.sha256()
    position = 0
    for payload in (*parsed.payloads, Payload(source.size, 0)):
        for chunk in source.chunks(position, payload.start, 2**20):
            hasher.update(chunk)
        position = payload.start + payload.length
    return hasher.hexdigest()
