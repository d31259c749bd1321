"""From a path to a reader, by the file's name (:mod:`~provenance.weights.names`).

A file whose content is of another kind than its name says (:mod:`~provenance.weights.names`) is
read by its content, and what it holds is doubtful, since loaders go by the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from provenance.errors import MalformedError, UnreadableError
from provenance.weights.gguf.reader import GgufFile
from provenance.weights.hdf5.keras import KerasFile
from provenance.weights.hdf5.reader import Hdf5File
from provenance.weights.kinds import HEAD, Kind, kind_of
from provenance.weights.names import (
    ONNX,
    READABLE_WORDS,
    TORCH,
    UNREADABLE,
    suffix_of,
    whole_name,
)
from provenance.weights.npy import NpyFile, NpzFile
from provenance.weights.onnx.model import OnnxFile, external_files
from provenance.weights.safetensors import SafetensorsFile
from provenance.weights.sharded import ShardedFile, read_index
from provenance.weights.skops import SkopsFile
from provenance.weights.source import Source
from provenance.weights.torch.archive import TorchFile
from provenance.weights.view import TensorFile

_READERS: Final[Mapping[str, Callable[[Source], TensorFile]]] = (
    {".safetensors": SafetensorsFile, ".npz": NpzFile, ".npy": NpyFile, ".gguf": GgufFile}
    | {".h5": Hdf5File, ".hdf5": Hdf5File, ".keras": KerasFile, ".skops": SkopsFile}
    | dict.fromkeys(TORCH, TorchFile)
)


def companions(path: Path, *, by_name: bool = False) -> tuple[str, ...]:
    """Return the files beside the one at *path* that hold a part of its tensors, by name.

    *by_name*: whatever its content seems to be, as a loader goes by the name too.
    """
    whole = whole_name(path.name)
    if whole is None and suffix_of(path.name) != ONNX:
        return ()
    with Source(path) as source:
        if not by_name and _kind(source) is not None:  # it is no index, and no model in ONNX
            return ()
        if whole is None:
            return external_files(path)
        index = read_index(source, whole)
        if by_name and index.misfits:  # a loader may follow it all the same
            raise MalformedError(index.misfits[0], where=path.name)
        return tuple(index.shards)


def open_tensors(
    path: Path,
    *,
    name: str | None = None,
    sha256: Mapping[str, str | None] | None = None,
) -> TensorFile:
    """Open the weight file at *path*, its structure checked; errors call it *name*.

    *sha256*, in hexadecimal, is what the file should have, and those beside it that hold a part of
    its tensors, each by its name in the folder.

    Raises ContentError where it has another SHA-256, MalformedError where it is not what its format
    allows, and UnreadableError where it cannot be read or its format has no reader.
    """
    shown = name if name is not None else str(path)
    own = sha256[path.name] if sha256 is not None else None
    if whole_name(path.name) is not None:
        return _open_file(path, shown, own, lambda it: ShardedFile(it, path, _open_file, sha256))
    if suffix_of(path.name) == ONNX:
        return _open_file(path, shown, own, lambda it: OnnxFile(it, path.parent, sha256))
    return _open_file(path, shown, own)


def _open_file(
    path: Path,
    shown: str,
    sha256: str | None,
    reader: Callable[[Source], TensorFile] | None = None,
) -> TensorFile:
    """Open one file by *reader*, or by the one for its name. See :func:`open_tensors`."""
    reader = reader or _READERS.get(path.suffix.lower())
    source = Source(path, name=shown, sha256=sha256)
    try:
        reader, doubt = _by_content(source, path.suffix.lower(), reader)
        file = reader(source)
    except BaseException:
        source.close()
        raise
    if doubt is not None:
        file.doubts = (doubt, *file.doubts)
    return file


def _kind(source: Source) -> Kind | None:
    return kind_of(source.read(0, min(HEAD, source.size)), source.size)


def _by_content(
    source: Source, suffix: str, by_name: Callable[[Source], TensorFile] | None
) -> tuple[Callable[[Source], TensorFile], str | None]:
    """Return the reader for what is in *source*, and a doubt if that is not the one *by_name*."""
    kind = _kind(source)
    if kind is None or (by_name is not None and suffix in kind.suffixes):
        if by_name is None:
            raise UnreadableError(UNREADABLE, where=source.name, hint=READABLE_WORDS)
        return by_name, None
    if not kind.readable:
        raise UnreadableError(f"is {kind.words}", where=source.name, hint=kind.hint)
    doubt = f"{source.name}: is {kind.words} by its content, and loaders go by its name"
    return _READERS[kind.suffixes[0]], doubt
