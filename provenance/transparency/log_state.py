"""The files in ``.state``, which only the writer of a log needs.

::

    version         "1", the compatibility version of Tessera's POSIX layout
    treeState       {"root": BASE64, "size": N}: the tree that is durable, promised or not
    gcState         {"fromSize": N}: partial tiles below that size were removed
    treeState.lock, publish.lock    one writer at a time (flock), Tessera included
    signer.json     {"key": PATH, "origin": NAME, "vkey": VKEY}: which key signs; never the key
    pending         {"from": N, "to": M}: an append under way, or one that was killed

The first four are Tessera's (transparency-dev/tessera, ``storage/posix/files.go``).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.errors import MalformedError, UnreadableError
from provenance.files import atomic
from provenance.files.reading import kind
from provenance.transparency import merkle
from provenance.transparency.tile_store import read_file, unlink

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


class TreeState(msgspec.Struct, frozen=True):
    """The size and root of the tree that is durable in the folder."""

    size: int
    root: bytes


class Settings(msgspec.Struct, frozen=True):
    """Which key signs: its path, the log's name, and the vkey that both give."""

    key: str
    origin: str
    vkey: str


def check_version(folder: Path) -> None:
    """Return if *folder* is a log of the version that this module writes."""
    path = folder / STATE / "version"
    if read_file(path, MAX_STATE_BYTES) != VERSION:
        raise MalformedError("the log is not of version 1", where=str(path))


def read_tree(folder: Path) -> TreeState:
    """Return the tree that is durable in *folder*."""
    path = folder / STATE / "treeState"
    values = _read(path, {"root": str, "size": int})
    root = strict_base64.parse(values["root"], where=str(path))
    if values["size"] < 0 or len(root) != merkle.HASH_BYTES:
        raise MalformedError("not the state of a tree", where=str(path))
    return TreeState(values["size"], root)


def write_tree(folder: Path, tree: TreeState) -> None:
    """Note that *tree* is durable."""
    values = {"root": strict_base64.format(tree.root), "size": tree.size}
    _write(folder / STATE / "treeState", values)


def read_settings(folder: Path) -> Settings:
    """Return which key signs the log in *folder*."""
    path = folder / STATE / "signer.json"
    return Settings(**_read(path, {"key": str, "origin": str, "vkey": str}))


def write_settings(folder: Path, settings: Settings) -> None:
    """Note which key signs."""
    _write(folder / STATE / "signer.json", settings)


def read_pending(folder: Path) -> tuple[int, int] | None:
    """Return the sizes before and after the append that is under way, or was killed."""
    path = folder / STATE / "pending"
    if not os.path.lexists(path):
        return None
    values = _read(path, {"from": int, "to": int})
    start, end = values["from"], values["to"]
    if not 0 <= start <= end <= start + MAX_BATCH:
        raise MalformedError("not the sizes of an append", where=str(path))
    return start, end


def write_pending(folder: Path, start: int, end: int) -> None:
    """Note that an append from size *start* to *end* begins."""
    _write(folder / STATE / "pending", {"from": start, "to": end})


def clear_pending(folder: Path) -> None:
    """Note that no append is under way."""
    unlink(folder / STATE / "pending")


def read_collected(folder: Path) -> int:
    """Return the size below which partial tiles were removed."""
    path = folder / STATE / "gcState"
    if not os.path.lexists(path):
        return 0
    size = int(_read(path, {"fromSize": int})["fromSize"])
    if size < 0:
        raise MalformedError("not the size of a tree", where=str(path))
    return size


def write_collected(folder: Path, size: int) -> None:
    """Note that partial tiles below *size* were removed."""
    _write(folder / STATE / "gcState", {"fromSize": size})


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
        raise UnreadableError(f"is {kind(mode)}, not a file", where=str(path))
    atomic.lock(descriptor, path, shared=shared, seconds=MAX_WAIT_SECONDS)


def _read(path: Path, fields: dict[str, type]) -> dict[str, Any]:
    """Return the JSON object in *path*, which has exactly *fields*, of these types."""
    value = strict_json.parse(read_file(path, MAX_STATE_BYTES), where=str(path))
    if isinstance(value, dict) and {k: type(v) for k, v in value.items()} == fields:
        return value
    raise MalformedError(f"expected a JSON object with {', '.join(fields)}", where=str(path))


def _write(path: Path, values: object) -> None:
    atomic.write_file(path, strict_json.format(values))
