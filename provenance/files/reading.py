"""Opening regular files, and reading those of bounded size: a key, a claim, a declaration.

A file is opened without waiting (a FIFO would block) and must then be a regular file. A path that
the user named may be a symbolic link; one below a folder that is being checked may not.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from provenance.errors import ProvenanceError, UnreadableError, reason

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_file(
    path: str | Path, *, follow: bool = False, shown: str | None = None
) -> tuple[int, os.stat_result]:
    """Return a descriptor of the regular file at *path*, and its status.

    With *follow*, *path* may be a symbolic link. Errors call the file *shown*.
    """
    try:
        descriptor = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL
        where = shown or str(path)
        if isinstance(error, FileNotFoundError):
            raise UnreadableError("no such file", where=where) from error
        with contextlib.suppress(OSError, ValueError):
            # A link gives ELOOP on Linux, EMLINK on some BSDs; a socket cannot be opened at all.
            status = Path(path).stat(follow_symlinks=follow)
            if not stat.S_ISREG(status.st_mode):
                raise _irregular(status, where) from error
        raise unreadable(error, where) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _irregular(status, shown or str(path))
    except OSError as error:
        os.close(descriptor)
        raise unreadable(error, shown or str(path)) from error
    except UnreadableError:
        os.close(descriptor)
        raise
    return descriptor, status


def _irregular(status: os.stat_result, where: str) -> UnreadableError:
    hint = "copy the folder with 'cp -rL' first" if stat.S_ISLNK(status.st_mode) else None
    return UnreadableError(f"is {kind(status.st_mode)}, not a file", where=where, hint=hint)


Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds."""


def identity(status: os.stat_result) -> Identity:
    """Return what stays the same while nobody replaces a file or writes to it.

    A write that keeps the size escapes it within one tick of the file system's clock (1 to 4 ms),
    and through memory (``mmap``) until that is flushed; on tmpfs always.
    """
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def read_file(
    path: Path,
    max_bytes: int,
    *,
    follow: bool = True,
    too_long: type[ProvenanceError] = UnreadableError,
) -> bytes:
    """Return the bytes of the file *path*; with *follow*, it may be a symbolic link.

    A file longer than *max_bytes* is an error of the class *too_long*.
    """
    descriptor, status = open_file(path, follow=follow)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > max_bytes:
            raise too_long(f"is longer than {max_bytes} bytes", where=str(path))
        try:
            data = file.read(status.st_size + 1)
        except OSError as error:
            raise unreadable(error, str(path)) from error
    if len(data) != status.st_size:
        raise UnreadableError("changed while it was read", where=str(path), hint="try again")
    return data


def unreadable(error: OSError | ValueError, where: str) -> UnreadableError:
    """Return the error that says why the file *where* could not be read."""
    return UnreadableError(f"cannot be read: {reason(error)}", where=where)


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
