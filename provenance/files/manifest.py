"""A folder as names, sizes and digests.

The *root digest* is the OpenSSF model signature's: SHA-256 over the files' raw SHA-256 digests in
the order of their names (by path components, as the reference tool orders them). It does not cover
the names; whoever checks a root digest checks the manifest too.

Nothing in the folder is followed or skipped silently: symbolic links, FIFOs, sockets and devices
are refused, and only the names that the caller passes as *ignore* (at the top level, files or whole
folders) are left out. The path that the user names may itself be a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from provenance.errors import MalformedError, UnreadableError
from provenance.files.atomic import reason
from provenance.files.digest import CHUNK_BYTES, hash_file, hash_open, kind, open_file
from provenance.files.names import check_name, component_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_DEPTH = 64
"""Deepest folder read, in levels: deeper is a mistake or an attack on the walk."""


class FileEntry(msgspec.Struct, frozen=True, gc=False):
    """One file: its name below the folder, its size in bytes, its SHA-256 in hexadecimal."""

    name: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The files of a folder, in the order of :func:`~provenance.files.names.component_order`."""

    entries: tuple[FileEntry, ...]

    @property
    def root_digest(self) -> str:
        """The OpenSSF root digest: SHA-256 in hexadecimal."""
        return root_digest(entry.sha256 for entry in self.entries)

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(entry.size for entry in self.entries)

    def by_name(self) -> dict[str, FileEntry]:
        """Return the entries under their names."""
        return {entry.name: entry for entry in self.entries}


def root_digest(digests: Iterable[str]) -> str:
    """Return SHA-256 over the raw bytes of *digests* (hexadecimal), in hexadecimal."""
    hasher = hashlib.sha256()
    for digest in digests:
        hasher.update(bytes.fromhex(digest))
    return hasher.hexdigest()


def manifest_of(entries: Iterable[FileEntry], *, where: str | None = None) -> Manifest:
    """Return the manifest that holds *entries*, put in order.

    Raises:
        MalformedError: a name is not allowed or stands twice.
    """
    ordered = _in_order(entries)
    for entry in ordered:
        check_name(entry.name, where=where)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise MalformedError(f"the file {first.name!r} stands twice", where=where)
    return Manifest(ordered)


def _in_order(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: component_order(entry.name)))


def hash_folder(
    root: Path,
    *,
    ignore: frozenset[str] = frozenset(),
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Return the manifest of the folder *root*, leaving out the top-level names *ignore*.

    Files of a megabyte and more are hashed on all cores, smaller ones in the calling thread: for
    them the interpreter's lock costs more than a second core gives. *progress* is called with the
    number of bytes read since its last call, from all of these threads.

    Raises:
        UnreadableError: *root* is missing or empty, or something in it cannot be read safely.
        MalformedError: a file's name is not allowed in a manifest.
    """
    names = walk(root, ignore=ignore)
    if not names:
        raise UnreadableError("holds no files", where=str(root))
    base = os.fspath(root)
    entries: list[FileEntry] = []
    large: list[tuple[str, Future[tuple[str, int]]]] = []
    stopped = threading.Event()

    def advance(count: int) -> None:
        if stopped.is_set():
            raise CancelledError
        if progress:
            progress(count)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for name in names:
            path = f"{base}/{name}"
            descriptor, status = open_file(path)
            if status.st_size < CHUNK_BYTES:
                digest, size = hash_open(descriptor, status, path, progress)
                entries.append(FileEntry(name, size, digest))
            else:  # opened again when its turn comes: a thousand shards are too many descriptors
                os.close(descriptor)
                large.append((name, pool.submit(hash_file, path, advance)))
        for name, future in large:
            digest, size = future.result()
            entries.append(FileEntry(name, size, digest))
    finally:
        stopped.set()  # an error or an interrupt need not wait for a file of a terabyte
        pool.shutdown(cancel_futures=True)
    return Manifest(_in_order(entries))


def hash_path(path: Path, *, progress: Callable[[int], None] | None = None) -> Manifest:
    """Return the manifest of *path*, a folder or one file (whose name is then its own).

    Raises:
        UnreadableError, MalformedError: as :func:`hash_folder`.
    """
    if path.is_dir():
        return hash_folder(path, progress=progress)
    digest, size = hash_file(os.path.realpath(path) if path.is_symlink() else path, progress)
    return manifest_of([FileEntry(path.name, size, digest)], where=str(path))


def walk(root: Path, *, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Return the name of every file below *root*, in no special order.

    Raises:
        UnreadableError: *root* is not a folder, or holds a symbolic link or something that is
            neither a file nor a folder.
        MalformedError: a file's name is not allowed in a manifest.
    """
    found: list[str] = []
    folders = [("", 0)]
    while folders:
        prefix, depth = folders.pop()
        if depth > MAX_DEPTH:
            raise UnreadableError(f"is deeper than {MAX_DEPTH} folders", where=f"{root}/{prefix}")
        try:
            with os.scandir(f"{os.fspath(root)}/{prefix}") as listing:
                for item in listing:
                    name = prefix + item.name
                    if not prefix and name in ignore:
                        continue
                    if item.is_file(follow_symlinks=False):
                        found.append(check_name(name, where=str(root)))
                    elif item.is_dir(follow_symlinks=False):
                        folders.append((name + "/", depth + 1))
                    else:
                        raise _wrong_kind(root, name, item.stat(follow_symlinks=False).st_mode)
        except ValueError as error:  # the path holds NUL
            raise UnreadableError(str(error), where=str(root)) from error
        except OSError as error:
            place = f"{root}/{prefix}".rstrip("/")
            what = "no such folder" if isinstance(error, FileNotFoundError) else reason(error)
            raise UnreadableError(what, where=place) from error
    return found


def _wrong_kind(root: Path, name: str, mode: int) -> UnreadableError:
    path = root / name
    if not stat.S_ISLNK(mode):
        return UnreadableError(f"is {kind(mode)}, not a file", where=str(path))
    # Path.resolve raises RuntimeError for a loop before Python 3.13.
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    return UnreadableError(
        "is a symbolic link" if inside else "is a symbolic link that leaves the folder",
        where=str(path),
        mend="copy the folder with 'cp -rL' first, so that it holds the files themselves",
    )
