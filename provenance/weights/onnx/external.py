"""The files beside an ONNX model that hold the numbers of its tensors.

Format: ``docs/ExternalData.md`` of onnx/onnx. Stricter than the libraries:

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

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from provenance.errors import ContentError, MalformedError, UnreadableError
from provenance.files.names import is_plain
from provenance.weights.source import Source
from provenance.weights.view import TensorInfo, check_name

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
