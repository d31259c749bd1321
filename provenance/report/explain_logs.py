"""What a log in a folder holds: checkpoint, key, tiles, entries, the state of its writer."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from provenance.encoding import strict_base64, strict_json
from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.keys import parse_spki
from provenance.report.explain_text import Explained, explained, fields, row, rows
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import log_state, merkle, note, rekor, tiles
from provenance.transparency.log import CHECKPOINT, VKEY, read_vkey
from provenance.transparency.log_state import FILES, STATE, Collected, Pending, Settings, TreeState
from provenance.transparency.tiles import ENTRIES, WIDTH, Tile, read_file

_STATE_FILES = ("version", *FILES.values())


def is_log_folder(folder: Path) -> bool:
    """Tell whether *folder* has a checkpoint, and something else that logs have."""
    beside = (folder / "tile").is_dir() or (folder / STATE).is_dir() or (folder / VKEY).is_file()
    return beside and (folder / CHECKPOINT).is_file()


def explain_log_folder(folder: Path) -> Explained:
    """Return what the log in *folder* is; only its checkpoint must be readable."""
    path = folder / CHECKPOINT
    signed = note.parse(read_file(path, note.MAX_NOTE_BYTES), where=str(path))
    problems: list[ProvenanceError] = []
    content: dict[str, Any] = {**_checkpoint(signed, str(path)), "key": None, "state": None}
    parts = (("key", VKEY, lambda log: _vkey(read_vkey(log / VKEY))), ("state", STATE, _state))
    for name, part, read in parts:
        try:
            content[name] = read(folder) if os.path.lexists(folder / part) else None
        except (MalformedError, UnreadableError) as error:
            problems.append(error)
    lines = fields(content) + [row("problem", str(error)) for error in problems]
    lines.append(row("", "'provenance log audit' checks it"))
    return explained("log", f"{folder}: transparency log", content, lines, problems)


def explain_note(data: bytes, where: str) -> Explained:
    """Return what the signed note *data* says: mostly a checkpoint."""
    parsed = note.parse(data, where=where)
    try:
        content = _checkpoint(parsed, where)
    except MalformedError:
        signed = {"signedBy": [line.name for line in parsed.signatures]}
        lines = fields(signed) + rows("text", parsed.text.splitlines(), limit=100)
        content = {**signed, "text": parsed.text}
        return explained("signed-note", f"{where}: signed note", content, lines)
    return explained("checkpoint", f"{where}: checkpoint of a transparency log", content)


def explain_vkey(text: str, where: str) -> Explained:
    """Return what the verifier key *text* of a log is."""
    content = _vkey(note.parse_vkey(text, where=where))
    return explained("vkey", f"{where}: verifier key of a transparency log", content)


def find_tile(path: Path) -> Tile | None:
    """Return the tile that the end of *path* names, if it names one."""
    parts = path.absolute().parts
    for start, part in enumerate(parts):
        if part == "tile":
            with contextlib.suppress(MalformedError):
                return tiles.parse_path("/".join(parts[start:]))
    return None


def explain_tile(path: Path, tile: Tile) -> Explained:
    """Return what the *tile* at *path* holds."""
    data = read_file(path, tiles.MAX_BUNDLE_BYTES)
    if tile.level == ENTRIES:
        bodies = tiles.parse_bundle(data, tile.width, where=str(path))
        first = tile.index * WIDTH
        entries = [_entry(first + number, body) for number, body in enumerate(bodies)]
        title = f"{path}: up to {WIDTH} entries of a transparency log"
        content = {"index": tile.index, "entries": entries}
        return explained("entry-bundle", title, content, fields(content, limit=WIDTH))
    hashes = tiles.parse_tile(data, tile, where=str(path))
    each = WIDTH**tile.level
    first = tile.index * WIDTH * each
    what = "leaf hashes" if tile.level == 0 else f"roots over {each:,} entries each"
    content = {
        "level": tile.level,
        "index": tile.index,
        "holds": f"{tile.width} of {WIDTH} {what}",
        "entries": f"{first:,} to {first + tile.width * each - 1:,}",
        "root": merkle.fold(hashes),
        "hashes": hashes,
    }
    return explained("tile", f"{path}: tile of a transparency log", content)


def explain_state(path: Path) -> Explained:
    """Return the state of the log that the file *path* belongs to."""
    if path.name not in _STATE_FILES and path.suffix != ".lock":
        raise MalformedError("not a file of a log's state", where=str(path))
    title = f"{path}: state of a transparency log, for its writer only"
    return explained("log-state", title, _state(path.absolute().parent.parent))


def _state(folder: Path) -> dict[str, Any]:
    """Return what the files in ``.state`` say; the version and the tree must be there."""
    log_state.check_version(folder)
    tree = log_state.read(folder, TreeState)
    pending, collected = log_state.find(folder, Pending), log_state.find(folder, Collected)
    return {
        "version": int(log_state.VERSION),
        "onDisk": {"entries": tree.size, "root": tree.root},
        "signer": log_state.find(folder, Settings),
        "appendUnderWayOrKilled": {"from": pending.start, "to": pending.end} if pending else None,
        "partialTilesRemovedBelow": collected.from_size or None if collected else None,
    }


def _entry(index: int, body: bytes) -> dict[str, Any]:
    """Return what is known of the entry *body*, which another tool may have made."""
    kind, key_id = "of an unknown kind", None
    with contextlib.suppress(MalformedError, KeyError, TypeError, AttributeError):
        kind = " ".join(rekor.parse_kind(body))
        verifier = strict_json.parse(body)["spec"]["hashedRekordV002"]["signature"]["verifier"]
        key_id = parse_spki(strict_base64.parse(verifier["publicKey"]["rawBytes"])).key_id
    return {"index": index, "kind": kind, "keyId": key_id}


def _checkpoint(parsed: note.Note, where: str) -> dict[str, Any]:
    found = checkpoints.parse(parsed.text, where=where)
    return {
        "log": found.origin,
        "entries": found.size,
        "root": found.root,
        "extensions": found.extensions,
        "signedBy": [line.name for line in parsed.signatures],
    }


def _vkey(key: note.VerifierKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "algorithm": key.public.algorithm,
        "keyId": key.public.key_id,
        "logId": key.log_id,
        "noteId": key.note_id.hex(),
    }
