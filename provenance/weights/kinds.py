"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from provenance.files import pointers
from provenance.weights.names import TORCH

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
