"""The audit of a log in a folder: everything is recomputed from its entries.

Steps; the error of a step names the file or the step in its ``where``:

1. checkpoint: signed by the log's key, under the log's name, and ``vkey``, if there, is that key;
2. state: if there is one, its version is 1, and its tree is the checkpoint's or a larger one;
3. files: every tile and bundle of the tree is in ``tile/``, and nothing else but partial tiles in
   their places and what a killed append left;
4. entries: each bundle has as many entries as its width says, and their hashes are the tiles;
5. roots: the entries give the root of the checkpoint, of the state, and of the older checkpoint, if
   given, at its size. So the log extends that older checkpoint.

A copy without ``.state`` can be audited too. Memory grows with the number of files, not their size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import msgspec

from provenance.errors import LogProofError, MalformedError, UnreadableError, reason
from provenance.files.atomic import TEMPORARY_SUFFIX
from provenance.files.walking import walk_folders
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import log_state, merkle, tiles
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.log import VKEY, read_checkpoint, read_vkey
from provenance.transparency.log_state import STATE, Pending, TreeState
from provenance.transparency.note import VerifierKey
from provenance.transparency.tiles import ENTRIES, WIDTH, Tile, TileStore, read_file


class AuditReport(msgspec.Struct, frozen=True):
    """What holds: the log signed *checkpoint*, and its entries give that root.

    *interrupted*: a killed append left files, which the next append removes. *extends* is the older
    checkpoint that was given.
    """

    checkpoint: Checkpoint
    files: int
    interrupted: bool
    extends: Checkpoint | None


_Roots = dict[str, TreeState | Checkpoint]
"""Sizes and roots that the entries must give, by where they are stated."""


def audit(folder: Path, vkey: VerifierKey, *, older: bytes | None = None) -> AuditReport:
    """Check that the log in *folder* is what its checkpoint says; a LogProofError if not.

    *older* is a checkpoint of the same log, kept from an earlier time.
    """
    with log_state.unchanging(folder):
        # 1. checkpoint
        signed = read_checkpoint(folder, vkey)
        path = folder / VKEY
        if os.path.lexists(path) and read_vkey(path) != vkey:
            raise LogProofError("is not the key of this log", where=str(path))
        earlier = (
            checkpoints.open_checkpoint(older, vkey, where="older") if older is not None else None
        )
        if earlier and earlier.size > signed.size:
            what = f"the log had {earlier.size} entries, and now has {signed.size}"
            raise LogProofError(what, where="older")
        # 2. state
        tree, pending = _check_state(folder, signed)
        # 3. files
        present = _check_files(folder, tree.size, pending)
        # 4. entries, 5. roots
        roots: _Roots = {"checkpoint": signed, f"{STATE}/treeState": tree}
        if earlier:
            roots["older"] = earlier
        _check_entries(TileStore(folder), tree.size, present, roots)
    files = sum(len(widths) for widths in present.values())
    return AuditReport(signed, files, pending is not None, earlier)


def _check_state(folder: Path, signed: Checkpoint) -> tuple[TreeState, Pending | None]:
    """Return the durable tree, and the sizes of a killed append."""
    promised = TreeState(signed.size, signed.root)
    if not os.path.lexists(folder / STATE):
        return promised, None
    log_state.check_version(folder)
    tree = log_state.read(folder, TreeState)
    if tree.size < signed.size or (tree.size == signed.size and tree != promised):
        where = str(folder / STATE / "treeState")
        raise LogProofError("the state does not match the checkpoint", where=where)
    return tree, log_state.find(folder, Pending)


def _check_files(
    folder: Path, size: int, pending: Pending | None
) -> dict[tuple[int, int], set[int]]:
    """Return the widths of the tiles that are there, by level and index."""
    undone = set(tiles.between(size, max(size, pending.end))) if pending else set()
    found: set[Tile] = set()
    for path in _files(folder):
        try:
            tile = tiles.parse_path(path.removesuffix(TEMPORARY_SUFFIX) if pending else path)
        except MalformedError as error:
            raise LogProofError("does not belong to the log", where=path) from error
        if path.endswith(TEMPORARY_SUFFIX) and tile not in undone:
            raise LogProofError("does not belong to the log", where=path)
        found.add(tile)
    needed: dict[tuple[int, int], int] = {}
    for tile in tiles.between(0, size):  # a size may be any lie: the first missing tile ends this
        if tile not in found:
            raise LogProofError("is missing from the log", where=tiles.format_path(tile))
        needed[tile.level, tile.index] = tile.width
    present: dict[tuple[int, int], set[int]] = {}
    for tile in found - undone:
        place = (tile.level, tile.index)
        if tile.width > needed.get(place, 0):
            path = tiles.format_path(tile)
            raise LogProofError(f"does not belong to the log of size {size}", where=path)
        present.setdefault(place, set()).add(tile.width)
    return present


def _files(folder: Path) -> list[str]:
    def refuse(error: OSError) -> NoReturn:
        raise UnreadableError(f"cannot be read: {reason(error)}", where=error.filename)

    found: list[str] = []
    if not os.path.lexists(folder / "tile"):
        return found
    for parent, folders, names in walk_folders(folder / "tile", refuse):
        here = Path(parent)
        links = [name for name in folders if (here / name).is_symlink()]
        found.extend(str((here / name).relative_to(folder)) for name in (*names, *links))
    return found


def _check_entries(
    store: TileStore, size: int, present: dict[tuple[int, int], set[int]], roots: _Roots
) -> None:
    """Hash the entries bundle by bundle, and compare with every tile and root."""
    edge: tiles.Edge = ()
    _check_roots(roots, 0, edge, ())
    final = {place: max(widths) for place, widths in present.items()}
    for done in range(0, size, WIDTH):
        index, width = done // WIDTH, min(WIDTH, size - done)
        entries = store.entries(index, width)
        for narrow in present[ENTRIES, index] - {width}:
            _check_file(store, Tile(ENTRIES, index, narrow), tiles.format_bundle(entries[:narrow]))
        leaves = [merkle.hash_leaf(entry) for entry in entries]
        before = edge
        written, edge = tiles.extend(done, before, leaves)
        for tile, data in written.items():
            place = (tile.level, tile.index)
            if tile.width != final[place]:
                continue
            for present_width in present[place]:
                part = data[: present_width * merkle.HASH_BYTES]
                _check_file(store, Tile(*place, present_width), part)
        _check_roots(roots, done, before, leaves)


def _check_roots(
    roots: _Roots, done: int, edge: tiles.Edge, leaves: list[bytes] | tuple[()]
) -> None:
    """Check those of *roots* whose size is reached by adding *leaves* to the tree of *done*."""
    for source, wanted in roots.items():
        if wanted.size == done == 0 or done < wanted.size <= done + len(leaves):
            _, grown = tiles.extend(done, edge, leaves[: wanted.size - done])
            if tiles.root(grown) != wanted.root:
                raise LogProofError(f"root mismatch at size {wanted.size}", where=source)


def _check_file(store: TileStore, tile: Tile, expected: bytes) -> None:
    if read_file(store.path(tile), max(len(expected), 1)) != expected:
        raise LogProofError("tile hash mismatch", where=tiles.format_path(tile))
