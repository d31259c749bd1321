"""Writing so that, killed at any moment, a reader finds the old file or the new one, whole.

The bytes go to a temporary file in the same folder, are flushed (``fsync``), and get their name in
one step (``rename``, or ``link`` where nothing may be overwritten); then the folder is flushed.
:func:`write_file` uses the fixed name ``NAME.tmp``, so the next write replaces what a killed
process left; whatever has that name is removed, never opened or followed. Concurrent writers of one
file must therefore exclude each other with :func:`locked`. :func:`create_file` uses a random name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from provenance.errors import UnavailableError, UnreadableError, UsageError, reason

TEMPORARY_SUFFIX = ".tmp"

MAX_WAIT_SECONDS = 60.0
"""Longest wait for a lock. Our writers hold one briefly, but any reader of a folder may lock it."""

_WAIT_SECONDS = 0.01
"""Between two attempts to lock."""

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What ``link`` says on FAT and on some network and user-space file systems."""


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put *data* at *path*, replacing what is there; the caller excludes other writers of it.

    The umask applies to *mode*. A full disk or a folder that is missing or not writable is an
    UnavailableError.
    """
    fixed = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            fixed.unlink()
    except OSError as error:
        raise storage_error(error, path) from error
    with _temporary(fixed, path, data, mode):
        fixed.replace(path)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put *data* at *path*; a UsageError if that exists. Otherwise as :func:`write_file`."""
    exists = UsageError("exists already", where=str(path), hint="choose another name")
    if os.path.lexists(path):
        raise exists
    temporary = path.with_name(f".{os.urandom(16).hex()}{TEMPORARY_SUFFIX}")
    with _temporary(temporary, path, data, mode):
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError as error:
            raise exists from error
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            what = "cannot be written: the file system has no hard links"
            hint = "write it elsewhere and copy it"
            raise UnavailableError(what, where=str(path), hint=hint) from error


@contextlib.contextmanager
def _temporary(temporary: Path, path: Path, data: bytes, mode: int) -> Iterator[None]:
    """Write *data* to *temporary*, to become *path*; then remove what is left, flush the folder."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        flush_folder(path.parent)
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
    """Exclude other writers of *folder*: processes on this machine that lock it too.

    An UnavailableError if another process keeps it locked for :data:`MAX_WAIT_SECONDS`.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_lockable(error, folder) from error
    try:
        lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def lock(
    descriptor: int, path: Path, *, shared: bool = False, seconds: float | None = None
) -> None:
    """Lock the open *descriptor* of *path* (``flock``), until it is closed.

    An UnavailableError if another process keeps it locked for *seconds*.
    """
    end = time.monotonic() + (MAX_WAIT_SECONDS if seconds is None else seconds)
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    while True:
        try:
            return fcntl.flock(descriptor, operation)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                what, hint = "is locked by another process", "end that process, or try again later"
                raise UnavailableError(what, where=str(path), hint=hint) from error
        except OSError as error:
            raise _not_lockable(error, path) from error
        time.sleep(_WAIT_SECONDS)


def _not_lockable(error: OSError, path: Path) -> UnreadableError:
    return UnreadableError(f"cannot be locked: {reason(error)}", where=str(path))


def storage_error(error: OSError, path: Path) -> UnavailableError:
    """Return the error that says why *path* could not be written."""
    hint = _WAYS_OUT.get(error.errno or 0)
    return UnavailableError(f"cannot be written: {reason(error)}", where=str(path), hint=hint)


_WAYS_OUT = {
    errno.ENOSPC: "free some space and try again",
    errno.EDQUOT: "free some space and try again",
    errno.ENOENT: "make its folder first",
    errno.EISDIR: "move the folder of that name away",
    errno.ENOTDIR: "choose another place: its folder is a file",
    errno.EEXIST: "move what has that name away",
}
