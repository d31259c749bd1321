"""Which files hold tensors, and which belong together, by their names.

The suffix tells the format, as for every loader. An index of shards
(``model.safetensors.index.json``, as Hugging Face's writers name it) stands for the weights
``model.safetensors``; its shards are named ``model-00001-of-00005.safetensors``. The index is read
by :mod:`~provenance.weights.sharded`. Needs no numpy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

import msgspec

from provenance.loaders.table import folded, table

TORCH: Final = frozenset({".pt", ".pth", ".bin", ".ckpt", ".tar"})
"""What ``torch.save`` writes; ``.tar`` is that of ``.pth.tar``."""

ONNX: Final = ".onnx"
"""A model whose tensors may be in files beside it."""

READABLE: Final = TORCH | {
    ".safetensors", ".npz", ".npy", ".gguf", ONNX, ".h5", ".hdf5", ".keras", ".skops",
}  # fmt: skip
"""Suffixes that have a reader."""

PICKLES: Final = frozenset({".pkl", ".pickle", ".joblib"})
"""Suffixes of Python's pickles, which are never loaded."""

UNREAD: Final = PICKLES | {".ggml", ".msgpack", ".pb", ".tflite", ".jit"}
"""Suffixes of formats that usually hold tensors, and have no reader here."""

CODE: Final = frozenset({".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib"})
"""Suffixes of what Python imports, or the system's loader."""

UNREADABLE: Final = "its tensors cannot be read by this version"
READABLE_WORDS: Final = "safetensors, torch zip, GGUF, ONNX, HDF5, Keras, npz, npy and skops can"
"""What is said of a file without a reader, and which formats have one."""

_INDEX: Final = ".index.json"
_SHARD: Final = re.compile(r"(?P<stem>.*)-[0-9]{5}-of-[0-9]{5}(?P<suffix>\.[^./]+)", re.DOTALL)


def whole_name(name: str) -> str | None:
    """Return the name of the weights that the file *name* is an index of; None if it is none."""
    spelled = name if name.endswith(_INDEX) else folded(name)
    whole = spelled.removesuffix(_INDEX)
    return whole if whole != spelled and PurePosixPath(whole).suffix else None


def suffix_of(name: str) -> str:
    """Return the suffix of *name*, or of the weights that it is an index of."""
    last = (whole_name(name) or name).rpartition("/")[2]
    dot = last.rfind(".")  # asked too often for pathlib
    return folded(last[dot:]) if 0 < dot < len(last) - 1 else ""


def is_readable(name: str) -> bool:
    """Tell whether a file of this *name* has a reader."""
    return suffix_of(name) in READABLE


def carries_tensors(name: str) -> bool:
    """Tell whether a file of this *name* holds tensors, readable here or not."""
    return suffix_of(name) in READABLE | UNREAD


def brings_others(name: str) -> bool:
    """Tell whether who loads the file *name* opens others beside it that it is not read with."""
    split = (
        suffix_of(name) == ".gguf" and _SHARD.fullmatch(name) and not name.endswith("-00001.gguf")
    )
    return bool(split) or (whole_name(name) is None and table().consults_index(name))


def is_loaded(name: str) -> bool:
    """Tell whether a loader may open a file of this *name* as code or as weights."""
    return suffix_of(name) in CODE | READABLE | UNREAD or table().opens_as_code_or_weights(name)


def opened_by(name: str, beside: frozenset[str] | None = None) -> str:
    """Return the first loader that opens the file *name*, or "a loader"; "" if none is known."""
    return next(iter(table().opened_by(name, beside)), "a loader" if is_loaded(name) else "")


class WeightSet(msgspec.Struct, frozen=True):
    """The files that hold one set of weights: a file, or an index and its shards."""

    name: str
    """The file's, or the index's, without ``.index.json`` unless there is a file called so."""
    index: str | None
    files: tuple[str, ...]
    """The file, or the shards, sorted; there may be none. The index is not among them."""


def weight_sets(names: Iterable[str]) -> tuple[WeightSet, ...]:
    """Return the sets of weights among the files *names*, whose parts are joined by ``/``, by name.

    Files that hold no tensors are left out.
    """
    files = frozenset(names)
    shards: dict[str, list[str]] = defaultdict(list)
    for name in sorted(files):
        folder, slash, last = name.rpartition("/")
        if parts := _SHARD.fullmatch(last):
            shards[folder + slash + parts["stem"] + parts["suffix"]].append(name)
    sets: list[WeightSet] = []
    taken: set[str] = set()
    for name in files:
        whole = whole_name(name)
        if whole is not None and carries_tensors(name):
            plain = whole not in files and name.endswith(_INDEX)
            sets.append(WeightSet(whole if plain else name, name, tuple(shards[whole])))
            taken.update(shards[whole], [name])
    sets += [WeightSet(name, None, (name,)) for name in files - taken if carries_tensors(name)]
    return tuple(sorted(sets, key=lambda found: found.name))
