"""Reading a whole file of bounded size: a key, a claim, a declaration.

A path that the user named may be a symbolic link; one below a folder that is being checked may not.
The file is opened without waiting (a FIFO would block) and must then be a regular file.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from provenance.errors import ProvenanceError, UnreadableError
from provenance.files.atomic import reason
from provenance.files.digest import kind

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_file(
    path: Path,
    max_bytes: int,
    *,
    follow: bool = True,
    too_long: type[ProvenanceError] = UnreadableError,
) -> bytes:
    """Return the bytes of the file *path*; with *follow*, it may be a symbolic link.

    Raises:
        UnreadableError: the file is missing, not a regular file, not permitted, or grows while it
            is read.
        ProvenanceError: it is longer than *max_bytes*; the class is *too_long*.
    """
    try:
        descriptor = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise UnreadableError("no such file", where=str(path)) from error
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL
        if not follow and os.path.islink(path):  # noqa: PTH114 - Path.is_symlink can raise
            raise UnreadableError("is a symbolic link", where=str(path)) from error
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(f"is {kind(status.st_mode)}, not a file", where=str(path))
        if status.st_size > max_bytes:
            raise too_long(f"is longer than {max_bytes} bytes", where=str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(status.st_size + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if len(data) != status.st_size:
        raise UnreadableError("changed while it was read", where=str(path), hint="try again")
    return data


def _unreadable(path: Path, error: OSError | ValueError) -> UnreadableError:
    return UnreadableError(f"cannot be read: {reason(error)}", where=str(path))
