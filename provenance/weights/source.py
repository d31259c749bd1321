"""Bytes of one file, by position.

Reads go through ``pread``: a file that shrinks under a memory map kills the process, here it is an
error. A file is opened without blocking, so a FIFO is refused rather than waited for. Where the
SHA-256 that the file should have is given, it is checked over the open descriptor: a file that
takes the name afterwards is not read, and one that is written to is noticed at the end by its size
and times. What a process writes through a memory map whose page it had written to before moves
neither, and is not noticed: who can write to the files can deceive whoever reads them at the time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Self

from provenance.errors import ContentError, UnreadableError
from provenance.files.atomic import reason
from provenance.files.digest import CHUNK_BYTES, kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class Source:
    """An open regular file. Close it, or use it as a context manager."""

    def __init__(self, path: Path, *, name: str | None = None, sha256: str | None = None) -> None:
        """Open *path*; errors call it *name*. *sha256*, in hexadecimal, is what it should have.

        Raises:
            UnreadableError: the file is missing, not permitted, or not a regular file.
            ContentError: it has another SHA-256.
        """
        self.name = name if name is not None else str(path)
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:  # ValueError: the path holds NUL
            what = reason(error) if isinstance(error, OSError) else str(error)
            raise UnreadableError(f"cannot be opened: {what}", where=self.name) from error
        self._opened = os.fstat(self._descriptor)
        self.size = self._opened.st_size
        if not stat.S_ISREG(self._opened.st_mode):
            self.close()
            what = kind(self._opened.st_mode)
            raise UnreadableError(f"is {what}, not a file", where=self.name)
        if sha256 is not None:
            try:
                self._check_digest(sha256)
            except BaseException:
                self.close()
                raise

    def _check_digest(self, sha256: str) -> None:
        hasher = hashlib.sha256()
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for start in range(0, self.size, CHUNK_BYTES):
            part = buffer[: min(CHUNK_BYTES, self.size - start)]
            self.read_into(start, part)
            hasher.update(part)
        if hasher.hexdigest() != sha256:
            raise ContentError("is no longer the file that was hashed", where=self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """Fill *buffer* with the bytes from *offset* on.

        Raises:
            UnreadableError: the file ends first, or cannot be read.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise UnreadableError(
                    f"cannot be read: {reason(error)}", where=self.name
                ) from error
            if count == 0:
                raise UnreadableError("shrank while it was read", where=self.name)
            done += count

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes from *offset* on. See :meth:`read_into`."""
        buffer = bytearray(count)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def chunks(self, begin: int, end: int, step: int) -> Iterator[memoryview]:
        """Yield the bytes from *begin* to *end*, *step* at a time. See :meth:`read_into`.

        What is yielded is valid until the next is asked for.
        """
        buffer = memoryview(bytearray(min(step, end - begin)))
        for place in range(begin, end, step):
            chunk = buffer[: min(step, end - place)]
            self.read_into(place, chunk)
            yield chunk

    def check_unchanged(self) -> None:
        """Check that the file shows no sign of a write since it was opened.

        Raises:
            UnreadableError: its size, or its time of modification or change, is another.
        """
        now, then = os.fstat(self._descriptor), self._opened
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            then.st_size,
            then.st_mtime_ns,
            then.st_ctime_ns,
        ):
            raise UnreadableError("changed while it was read", where=self.name)


class SourceFile:
    """A weight file that is read from a source, which it closes: what all readers share."""

    aliases: tuple[tuple[str, ...], ...] = ()
    direct: bool = True

    def __init__(self, source: Source) -> None:
        """Read from *source*."""
        self._source = source

    def check_unchanged(self) -> None:
        """Raise UnreadableError if the file was written to since it was opened."""
        self._source.check_unchanged()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
