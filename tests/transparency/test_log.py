from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.errors import (
    LogProofError,
    MalformedError,
    ProvenanceError,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from provenance.keys import generate, write_pair
from provenance.transparency import audit, entry, merkle, note
from provenance.transparency import log as logs

if TYPE_CHECKING:
    from provenance.transparency.note import SignerKey


def body(number: int) -> bytes:
    return b'{"apiVersion":"0.0.2","kind":"hashedrekord","n":%d}' % number


def bodies(start: int, end: int) -> list[bytes]:
    return [body(number) for number in range(start, end)]


def files(log: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(log)): path.read_bytes()
        for path in sorted(log.rglob("*"))
        if path.is_file()
    }


def test_a_new_log_is_empty_and_signed(log: Path, signer: SignerKey) -> None:
    signed = logs.read_checkpoint(log, signer.verifier)
    assert (signed.origin, signed.size, signed.root) == (signer.name, 0, merkle.EMPTY_ROOT)
    assert logs.read_vkey(log / "vkey") == signer.verifier
    assert (log / ".state/version").read_bytes() == b"1"
    assert json.loads((log / ".state/treeState").read_bytes()) == {
        "root": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "size": 0,
    }


def test_the_key_is_named_and_not_copied(log: Path, signer: SignerKey) -> None:
    secret = (log.parent / "log.key").read_bytes()
    lines = [line for line in secret.splitlines() if not line.startswith(b"-")]
    for data in files(log).values():
        assert not any(line in data for line in lines)
    assert logs.load_signer(log).verifier == signer.verifier


def test_published_entries_are_proven(log: Path, signer: SignerKey) -> None:
    for count in (1, 2, 300):
        published = logs.publish(log, bodies(count, 2 * count), signer)
        for number, item in enumerate(published, count):
            document = json.loads(json.dumps(entry.format_entry(item)))
            entry.check_entry(entry.parse_entry(document), body=body(number), vkey=signer.verifier)


def test_the_layout_is_tessera_s(log: Path, signer: SignerKey) -> None:
    logs.append(log, bodies(0, 300), signer)
    logs.append(log, bodies(300, 310), signer)
    assert {name for name in files(log) if not name.startswith(".state/")} == {
        "checkpoint",
        "vkey",
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/0/001.p/54",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
        "tile/entries/001.p/54",
    }
    assert {name for name in files(log) if name.startswith(".state/")} == {
        ".state/gcState",
        ".state/publish.lock",
        ".state/signer.json",
        ".state/treeState",
        ".state/treeState.lock",
        ".state/version",
    }


def test_partial_tiles_go_when_their_full_tile_is_published(log: Path, signer: SignerKey) -> None:
    for start in range(0, 256, 64):
        logs.append(log, bodies(start, start + 64), signer)
    assert sorted(name for name in files(log) if name.startswith("tile/")) == [
        "tile/0/000",
        "tile/1/000.p/1",
        "tile/entries/000",
    ]
    assert not (log / "tile/0/000.p").exists()


def test_an_old_checkpoint_is_still_served_by_the_full_tile(log: Path, signer: SignerKey) -> None:
    logs.append(log, bodies(0, 100), signer)
    old = (log / "checkpoint").read_bytes()
    logs.append(log, bodies(100, 256), signer)
    (log / "checkpoint").write_bytes(old)
    proven = logs.prove(log, [99], signer.verifier)[0]
    assert proven.proof.size == 100
    entry.check_entry(proven, body=body(99), vkey=signer.verifier)


def test_what_is_in_is_not_added_again(log: Path, signer: SignerKey) -> None:
    assert logs.append(log, [body(1), body(2), body(1)], signer) == (0, 1, 0)
    before = files(log)
    assert logs.append(log, [body(2), body(1)], signer) == (1, 0)
    assert files(log) == before
    assert logs.append(log, [body(3), body(2), body(3)], signer) == (2, 1, 2)
    assert logs.append(log, [], signer) == ()


def test_a_log_may_have_any_path(signer: SignerKey, tmp_path: Path) -> None:
    place = tmp_path / "a?b #c%20 d\u00fc" / "log"
    write_pair(signer.private, tmp_path / "log.key")
    logs.init(place, signer.name, tmp_path / "log.key")
    assert logs.append(place, bodies(0, 300), signer) == tuple(range(300))


def test_entries_are_found(log: Path, signer: SignerKey) -> None:
    logs.append(log, bodies(0, 600), signer)
    for number in (0, 255, 256, 599):
        assert logs.append(log, [body(number)], signer) == (number,)
    many = list(reversed(range(500, 600)))
    assert logs.append(log, [body(number) for number in many], signer) == tuple(many)
    assert logs.append(log, [*(body(number) for number in many), b"other"], signer)[-1] == 600


def test_a_log_without_its_key_or_state_is_unreadable(log: Path, tmp_path: Path) -> None:
    (log.parent / "log.key").unlink()
    with pytest.raises(UnreadableError, match="no such file"):
        logs.load_signer(log)
    (log / ".state" / "signer.json").unlink()
    with pytest.raises(UnreadableError, match=r"log/\.state/signer\.json: no such file"):
        logs.load_signer(log)
    with pytest.raises(UnreadableError, match="nowhere: there is no log here"):
        logs.load_signer(tmp_path / "nowhere")


def test_another_key_at_the_path_is_refused(log: Path) -> None:
    (log.parent / "log.key").write_bytes(generate("ed25519").pem())
    with pytest.raises(UsageError, match=r"is not the key that signs example.com/log"):
        logs.load_signer(log)


def test_another_key_cannot_append(log: Path, signer: SignerKey, stranger: SignerKey) -> None:
    before = files(log)
    with pytest.raises(UsageError, match="not the key that signs this log"):
        logs.append(log, [b"x"], stranger)
    assert files(log) == before
    with pytest.raises(LogProofError, match="not signed by"):
        logs.prove(log, [0], stranger.verifier)[0]
    with pytest.raises(LogProofError, match="has no leaf 0"):
        logs.prove(log, [0], signer.verifier)[0]


def test_a_log_is_made_in_an_empty_folder_only(log: Path, tmp_path: Path) -> None:
    key = tmp_path / "log.key"
    before = files(log)
    with pytest.raises(UsageError, match="not empty"):
        logs.init(log, "example.com/log", key)
    assert files(log) == before
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        logs.init(full, "example.com/log", key)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="cannot hold a log"):
        logs.init(full / "thesis.tex", "example.com/log", key)
    (tmp_path / "empty").mkdir()
    logs.init(tmp_path / "empty", "example.com/log", key)


@pytest.mark.parametrize("algorithm", ["ecdsa-p256", "ml-dsa-65"])
def test_a_log_s_key_must_be_ed25519(tmp_path: Path, algorithm: str) -> None:
    write_pair(generate(algorithm), tmp_path / "key")
    with pytest.raises(UsageError, match="signs with Ed25519"):
        logs.init(tmp_path / "log", "example.com/log", tmp_path / "key")
    assert not (tmp_path / "log").exists()


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    write_pair(generate("ed25519"), tmp_path / "key", b"secret")
    with pytest.raises(MalformedError, match="encrypted"):
        logs.init(tmp_path / "log", "example.com/log", tmp_path / "key")
    logs.init(tmp_path / "log", "example.com/log", tmp_path / "key", password=b"secret")
    with pytest.raises(MalformedError, match="encrypted"):
        logs.load_signer(tmp_path / "log")
    signer = logs.load_signer(tmp_path / "log", password=b"secret")
    assert logs.append(tmp_path / "log", [b"x"], signer) == (0,)


def test_entries_too_long_or_too_many_are_refused(
    log: Path, signer: SignerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert logs.append(log, [b"x" * 65_535, b""], signer) == (0, 1)
    before = files(log)
    with pytest.raises(UsageError, match="at most 65535 bytes"):
        logs.append(log, [b"short", b"x" * 65_536], signer)
    monkeypatch.setattr(logs, "MAX_BATCH", 2)
    with pytest.raises(UsageError, match="at most 2 entries"):
        logs.append(log, [b"1", b"2", b"3"], signer)
    assert files(log) == before


def test_a_log_without_kinds_has_no_bundle_entries(log: Path, signer: SignerKey) -> None:
    logs.append(log, [b"\x00" * 32], signer)
    with pytest.raises(MalformedError):
        logs.prove(log, [0], signer.verifier)[0]


def test_nothing_is_signed_over_a_changed_tree(log: Path, signer: SignerKey) -> None:
    logs.append(log, bodies(0, 300), signer)
    edge = log / "tile/0/001.p/44"
    edge.write_bytes(b"\x00" * 32 + edge.read_bytes()[32:])
    before = files(log)
    with pytest.raises(LogProofError, match="do not match the root"):
        logs.append(log, [b"new"], signer)
    assert files(log) == before


def test_nothing_is_signed_over_a_changed_entry(log: Path, signer: SignerKey) -> None:
    logs.append(log, bodies(0, 300), signer)
    edge = log / "tile/entries/001.p/44"
    edge.write_bytes(edge.read_bytes()[:-1] + b"]")
    promised = (log / "checkpoint").read_bytes()
    with pytest.raises(LogProofError, match="do not match the tree"):
        logs.append(log, [b"new"], signer)
    assert (log / "checkpoint").read_bytes() == promised


def test_nothing_is_signed_that_does_not_extend_the_last_checkpoint(
    log: Path, signer: SignerKey, tmp_path: Path
) -> None:
    logs.append(log, bodies(0, 10), signer)
    shutil.copytree(log, tmp_path / "copy")
    logs.append(log, [b"here"], signer)
    logs.append(tmp_path / "copy", [b"there"], signer)
    logs.append(tmp_path / "copy", [b"and more"], signer)
    # The state of a copy that grew otherwise: signing it would show two histories.
    promised = (log / "checkpoint").read_bytes()
    shutil.copytree(tmp_path / "copy", log, dirs_exist_ok=True)
    (log / "checkpoint").write_bytes(promised)
    with pytest.raises(LogProofError, match="consistency proof leads to another root"):
        logs.append(log, [b"new"], signer)
    assert (log / "checkpoint").read_bytes() == promised


def test_a_log_restored_from_an_older_copy_signs_nothing(
    log: Path, signer: SignerKey, tmp_path: Path
) -> None:
    logs.append(log, bodies(0, 10), signer)
    shutil.copytree(log, tmp_path / "backup")
    logs.append(log, bodies(10, 20), signer)
    promised = (log / "checkpoint").read_bytes()
    shutil.rmtree(log)
    shutil.copytree(tmp_path / "backup", log)
    (log / "checkpoint").write_bytes(promised)
    with pytest.raises(LogProofError, match="size 10 cannot follow one of size 20"):
        logs.append(log, [b"new"], signer)


DAMAGE = {
    "version": b"2",
    "treeState": b'{"size":1}',
    "signer.json": b"{}",
    "gcState": b'{"fromSize":-1}',
    "pending": b'{"from":0,"to":9223372036854775807}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_state_is_malformed(log: Path, signer: SignerKey, name: str) -> None:
    logs.append(log, bodies(0, 3), signer)
    (log / ".state" / name).write_bytes(DAMAGE[name])
    with pytest.raises(MalformedError):
        logs.append(log, [b"new"], signer)


@pytest.mark.parametrize("name", ["checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"])
def test_a_file_that_is_no_file_is_unreadable(log: Path, signer: SignerKey, name: str) -> None:
    logs.append(log, bodies(0, 3), signer)
    moved = log.parent / "moved"
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(moved)):
        (log / name).rename(moved)
        make(log / name)
        with pytest.raises(UnreadableError):
            logs.prove(log, [1], signer.verifier)[0]
        with pytest.raises(UnreadableError):
            logs.append(log, [b"new"], signer)
        if (log / name).is_dir():
            (log / name).rmdir()
        else:
            (log / name).unlink()
        moved.rename(log / name)
    assert logs.prove(log, [1], signer.verifier)[0].index == 1


def test_a_vkey_file_is_one_line(log: Path) -> None:
    path = log / "vkey"
    text = path.read_bytes()
    path.write_bytes(text.rstrip(b"\n"))
    logs.read_vkey(path)
    for bad in (b"", b"\n", text + b"\n", b"\xff", b"x" * 5000):
        path.write_bytes(bad)
        with pytest.raises(MalformedError):
            logs.read_vkey(path)


def test_a_vkey_file_is_a_link_only_where_that_is_said(
    log: Path, tmp_path: Path, signer: SignerKey
) -> None:
    link = tmp_path / "link"
    link.symlink_to(log / "vkey")
    assert logs.read_vkey(link, follow=True) == signer.verifier
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        logs.read_vkey(link)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_log_that_may_not_be_written_says_so(log: Path, signer: SignerKey) -> None:
    (log / "tile").mkdir()
    (log / "tile").chmod(0o555)
    with pytest.raises(UnavailableError, match="permission denied"):
        logs.append(log, [b"x"], signer)
    (log / "tile").chmod(0o755)


WRITER = """
import sys
from pathlib import Path
from provenance.transparency import log as logs
log, name = Path(sys.argv[1]), sys.argv[2]
signer = logs.load_signer(log)
for number in range(25):
    entries = [f"{name} {number}".encode(), b"common", f"common {number}".encode()]
    indices = logs.append(log, entries, signer)
    assert logs.read_checkpoint(log, signer.verifier).size > max(indices)
    print(*indices)
"""


def test_several_processes_append_at_once(log: Path, signer: SignerKey) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log), f"writer {number}"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(logs.__file__).parents[2],
        )
        for number in range(4)
    ]
    answers = [writer.communicate(timeout=600)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    report = audit.audit(log, signer.verifier)
    assert report.checkpoint.size == 4 * 25 + 1 + 25
    rows = [[int(word) for word in line.split()] for text in answers for line in text.splitlines()]
    assert len({row[0] for row in rows}) == 100
    assert len({row[1] for row in rows}) == 1
    assert len({row[2] for row in rows}) == 25
    for number, text in enumerate(answers):
        first = int(text.split()[0])
        assert logs.append(log, [f"writer {number} 0".encode()], signer) == (first,)


def test_only_our_errors_leave_a_folder_that_is_no_log(tmp_path: Path, signer: SignerKey) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        for call in (
            lambda: logs.append(place, [b"x"], signer),  # noqa: B023 - called at once
            lambda: logs.prove(place, [0], signer.verifier)[0],  # noqa: B023
            lambda: logs.load_signer(place),  # noqa: B023
            lambda: logs.read_vkey(place / "vkey"),  # noqa: B023
            lambda: audit.audit(place, signer.verifier),  # noqa: B023
        ):
            with pytest.raises(ProvenanceError):
                call()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_note_with_further_signatures_is_the_log_s_checkpoint(
    log: Path, signer: SignerKey
) -> None:
    logs.append(log, bodies(0, 2), signer)
    with (log / "checkpoint").open("ab") as file:
        file.write("— witness.example AAAAAAEC\n".encode())
    assert logs.append(log, [b"x"], signer) == (2,)
    assert note.parse((log / "checkpoint").read_bytes()).signatures[0].name == signer.name


@pytest.mark.parametrize("name", ["treeState.lock", "publish.lock"])
def test_a_fifo_for_a_lock_is_refused(log: Path, signer: SignerKey, name: str) -> None:
    path = log / ".state" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UnreadableError, match="is a FIFO, not a file") as caught:
        logs.append(log, bodies(0, 1), signer)
    assert caught.value.where == str(path)
    if name == "treeState.lock":
        with pytest.raises(UnreadableError, match="is a FIFO, not a file"):
            audit.audit(log, signer.verifier)
