"""The files in ``.state``, which only the writer of a log needs (docs/spec/log.md, "Files").

``version``, ``treeState``, ``gcState`` and the locks are those of Tessera's POSIX storage
(transparency-dev/tessera, ``storage/posix/files.go``); ``signer.json`` and ``pending`` are ours.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from provenance.encoding import strict_json
from provenance.errors import MalformedError, UnreadableError
from provenance.files import atomic, reading
from provenance.transparency.merkle import HASH_BYTES
from provenance.transparency.tiles import read_file, unlink

STATE = ".state"

VERSION = b"1"

MAX_STATE_BYTES = 64 * 2**10
"""Largest file in ``.state`` that is read, in bytes; ours are under 1 KiB."""

MAX_BATCH = 2**20
"""Most entries in one append: more would keep other writers waiting for a minute."""

_LOCKS = ("treeState.lock", "publish.lock")
"""Tessera takes the first to integrate and the second to publish; an append does both."""

MAX_WAIT_SECONDS = 600.0
"""Longest wait for a lock: several appends of the largest size."""

_LOCK_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""A FIFO in a lock's place is not waited for."""

_FROM_TO = {"start": "from", "end": "to"}

Size = Annotated[int, msgspec.Meta(ge=0)]


class TreeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size and root of the tree that is durable in the folder."""

    size: Size
    root: Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which key signs: its path, the log's name, and the vkey that both give."""

    key: str
    origin: str
    vkey: str


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=_FROM_TO):
    """The sizes before and after the append that is under way, or was killed."""

    start: Size
    end: Size

    def __post_init__(self) -> None:
        """Refuse what is more than one append."""
        if not self.start <= self.end <= self.start + MAX_BATCH:
            raise ValueError("not the sizes of an append")


class Collected(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The size below which partial tiles were removed."""

    from_size: Size


FILES: Mapping[type, str] = {
    TreeState: "treeState", Settings: "signer.json", Pending: "pending", Collected: "gcState",
}  # fmt: skip
"""Where each is."""

T = TypeVar("T", TreeState, Settings, Pending, Collected)


def check_version(folder: Path) -> None:
    """Return if *folder* is a log of the version that this module writes."""
    path = folder / STATE / "version"
    if read_file(path, MAX_STATE_BYTES) != VERSION:
        raise MalformedError("the log is not of version 1", where=str(path))


def read(folder: Path, kind: type[T]) -> T:
    """Return what the log in *folder* says of one *kind*."""
    path = folder / STATE / FILES[kind]
    value = strict_json.parse(read_file(path, MAX_STATE_BYTES), where=str(path))
    return strict_json.convert(value, kind, where=str(path))


def find(folder: Path, kind: type[T]) -> T | None:
    """Return what the log in *folder* says of one *kind*, if it does."""
    return read(folder, kind) if os.path.lexists(folder / STATE / FILES[kind]) else None


def write(folder: Path, value: TreeState | Settings | Pending | Collected) -> None:
    """Note *value*, durably."""
    atomic.write_file(folder / STATE / FILES[type(value)], strict_json.format(value))


def clear_pending(folder: Path) -> None:
    """Note that no append is under way."""
    unlink(folder / STATE / FILES[Pending])


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other writers and auditors of the log in *folder*, as :func:`atomic.lock` does."""
    with contextlib.ExitStack() as stack:
        for name in _LOCKS:
            path = folder / STATE / name
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _LOCK_FLAGS, 0o644)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UnreadableError("is not a log", where=str(folder)) from error
            except OSError as error:
                raise atomic.storage_error(error, path) from error
            stack.callback(os.close, descriptor)
            _lock(descriptor, path)
        yield


@contextlib.contextmanager
def unchanging(folder: Path) -> Iterator[None]:
    """Exclude writers if *folder* has a state; a copy that is served as files has none."""
    path = folder / STATE / _LOCKS[0]
    try:
        descriptor = os.open(path, os.O_RDONLY | _LOCK_FLAGS)
    except OSError:
        yield
        return
    try:
        _lock(descriptor, path, shared=True)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, *, shared: bool = False) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise UnreadableError(f"is {reading.kind(mode)}, not a file", where=str(path))
    atomic.lock(descriptor, path, shared=shared, seconds=MAX_WAIT_SECONDS)
