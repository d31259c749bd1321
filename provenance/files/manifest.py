"""A folder as names, sizes and digests.

The *root digest* is the OpenSSF model signature's: SHA-256 over the files' raw SHA-256 digests in
the order of their names (by path components, as the reference tool orders them). It does not cover
the names, so the manifest must be checked too.

Nothing is skipped silently (:mod:`~provenance.files.walking` says what is refused): only what
*ignore* names is left out. The folder itself may be a symbolic link. No file is opened through a
link inside: that says for which file it stands, which is hashed once.

A manifest is of one moment: after the last file was hashed, the folder must hold the same files as
when each was opened, by name, size, inode and times, and every link must be the same and lead to
the same file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import msgspec

from provenance.errors import MalformedError, ProvenanceError, UnreadableError, reason
from provenance.files.digest import CHUNK_BYTES, Hasher, Hashing, add_open, hash_file
from provenance.files.names import check_name, component_order
from provenance.files.reading import Identity, identity, open_file
from provenance.files.walking import Place, path_of, raise_it, walk, walk_again

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


Check = Callable[[str, bytes], None]
"""Called with the path and the bytes of a file of less than a megabyte; it may raise."""

MAX_OPEN = 64
"""Most large files that are open while they wait for a core."""


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
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


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


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What a look at one file found; ``identity`` is :func:`~provenance.files.reading.identity`.

    ``others`` are its digests by the hashings that were asked for.
    """

    size: int
    sha256: str
    identity: Identity
    others: tuple[str, ...] = ()


def hash_folder(
    root: Path,
    *,
    ignore: frozenset[str] = frozenset(),
    link_roots: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
    check: Check | None = None,
    places: dict[str, Place] | None = None,
) -> Manifest:
    """Return the manifest of the folder *root*, leaving out what *ignore* names.

    *progress* is called with the number of bytes read since its last call, from several threads;
    *check*, which may raise, with each small file. *places* are what a walk of the same folder
    found just now. An empty folder is refused.
    """
    seen = look_at(
        root, ignore=ignore, link_roots=link_roots, progress=progress, check=check, places=places
    )
    return as_manifest(seen, root)


def as_manifest(seen: Mapping[str, Seen], root: Path) -> Manifest:
    """Return the manifest of the files that were *seen* in *root*, by name; refuse none."""
    if not seen:
        raise UnreadableError("holds no files", where=str(root))
    return Manifest(_in_order(FileEntry(name, it.size, it.sha256) for name, it in seen.items()))


def look_at(  # noqa: PLR0913 - how a folder is read, and two listeners
    root: Path,
    *,
    ignore: frozenset[str] = frozenset(),
    link_roots: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
    check: Check | None = None,
    refuse: Callable[[ProvenanceError], None] = raise_it,
    known: Mapping[str, Seen] = {},
    hashings: Collection[Hashing] = (),
    places: dict[str, Place] | None = None,
) -> dict[str, Seen]:
    """Return the files in the folder *root* by name, as :func:`hash_folder` reads them.

    Whatever is wrong goes to *refuse*; if that returns, what is concerned is left out. Files that
    are *known* were read whole, and are not read again. *hashings* are taken beside SHA-256.
    """
    if places is None:
        places = walk(root, ignore=ignore, link_roots=link_roots, refuse=refuse)
    files = [name for name, place in places.items() if place.file == name]
    files += {at.file: None for at in places.values() if at.file.startswith("/")}
    hashed = {places[name].file: seen for name, seen in known.items() if name in places}
    unread = [name for name in files if name not in hashed]
    hash_one = partial(_hash, hashings=hashings, check=check)
    hashed |= _hash_all(root, unread, progress, hash_one, refuse)
    seen = {name: hashed[at.file] for name, at in places.items() if at.file in hashed}
    for name in _changed_since(root, places, hashed, walk_again(root, ignore, link_roots, refuse)):
        what, hint = "changed while the folder was read", "try again when nothing writes to it"
        refuse(UnreadableError(what, where=f"{root}/{name}", hint=hint))
        seen.pop(name, None)
    return seen


def _hash_all(
    root: Path,
    names: Iterable[str],
    progress: Callable[[int], None] | None,
    hash_one: Callable[..., Seen],
    refuse: Callable[[ProvenanceError], None],
) -> dict[str, Seen]:
    """Return the files *names* below *root*, each opened once, by *hash_one*.

    Files of a megabyte and more are hashed on all cores, smaller ones in the calling thread: for
    them the interpreter's lock costs more than a second core gives.
    """
    hashed: dict[str, Seen] = {}
    base = os.fspath(root)
    with _LargeFiles(hashed, progress, hash_one, refuse) as large:
        for name in names:
            path = path_of(base, name)
            try:
                opened = open_file(path)
                if opened[1].st_size < CHUNK_BYTES:
                    hashed[name] = hash_one(path, opened, progress)
                else:
                    large.add(name, path, opened)
            except ProvenanceError as error:
                refuse(error)
        large.collect()
    return hashed


def _hash(
    path: str,
    opened: tuple[int, os.stat_result],
    progress: Callable[[int], None] | None,
    *,
    hashings: Collection[Hashing],
    check: Check | None,
) -> Seen:
    descriptor, status = opened
    hasher = Hasher(hashings) if hashings else hashlib.sha256()
    try:
        add_open(hasher, descriptor, status.st_size, path, progress, check)
    finally:
        os.close(descriptor)
    others = hasher.others() if isinstance(hasher, Hasher) else ()
    return Seen(status.st_size, hasher.hexdigest(), identity(status), others)


class _StoppedError(Exception):
    """What is hashed in a thread is not needed any more."""


class _LargeFiles:
    """Open files that are hashed on all cores and put into *hashed*; left early, they are closed.

    At most :data:`MAX_OPEN` wait for their turn: a thousand shards are too many descriptors.
    """

    def __init__(
        self,
        hashed: dict[str, Seen],
        progress: Callable[[int], None] | None,
        hash_one: Callable[..., Seen],
        refuse: Callable[[ProvenanceError], None],
    ) -> None:
        self._hashed, self._progress, self._refuse = hashed, progress, refuse
        self._hash_one = hash_one
        self._waiting: deque[tuple[str, int, Future[Seen]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = threading.Event()

    def _advance(self, count: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        if self._progress:
            self._progress(count)

    def add(self, name: str, path: str, opened: tuple[int, os.stat_result]) -> None:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 4 ms of every start

        self._pool = self._pool or ThreadPoolExecutor(os.cpu_count() or 1)
        future = self._pool.submit(self._hash_one, path, opened, self._advance)
        self._waiting.append((name, opened[0], future))
        self.collect(MAX_OPEN)

    def collect(self, left: int = 0) -> None:
        while len(self._waiting) > left:
            name, _, future = self._waiting.popleft()
            try:
                self._hashed[name] = future.result()
            except ProvenanceError as error:
                self._refuse(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()  # an error or an interrupt need not wait for a file of a terabyte
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for _name, descriptor, future in self._waiting:
            if future.cancelled():
                os.close(descriptor)


def _changed_since(
    root: Path,
    places: dict[str, Place],
    hashed: Mapping[str, Seen],
    now: Iterable[tuple[str, Place]],
) -> Iterator[str]:
    """Yield the names whose files below *root* are not those that were *hashed* at *places*."""
    base, left = os.fspath(root), places.copy()
    for name, place in now:
        was = hashed.get(place.file)
        try:
            same = left.pop(name, None) == place
            if was is not None:
                same = same and was.identity == identity(os.lstat(path_of(base, place.file)))
            else:
                same = same and place.file in places  # else what is wrong with it was said
        except OSError:
            same = False
        if not same:
            yield name
    yield from sorted(left)


class Differences(msgspec.Struct, frozen=True):
    """The names of the files in a folder that are not those stated."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """The names under what is wrong with them."""
        return {"was changed": self.changed, "is missing": self.missing, "is extra": self.extra}

    def __bool__(self) -> bool:
        return any(self.kinds.values())


def sizes_of(
    root: Path, *, ignore: frozenset[str] = frozenset(), link_roots: Sequence[Path] = ()
) -> dict[str, int]:
    """Return the sizes of the files below *root* in bytes, by name; no file is read."""
    return sizes_at(root, walk(root, ignore=ignore, link_roots=link_roots))


def sizes_at(root: Path, places: Mapping[str, Place]) -> dict[str, int]:
    """Return the sizes of the files at these *places* below *root* in bytes, by name."""
    sizes: dict[str, int] = {}
    for name, place in places.items():
        try:
            sizes[name] = os.lstat(path_of(os.fspath(root), place.file)).st_size
        except OSError as error:
            raise UnreadableError(reason(error), where=f"{root}/{name}") from error
    return sizes


def compare_sizes(sizes: Mapping[str, int | None], stated: Mapping[str, int | None]) -> Differences:
    """Return how files of these *sizes* differ from those *stated*, each list in order of names.

    A size of None is not compared.
    """
    if sizes == stated:
        return Differences((), (), ())
    both = ((name, sizes.get(name), size) for name, size in stated.items())
    return Differences(
        changed=_ordered(name for name, it, size in both if None not in (it, size) and it != size),
        missing=_ordered(stated.keys() - sizes.keys()),
        extra=_ordered(sizes.keys() - stated.keys()),
    )


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=component_order))


def hash_path(
    path: Path,
    name: str | None = None,
    *,
    link_roots: Sequence[Path] = (),
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Return the manifest of *path*, a folder or one file, which is called *name* or as it is."""
    if path.is_dir():
        return hash_folder(path, link_roots=link_roots, progress=progress)
    digest, size = hash_file(path, progress, follow=True)
    return manifest_of([FileEntry(name or path.name, size, digest)], where=str(path))
