"""Reading and writing the tiles of a log in a folder.

Every file of a log is read by :func:`read_file`, and written whole and durably
(:mod:`provenance.files.atomic`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provenance.errors import MalformedError, UnreadableError
from provenance.files import atomic, reading
from provenance.transparency import merkle, tiles
from provenance.transparency.tiles import ENTRIES, WIDTH, Tile


@dataclass(frozen=True, slots=True)
class TileStore:
    """The tiles and entry bundles in the log folder *root*."""

    root: Path

    def hashes(self, tile: Tile) -> tuple[bytes, ...]:
        """Return the hashes of *tile*, from the full tile if the partial one is gone."""
        found, data = self._read(tile, merkle.HASH_BYTES * WIDTH)
        whole = tiles.parse_tile(data, found, where=str(self.path(found)))
        return whole[: tile.width]

    def entries(self, index: int, width: int) -> tuple[bytes, ...]:
        """Return the first *width* entries of bundle *index*; otherwise as :meth:`hashes`."""
        found, data = self._read(Tile(ENTRIES, index, width), tiles.MAX_BUNDLE_BYTES)
        whole = tiles.parse_bundle(data, found.width, where=str(self.path(found)))
        return whole[:width]

    def subtree(self, size: int) -> merkle.Subtree:
        """Return the reader of the tree of *size*."""
        return tiles.subtree(size, self.hashes)

    def edge(self, size: int) -> tiles.Edge:
        """Return the edge of the tree of *size*."""
        return tuple(self.hashes(tile) if tile else () for tile in tiles.edge_tiles(size))

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
        return self.root / tiles.format_path(tile)

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
