"""Linux's inotify(7): events of files and folders that are named before.

::

    with Inotify() as inotify:
        inotify.add(folder, CLOSE_WRITE | MOVED_TO)
        for event in inotify.read():
            …

It says nothing of who did it, of what lies below a folder's folders, nor of what was mapped.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from provenance.errors import UnavailableError, UnreadableError, reason

# <sys/inotify.h>
ACCESS, MODIFY, ATTRIB, CLOSE_WRITE, CLOSE_NOWRITE, OPEN = (1 << n for n in range(6))
MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = (1 << n for n in range(6, 12))
UNMOUNT, Q_OVERFLOW, IGNORED = (1 << n for n in (13, 14, 15))
ONLYDIR, DONT_FOLLOW, EXCL_UNLINK, MASK_ADD = 1 << 24, 1 << 25, 1 << 26, 1 << 29
ISDIR, ONESHOT = 1 << 30, 1 << 31

_HEADER: Final = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_READ_BYTES: Final = 1 << 18
"""Read at once: an event is at most 16 bytes and a name of 256."""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to *path*: that of a watch, or in a watched folder.

    Where *mask* has ``Q_OVERFLOW``, events were lost, and *path* is None. The two events of one
    move have the same *cookie*.
    """

    path: Path | None
    mask: int
    cookie: int = 0


class Inotify:
    """A queue of events, which the kernel bounds (``fs.inotify.max_queued_events``)."""

    def __init__(self) -> None:
        """Raise UnavailableError elsewhere than on Linux, and where the system allows no more."""
        if sys.platform != "linux":
            raise UnavailableError("inotify is Linux's")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._paths: dict[int, Path] = {}
        self._descriptor = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise self._refused("inotify", "max_user_instances")

    def fileno(self) -> int:
        """Return the descriptor, for ``poll``."""
        return int(self._descriptor)

    def add(self, path: Path, mask: int) -> None:
        """Watch *path* for the events of *mask*; a second call for one file replaces the first."""
        number = self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(path), ctypes.c_uint32(mask)
        )
        if number < 0:
            raise self._refused(str(path), "max_user_watches")
        self._paths[number] = path

    def read(self) -> list[Event]:
        """Return events that wait, none where there are none."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        return list(self._parse(data))

    def _parse(self, data: bytes) -> Iterator[Event]:
        at = 0
        while at < len(data):
            number, mask, cookie, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            path = self._paths.get(number)
            if mask & IGNORED:
                self._paths.pop(number, None)
            if path is not None or mask & Q_OVERFLOW:
                yield Event(path / os.fsdecode(name) if path else None, mask, cookie)

    def _refused(self, where: str, limit: str) -> UnavailableError | UnreadableError:
        error = OSError(number := ctypes.get_errno(), os.strerror(number))
        if number in (errno.EMFILE, errno.ENOSPC):
            hint = f"raise fs.inotify.{limit}"
            return UnavailableError("no more may be watched", where=where, hint=hint)
        return UnreadableError(reason(error), where=where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
