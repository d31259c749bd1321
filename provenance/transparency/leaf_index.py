"""Where each leaf stands in a log: a cache, so that an append need not read every tile.

``.state/leaves`` holds the first 4 bytes of each leaf hash of the full tiles, in order: 4 MB for a
million entries. It holds nothing that the tiles do not hold. What it lacks is read from them, an
answer counts only if the tile agrees, and a file that is missing, damaged or of another log is made
anew; so no failure here is an error. It is written whenever a tile is full.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from provenance.errors import MalformedError, UnavailableError, UnreadableError
from provenance.files import atomic
from provenance.transparency.log_state import STATE
from provenance.transparency.tile_store import read_file
from provenance.transparency.tiles import WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from provenance.transparency.tile_store import TileStore

PREFIX = 4
"""Bytes kept of a hash: among a million leaves, 1 search in 4,000 meets a wrong one."""

INDEX = "leaves"

_FEW = 16
"""So many leaves are searched one by one (1 ms each among a million); more, all in one pass."""


def read(store: TileStore, size: int) -> bytes:
    """Return the prefixes of the first *size* leaves."""
    path = store.root / STATE / INDEX
    full = size // WIDTH * WIDTH
    known = b""
    with contextlib.suppress(MalformedError, UnreadableError):
        known = read_file(path, full * PREFIX)
    covered = len(known) // PREFIX
    if covered and (covered % WIDTH or known[-WIDTH * PREFIX :] != _last_tile(store, covered)):
        known, covered = b"", 0
    prefixes = known + join(store.leaves(covered, size))
    if covered < full:
        write(store.root, prefixes)
    return prefixes


def _last_tile(store: TileStore, covered: int) -> bytes:
    return join(store.hashes(Tile(0, covered // WIDTH - 1, WIDTH)))


def join(leaves: Iterable[bytes]) -> bytes:
    """Return the prefixes of *leaves*."""
    return b"".join(leaf[:PREFIX] for leaf in leaves)


def write(folder: Path, prefixes: bytes) -> None:
    """Keep those of *prefixes* that are of full tiles, if there is room on the disk."""
    whole = len(prefixes) // (WIDTH * PREFIX) * (WIDTH * PREFIX)
    with contextlib.suppress(UnavailableError):
        atomic.write_file(folder / STATE / INDEX, prefixes[:whole])


def find(store: TileStore, size: int, prefixes: bytes, wanted: set[bytes]) -> dict[bytes, int]:
    """Return the first position of those of *wanted* that are among the first *size* leaves."""
    subtree = store.subtree(size)
    found: dict[bytes, int] = {}
    for leaf, position in _candidates(prefixes, wanted):
        if leaf not in found and subtree(0, position) == leaf:
            found[leaf] = position
    return found


def _candidates(prefixes: bytes, wanted: set[bytes]) -> Iterator[tuple[bytes, int]]:
    """Give each of *wanted* with each position of its prefix, from the first on."""
    if len(wanted) <= _FEW:
        for leaf in wanted:
            place = -1
            while (place := prefixes.find(leaf[:PREFIX], place + 1)) >= 0:
                if place % PREFIX == 0:
                    yield leaf, place // PREFIX
        return
    by_prefix: dict[bytes, list[bytes]] = {}
    for leaf in wanted:
        by_prefix.setdefault(leaf[:PREFIX], []).append(leaf)
    for place in range(0, len(prefixes), PREFIX):
        for leaf in by_prefix.get(prefixes[place : place + PREFIX], ()):
            yield leaf, place // PREFIX
