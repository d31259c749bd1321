"""Digests of one file that must not change meanwhile: SHA-256, and others in the same reading.

The file must have the same :func:`~provenance.files.reading.identity` after the last byte was read
as before the first. Where a writer escapes that check, the digest is still that of the bytes read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from provenance.errors import UnavailableError, UnreadableError
from provenance.files.reading import identity, open_file, unreadable

if TYPE_CHECKING:
    from blake3 import blake3

CHUNK_BYTES = 2**20
"""Bytes read at a time: large enough that the hash, not the call, takes the time."""


class Hashing(NamedTuple):
    """How a file becomes a text: the digests of its shards, in hexadecimal, one after the other.

    A shard has ``shard_bytes``, the last one what is left. With 0 the whole file is the only one.
    """

    algorithm: str = "sha256"
    shard_bytes: int = 0


SHA256: Final = Hashing()
"""What manifests hold."""

DIGEST_BYTES: Final = {"sha256": 32, "blake2b": 64, "blake3": 32}
"""The algorithms, and what their digests take."""


class Hasher:
    """SHA-256 of what is added, and its digests by other *hashings*."""

    def __init__(self, hashings: Iterable[Hashing]) -> None:
        """Begin; *hashings* are those beside SHA-256."""
        self._whole = hashlib.sha256()
        self._others = [_Shards(each) for each in hashings]

    def update(self, data: bytes | memoryview) -> None:
        """Add *data*."""
        self._whole.update(data)
        for each in self._others:
            each.update(memoryview(data))

    def hexdigest(self) -> str:
        """Return the SHA-256 in hexadecimal."""
        return self._whole.hexdigest()

    def others(self) -> tuple[str, ...]:
        """Return the texts by the other hashings."""
        return tuple("".join((*it.done, it.hasher.hexdigest())) for it in self._others)


class _Shards:
    """The digests of the shards so far, and what hashes the one that is not at its end."""

    def __init__(self, hashing: Hashing) -> None:
        self.new, self.size = _maker(hashing.algorithm), hashing.shard_bytes
        self.hasher, self.room = self.new(), self.size
        self.done: list[str] = []

    def update(self, data: memoryview) -> None:
        while self.size and len(data) > self.room:
            self.hasher.update(data[: self.room])
            data = data[self.room :]
            self.done.append(self.hasher.hexdigest())
            self.hasher, self.room = self.new(), self.size
        self.hasher.update(data)
        self.room -= len(data)


def _maker(algorithm: str) -> Callable[[], hashlib._Hash | blake3]:
    if algorithm != "blake3":
        return partial(hashlib.new, algorithm)
    try:
        from blake3 import blake3  # noqa: PLC0415 - an extra
    except ImportError as error:
        hint = "pip install 'training-provenance[blake3]'"
        raise UnavailableError("hashed with BLAKE3, which needs a package", hint=hint) from error
    return blake3


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
    hasher: hashlib._Hash | Hasher | None = None,
) -> tuple[str, int]:
    """Return what :func:`hash_file` does, of the file that is open as *descriptor*; close it.

    The digest is that of *hasher*, if given, when the file was added.
    """
    hasher = hasher or hashlib.sha256()
    try:
        add_open(hasher, descriptor, before.st_size, path, progress)
        after = os.fstat(descriptor)
    except OSError as error:
        raise unreadable(error, str(path)) from error
    finally:
        os.close(descriptor)
    if identity(before) != identity(after):
        raise _changed(path)
    return hasher.hexdigest(), before.st_size


def add_open(
    hasher: hashlib._Hash | Hasher,
    descriptor: int,
    expected_size: int,
    path: str | Path,
    progress: Callable[[int], None] | None = None,
    check: Callable[[str, bytes], None] | None = None,
) -> None:
    """Add to *hasher* the file of *expected_size* that is open as *descriptor*.

    *check* is called with *path* and what it holds, if that is less than :data:`CHUNK_BYTES`, and
    may raise. Whether the file was another meanwhile, is for the caller to see.
    """
    try:
        if expected_size < CHUNK_BYTES:
            # Mostly one call: the byte too many finds the end. FUSE and network file systems may
            # return less than there is.
            data = os.read(descriptor, expected_size + 1)
            while len(data) < expected_size and (more := os.read(descriptor, expected_size + 1)):
                data += more
            hasher.update(data)
            size = len(data)
            if progress:
                progress(size)
            if check:
                check(str(path), data)
        else:
            size = _add(hasher, descriptor, expected_size, progress)
    except OSError as error:
        raise unreadable(error, str(path)) from error
    if size != expected_size:
        raise _changed(path)


def _changed(path: str | Path) -> UnreadableError:
    hint = "try again when nothing writes to it"
    return UnreadableError("changed while it was read", where=str(path), hint=hint)


def _add(
    hasher: hashlib._Hash | Hasher,
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
