"""A transparency log in a folder: C2SP tiles in the layout of Tessera's POSIX storage.

An append makes durable, in this order: ``pending`` (what it is about to do); bundles and tiles;
``treeState``; the removal of ``pending``; ``checkpoint``. If it is killed before ``treeState``, the
next append removes the tiles listed by ``pending``; if after, it signs the tree as it is. So a
checkpoint never needs a missing tile, and later checkpoints cover every append that returned. A
tree is signed only if the tiles give its root and it is proven to extend the tree signed last.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from provenance.errors import (
    LogProofError,
    MalformedError,
    UnavailableError,
    UnreadableError,
    UsageError,
    reason,
)
from provenance.files import atomic
from provenance.files.atomic import TEMPORARY_SUFFIX
from provenance.keys import load_private
from provenance.transparency import checkpoint as checkpoints
from provenance.transparency import log_state, merkle, note, rekor, tiles
from provenance.transparency.checkpoint import Checkpoint
from provenance.transparency.entry import InclusionProof, LogEntry
from provenance.transparency.log_state import (
    MAX_BATCH,
    STATE,
    Collected,
    Pending,
    Settings,
    TreeState,
)
from provenance.transparency.note import NoteSignature, SignerKey, VerifierKey
from provenance.transparency.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    WIDTH,
    Edge,
    Tile,
    TileStore,
    make_folders,
    read_file,
)

CHECKPOINT = "checkpoint"
VKEY = "vkey"

MAX_VKEY_BYTES = 4096
"""Largest vkey file read, in bytes; a vkey is its name and 54 characters."""

_VKEY_SHAPE = re.compile(r"[^+]+\+[0-9A-Fa-f]{8}\+\S{40,}\s*")
"""A vkey, or one that was copied with a mistake."""


def init(
    folder: Path, origin: str, key_path: Path, *, password: bytes | None = None
) -> VerifierKey:
    """Make an empty log called *origin* in *folder*, signed by the key at *key_path*."""
    signer = note.signer_key(origin, load_private(key_path, password))
    _check_vacant(folder)
    make_folders(folder / STATE)
    with log_state.locked(folder):
        _check_vacant(folder)
        vkey = note.format_vkey(signer.verifier)
        empty = TreeState(0, merkle.EMPTY_ROOT)
        atomic.write_file(folder / STATE / "version", log_state.VERSION)
        log_state.write(folder, Settings(str(key_path.absolute()), origin, vkey))
        log_state.write(folder, empty)
        atomic.write_file(folder / VKEY, f"{vkey}\n".encode())
        _publish(folder, empty, signer)
    return signer.verifier


def load_signer(folder: Path, *, password: bytes | None = None) -> SignerKey:
    """Return the key that signs the log in *folder*, from the path that :func:`init` was given."""
    if not os.path.lexists(folder / CHECKPOINT):
        if os.path.isfile(folder) or "+" in str(folder):  # noqa: PTH113 - Path.is_file may raise
            hint = "name the folder that 'provenance log init' made"
            raise UnreadableError("is not the folder of a log", where=str(folder), hint=hint)
        hint = "'provenance log init' makes one"
        raise UnreadableError("there is no log here", where=str(folder), hint=hint)
    settings = log_state.read(folder, Settings)
    path = Path(settings.key)
    signer = note.signer_key(settings.origin, load_private(path, password))
    if note.format_vkey(signer.verifier) != settings.vkey:
        raise UsageError(f"is not the key that signs {settings.origin}", where=str(path))
    return signer


def read_vkey(path: Path, *, follow: bool = False) -> VerifierKey:
    """Return the verifier key in the file *path*: one line. With *follow*, it may be a link."""
    where, hint = str(path), "name the file 'vkey' in the log's folder"
    if path.is_dir():
        raise UnreadableError("is a folder, not a log's key", where=where, hint=hint)
    data = read_file(path, MAX_VKEY_BYTES, follow=follow)
    if b"PUBLIC KEY" in data or b"PRIVATE KEY" in data or data.startswith((b"ssh-", b"ecdsa-")):
        raise MalformedError("is a signing key, not a log's key", where=where, hint=hint)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("not a log's key", where=where, hint=hint) from error
    return note.parse_vkey(text.removesuffix("\n"), where=where)


def find_vkey(text: str | os.PathLike[str]) -> VerifierKey:
    """Return the log key that *text* spells (``name+hex+base64``), or that the file *text* holds.

    A text of that shape is never looked up: whoever can add a file could replace the key. A Path
    is always a file.
    """
    path = os.fspath(text)
    if isinstance(text, str) and _VKEY_SHAPE.fullmatch(text):
        return note.parse_vkey(text, where="the log's key")
    if isinstance(text, os.PathLike) or os.path.lexists(path):
        return read_vkey(Path(path), follow=True)
    if "+" not in path:
        hint = "name the file 'vkey' in the log's folder"
        raise UnreadableError("neither a file nor a log's key", where=path, hint=hint)
    return note.parse_vkey(path, where="the log's key")


def read_checkpoint(folder: Path, vkey: VerifierKey) -> Checkpoint:
    """Return the signed checkpoint of the log in *folder*."""
    path = folder / CHECKPOINT
    raw = read_file(path, note.MAX_NOTE_BYTES)
    return checkpoints.open_checkpoint(raw, vkey, where=str(path))


def read_signatures(folder: Path) -> tuple[NoteSignature, ...]:
    """Return the signatures of the checkpoint of the log in *folder*, not verified."""
    path = folder / CHECKPOINT
    return note.parse(read_file(path, note.MAX_NOTE_BYTES), where=str(path)).signatures


def entries_under(folder: Path, signed: Checkpoint) -> Iterator[bytes]:
    """Yield the entries that *signed* covers, from the log in *folder*, or a copy of it.

    Whether they are those, the end of it tells: a LogProofError if not.
    """
    store, edge = TileStore(folder), tuple[tuple[bytes, ...], ...]()
    for done in range(0, signed.size, WIDTH):
        found = store.entries(done // WIDTH, min(WIDTH, signed.size - done))
        _, edge = tiles.extend(done, edge, [merkle.hash_leaf(entry) for entry in found])
        yield from found
    if tiles.root(edge) != signed.root:
        what = "its entries do not give the root of the checkpoint"
        raise LogProofError(what, where=str(folder))


def append(folder: Path, entries: Sequence[bytes], signer: SignerKey) -> tuple[int, ...]:
    """Add *entries* to the log in *folder*, sign the new tree, and return the entries' indices.

    An entry that is in the log already is not added again; its index is returned. A LogProofError
    says that the folder contradicts its signed checkpoint; nothing is signed then. After any other
    error, too, the old checkpoint stays valid.
    """
    if len(entries) > MAX_BATCH:
        raise UsageError(f"at most {MAX_BATCH} entries can be appended at once")
    if (longest := max(map(len, entries), default=0)) > MAX_ENTRY_BYTES:
        raise UsageError(f"a log entry has at most {MAX_ENTRY_BYTES} bytes, and one has {longest}")
    leaves = [merkle.hash_leaf(entry) for entry in entries]
    with log_state.locked(folder):
        collected = log_state.find(folder, Collected)
        tree, edge = _recover(folder, signer)
        store = TileStore(folder)
        by_leaf = dict(zip(leaves, entries, strict=True))
        positions = _positions(store, tree.size, by_leaf)
        if new := {leaf: entry for leaf, entry in by_leaf.items() if leaf not in positions}:
            grown = _grow(folder, tree, edge, new)
            _publish(folder, grown, signer)
            positions |= dict(zip(new, range(tree.size, grown.size), strict=True))
            tree = grown
        with contextlib.suppress(UnavailableError):  # then it is done after the next append
            _collect(folder, collected.from_size if collected else 0, tree.size)
    return tuple(positions[leaf] for leaf in leaves)


def publish(folder: Path, bodies: Sequence[bytes], signer: SignerKey) -> tuple[LogEntry, ...]:
    """Append *bodies* to the log in *folder*, and return each with its proof."""
    return prove(folder, append(folder, bodies, signer), signer.verifier)


def prove(folder: Path, indices: Sequence[int], vkey: VerifierKey) -> tuple[LogEntry, ...]:
    """Return the entries *indices*, each with its proof under the signed checkpoint."""
    raw = read_file(folder / CHECKPOINT, note.MAX_NOTE_BYTES)
    signed = checkpoints.open_checkpoint(raw, vkey, where=str(folder / CHECKPOINT))
    store = TileStore(folder)
    subtree = store.subtree(signed.size)

    @functools.lru_cache(maxsize=4)
    def bundle(number: int) -> tuple[bytes, ...]:
        return store.entries(number, min(WIDTH, signed.size - number * WIDTH))

    def entry(index: int) -> LogEntry:
        path = merkle.prove_inclusion(index, signed.size, subtree)
        body = bundle(index // WIDTH)[index % WIDTH]
        merkle.check_inclusion(
            merkle.hash_leaf(body), path, index=index, size=signed.size, root=signed.root
        )
        kind, version = rekor.parse_kind(body)
        proof = InclusionProof(index, signed.root, signed.size, path, raw)
        return LogEntry(index, vkey.log_id, kind, version, body, proof)

    return tuple(entry(index) for index in indices)


def _check_vacant(folder: Path) -> None:
    """Return if *folder* can hold a new log: it is missing, empty, or left by a killed init."""
    leftovers = {STATE, VKEY, VKEY + TEMPORARY_SUFFIX, CHECKPOINT + TEMPORARY_SUFFIX}
    try:
        vacant = leftovers.issuperset(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot hold a log: {reason(error)}", where=str(folder)) from error
    if not vacant:
        raise UsageError("the folder is not empty", where=str(folder), hint="choose another folder")


def _recover(folder: Path, signer: SignerKey) -> tuple[TreeState, Edge]:
    """Return the durable tree and its edge, after undoing or finishing a killed append."""
    log_state.check_version(folder)
    if log_state.read(folder, Settings).vkey != note.format_vkey(signer.verifier):
        raise UsageError("this is not the key that signs this log", where=str(folder))
    tree = log_state.read(folder, TreeState)
    store = TileStore(folder)
    pending = log_state.find(folder, Pending)
    if pending:
        for tile in tiles.between(tree.size, max(tree.size, pending.end)):
            store.remove(tile)
        log_state.clear_pending(folder)
    edge = store.edge(tree.size)
    if tiles.root(edge) != tree.root:
        raise LogProofError("the tiles do not match the root of the tree", where=str(folder))
    signed = read_checkpoint(folder, signer.verifier)
    if (signed.size, signed.root) != (tree.size, tree.root):
        _publish(folder, tree, signer)
    return tree, edge


def _positions(store: TileStore, size: int, wanted: Container[bytes]) -> dict[bytes, int]:
    """Return the first position of those of *wanted* that are leaves of the tree of *size*."""
    found: dict[bytes, int] = {}
    for position, leaf in enumerate(store.leaves(size)):
        if leaf in wanted:
            found.setdefault(leaf, position)
    return found


def _grow(folder: Path, tree: TreeState, edge: Edge, new: dict[bytes, bytes]) -> TreeState:
    """Make the entries *new* (by leaf hash) durable, and return the tree with them."""
    store = TileStore(folder)
    size = tree.size + len(new)
    written, new_edge = tiles.extend(tree.size, edge, list(new))
    log_state.write(folder, Pending(tree.size, size))
    for tile, data in _bundles(store, tree.size, edge, list(new.values())):
        store.write(tile, data)
    for tile, data in written.items():
        store.write(tile, data)
    grown = TreeState(size, tiles.root(new_edge))
    log_state.write(folder, grown)
    log_state.clear_pending(folder)
    return grown


def _bundles(
    store: TileStore, size: int, edge: Edge, entries: Sequence[bytes]
) -> Iterator[tuple[Tile, bytes]]:
    """Yield the bundles that adding *entries* to the log of *size* writes, with their bytes."""
    kept: tuple[bytes, ...] = ()
    if size % WIDTH:
        kept = store.entries(size // WIDTH, size % WIDTH)
        if tuple(map(merkle.hash_leaf, kept)) != edge[0]:
            raise LogProofError("the last entries do not match the tree", where=str(store.root))
    rest = [*kept, *entries]
    begin = size - len(kept)
    for tile in tiles.between(size, size + len(entries)):
        if tile.level != ENTRIES:
            return
        first = tile.index * WIDTH - begin
        yield tile, tiles.format_bundle(rest[first : first + tile.width])


def _publish(folder: Path, tree: TreeState, signer: SignerKey) -> None:
    """Sign *tree*, after proving that it extends the tree that was signed last."""
    if os.path.lexists(folder / CHECKPOINT):
        old = read_checkpoint(folder, signer.verifier)
        subtree = TileStore(folder).subtree(tree.size)
        merkle.check_consistency(
            merkle.prove_consistency(old.size, tree.size, subtree),
            old_size=old.size,
            old_root=old.root,
            size=tree.size,
            root=tree.root,
        )
    signed = checkpoints.sign(Checkpoint(signer.name, tree.size, tree.root), signer)
    atomic.write_file(folder / CHECKPOINT, signed)


def _collect(folder: Path, done: int, size: int) -> None:
    """Remove partial tiles whose full tile is published, from the tree of size *done* on.

    See tlog-tiles, "Partial Tiles".
    """
    if done // WIDTH >= size // WIDTH:
        return
    store = TileStore(folder)
    for tile in tiles.between(done, size):
        if tile.width == WIDTH:
            store.remove_partial(tile)
    log_state.write(folder, Collected(size))
