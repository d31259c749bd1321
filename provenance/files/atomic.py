"""Writing so that, killed at any moment, a reader finds the old file or the new one, whole.

The bytes go to ``NAME.tmp`` in the same folder, are flushed to the disk (``fsync``), and take their
name in one step (``rename``, or ``link`` where nothing may be overwritten); then the folder is
flushed. The temporary name is fixed, so a leftover of a killed process is overwritten by the next
write and can be told from other files; writers of one file exclude each other with :func:`locked`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from provenance.errors import UnavailableError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put *data* at *path*, replacing what is there.

    Raises:
        UnavailableError: the disk is full, or the folder is missing or may not be written.
    """
    with _temporary(path, data, mode) as temporary:
        os.replace(temporary, path)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put *data* at *path*, which must not exist.

    Raises:
        UsageError: *path* exists.
        UnavailableError: as :func:`write_file`.
    """
    if os.path.lexists(path):
        raise UsageError("exists already", where=str(path), mend="choose another name")
    try:
        with _temporary(path, data, mode) as temporary:
            os.link(temporary, path)
    except FileExistsError as error:
        raise UsageError(
            "exists already", where=str(path), mend="choose another name"
        ) from error


@contextlib.contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Give a flushed file that holds *data*; afterwards remove what is left of it, and flush."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        flush_folder(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def flush_folder(folder: Path) -> None:
    """Make the names in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other writers of *folder*: processes on this machine that lock it too (``flock``).

    Raises:
        UnreadableError: *folder* is not a folder that can be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnreadableError(f"cannot be opened: {reason(error)}", where=str(folder)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def storage_error(error: OSError, path: Path) -> UnavailableError:
    """Return the error that says why *path* could not be written."""
    mend = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "free some space and try again; nothing was changed"
    return UnavailableError(f"cannot be written: {reason(error)}", where=str(path), mend=mend)


def reason(error: OSError) -> str:
    """Return the system's own words for *error*, in lower case."""
    return (error.strerror or type(error).__name__).lower()
