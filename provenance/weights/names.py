"""Which files hold tensors, and which belong together, by their names or first bytes.

The suffix tells the format, as for every loader. An index of shards
(``model.safetensors.index.json``, as Hugging Face's writers name it) stands for the weights
``model.safetensors``; its shards are named ``model-00001-of-00005.safetensors``. The index is read
by :mod:`~provenance.weights.sharded`. :func:`kind_of` says what a file is, whatever its name. Needs
no numpy.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from provenance.files import pointers
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


@dataclass(frozen=True, slots=True)
class WeightSet:
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


HEAD: Final = 512
"""How many bytes tell."""

MAX_HEADER: Final = 100_000_000
"""Longest header of a safetensors file: ``MAX_HEADER_SIZE`` of the reference library."""


class Kind(NamedTuple):
    """What a file is: in words, the suffixes by which it is named, and what to do if none."""

    words: str
    suffixes: tuple[str, ...] = ()
    """The first tells how it is read."""
    hint: str | None = None

    @property
    def readable(self) -> bool:
        """Whether it can be read whatever its name is."""
        return bool(self.suffixes) and self is not _ZIP


_ZIP: Final = Kind("a ZIP archive", (*sorted(TORCH), ".npz", ".keras", ".skops"))
_INSIDE: Final = (
    (re.compile(rb"[^/]+/data\.pkl"), Kind("a torch archive", tuple(sorted(TORCH)))),
    (re.compile(rb".+\.npy"), Kind("an archive of numpy arrays", (".npz", ".skops"))),
    (re.compile(rb"(?:metadata|config)\.json"), Kind("a Keras archive", (".keras",))),
)
"""ZIP archives by the name of their first member."""

LEGACY: Final = re.compile(rb"\x80[\x00-\x05]\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.")
"""How torch before 1.6 begins: a pickle of the number 0x1950a86a20f9469cfc6c."""

_FETCH: Final = "download the file itself"
_KINDS: Final = (
    (re.compile(rb"\x89HDF\r\n\x1a\n"), Kind("an HDF5 file", (".h5", ".hdf5"))),
    (re.compile(rb"GGUF"), Kind("a GGUF file", (".gguf",))),
    (re.compile(rb"\x93NUMPY"), Kind("an npy file", (".npy",))),
    (re.compile(pointers.MAGIC), Kind("a Git LFS pointer", hint=pointers.FETCH)),
    (re.compile(rb"# xet version"), Kind("a Xet pointer", hint=_FETCH)),
    (re.compile(rb"/annex/objects/"), Kind("a git-annex pointer", hint="run 'git annex get'")),
    (re.compile(rb"\s*<(?:!doctype )?html\b", re.IGNORECASE), Kind("an HTML page", hint=_FETCH)),
    (LEGACY, Kind("a torch file from before 1.6", tuple(sorted(TORCH)))),
    (re.compile(rb"\x80[\x02-\x05]"), Kind("a pickle", hint="save its arrays as safetensors")),
    (re.compile(rb"\x1f\x8b"), Kind("compressed by gzip", hint="unpack it")),
    (re.compile(rb"\Z"), Kind("empty", hint=_FETCH)),
)  # fmt: skip


def kind_of(head: bytes, size: int) -> Kind | None:
    """Return what a file of *size* bytes is that begins with *head*; None: it does not tell."""
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return next((kind for first, kind in _INSIDE if first.fullmatch(name)), _ZIP)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length <= min(size - 8, MAX_HEADER):
        return Kind("a safetensors file", (".safetensors",))
    return next((kind for begin, kind in _KINDS if begin.match(head)), None)
