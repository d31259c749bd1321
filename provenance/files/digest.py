"""SHA-256 of one file that must not change meanwhile.

The file is opened without following a symbolic link and without waiting (a FIFO would block), must
be a regular file, and must have the same size, inode, modification and change time after the last
byte was read as before the first. A writer that changes bytes in place within one tick of the file
system's clock (1 to 4 ms) and keeps the size can escape that check; the digest is then still that
of the bytes read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from provenance.errors import UnreadableError
from provenance.files.atomic import reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK_BYTES = 2**20
"""Bytes read at a time: large enough that the hash, not the call, takes the time."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def hash_file(path: str | Path, progress: Callable[[int], None] | None = None) -> tuple[str, int]:
    """Return the SHA-256 of the file at *path*, in hexadecimal, and its size in bytes.

    *progress* is called with the number of bytes read since its last call.

    Raises:
        UnreadableError: *path* is missing, not a regular file, not permitted, or changes.
    """
    return hash_open(*open_file(path), path, progress)


def open_file(path: str | Path) -> tuple[int, os.stat_result]:
    """Return a descriptor of the regular file at *path*, for :func:`hash_open`, and its status.

    Raises:
        UnreadableError: *path* is missing, not a regular file, or not permitted.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        status = os.fstat(descriptor)
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UnreadableError(f"is {kind(status.st_mode)}, not a file", where=str(path))
    return descriptor, status


def hash_open(
    descriptor: int,
    before: os.stat_result,
    path: str | Path,
    progress: Callable[[int], None] | None = None,
) -> tuple[str, int]:
    """Return what :func:`hash_file` does, of the file that is open as *descriptor*; close it.

    Raises:
        UnreadableError: the file cannot be read, or changes.
    """
    try:
        digest, size = _hash_descriptor(descriptor, before.st_size, progress)
        after = os.fstat(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if size != before.st_size or _identity(before) != _identity(after):
        raise UnreadableError(
            "changed while it was read", where=str(path), hint="try again when nothing writes to it"
        )
    return digest, size


def _hash_descriptor(
    descriptor: int, expected_size: int, progress: Callable[[int], None] | None
) -> tuple[str, int]:
    if expected_size < CHUNK_BYTES:
        # One call, as a rule: it asks for a byte more than there should be, and so finds the end as
        # well. Some file systems (FUSE, network) give less than there is.
        data = os.read(descriptor, expected_size + 1)
        while len(data) < expected_size and (more := os.read(descriptor, expected_size + 1)):
            data += more
        if progress:
            progress(len(data))
        return hashlib.sha256(data).hexdigest(), len(data)
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    total = 0
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
        total += count
        if progress:
            progress(count)
        if total > expected_size:  # it grows: do not follow it forever
            break
    return hasher.hexdigest(), total


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _unreadable(path: str | Path, error: OSError | ValueError) -> UnreadableError:
    if not isinstance(error, OSError):
        return UnreadableError(f"cannot be read: {reason(error)}", where=str(path))
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):  # O_NOFOLLOW gives ELOOP on Linux, EMLINK on some BSDs
            return UnreadableError(
                "is a symbolic link", where=str(path), hint="copy the folder with 'cp -rL' first"
            )
        if not stat.S_ISREG(mode):  # a socket cannot be opened at all
            return UnreadableError(f"is {kind(mode)}, not a file", where=str(path))
    return UnreadableError(f"cannot be read: {reason(error)}", where=str(path))


def kind(mode: int) -> str:
    """Return what a file of *mode* is, with its article."""
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFREG: "a file",
    }
    return names.get(stat.S_IFMT(mode), "of an unknown kind")
