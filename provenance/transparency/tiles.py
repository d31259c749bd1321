"""Tiles: how a log's tree and entries are cut into files (C2SP tlog-tiles; docs/spec/log.md).

A tile holds up to 256 consecutive hashes of one level, 32 bytes each. On level 0 they are leaf
hashes; on level L, each is the root over a *full* tile of level L - 1, so over 256^L leaves. Tile N
of level L in a tree of size s has ``floor(s / 256^L) - 256 N`` hashes, at most 256; one with fewer
is *partial*; an empty tile does not exist. For each tile of level 0 there is an entry bundle, the
entries themselves: here a tile of level -1, as in Go's sumdb.

Every file of a log is read by :func:`read_file`, and written whole and durably
(:mod:`provenance.files.atomic`).
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from provenance.errors import MalformedError, UnreadableError
from provenance.files import atomic, reading
from provenance.transparency import merkle
from provenance.transparency.merkle import HASH_BYTES, MAX_SIZE

HEIGHT = 8
"""Levels of the tree in one tile."""

WIDTH = 2**HEIGHT
"""Hashes in a full tile, and entries in a full bundle."""

ENTRIES = -1
"""The level that stands for entry bundles."""

MAX_ENTRY_BYTES = 2**16 - 1
"""Largest entry, in bytes: its length is written in 2."""

MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_ENTRY_BYTES)
"""Largest entry bundle, in bytes."""

MAX_LEVEL = 63
"""Highest level that has a path (tlog-tiles); trees below 2^63 leaves use levels 0 to 7."""

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


class Tile(msgspec.Struct, frozen=True, order=True):
    """The place of one tile: its level (or ENTRIES), its index in the level, its width (1-256)."""

    level: int
    index: int
    width: int


Edge = tuple[tuple[bytes, ...], ...]
"""The hashes of each level's partial tile, from level 0 up: what a tree needs to grow."""


def format_path(tile: Tile) -> str:
    """Return the path of *tile*, relative to the log."""
    digits = str(tile.index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    index = "/".join([*("x" + group for group in groups[:-1]), groups[-1]])
    level = "entries" if tile.level == ENTRIES else str(tile.level)
    partial = "" if tile.width == WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{index}{partial}"


def parse_path(path: str) -> Tile:
    """Return the tile at *path*, relative to the log."""
    match = _PATH.fullmatch(path)
    if match:
        level = ENTRIES if match["level"] == "entries" else int(match["level"])
        index = int(match["index"].replace("/", "").replace("x", ""))
        tile = Tile(level, index, int(match["width"] or WIDTH))
        in_range = level <= MAX_LEVEL and index <= MAX_SIZE and tile.width <= WIDTH
        if in_range and format_path(tile) == path:  # not so for x000/ and for .p/256
            return tile
    raise MalformedError("not the path of a tile", where=path)


def between(old_size: int, size: int) -> Iterator[Tile]:
    """Yield the tiles and bundles that growing from *old_size* to *size* writes, level by level.

    From size 0 these are all tiles of the tree.
    """
    for level in range(ENTRIES, MAX_LEVEL + 1):
        old_count, count = _count(level, old_size), _count(level, size)
        if count == 0:
            return
        if count > old_count:
            for index in range(old_count // WIDTH, -(-count // WIDTH)):
                yield Tile(level, index, min(WIDTH, count - WIDTH * index))


def subtree(size: int, read: Callable[[Tile], Sequence[bytes]]) -> merkle.Subtree:
    """Return the tree of *size* whose tiles *read* returns. It caches: proofs share most hashes."""
    read_once = functools.cache(read)

    @functools.cache
    def find(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        tile_index, start = divmod(index << height, WIDTH)
        width = min(WIDTH, _count(tile_level, size) - WIDTH * tile_index)
        hashes = read_once(Tile(tile_level, tile_index, width))
        return merkle.fold(hashes[start : start + (1 << height)])

    return find


def edge_tiles(size: int) -> tuple[Tile | None, ...]:
    """Return the partial tile of each level in the tree of *size*, or None."""
    edge: list[Tile | None] = []
    while count := _count(len(edge), size):
        width = count % WIDTH
        edge.append(Tile(len(edge), count // WIDTH, width) if width else None)
    return tuple(edge)


def extend(size: int, edge: Edge, leaves: Sequence[bytes]) -> tuple[dict[Tile, bytes], Edge]:
    """Return the tiles that adding the leaf hashes *leaves* writes, with their bytes, and the edge.

    *edge* is that of the tree of *size*; the returned one is that of the grown tree.
    """
    written: dict[Tile, bytes] = {}
    new_edge = list(edge)
    incoming: Sequence[bytes] = leaves
    level = 0
    while incoming:
        if level == len(new_edge):
            new_edge.append(())
        first = _count(level, size) // WIDTH
        hashes = [*new_edge[level], *incoming]
        rows = [hashes[i : i + WIDTH] for i in range(0, len(hashes), WIDTH)]
        for offset, row in enumerate(rows):
            written[Tile(level, first + offset, len(row))] = b"".join(row)
        full = [row for row in rows if len(row) == WIDTH]
        new_edge[level] = tuple(rows[-1]) if len(full) < len(rows) else ()
        incoming = [merkle.fold(row) for row in full]
        level += 1
    return written, tuple(new_edge)


def root(edge: Edge) -> bytes:
    """Return the root of the tree that has *edge*."""
    carried: list[bytes] = []
    for row in edge:
        hashes = [*row, *carried]
        carried = [merkle.fold(hashes)] if hashes else []
    return merkle.fold(carried)


def parse_tile(data: bytes, tile: Tile, *, where: str | None = None) -> tuple[bytes, ...]:
    """Return the hashes of *tile*, whose bytes are *data*."""
    if len(data) != HASH_BYTES * tile.width:
        what = f"a tile of {tile.width} hashes has {HASH_BYTES * tile.width} bytes, not {len(data)}"
        raise MalformedError(what, where=where)
    return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


def format_bundle(entries: Sequence[bytes]) -> bytes:
    """Return *entries*, each of at most MAX_ENTRY_BYTES, as an entry bundle."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data: bytes, width: int, *, where: str | None = None) -> tuple[bytes, ...]:
    """Return the *width* entries of the bundle *data*."""
    entries: list[bytes] = []
    place = 0
    for _ in range(width):
        start = place + 2
        place = start + int.from_bytes(data[place:start], "big")
        if start > len(data) or place > len(data):
            raise MalformedError(f"the bundle ends within entry {len(entries)}", where=where)
        entries.append(data[start:place])
    if place != len(data):
        raise MalformedError(f"the bundle has bytes after its {width} entries", where=where)
    return tuple(entries)


def _count(level: int, size: int) -> int:
    """Return how many hashes (or entries) *level* has in the tree of *size*."""
    return size >> HEIGHT * max(level, 0)


class TileStore(msgspec.Struct, frozen=True):
    """The tiles and entry bundles in the log folder *root*."""

    root: Path

    def hashes(self, tile: Tile) -> tuple[bytes, ...]:
        """Return the hashes of *tile*, from the full tile if the partial one is gone."""
        found, data = self._read(tile, merkle.HASH_BYTES * WIDTH)
        whole = parse_tile(data, found, where=str(self.path(found)))
        return whole[: tile.width]

    def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        """Return the first *width* entries of bundle *index*; otherwise as :meth:`hashes`."""
        found, data = self._read(Tile(ENTRIES, index, width), MAX_BUNDLE_BYTES)
        whole = parse_bundle(data, found.width, where=str(self.path(found)))
        return whole[:width]

    def subtree(self, size: int) -> merkle.Subtree:
        """Return the reader of the tree of *size*."""
        return subtree(size, self.hashes)

    def edge(self, size: int) -> Edge:
        """Return the edge of the tree of *size*."""
        return tuple(self.hashes(tile) if tile else () for tile in edge_tiles(size))

    def leaves(self, size: int) -> Iterator[bytes]:
        """Yield the leaf hashes of the tree of *size*, in order."""
        for first in range(0, size, WIDTH):
            yield from self.hashes(Tile(0, first // WIDTH, min(WIDTH, size - first)))

    def write(self, tile: Tile, data: bytes) -> None:
        """Write *data* as *tile*."""
        path = self.path(tile)
        make_folders(path.parent)
        atomic.write_file(path, data)

    def remove(self, tile: Tile) -> None:
        """Remove *tile* and its temporary file."""
        path = self.path(tile)
        unlink(path.with_name(path.name + atomic.TEMPORARY_SUFFIX))
        unlink(path)

    def remove_partial(self, tile: Tile) -> None:
        """Remove all partial tiles at the place of the full *tile*."""
        path = self.path(tile)
        folder = path.with_name(path.name + ".p")
        try:
            for partial in list(folder.iterdir()):
                unlink(partial)
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise atomic.storage_error(error, folder) from error

    def path(self, tile: Tile) -> Path:
        """Return the path of *tile*."""
        return self.root / format_path(tile)

    def _read(self, tile: Tile, limit: int) -> tuple[Tile, bytes]:
        try:
            return tile, read_file(self.path(tile), limit)
        except UnreadableError:
            full = Tile(tile.level, tile.index, WIDTH)
            if os.path.lexists(self.path(tile)) or not os.path.lexists(self.path(full)):
                raise
        return full, read_file(self.path(full), limit)


def read_file(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Return the bytes of the regular file *path*, at most *limit*; links only with *follow*."""
    return reading.read_file(path, limit, follow=follow, too_long=MalformedError)


def make_folders(folder: Path) -> None:
    """Make *folder* and those above it that are missing, durably."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        atomic.flush_folder(folder.parent)
    except OSError as error:
        raise atomic.storage_error(error, folder) from error


def unlink(path: Path) -> None:
    """Remove the file *path* if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise atomic.storage_error(error, path) from error
