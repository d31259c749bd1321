"""SHA-256 of one file that must not change meanwhile.

The file must have the same :func:`~provenance.files.reading.identity` after the last byte was read
as before the first. Where a writer escapes that check, the digest is still that of the bytes read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from provenance.errors import UnreadableError
from provenance.files.reading import identity, open_file, unreadable

CHUNK_BYTES = 2**20
"""Bytes read at a time: large enough that the hash, not the call, takes the time."""


def hash_file(
    path: str | Path, progress: Callable[[int], None] | None = None, *, follow: bool = False
) -> tuple[str, int]:
    """Return the SHA-256 of the file at *path*, in hexadecimal, and its size in bytes.

    *progress* is called with the number of bytes read since its last call. With *follow*, *path*
    may be a symbolic link.
    """
    return hash_open(*open_file(path, follow=follow), path, progress)


def hash_open(
    descriptor: int,
    before: os.stat_result,
    path: str | Path,
    progress: Callable[[int], None] | None = None,
    hasher: hashlib._Hash | None = None,
    check: Callable[[str, bytes], None] | None = None,
) -> tuple[str, int]:
    """Return what :func:`hash_file` does, of the file that is open as *descriptor*; close it.

    The digest is that of *hasher*, if given, when the file was added. *check* is called with
    *path* and what it holds, if that is less than :data:`CHUNK_BYTES`, and may raise.
    """
    hasher = hasher or hashlib.sha256()
    try:
        if before.st_size < CHUNK_BYTES:
            data = _read(descriptor, before.st_size)
            hasher.update(data)
            size = len(data)
            if progress:
                progress(size)
            if check:
                check(str(path), data)
        else:
            size = _add(hasher, descriptor, before.st_size, progress)
        after = os.fstat(descriptor)
    except OSError as error:
        raise unreadable(error, str(path)) from error
    finally:
        os.close(descriptor)
    if size != before.st_size or identity(before) != identity(after):
        hint = "try again when nothing writes to it"
        raise UnreadableError("changed while it was read", where=str(path), hint=hint)
    return hasher.hexdigest(), size


def _read(descriptor: int, expected_size: int) -> bytes:
    # Mostly one call: the byte too many finds the end. FUSE and network file systems may return
    # less than there is.
    data = os.read(descriptor, expected_size + 1)
    while len(data) < expected_size and (more := os.read(descriptor, expected_size + 1)):
        data += more
    return data


def _add(
    hasher: hashlib._Hash,
    descriptor: int,
    expected_size: int,
    progress: Callable[[int], None] | None,
) -> int:
    buffer = memoryview(bytearray(CHUNK_BYTES))
    total = 0
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        total += count
        if progress:
            progress(count)
        if total > expected_size:  # it grows: do not follow it forever
            break
    return total
