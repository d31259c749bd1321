"""Pointers of Git LFS: small files that stand for data that was not fetched.

Format: the Git LFS specification, version 1: lines of a key and a value, ``version`` first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from provenance.errors import UnreadableError, some_of
from provenance.files.reading import read_file

if TYPE_CHECKING:
    from provenance.files.manifest import FileEntry

MAGIC: Final = b"version https://git-lfs.github.com/spec/v1\n"
FETCH: Final = "run 'git lfs pull'"

_MAX_BYTES: Final = 1024
_MAX_FILES: Final = 10_000
"""Most small files of a folder that are looked into (half a second)."""

_POINTER: Final = re.compile(rb"oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n")


class Pointer(NamedTuple):
    """What a pointer stands for."""

    sha256: str
    size: int


def pointer_at(path: Path) -> Pointer | None:
    """Return the pointer that the file at *path* is; None if it is none."""
    try:
        if os.lstat(path).st_size >= _MAX_BYTES:
            return None
        data = read_file(path, _MAX_BYTES)
    except (OSError, UnreadableError):
        return None
    found = _POINTER.search(data) if data.startswith(MAGIC) else None
    return Pointer(found[1].decode(), int(found[2])) if found else None


def unfetched(root: Path, entries: Iterable[FileEntry]) -> str | None:
    """Return which of the *entries* of *root*, a folder or a file, are pointers; None: none is."""
    small = [it.name for it in entries if len(MAGIC) < it.size < _MAX_BYTES][:_MAX_FILES]
    found = [name for name in small if pointer_at(root / name if root.is_dir() else root)]
    what = "is a Git LFS pointer" if len(found) == 1 else "are Git LFS pointers"
    return f"{some_of(found)} {what}, and the data were not hashed" if found else None
