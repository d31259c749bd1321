"""A folder as names, sizes and digests.

The *root digest* is the OpenSSF model signature's: SHA-256 over the files' raw SHA-256 digests in
the order of their names (by path components, as the reference tool orders them). It does not cover
the names, so the manifest must be checked too.

Nothing is followed or skipped silently: symbolic links, FIFOs, sockets and devices are refused, and
only the top-level names in *ignore* are left out. The folder itself may be a symbolic link.

A manifest is of one moment: after the last file was hashed, the folder must hold the same files as
when each was opened, by name, size, inode and times. For 100,000 files that check takes half a
second, and hashing two or three.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from provenance.errors import MalformedError, UnreadableError, reason
from provenance.files.digest import CHUNK_BYTES, hash_file, hash_open
from provenance.files.names import check_name, component_order
from provenance.files.reading import identity, kind, open_file

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

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
    """Return the manifest that holds *entries*, put in order; refuse bad and duplicate names."""
    ordered = _in_order(entries)
    for entry in ordered:
        check_name(entry.name, where=where)
    for first, second in pairwise(ordered):
        if first.name == second.name:
            raise MalformedError(f"the file {first.name!r} is duplicated", where=where)
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
    number of bytes read since its last call, from all of these threads. An empty folder is refused.
    """
    names = walk(root, ignore=ignore)
    opened: dict[str, tuple[int, ...]] = {}
    if not names:
        raise UnreadableError("holds no files", where=str(root))
    base = os.fspath(root)
    entries: list[FileEntry] = []
    large: list[tuple[str, Future[tuple[str, int]]]] = []
    stopped = threading.Event()

    def advance(count: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        if progress:
            progress(count)

    pool: ThreadPoolExecutor | None = None
    try:
        for name in names:
            path = f"{base}/{name}"
            descriptor, status = open_file(path)
            opened[name] = identity(status)
            if status.st_size < CHUNK_BYTES:
                digest, size = hash_open(descriptor, status, path, progress)
                entries.append(FileEntry(name, size, digest))
            else:  # opened again when its turn comes: a thousand shards are too many descriptors
                os.close(descriptor)
                pool = pool or _pool()
                large.append((name, pool.submit(hash_file, path, advance)))
        for name, future in large:
            digest, size = future.result()
            entries.append(FileEntry(name, size, digest))
    finally:
        stopped.set()  # an error or an interrupt need not wait for a file of a terabyte
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    _check_unchanged(root, ignore, opened)
    return Manifest(_in_order(entries))


class _StoppedError(Exception):
    """What is hashed in a thread is not needed any more."""


def _pool() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 4 ms of every start

    return ThreadPoolExecutor(os.cpu_count() or 1)


def _check_unchanged(
    root: Path, ignore: frozenset[str], opened: dict[str, tuple[int, ...]]
) -> None:
    """Return if the files below *root* are still those that were *opened*; empty that."""
    name = ""
    try:
        for name, item in _files(root, ignore):
            if opened.pop(name, None) != identity(item.stat(follow_symlinks=False)):
                raise _changed(root, name)
    except OSError as error:
        raise _changed(root, name) from error
    if opened:
        raise _changed(root, min(opened))


def _changed(root: Path, name: str) -> UnreadableError:
    what, hint = "changed while the folder was read", "try again when nothing writes to it"
    return UnreadableError(what, where=f"{root}/{name}", hint=hint)


class Differences(msgspec.Struct, frozen=True):
    """The names of the files in a folder that are not those stated."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing or self.extra)


def compare_sizes(
    root: Path, stated: Mapping[str, int | None], *, ignore: frozenset[str] = frozenset()
) -> Differences:
    """Return how the files below *root* differ from *stated*, their sizes in bytes by name.

    No file is read. A size of None is not compared. Each list is in the order of names.
    """
    sizes: dict[str, int] = {}
    for name, item in _files(root, ignore):
        try:
            sizes[check_name(name, where=str(root))] = item.stat(follow_symlinks=False).st_size
        except OSError as error:
            raise UnreadableError(reason(error), where=f"{root}/{name}") from error
    both = sizes.keys() & stated.keys()
    return Differences(
        changed=_ordered(name for name in both if stated[name] not in (None, sizes[name])),
        missing=_ordered(stated.keys() - sizes.keys()),
        extra=_ordered(sizes.keys() - stated.keys()),
    )


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=component_order))


def hash_path(path: Path, *, progress: Callable[[int], None] | None = None) -> Manifest:
    """Return the manifest of *path*, a folder or one file (whose name is then its own)."""
    if path.is_dir():
        return hash_folder(path, progress=progress)
    digest, size = hash_file(os.path.realpath(path) if path.is_symlink() else path, progress)
    return manifest_of([FileEntry(path.name, size, digest)], where=str(path))


def walk(root: Path, *, ignore: frozenset[str] = frozenset()) -> list[str]:
    """Return the name of every file below *root*, in no special order."""
    return [check_name(name, where=str(root)) for name, _ in _files(root, ignore)]


def _files(root: Path, ignore: frozenset[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield each file below *root* under its name, which is not checked."""
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
                        yield name, item
                    elif item.is_dir(follow_symlinks=False):
                        folders.append((name + "/", depth + 1))
                    else:
                        raise _wrong_kind(root, name, item.stat(follow_symlinks=False).st_mode)
        except ValueError as error:  # the path holds NUL
            raise UnreadableError(reason(error), where=str(root)) from error
        except OSError as error:
            place = f"{root}/{prefix}".rstrip("/")
            what = "no such folder" if isinstance(error, FileNotFoundError) else reason(error)
            raise UnreadableError(what, where=place) from error


def _wrong_kind(root: Path, name: str, mode: int) -> UnreadableError:
    path = root / name
    if not stat.S_ISLNK(mode):
        return UnreadableError(f"is {kind(mode)}, not a file", where=str(path))
    # Path.resolve raises RuntimeError for a loop before Python 3.13.
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    what = "is a symbolic link" if inside else "is a symbolic link that leaves the folder"
    hint = "copy the folder with 'cp -rL' first, so that it holds the files themselves"
    return UnreadableError(what, where=str(path), hint=hint)
