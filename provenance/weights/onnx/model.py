"""ONNX models: every tensor in the file, those of inner graphs and ``Constant`` nodes too.

Format: ``onnx.proto`` of onnx/onnx. Four steps: ``protobuf`` checks and parses the message, with
the package ``onnx`` (extra ``onnx``); ``graph`` digests it and names its tensors; ``data`` finds
the numbers of each; some are in files beside the model.

A tensor has its numbers in one field, which its type allows, and as many as its shape asks for.
Which of ``raw_data``, a typed field or a file beside the model that is, is a fact and not content.
Refused: tensors in segments, without a type, or with the name of another.

Content but not tensors of the view: texts (in the digest of the graph), and packed elements that
end inside a byte (an entry ``tensor NAME``, at most 64 KiB).

The files beside a model (``docs/ExternalData.md`` of onnx/onnx) are read more strictly than by the
libraries:

- a location is a plain relative path below the model's folder: no ``..``, no backslash, no symbolic
  link (CVE-2024-5187 and CVE-2025-51480 of the library);
- its last part is a name that writers give to such files (:func:`is_data_name`): ``config.json`` or
  ``modeling.py`` would be read by other programs as something else;
- a tensor has the length that its type and shape ask for, inside the file;
- two tensors share all of their bytes (tied weights) or none;
- padding between tensors is zero and less than ``MAX_PADDING`` bytes; nothing follows the last.
"""
# ruff: noqa: ANN401 - generated code has no types

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.files.names import is_plain
from provenance.weights.normalisers import Normaliser
from provenance.weights.onnx import data
from provenance.weights.onnx.graph import content, tensors
from provenance.weights.onnx.protobuf import Parsed, Payload, parse, payloads
from provenance.weights.source import Source
from provenance.weights.view import SourceFile, TensorInfo, check_count, check_name, stated

MAX_PADDING: Final = 2**16
"""Zeros between two tensors, in bytes: writers align to memory pages, at most 64 KiB."""

_KEYS: Final = frozenset({"location", "offset", "length", "checksum"})
_DATA: Final = re.compile(
    r"(?:.*[._-])?(?:data|weights|raw)(?:[._-]?[0-9]{1,5})?|.*\.onnx[._-]bin|weights\.pb", re.DOTALL
)
"""Names of files for all tensors: ``model.onnx.data`` (torch, onnx), ``model.onnx_data`` and
``model.onnx_data_1`` (optimum, transformers.js), ``weights.pb`` (optimum, diffusers), and such."""

_OWN: Final = re.compile(
    r"[^.]*|.*\.(?:(?:\w+_)?(?:weight|bias)|running_(?:mean|var)|num_batches_tracked)", re.DOTALL
)
"""Names that a tensor and its file may both have: without a suffix, or with a parameter's."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""UUID file name that onnx uses when the tensor name is not a valid file name."""

_NOT_IN_FILES: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,15}")


class External(NamedTuple):
    """Where a tensor lies beside the model."""

    location: str
    offset: int
    length: int
    fields: tuple[tuple[str, str], ...]
    """The entry, as the model has it."""


def external_place(tensor: Any, info: TensorInfo, *, where: str) -> External:
    """Return where the bytes of *tensor*, a ``TensorProto`` described by *info*, lie."""
    entries = tuple((entry.key, entry.value) for entry in tensor.external_data)
    found = {"offset": "0", "length": str(info.nbytes)} | dict(entries)
    if not found.keys() <= _KEYS:
        raise MalformedError("external data with keys that are not known", where=where)
    location = location_of(tensor, where=where)
    for key in ("offset", "length"):
        if not _NUMBER.fullmatch(found[key]):
            raise MalformedError(f"the {key} of external data is no number", where=where)
    if int(found["length"]) != info.nbytes:
        raise MalformedError(
            f"takes {found['length']} bytes, its type and shape {info.nbytes}", where=where
        )
    return External(location, int(found["offset"]), info.nbytes, entries)


def is_data_name(name: str, tensor: str) -> bool:
    """Tell whether writers give this *name* to a file that holds the *tensor*.

    A file for one tensor has its name, with ``_`` for what file names cannot have (torch, tf2onnx).
    """
    own = name in (tensor, _NOT_IN_FILES.sub("_", tensor)) and _OWN.fullmatch(name)
    return bool(own or _DATA.fullmatch(name) or _UUID.fullmatch(name))


def location_of(tensor: Any, *, where: str) -> str:
    """Return the file that *tensor* lies in, as a path below the model's folder."""
    found = [entry.value for entry in tensor.external_data if entry.key == "location"]
    location = str(found[0]) if found else ""
    check_name(location, where=where)
    if not is_plain(location):
        raise MalformedError(f"external data in {location!r}, not a plain path", where=where)
    if not is_data_name(location.split("/")[-1], tensor.name):
        what = f"external data in {location!r}, not a name for such files"
        raise MalformedError(what, where=where, hint="save them in one file, MODEL.onnx.data")
    return location


def open_beside(
    folder: Path, location: str, *, name: str, sha256: Mapping[str, str | None] | None
) -> Source:
    """Open the file at *location* below *folder*; errors begin with *name*, the model's."""
    where = f"{name}: {location}"
    below = PurePosixPath(location)
    if any(os.path.islink(folder / part) for part in (below, *below.parents[:-1])):  # noqa: PTH114 - never raises
        raise UnreadableError("external data through a symbolic link", where=where)
    if sha256 is not None and location not in sha256:
        raise ContentError("external data that is not among the files", where=where)
    return Source(folder / location, name=where, sha256=sha256[location] if sha256 else None)


def check_covered(files: Mapping[str, Source], tensors: Iterable[External]) -> None:
    """Check that each of *files*, by location, consists of *tensors* and zeros between them."""
    spans: dict[str, set[tuple[int, int]]] = {location: set() for location in files}
    for tensor in tensors:
        if tensor.length:
            spans[tensor.location].add((tensor.offset, tensor.offset + tensor.length))
    for location, source in files.items():
        end = 0
        for begin, stop in sorted(spans[location]):
            if begin < end or stop > source.size:
                what = "overlap" if begin < end else "lie beyond its end"
                raise MalformedError(f"tensors {what}", where=source.name)
            if begin - end >= MAX_PADDING or any(source.read(end, begin - end)):
                raise MalformedError("bytes between the tensors", where=source.name)
            end = stop
        if end != source.size:
            rest = source.size - end
            raise MalformedError(f"{rest} bytes after the last tensor", where=source.name)


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
