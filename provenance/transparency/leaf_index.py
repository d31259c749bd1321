"""The position of each leaf of a log: a cache, so that an append need not read every tile.

``.state/leaves`` holds the first 4 bytes of each leaf hash of the full tiles, in order: 4 MB for a
million entries. A match counts only if the tile agrees; what the file lacks is read from the tiles,
and a file that is missing, damaged or of another log is rebuilt, so no failure here is an error. It
is written whenever a tile is full.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from provenance.errors import MalformedError, UnavailableError, UnreadableError
from provenance.files import atomic
from provenance.transparency.log_state import STATE
from provenance.transparency.tile_store import TileStore, read_file
from provenance.transparency.tiles import WIDTH, Tile

PREFIX = 4
"""Bytes kept of a hash: among a million leaves, 1 search in 4,000 has a false match."""

INDEX = "leaves"

_FEW = 16
"""Up to so many leaves are searched one by one (1 ms each in a million), more in one pass."""


def read(store: TileStore, size: int) -> bytes:
    """Return the prefixes of the first *size* leaves."""
    path = store.root / STATE / INDEX
    full = size // WIDTH * WIDTH
    known = b""
    with contextlib.suppress(MalformedError, UnreadableError):
        known = read_file(path, full * PREFIX)
    covered = len(known) // PREFIX
    if covered:
        last = Tile(0, covered // WIDTH - 1, WIDTH)
        if covered % WIDTH or known[-WIDTH * PREFIX :] != join(store.hashes(last)):
            known, covered = b"", 0
    prefixes = known + join(store.leaves(covered, size))
    if covered < full:
        write(store.root, prefixes)
    return prefixes


def join(leaves: Iterable[bytes]) -> bytes:
    """Return the prefixes of *leaves*."""
    return b"".join(leaf[:PREFIX] for leaf in leaves)


def write(folder: Path, prefixes: bytes) -> None:
    """Write those of *prefixes* that are of full tiles, if the disk has room."""
    whole = len(prefixes) // (WIDTH * PREFIX) * (WIDTH * PREFIX)
    with contextlib.suppress(UnavailableError):
        atomic.write_file(folder / STATE / INDEX, prefixes[:whole])


def find(store: TileStore, size: int, prefixes: bytes, wanted: set[bytes]) -> dict[bytes, int]:
    """Return the first position of those of *wanted* that are among the first *size* leaves."""
    subtree = store.subtree(size)
    found: dict[bytes, int] = {}
    for leaf, place in _candidates(prefixes, wanted, found):
        if place % PREFIX == 0 and leaf not in found and subtree(0, place // PREFIX) == leaf:
            found[leaf] = place // PREFIX
    return found


def _candidates(
    prefixes: bytes, wanted: set[bytes], found: dict[bytes, int]
) -> Iterator[tuple[bytes, int]]:
    """Yield each of *wanted* with each place of its prefix, in order, until it is in *found*."""
    if len(wanted) <= _FEW:
        for leaf in wanted:
            place = -1
            while leaf not in found and (place := prefixes.find(leaf[:PREFIX], place + 1)) >= 0:
                yield leaf, place
        return
    by_prefix: dict[bytes, list[bytes]] = {}
    for leaf in wanted:
        by_prefix.setdefault(leaf[:PREFIX], []).append(leaf)
    for place in range(0, len(prefixes), PREFIX):
        for leaf in by_prefix.get(prefixes[place : place + PREFIX], ()):
            yield leaf, place
