"""What a log in a folder is, and each of its files: checkpoint, vkey, tiles, bundles, state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from provenance.encoding import strict_base64, strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError, count
from provenance.keys import parse_spki
from provenance.report.explain_text import explained, row, rows
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import log_state, merkle, note, rekor, tiles
from provenance.transparency.leaf_index import INDEX
from provenance.transparency.log import CHECKPOINT, VKEY, read_vkey
from provenance.transparency.log_state import STATE
from provenance.transparency.tile_store import read_file
from provenance.transparency.tiles import ENTRIES, WIDTH, Tile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.report.explain_text import Explained

SHOWN_HASHES = 8
"""Hashes listed of a tile."""


class NoteFile(msgspec.Struct, frozen=True, tag_field="kind", tag="signed-note"):
    """A signed note: its text and the names of those who are said to have signed it."""

    text: str
    signers: tuple[str, ...]


class CheckpointFile(msgspec.Struct, frozen=True, tag_field="kind", tag="checkpoint"):
    """What a log is said to have signed: its size in entries, and the root over them (base64)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...]
    signers: tuple[str, ...]


class VkeyFile(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="vkey"):
    """A log's verifier key.

    ``logId`` (base64) is what log entries name the log by, ``noteId`` (hexadecimal) what it is
    named by in signed notes and in the key's text. ``keyId`` is the public key's, without the name.
    """

    name: str
    algorithm: str
    key_id: str
    log_id: bytes
    note_id: str


class TileFile(msgspec.Struct, frozen=True, tag_field="kind", tag="tile"):
    """A tile: its place, and its hashes (base64). ``entries`` are leaves of the log under it."""

    level: int
    index: int
    hashes: tuple[bytes, ...]
    entries: tuple[int, int]


class BundledEntry(msgspec.Struct, frozen=True, rename="camel"):
    """An entry of a log: its index, its kind, and the key that is said to have signed."""

    index: int
    kind: str | None
    key_id: str | None
    leaf_hash: bytes


class EntryBundleFile(msgspec.Struct, frozen=True, tag_field="kind", tag="entry-bundle"):
    """Up to 256 consecutive entries of a log."""

    index: int
    entries: tuple[BundledEntry, ...]


class StateFile(msgspec.Struct, frozen=True, tag_field="kind", tag="log-state"):
    """A file that only the log's writer uses, and what it says."""

    name: str
    meaning: str


class LogFolder(msgspec.Struct, frozen=True, tag_field="kind", tag="log"):
    """A log in a folder. ``durable`` is the size of the tree on disk; null: no state is there."""

    checkpoint: CheckpointFile
    vkey: VkeyFile | None
    durable: int | None
    problem: str | None = None


def is_log_folder(folder: Path) -> bool:
    """Tell whether *folder* has what every log has."""
    return (folder / CHECKPOINT).is_file() and (
        (folder / "tile").is_dir() or (folder / STATE).is_dir() or (folder / VKEY).is_file()
    )


def explain_log_folder(folder: Path) -> Explained:
    """Return what the log in *folder* is.

    Raises:
        UnreadableError, MalformedError: its checkpoint cannot be read.
    """
    path = folder / CHECKPOINT
    raw = read_file(path, note.MAX_NOTE_BYTES)
    signed = _checkpoint_file(note.parse(raw, where=str(path)), str(path))
    problems: list[ProvenanceError] = []
    vkey, durable, pending = None, None, None
    try:
        if os.path.lexists(folder / VKEY):
            vkey = _vkey_file(read_vkey(folder / VKEY))
        if (folder / STATE).is_dir():
            log_state.check_version(folder)
            durable = log_state.read_tree(folder).size
            pending = log_state.read_pending(folder)
    except (MalformedError, UnreadableError) as error:
        problems.append(error)
    lines = [f"{folder}: transparency log (not verified)", *_checkpoint_rows(signed)]
    if vkey is not None:
        lines += _vkey_rows(vkey)
    if durable is not None:
        lines.append(row("on disk", f"{count(durable, 'entry', 'entries')}"))
    if pending is not None:
        lines.append(row("interrupted", f"an append from {pending[0]:,} to {pending[1]:,}"))
    lines += [row("problem", str(error)) for error in problems]
    lines.append(row("", "'provenance log audit' checks it"))
    problem = str(problems[0]) if problems else None
    return explained(LogFolder(signed, vkey, durable, problem), lines, problems)


def explain_note(data: bytes, where: str) -> Explained:
    """Return what the signed note *data* says: mostly a checkpoint.

    Raises:
        MalformedError: it is no note.
    """
    parsed = note.parse(data, where=where)
    try:
        signed = _checkpoint_file(parsed, where)
    except MalformedError:
        signers = tuple(line.name for line in parsed.signatures)
        lines = [f"{where}: signed note (not verified)", *rows("signed by", signers)]
        lines += rows("text", parsed.text.splitlines(), limit=100)
        return explained(NoteFile(parsed.text, signers), lines)
    title = f"{where}: checkpoint of a transparency log (not verified)"
    return explained(signed, [title, *_checkpoint_rows(signed)])


def explain_vkey(text: str, where: str) -> Explained:
    """Return what the verifier key *text* is.

    Raises:
        MalformedError: it is none.
    """
    content = _vkey_file(note.parse_vkey(text, where=where))
    title = f"{where}: verifier key of a transparency log (not verified)"
    return explained(content, [title, *_vkey_rows(content)])


def find_tile(path: Path) -> Tile | None:
    """Return the tile that the end of *path* names; None: it names none."""
    parts = path.absolute().parts
    for start in range(len(parts)):
        if parts[start] == "tile":
            try:
                return tiles.parse_path("/".join(parts[start:]))
            except MalformedError:
                continue
    return None


def explain_tile(path: Path, tile: Tile) -> Explained:
    """Return what the *tile* at *path* holds.

    Raises:
        UnreadableError, MalformedError: it cannot be read, or has another length.
    """
    data = read_file(path, tiles.MAX_BUNDLE_BYTES)
    if tile.level == ENTRIES:
        return _explain_entry_bundle(path, tile, data)
    hashes = tiles.parse_tile(data, tile, where=str(path))
    each = WIDTH**tile.level
    first = tile.index * WIDTH * each
    covered = (first, first + tile.width * each)
    what = "leaf hashes" if tile.level == 0 else f"roots over {each:,} entries each"
    lines = [
        f"{path}: tile of a transparency log (not verified)",
        row("place", f"level {tile.level}, tile {tile.index:,}"),
        row("holds", f"{tile.width} of {WIDTH} {what}"),
        row("entries", f"{covered[0]:,} to {covered[1] - 1:,}"),
        row("root", strict_base64.format(merkle.fold(hashes))),
        *rows("hashes", [strict_base64.format(item) for item in hashes], limit=SHOWN_HASHES),
    ]
    return explained(TileFile(tile.level, tile.index, hashes, covered), lines)


def explain_state(path: Path) -> Explained:
    """Return what the file at *path*, in a log's ``.state``, says.

    Raises:
        UnreadableError, MalformedError: it cannot be read, or is none of the log's.
    """
    meaning = _state_text(path)
    lines = [
        f"{path}: state of a transparency log, for its writer only (not verified)",
        row("says", meaning),
    ]
    return explained(StateFile(path.name, meaning), lines)


def _state_text(path: Path) -> str:
    """Return what the file *path* says; the writer's own readers take the log's folder."""
    if path.name in _STATES:
        return _STATES[path.name](path.absolute().parent.parent)
    if path.name.endswith(".lock"):
        return "nothing: writers exclude each other by locking it"
    if path.name == INDEX:
        return "which entry stands where: a cache, made again from the tiles when it is lost"
    raise MalformedError("not a file of a log's state", where=str(path))


def _version_text(folder: Path) -> str:
    log_state.check_version(folder)
    return "the layout is version 1"


def _tree_text(folder: Path) -> str:
    tree = log_state.read_tree(folder)
    size = count(tree.size, "entry is", "entries are")
    return f"{size} on disk, under the root {strict_base64.format(tree.root)}"


def _settings_text(folder: Path) -> str:
    settings = log_state.read_settings(folder)
    return f"{settings.origin} is signed by the key in {settings.key} ({settings.vkey})"


def _pending_text(folder: Path) -> str:
    start, end = log_state.read_pending(folder) or (0, 0)
    return f"an append from {start:,} to {end:,} entries is under way, or was killed"


def _collected_text(folder: Path) -> str:
    return f"partial tiles below {log_state.read_collected(folder):,} entries were removed"


_STATES: dict[str, Callable[[Path], str]] = {
    "version": _version_text,
    "treeState": _tree_text,
    "signer.json": _settings_text,
    "pending": _pending_text,
    "gcState": _collected_text,
}


def _explain_entry_bundle(path: Path, tile: Tile, data: bytes) -> Explained:
    bodies = tiles.parse_bundle(data, tile.width, where=str(path))
    first = tile.index * WIDTH
    entries = tuple(_bundled(first + number, body) for number, body in enumerate(bodies))
    texts = [
        f"{entry.index:,}  {entry.kind or 'of an unknown kind'}"
        + (f"  key {entry.key_id}" if entry.key_id else "")
        for entry in entries
    ]
    lines = [
        f"{path}: entries of a transparency log (not verified)",
        row("holds", f"{len(entries)} of {WIDTH} entries, from entry {first:,} on"),
        *rows("entries", texts, limit=WIDTH),
    ]
    return explained(EntryBundleFile(tile.index, entries), lines)


def _bundled(index: int, body: bytes) -> BundledEntry:
    """Return what is known of the entry *body*: a log may hold what other tools made."""
    kind, key_id = None, None
    try:
        kind = " ".join(rekor.parse_kind(body))
        verifier = strict_json.parse(body)["spec"]["hashedRekordV002"]["signature"]["verifier"]
        key_id = parse_spki(strict_base64.parse(verifier["publicKey"]["rawBytes"])).key_id
    except (MalformedError, KeyError, TypeError, AttributeError):
        pass
    return BundledEntry(index, kind, key_id, merkle.hash_leaf(body))


def _checkpoint_file(parsed: note.Note, where: str) -> CheckpointFile:
    found = checkpoints.parse(parsed.text, where=where)
    signers = tuple(line.name for line in parsed.signatures)
    return CheckpointFile(found.origin, found.size, found.root, found.extensions, signers)


def _checkpoint_rows(signed: CheckpointFile) -> list[str]:
    return [
        row("log", signed.origin),
        row("size", count(signed.size, "entry", "entries")),
        row("root", strict_base64.format(signed.root)),
        *rows("extensions", signed.extensions),
        *rows("signed by", [f"{name}, as the note says" for name in signed.signers]),
    ]


def _vkey_file(key: note.VerifierKey) -> VkeyFile:
    return VkeyFile(
        key.name, key.public.algorithm, key.public.key_id, key.log_id, key.note_id.hex()
    )


def _vkey_rows(key: VkeyFile) -> list[str]:
    return [
        row("log key", f"{key.algorithm}, under the name {key.name}"),
        row("key id", key.key_id),
        row("log id", strict_base64.format(key.log_id)),
        row("note id", f"{key.note_id}, the key id in checkpoints"),
    ]
