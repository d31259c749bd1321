"""Bytes of one file, by position.

Reads use ``pread``: a file that shrinks is an error, where under a memory map it kills the process.
An expected SHA-256 is checked over the open descriptor, so a file that takes the name afterwards is
not read. One that is written to is noticed at the end by its size and times; not noticed is a write
through a memory map to a page that was already dirty, which moves neither.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import numpy as np

from provenance.errors import ContentError, UnreadableError
from provenance.files.digest import CHUNK_BYTES
from provenance.files.reading import identity, open_file, unreadable


class Source:
    """An open regular file. Close it, or use it as a context manager."""

    def __init__(self, path: Path, *, name: str | None = None, sha256: str | None = None) -> None:
        """Open *path*; errors call it *name*. *sha256*, in hexadecimal, is what it should have."""
        self.name = name if name is not None else str(path)
        self._descriptor, self._opened = open_file(path, follow=True, shown=self.name)
        self.size = self._opened.st_size
        self.head = b""
        """With what it begins, where a reader went by that: a later digest must be of the same."""
        if sha256 is not None:
            try:
                self._check_digest(sha256)
            except BaseException:
                self.close()
                raise

    def _check_digest(self, sha256: str) -> None:
        hasher = hashlib.sha256()
        for chunk in self.chunks(0, self.size, CHUNK_BYTES):
            hasher.update(chunk)
        if hasher.hexdigest() != sha256:
            raise ContentError("is no longer the file that was hashed", where=self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """The open file, for a process that reads it by position."""
        return self._descriptor

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill *buffer* with the bytes from *offset* on; UnreadableError where the file ends."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise unreadable(error, self.name) from error
            if count == 0:
                raise UnreadableError("shrank while it was read", where=self.name)
            done += count

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset* on."""
        buffer = bytearray(count)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def chunks(self, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Yield the bytes from *begin* to *end*, *step* at a time, in one buffer used again."""
        buffer = memoryview(bytearray(min(step, end - begin)))
        for place in range(begin, end, step):
            chunk = buffer[: min(step, end - place)]
            self.read_into(place, chunk)
            yield chunk

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the file shows a sign of a write since it was opened."""
        if identity(os.fstat(self._descriptor)) != identity(self._opened):
            raise UnreadableError("changed while it was read", where=self.name)


class Section(Source):
    """A part of an open file, read as a file; closing it does nothing."""

    def __init__(self, whole: Source, start: int, size: int, name: str) -> None:
        """Stand for the *size* bytes of *whole* from *start* on; errors call them *name*."""
        self._whole, self._start, self.size, self.name = whole, start, size, name

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill *buffer* with the bytes from *offset* on."""
        self._whole.read_into(self._start + offset, buffer)


_FEW: Final = 1024
"""Bytes that Python compares as fast as it finds out where they are."""

_memcmp: Final = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def same_bytes(left: memoryview, right: memoryview) -> bool:
    """Tell whether two chunks are the same: by C, which needs no memory and no interpreter."""
    if len(left) != len(right) or len(left) < _FEW:
        return left.tobytes() == right.tobytes()
    places = (np.frombuffer(side, np.uint8).ctypes.data for side in (left, right))
    return bool(_memcmp(*places, len(left)) == 0)


def same_part(left: Source, right: Source, begin: int, end: int) -> bool:
    """Tell whether both files hold the same from *begin* to *end*."""
    sides = (each.chunks(begin, end, CHUNK_BYTES) for each in (left, right))
    return all(map(same_bytes, *sides))
