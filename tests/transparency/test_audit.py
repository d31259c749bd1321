from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provenance.encoding import strict_base64, strict_json
from provenance.errors import LogProofError, MalformedError, ProvenanceError, UnreadableError
from provenance.transparency import audit, checkpoint, merkle, note, tiles
from provenance.transparency import log as logs
from provenance.transparency.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.transparency.note import SignerKey

ENTRIES = [b"entry %d" % number for number in range(600)]


@pytest.fixture
def grown(log: Path, signer: SignerKey) -> Path:
    """A log of 600 entries: two full tiles, and partial ones of widths 80 and 88."""
    logs.append(log, ENTRIES[:592], signer)
    logs.append(log, ENTRIES[592:], signer)
    return log


def test_a_log_is_what_its_checkpoint_says(grown: Path, signer: SignerKey) -> None:
    report = audit.audit(grown, signer.verifier)
    assert report.checkpoint == logs.read_checkpoint(grown, signer.verifier)
    assert (report.checkpoint.size, report.interrupted, report.extends) == (600, False, None)
    assert report.files == 9


def test_an_empty_log_is_audited(log: Path, signer: SignerKey) -> None:
    assert audit.audit(log, signer.verifier).files == 0


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 65_536, 65_537])
def test_logs_of_every_shape_are_audited(log: Path, signer: SignerKey, size: int) -> None:
    logs.append(log, [b"%d" % number for number in range(size)], signer)
    assert audit.audit(log, signer.verifier).checkpoint.size == size


def test_a_copy_without_state_is_audited(grown: Path, signer: SignerKey) -> None:
    shutil.rmtree(grown / ".state")
    assert audit.audit(grown, signer.verifier).checkpoint.size == 600


def test_a_log_extends_its_older_checkpoints(log: Path, signer: SignerKey) -> None:
    kept = [(log / "checkpoint").read_bytes()]
    for start, end in ((0, 1), (1, 300), (300, 512)):
        logs.append(log, ENTRIES[start:end], signer)
        kept.append((log / "checkpoint").read_bytes())
    sizes = []
    for older in kept:
        report = audit.audit(log, signer.verifier, older=older)
        assert report.extends
        sizes.append(report.extends.size)
    assert sizes == [0, 1, 300, 512]


def test_a_log_that_rewrote_its_past_is_refused(
    log: Path, signer: SignerKey, tmp_path: Path
) -> None:
    shutil.copytree(log, tmp_path / "other")
    logs.append(log, ENTRIES[:300], signer)
    older = (log / "checkpoint").read_bytes()
    logs.append(tmp_path / "other", [b"rewritten", *ENTRIES[1:400]], signer)
    audit.audit(tmp_path / "other", signer.verifier)
    with pytest.raises(LogProofError, match="older: root mismatch at size 300"):
        audit.audit(tmp_path / "other", signer.verifier, older=older)


def test_a_log_that_lost_entries_is_refused(log: Path, signer: SignerKey, tmp_path: Path) -> None:
    logs.append(log, ENTRIES[:10], signer)
    shutil.copytree(log, tmp_path / "other")
    logs.append(log, ENTRIES[10:20], signer)
    older = (log / "checkpoint").read_bytes()
    with pytest.raises(LogProofError, match="older: the log had 20 entries, and now has 10"):
        audit.audit(tmp_path / "other", signer.verifier, older=older)


def test_an_older_checkpoint_of_another_log_is_refused(
    grown: Path, signer: SignerKey, stranger: SignerKey
) -> None:
    older = checkpoint.sign(Checkpoint(stranger.name, 0, merkle.EMPTY_ROOT), stranger)
    with pytest.raises(LogProofError, match="not signed by the key of"):
        audit.audit(grown, signer.verifier, older=older)


def test_a_checkpoint_of_another_key_is_refused(grown: Path, stranger: SignerKey) -> None:
    with pytest.raises(LogProofError, match="not signed by the key of"):
        audit.audit(grown, stranger.verifier)


def flip(name: str, place: int = -1) -> Callable[[Path], object]:
    def change(log: Path) -> None:
        data = bytearray((log / name).read_bytes())
        data[place] ^= 1
        (log / name).write_bytes(data)

    return change


def resize(name: str, length: int) -> Callable[[Path], object]:
    def change(log: Path) -> None:
        data = (log / name).read_bytes()
        (log / name).write_bytes(data[:length] if length < 0 else data + b"\x00" * length)

    return change


def remove(name: str) -> Callable[[Path], object]:
    return lambda log: (log / name).unlink()


def add(name: str, data: bytes = b"\x00" * 32) -> Callable[[Path], object]:
    def change(log: Path) -> None:
        (log / name).parent.mkdir(parents=True, exist_ok=True)
        (log / name).write_bytes(data)

    return change


def link(log: Path) -> None:
    (log / "tile/elsewhere").symlink_to(log / "tile/0")


def state(size: int, root: bytes) -> Callable[[Path], object]:
    values = {"root": strict_base64.format(root), "size": size}
    return lambda log: (log / ".state/treeState").write_bytes(strict_json.format(values))


REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a changed entry": ("tile hash mismatch", flip("tile/entries/001")),
    "a changed entry in the last bundle": ("tile hash mismatch", flip("tile/entries/002.p/88")),
    "a changed entry in an older bundle": (
        "tile/entries/002.p/80: tile hash mismatch",
        flip("tile/entries/002.p/80"),
    ),
    "a changed leaf hash": ("tile/0/000: tile hash mismatch", flip("tile/0/000")),
    "a changed partial tile": ("tile/0/002.p/88: tile hash mismatch", flip("tile/0/002.p/88")),
    "a changed older partial tile": (
        "tile/0/002.p/80: tile hash mismatch",
        flip("tile/0/002.p/80"),
    ),
    "a changed upper tile": ("tile/1/000.p/2: tile hash mismatch", flip("tile/1/000.p/2")),
    "a short tile": ("tile hash mismatch", resize("tile/0/000", -1)),
    "a missing bundle": ("tile/entries/001: is missing", remove("tile/entries/001")),
    "a missing tile": ("tile/0/000: is missing from the log", remove("tile/0/000")),
    "a missing last tile": ("tile/0/002.p/88: is missing", remove("tile/0/002.p/88")),
    "a missing upper tile": ("tile/1/000.p/2: is missing", remove("tile/1/000.p/2")),
    "a tile beyond the size": ("does not belong", add("tile/0/003")),
    "a wider partial tile": ("does not belong to the log of size", add("tile/0/002.p/89")),
    "a full tile beside a partial one": ("does not belong", add("tile/0/002")),
    "a level beyond the size": ("tile/2/000.p/1: does not belong", add("tile/2/000.p/1")),
    "a stray file": ("tile/README: does not belong", add("tile/README")),
    "a leftover of no append": ("does not belong", add("tile/0/002.p/89.tmp")),
    "a tile by another name": ("does not belong", add("tile/0/x000/000")),
    "a link": ("tile/elsewhere: does not belong", link),
    "a changed checkpoint": (
        "signature of .* does not match",
        flip("checkpoint", len("example.com/log\n")),
    ),
    "a state of a smaller tree": ("does not match the checkpoint", state(599, b"\x00" * 32)),
    "a state of another tree": ("does not match the checkpoint", state(600, b"\x00" * 32)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_lie_is_refused_by_name(grown: Path, signer: SignerKey, name: str) -> None:
    what, change = REFUSED[name]
    change(grown)
    with pytest.raises(LogProofError, match=what):
        audit.audit(grown, signer.verifier)


MALFORMED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bytes after a bundle": ("bytes after its 256", resize("tile/entries/000", 1)),
    "a bundle that ends early": ("ends within entry", resize("tile/entries/000", -1)),
    "a tile of another length": ("is longer than", resize("tile/0/000", 1)),
    "a bundle too large": ("is longer than", add("tile/entries/000", b"\x00" * 17_000_000)),
    "an older partial tile too large": ("is longer than", resize("tile/0/002.p/80", 1)),
    "another version": ("not of version 1", add(".state/version", b"2")),
    "a damaged state": ("not JSON", add(".state/treeState", b"{")),
    "a checkpoint that is none": ("not a note", add("checkpoint", b"hello\n")),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_log_is_malformed(grown: Path, signer: SignerKey, name: str) -> None:
    what, change = MALFORMED[name]
    change(grown)
    with pytest.raises(MalformedError, match=what):
        audit.audit(grown, signer.verifier)


def test_a_pipe_in_place_of_a_tile_is_refused_at_once(grown: Path, signer: SignerKey) -> None:
    (grown / "tile/0/000").unlink()
    os.mkfifo(grown / "tile/0/000")
    with pytest.raises(UnreadableError, match="is a FIFO, not a file"):
        audit.audit(grown, signer.verifier)


def test_a_deep_folder_is_refused(
    grown: Path, signer: SignerKey, deepen: Callable[[Path], None]
) -> None:
    deepen(grown / "tile" / "deep")
    with pytest.raises(UnreadableError, match="is deeper than"):
        audit.audit(grown, signer.verifier)


def test_a_signed_root_that_the_entries_do_not_give_is_refused(
    grown: Path, signer: SignerKey
) -> None:
    shutil.rmtree(grown / ".state")
    lie = checkpoint.sign(Checkpoint(signer.name, 600, b"\x00" * 32), signer)
    (grown / "checkpoint").write_bytes(lie)
    with pytest.raises(LogProofError, match="checkpoint: root mismatch at size 600"):
        audit.audit(grown, signer.verifier)


def test_a_size_that_is_a_lie_is_refused_at_once(grown: Path, signer: SignerKey) -> None:
    shutil.rmtree(grown / ".state")
    lie = checkpoint.sign(Checkpoint(signer.name, 2**63 - 1, b"\x00" * 32), signer)
    (grown / "checkpoint").write_bytes(lie)
    with pytest.raises(LogProofError, match="is missing from the log"):
        audit.audit(grown, signer.verifier)
    with pytest.raises(ProvenanceError):
        logs.prove(grown, [2**62], signer.verifier)


def test_a_vkey_file_of_another_key_is_refused(
    grown: Path, signer: SignerKey, stranger: SignerKey
) -> None:
    (grown / "vkey").unlink()
    audit.audit(grown, signer.verifier)
    (grown / "vkey").write_text(note.format_vkey(stranger.verifier) + "\n")
    with pytest.raises(LogProofError, match="vkey: is not the key of this log"):
        audit.audit(grown, signer.verifier)


def test_an_older_checkpoint_must_be_one(grown: Path, signer: SignerKey) -> None:
    with pytest.raises(MalformedError, match="older: not a note"):
        audit.audit(grown, signer.verifier, older=b"")


def test_a_log_that_changed_an_entry_and_all_its_hashes_is_refused(
    grown: Path, signer: SignerKey
) -> None:
    """The whole folder agrees with itself, and not with what was signed."""
    changed = [b"changed", *ENTRIES[1:]]
    leaves = [merkle.hash_leaf(entry) for entry in changed]
    written, edge = tiles.extend(0, (), leaves)
    shutil.rmtree(grown / "tile")
    for tile in tiles.between(0, 600):
        first = tile.index * 256
        data = written.get(tile) or tiles.format_bundle(changed[first : first + tile.width])
        add(tiles.format_path(tile), data)(grown)
    with pytest.raises(LogProofError, match="checkpoint: root mismatch"):
        audit.audit(grown, signer.verifier)
    state(600, tiles.root(edge))(grown)
    with pytest.raises(LogProofError, match="does not match the checkpoint"):
        audit.audit(grown, signer.verifier)


def test_entries_that_are_not_promised_yet_are_reported(
    log: Path, signer: SignerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.append(log, ENTRIES[:300], signer)
    with monkeypatch.context() as patch:
        patch.setattr(logs, "_publish", lambda *_args: None)
        logs.append(log, ENTRIES[300:310], signer)
    report = audit.audit(log, signer.verifier)
    assert report.checkpoint.size == 300
    flip("tile/entries/001.p/54")(log)
    with pytest.raises(LogProofError):
        audit.audit(log, signer.verifier)
    flip("tile/entries/001.p/54")(log)
    state(310, b"\x00" * 32)(log)
    with pytest.raises(LogProofError, match=r"\.state/treeState: root mismatch"):
        audit.audit(log, signer.verifier)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_changed_bit_in_any_public_file_goes_unseen(
    grown: Path, signer: SignerKey, data: st.DataObject
) -> None:
    names = sorted(str(path) for path in grown.rglob("*") if path.is_file())
    public = [name for name in names if "/.state/" not in name and not name.endswith("/vkey")]
    name = data.draw(st.sampled_from(public))
    path = grown / name
    before = path.read_bytes()
    place = data.draw(st.integers(0, 8 * len(before) - 1))
    changed = bytearray(before)
    changed[place // 8] ^= 1 << place % 8
    path.write_bytes(changed)
    with pytest.raises(ProvenanceError):
        audit.audit(grown, signer.verifier)
    path.write_bytes(before)
