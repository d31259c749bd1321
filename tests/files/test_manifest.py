from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenance.errors import MalformedError, ProvenanceError, UnreadableError
from provenance.files import manifest as manifests
from provenance.files.digest import CHUNK_BYTES
from provenance.files.manifest import (
    MAX_DEPTH,
    FileEntry,
    compare_sizes,
    hash_folder,
    hash_path,
    manifest_of,
    walk,
)
from provenance.files.names import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return fill(folder, {"config.json": b"{}", "sub/tok.txt": b"t", "sub-x.txt": b"x"})


def test_names_sizes_and_digests_in_order(model: Path) -> None:
    fill(model, {"empty": b"", "weights.bin": b"w" * 10})
    found = hash_folder(model)
    assert [(e.name, e.size, e.sha256) for e in found.entries] == [
        ("config.json", 2, sha256(b"{}")),
        ("empty", 0, sha256(b"")),
        ("sub/tok.txt", 1, sha256(b"t")),  # by parts: "sub" comes before "sub-x.txt"
        ("sub-x.txt", 1, sha256(b"x")),
        ("weights.bin", 10, sha256(b"w" * 10)),
    ]
    raw = b"".join(bytes.fromhex(entry.sha256) for entry in found.entries)
    assert found.root_digest == sha256(raw)
    assert found.size == 14
    assert found.by_name()["empty"].size == 0


def test_the_root_digest_covers_no_names(model: Path) -> None:
    before = hash_folder(model)
    (model / "config.json").rename(model / "cfg.json")
    after = hash_folder(model)
    assert after.root_digest == before.root_digest
    assert after != before


def test_an_empty_folder_inside_changes_nothing(model: Path) -> None:
    before = hash_folder(model)
    (model / "empty/deeper").mkdir(parents=True)
    assert hash_folder(model) == before


def test_reserved_names_are_left_out_at_the_top_only(model: Path) -> None:
    before = hash_folder(model, ignore=RESERVED)
    fill(
        model,
        {
            "claims.jsonl": b"1",
            "claims.jsonl.tmp": b"2",
            "model.sig": b"3",
            "provenance/x": b"4",
            ".git/config": b"5",
            ".gitignore": b"6",
        },
    )
    (model / ".github").symlink_to("/")  # what is left out is not looked at
    assert hash_folder(model, ignore=RESERVED) == before
    fill(model, {"sub/claims.jsonl": b"7", "sub/.git/config": b"8", "model.sig.bak": b"9"})
    added = hash_folder(model, ignore=RESERVED).by_name().keys() - before.by_name().keys()
    assert added == {"sub/claims.jsonl", "sub/.git/config", "model.sig.bak"}


def test_the_named_folder_may_itself_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    assert hash_folder(tmp_path / "link") == hash_folder(model)
    assert hash_path(tmp_path / "link") == hash_folder(model)


def test_a_named_file_may_itself_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").symlink_to(model / "config.json")
    assert hash_path(tmp_path / "data.csv").entries == (FileEntry("data.csv", 2, sha256(b"{}")),)


def test_one_file_has_its_own_name(model: Path) -> None:
    assert hash_path(model / "sub/tok.txt").entries == (FileEntry("tok.txt", 1, sha256(b"t")),)


LINKS = {
    "to a file inside": ("config.json", r"is a symbolic link \(copy"),
    "to a folder inside": ("sub", r"is a symbolic link \(copy"),
    "to the folder itself": (".", r"is a symbolic link \(copy"),
    "to the parent": ("..", "is a symbolic link that leaves the folder"),
    "to an absolute path": ("/etc/passwd", "is a symbolic link that leaves the folder"),
    "to a sibling with the same beginning": ("../model2", "leaves the folder"),
    "dangling": ("nowhere", r"is a symbolic link \(copy"),
    "dangling outside": ("../nowhere", "leaves the folder"),
    "to itself": ("link", r"is a symbolic link \(copy"),
}


@pytest.mark.parametrize(("target", "message"), LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("place", ["link", "sub/link"])
def test_a_link_inside_is_refused(model: Path, place: str, target: str, message: str) -> None:
    path = model / place
    up = "../" if place.startswith("sub/") and not target.startswith("/") else ""
    path.symlink_to("link" if target == "link" else up + target)
    with pytest.raises(UnreadableError, match=message) as caught:
        hash_folder(model)
    assert caught.value.where == str(path)
    assert "cp -rL" in str(caught.value)


def test_a_loop_of_two_links_is_refused(model: Path) -> None:
    (model / "a").symlink_to("b")
    (model / "b").symlink_to("a")
    with pytest.raises(UnreadableError, match="symbolic link"):
        hash_folder(model)


def test_special_files_are_refused_without_waiting(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(model / "sub/fifo")
    with pytest.raises(UnreadableError, match="is a FIFO, not a file") as caught:
        hash_folder(model)
    assert caught.value.where == str(model / "sub/fifo")
    (model / "sub/fifo").unlink()
    monkeypatch.chdir(model)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(UnreadableError, match="is a socket, not a file"):
            hash_folder(model)


def test_a_device_is_refused(model: Path) -> None:
    try:
        os.mknod(model / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user makes no devices")
    with pytest.raises(UnreadableError, match="is a character device, not a file"):
        hash_folder(model)


NAMES = {
    "newline": b"a\nb",
    "escape sequence": b"a\x1b[2Jb",
    "backslash": rb"a\b",
    "right-to-left override": "a\u202egnp.exe".encode(),
    "line separator": "a\u2028b".encode(),
    "not UTF-8": b"a\xff\xfe",
    "Latin-1": "größe".encode("latin-1"),
}


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("folder", [False, True])
def test_a_name_that_misleads_is_refused(model: Path, name: bytes, folder: bool) -> None:
    path = os.path.join(os.fsencode(model), name)  # noqa: PTH118 - bytes
    if folder:
        os.mkdir(path)  # noqa: PTH102 - bytes
        path = os.path.join(path, b"file")  # noqa: PTH118
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(MalformedError, match="the file name") as caught:
        hash_folder(model)
    assert str(caught.value).isprintable()


def test_depth_has_a_bound(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath("root", *["d"] * MAX_DEPTH)
    deepest.mkdir(parents=True)
    (deepest / "file").write_bytes(b"1")
    assert len(hash_folder(tmp_path / "root").entries) == 1
    (deepest / "d").mkdir()
    with pytest.raises(UnreadableError, match="deeper than 64 folders"):
        hash_folder(tmp_path / "root")


def test_a_folder_that_is_none(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/empty").mkdir(parents=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    cases = {
        tmp_path / "missing": "no such folder",
        tmp_path / "dangling": "no such folder",
        model / "config.json": "not a directory",
        tmp_path / "empty": "holds no files",
        tmp_path / "a\0b": "null byte",
    }
    for path, message in cases.items():
        with pytest.raises(UnreadableError, match=message) as caught:
            hash_folder(path)
        assert caught.value.where == str(path)


def test_an_unreadable_folder(model: Path) -> None:
    (model / "sub").chmod(0)
    try:
        if os.access(model / "sub", os.R_OK):
            pytest.skip("this user reads every folder (root)")
        with pytest.raises(UnreadableError, match="permission denied"):
            hash_folder(model)
    finally:
        (model / "sub").chmod(0o700)


def test_a_file_that_vanishes_after_the_walk(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = walk

    def walk_then_lose(root: Path, *, ignore: frozenset[str]) -> list[str]:
        names = real(root, ignore=ignore)
        (model / "config.json").unlink()
        return names

    monkeypatch.setattr(manifests, "walk", walk_then_lose)
    with pytest.raises(UnreadableError, match="no such file") as caught:
        hash_folder(model)
    assert caught.value.where == str(model / "config.json")


def test_large_and_small_files_together(tmp_path: Path) -> None:
    files = {f"{n}.bin": bytes([n]) * (n * CHUNK_BYTES // 4) for n in range(12)}
    fill(tmp_path, files)
    counts: list[int] = []
    found = hash_folder(tmp_path, progress=counts.append)
    assert {entry.name: entry.sha256 for entry in found.entries} == {
        name: sha256(data) for name, data in files.items()
    }
    assert sum(counts) == found.size == sum(map(len, files.values()))


def test_a_large_sparse_file_takes_constant_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(96 * CHUNK_BYTES)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from provenance.files.manifest import hash_folder\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "entry, = hash_folder(Path(sys.argv[1])).entries\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(entry.size, entry.sha256, after - before)"
    )
    size, digest, grown = run_python(code, str(tmp_path)).split()
    assert (int(size), digest) == (96 * CHUNK_BYTES, sha256(bytes(96 * CHUNK_BYTES)))
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    assert int(grown) * unit < 32 * CHUNK_BYTES


def run_python(code: str, *arguments: str) -> str:
    import subprocess  # noqa: PLC0415 - one test

    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_interrupt_does_not_wait_for_the_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {"large": bytes(200 * CHUNK_BYTES), "small": b"s"})
    started = threading.Event()
    read: list[int] = []

    def progress(count: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert started.wait(60)
            raise KeyboardInterrupt
        read.append(count)
        started.set()
        time.sleep(0.01)

    monkeypatch.setattr(manifests, "walk", lambda *_, **__: ["large", "small"])
    with pytest.raises(KeyboardInterrupt):
        hash_folder(tmp_path, progress=progress)
    assert 1 <= len(read) < 100


@pytest.mark.parametrize("name", ["../a", "/a", "a\0b", "", "a/../b", "a\nb"])
def test_a_manifest_holds_no_name_that_escapes(name: str) -> None:
    with pytest.raises(MalformedError, match="the file name") as caught:
        manifest_of([FileEntry(name, 1, "00" * 32)], where="claim")
    assert caught.value.where == "claim"


def test_a_manifest_names_a_file_once() -> None:
    entries = [FileEntry(name, 1, "00" * 32) for name in ("a/b", "a-b", "a/b")]
    with pytest.raises(MalformedError, match="'a/b' is duplicated"):
        manifest_of(entries)


@given(st.permutations(["a", "a-b", "a.b", "a/b", "a/b/c", "b"]))
def test_a_manifest_has_one_order(names: list[str]) -> None:
    found = manifest_of(FileEntry(name, 0, sha256(name.encode())) for name in names)
    assert [e.name for e in found.entries] == ["a", "a/b", "a/b/c", "a-b", "a.b", "b"]


@pytest.mark.parametrize("size", [-1, -(2**53), 1.0, "1", None, True])
def test_a_size_is_a_natural_number(size: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "a", "size": size, "sha256": ""}, FileEntry)


@given(st.lists(st.binary(max_size=3), unique=True, min_size=1, max_size=5))
def test_any_names_on_disk_give_a_manifest_or_our_error(names: list[bytes]) -> None:
    import tempfile  # noqa: PLC0415 - hypothesis reuses pytest's tmp_path between examples

    with tempfile.TemporaryDirectory() as folder:
        made = 0
        for name in names:
            try:
                with open(os.path.join(os.fsencode(folder), name), "xb"):  # noqa: PTH118, PTH123
                    made += 1
            except (OSError, ValueError):
                continue
        try:
            assert len(hash_folder(Path(folder)).entries) == made
        except ProvenanceError as error:
            assert str(error).isprintable()  # noqa: PT017 - either outcome is right


def replace(folder: Path) -> None:
    (folder / "new").write_bytes(b"{}")
    (folder / "new").replace(folder / "config.json")


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed in place": lambda folder: (folder / "config.json").write_bytes(b"[]"),
    "replaced": replace,
    "removed": lambda folder: (folder / "config.json").unlink(),
    "added": lambda folder: (folder / "sub" / "more").write_bytes(b""),
    "renamed": lambda folder: (folder / "config.json").rename(folder / "other.json"),
    "a folder gone": lambda folder: (folder / "sub").rename(folder / "gone"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_that_changes_after_its_files_were_read(
    model: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    check = manifests._check_unchanged  # noqa: SLF001 - the moment after the hashing

    def change_then_check(*arguments: Any) -> None:  # noqa: ANN401
        change(model)
        check(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_check_unchanged", change_then_check)
        with pytest.raises(UnreadableError, match="changed while the folder was read"):
            hash_folder(model)
    assert hash_folder(model).entries


def test_a_link_that_comes_meanwhile_is_refused_too(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = manifests._check_unchanged  # noqa: SLF001 - the moment after the hashing

    def link_then_check(*arguments: Any) -> None:  # noqa: ANN401
        (model / "link").symlink_to("config.json")
        check(*arguments)

    monkeypatch.setattr(manifests, "_check_unchanged", link_then_check)
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        hash_folder(model)


def test_comparing_sizes_reads_nothing(model: Path) -> None:
    with (model / "extra.bin").open("wb") as file:
        file.truncate(2**42)
    with (model / "config.json").open("wb") as file:
        file.truncate(2**42)
    stated = {"config.json": 2, "sub/tok.txt": 1, "sub-x.txt": None, "gone/b": 1, "gone-a": None}
    found = compare_sizes(model, stated)
    assert found.changed == ("config.json",)
    assert found.missing == ("gone/b", "gone-a")
    assert found.extra == ("extra.bin",)
    assert found
    assert not compare_sizes(
        model,
        {"config.json": 2**42, "sub/tok.txt": 1, "sub-x.txt": 1},
        ignore=frozenset({"extra.bin"}),
    )


def test_comparing_sizes_refuses_what_a_walk_refuses(model: Path) -> None:
    (model / "link").symlink_to("config.json")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        compare_sizes(model, {})
    with pytest.raises(UnreadableError, match="no such folder"):
        compare_sizes(model / "missing", {})
