"""The checkpoints of a run as a chain that can be audited: the byproduct ``checkpoints``.

One :class:`Checkpoint` a line, in JCS, in the order in which they were hashed. The lines are the
leaves of a Merkle tree (RFC 6962) whose root is in the statement, so that one of them can be shown
to belong to the run without the others. :mod:`~provenance.capture.checkpoints` finds them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec
from msgspec.structs import replace as but

from provenance.encoding import strict_json
from provenance.errors import (
    ContentError,
    MalformedError,
    UnreadableError,
    count,
    reason,
    some_of,
)
from provenance.files.atomic import storage_error
from provenance.files.digest import hash_open
from provenance.files.manifest import FileEntry, manifest_of
from provenance.files.reading import Identity, identity
from provenance.statement.training import describe_input
from provenance.transparency import merkle
from provenance.weights.names import carries_tensors

BYPRODUCT: Final = "checkpoints"
MAX_BYTES, MAX_LISTED, MAX_DEPTH = 2**26, 1000, 16
"""Most bytes of a chain (some hundred thousand checkpoints), files of a checkpoint that are listed
(its manifest digest binds more), and folders in each other."""

BY_LOOKS: Final = "looks"
"""Nothing tells when a checkpoint is written: what comes and goes between two looks is not seen."""

_ROLES: Final = (("optimizer", re.compile(r"optim")), ("scheduler", re.compile(r"sched")),
    ("rng", re.compile(r"(^|_)rng|random_state")))  # fmt: skip


class CheckpointFile(msgspec.Struct, frozen=True, gc=False):
    """A file of a checkpoint, and what it is for."""

    name: str
    role: str
    sha256: str
    size: int


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What lay at ``name`` at ``time``; ``prev`` is the hash of the line before, "" of none.

    ``manifest`` is the digest of the names, sizes and digests of all ``count`` files. ``left_out``
    counts links, FIFOs and the like. ``missed`` says why a checkpoint could not be hashed. ``by``
    is :data:`BY_LOOKS` from when on they are found so; the line is of none.
    """

    name: str
    time: str
    prev: str = ""
    step: int | None = None
    manifest: str = ""
    count: int = 0
    size: int = 0
    files: tuple[CheckpointFile, ...] = ()
    left_out: int = 0
    missed: str = ""
    by: str = ""


def describe(name: str, found: Files, time: str, step: int | None) -> Checkpoint:
    """Return the checkpoint of the files *found*, which are hashed."""
    manifest = manifest_of(FileEntry(n, at[2], found.sha256[n]) for n, at in found.names.items())
    files = [
        CheckpointFile(entry.name, role_of(entry.name), entry.sha256, entry.size)
        for entry in manifest.entries[: MAX_LISTED + 1]
    ]
    return Checkpoint(
        name=name,
        time=time,
        step=step,
        manifest=describe_input("", manifest)[0].manifest,
        count=len(manifest.entries),
        size=manifest.size,
        files=tuple(files) if len(files) <= MAX_LISTED else (),
        left_out=found.left_out,
    )


def role_of(name: str) -> str:
    """Return what the file *name* of a checkpoint is for, as frameworks name it."""
    last = PurePosixPath(name).name.lower()
    if carries_tensors(last) or last.endswith((".distcp", ".index")) or ".data-0" in last:
        return next((role for role, words in _ROLES if words.search(last)), "weights")
    return "other"


@dataclass(frozen=True, slots=True)
class Chain:
    """Checkpoints, each with its line."""

    lines: Mapping[bytes, Checkpoint] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The byproduct."""
        return b"".join(line + b"\n" for line in self.lines)

    def summary(self) -> dict[str, Any]:
        """Return what the statement says of it."""
        root = merkle.fold([merkle.hash_leaf(line) for line in self.lines]).hex()
        by = BY_LOOKS if any(each.by for each in self.lines.values()) else "inotify"
        said: dict[str, Any] = {"count": len(self.lines), "root": root, "by": by}
        if missed := sum(bool(each.missed) for each in self.lines.values()):
            said["missed"] = missed
        steps = [each.step for each in self.lines.values() if each.step is not None]
        return said | ({"firstStep": min(steps), "lastStep": max(steps)} if steps else {})

    def find(self, path: Path) -> int:
        """Return the number, from 0, of the last checkpoint that the file or folder *path* is.

        A file may have another name. ContentError: it is none; nothing in a folder is passed over.
        """
        found = look(path)
        if found.left_out:
            what = f"holds {count(found.left_out, 'link')} or the like, which nobody hashed"
            raise ContentError(what, where=str(path))
        place = Path(os.path.realpath(path))
        hashed = hash_files(place if found.is_folder else place.parent, "", found)
        wanted, by_name = describe("", hashed, "", None), None
        for number, each in reversed([*enumerate(self.lines.values())]):
            named = PurePosixPath(each.name).name == place.name
            if each.manifest == wanted.manifest or (
                not found.is_folder
                and each.count == 1
                and [file.sha256 for file in each.files] == [wanted.files[0].sha256]
            ):
                return number
            by_name = by_name or (each if named and each.manifest else None)
        what = "is no checkpoint of the run"
        if by_name is not None and by_name.files:
            others = {*wanted.files} ^ {*by_name.files}
            names = sorted({file.name for file in others})
            what += f"; from the last of this name it differs in {some_of(names)}"
        raise ContentError(what, where=str(path))


def follow(data: bytes, where: str) -> Iterator[tuple[bytes, Checkpoint]]:
    """Yield the lines of the chain *data*; each must name the one before. A torn last one is none.

    Raise MalformedError at one that is no checkpoint, or not the next one.
    """
    prev = ""
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        place = f"{where}:{number}"
        value = strict_json.parse(line, where=place)
        found = strict_json.convert(value, Checkpoint, where=place, what="a checkpoint")
        if found.prev != prev:
            raise MalformedError("does not follow the line before", where=place)
        yield line, found
        prev = merkle.hash_leaf(line).hex()


class Writer:
    """Writes a chain down, a line at a time: each is kept before the next is made."""

    def __init__(self, path: Path) -> None:
        """Begin the file *path*."""
        self._path, self._prev, self._bytes = path, "", 0

    def add(self, checkpoint: Checkpoint) -> None:
        """Write *checkpoint* down as the next."""
        if self._bytes > MAX_BYTES // 2:
            checkpoint = but(checkpoint, files=())
        line = strict_json.format(but(checkpoint, prev=self._prev))
        if self._bytes + len(line) >= MAX_BYTES:
            raise UnreadableError("too many checkpoints")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(self._path, flags, 0o600), "ab", buffering=0) as file:  # noqa: PTH123 - a descriptor
                try:
                    file.write(line + b"\n")
                    os.fsync(file.fileno())
                    if file.tell() != self._bytes + len(line) + 1:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - as a disk does
                except OSError:
                    file.truncate(self._bytes)
                    raise
        except OSError as error:
            raise storage_error(error, self._path) from error
        self._prev = merkle.hash_leaf(line).hex()
        self._bytes += len(line) + 1


@dataclass(frozen=True, slots=True)
class Files:
    """The plain files of a checkpoint, below one folder, and how many others there are."""

    names: Mapping[str, Identity]
    left_out: int = 0
    sha256: Mapping[str, str] = field(default_factory=dict)
    is_folder: bool = False

    @property
    def state(self) -> int:
        """A number that is another when any of the files is."""
        return hash(frozenset(self.names.items()))


def look(path: Path) -> Files:
    """Return what is in the folder *path*; links are not followed, and nothing is opened."""
    try:
        return _look_into(path) if path.is_dir() else Files({path.name: identity(path.lstat())})
    except OSError as error:
        raise UnreadableError(reason(error), where=path.name) from error


def _look_into(path: Path) -> Files:
    names: dict[str, Identity] = {}
    waiting, left_out = [""], 0
    while waiting:
        folder = waiting.pop()
        with os.scandir(path / folder) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False) and folder.count("/") < MAX_DEPTH:
                    waiting.append(f"{folder}{item.name}/")
                elif item.is_file(follow_symlinks=False):
                    names[folder + item.name] = identity(item.stat(follow_symlinks=False))
                else:
                    left_out += 1
    return Files(names, left_out, is_folder=True)


def hash_files(
    top: Path, base: str, found: Files, going_on: Callable[[int, int], None] = lambda *_: None
) -> Files:
    """Return *found*, whose names begin behind *base* below *top*, hashed.

    Raise UnreadableError where a file is not as it was found. *going_on* is called with the
    descriptor of the file that is read, and how much was read, and may raise.
    """
    sha256 = {}
    for name, was in found.names.items():
        descriptor = _open_below(top, f"{base}{name}")
        status = os.fstat(descriptor)
        if identity(status) != was or not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise UnreadableError("changed before it was read", where=f"{base}{name}")
        advance = partial(going_on, descriptor)
        sha256[name], _ = hash_open(descriptor, status, f"{base}{name}", advance)
    return replace(found, sha256=sha256)


def _open_below(top: Path, name: str) -> int:
    """Open the file *name* below *top*, on the way to which there is no link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    *folders, last = name.split("/")
    try:
        at = os.open(top, flags | os.O_DIRECTORY)
        try:
            for part in folders:
                below = os.open(part, flags | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            return os.open(last, flags, dir_fd=at)
        finally:
            os.close(at)
    except (OSError, ValueError) as error:
        raise UnreadableError(reason(error), where=name) from error
