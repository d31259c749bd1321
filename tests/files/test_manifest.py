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
from provenance.files import walking
from provenance.files.digest import CHUNK_BYTES
from provenance.files.manifest import (
    FileEntry,
    compare_sizes,
    hash_folder,
    hash_path,
    look_at,
    manifest_of,
    sizes_of,
)
from provenance.files.names import RESERVED
from provenance.files.reading import open_file
from provenance.files.walking import MAX_DEPTH, Place, walk

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
            ".cache/huggingface/download/x.lock": b"",
            ".DS_Store": b"7",
            ".dvc/config": b"",
            ".ipynb_checkpoints/x.ipynb": b"",
            ".github/workflows/x.yml": b"",
        },
    )
    assert hash_folder(model, ignore=RESERVED) == before
    fill(model, {"sub/claims.jsonl": b"7", "sub/.git/config": b"8", "model.sig.bak": b"9"})
    added = hash_folder(model, ignore=RESERVED).by_name().keys() - before.by_name().keys()
    assert added == {"sub/claims.jsonl", "sub/.git/config", "model.sig.bak"}


OTHERS = {
    "a folder's name on a file": {".github": b"", ".dvc": b"", "provenance": b""},
    "a file's name on a folder": {
        ".DS_Store/x": b"", ".gitattributes/x": b"", "claims.jsonl/x": b"",
        "claims.jsonl.tmp/x": b"", "model.sig/x": b"",
    },
    "beside the Hub's folder": {".cache/evil": b"", ".cache/huggingface.py": b""},
    "another case": {".ds_store": b"", ".Git/config": b"", "Claims.jsonl": b""},
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_reserved_names_are_exact(model: Path, case: str) -> None:
    before = hash_folder(model, ignore=RESERVED).by_name().keys()
    fill(model, OTHERS[case])
    after = hash_folder(model, ignore=RESERVED).by_name().keys()
    assert after - before == OTHERS[case].keys()


def test_a_link_to_a_folder_is_not_reserved(model: Path) -> None:
    fill(model, {"c/huggingface/x": b"1"})
    (model / ".cache").symlink_to("c")
    (model / ".DS_Store").symlink_to("c/huggingface/x")  # as the file would be
    names = hash_folder(model, ignore=RESERVED).by_name()
    assert ".cache/huggingface/x" in names
    assert ".DS_Store" not in names
    (model / ".dvc").symlink_to("/")
    with pytest.raises(UnreadableError, match=r"\.dvc: is a symbolic link that leaves"):
        hash_folder(model, ignore=RESERVED)


def test_the_named_folder_may_itself_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    assert hash_folder(tmp_path / "link") == hash_folder(model)
    assert hash_path(tmp_path / "link") == hash_folder(model)


def test_a_named_file_may_itself_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "data.csv").symlink_to(model / "config.json")
    assert hash_path(tmp_path / "data.csv").entries == (FileEntry("data.csv", 2, sha256(b"{}")),)


def test_one_file_has_its_own_name(model: Path) -> None:
    assert hash_path(model / "sub/tok.txt").entries == (FileEntry("tok.txt", 1, sha256(b"t")),)


REFUSED_LINKS = {
    "to the folder itself": (".", "to a folder that it is in"),
    "to the parent": ("..", "that leaves the folder"),
    "to an absolute path": ("/etc/passwd", "that leaves the folder"),
    "to a sibling with the same beginning": ("../model2", "that leaves the folder"),
    "dangling": ("nowhere", "to nothing"),
    "dangling outside": ("../nowhere", "to nothing"),
    "to itself": ("link", "to itself"),
    "to a FIFO": ("fifo", "FIFO"),
    "to what is written later": ("claims.jsonl", "to claims.jsonl, which is not part of the model"),
    "into what is left out": (".git/HEAD", "to .git/HEAD, which is not part of the model"),
    "to a folder that is left out": ("provenance", "to provenance, which is not part of"),
}


@pytest.mark.parametrize(("target", "message"), REFUSED_LINKS.values(), ids=REFUSED_LINKS)
@pytest.mark.parametrize("place", ["link", "sub/link"])
def test_a_link_that_is_no_file_of_the_folder_is_refused(
    model: Path, place: str, target: str, message: str
) -> None:
    fill(model, {"claims.jsonl": b"1", ".git/HEAD": b"2", "provenance/x": b"3"})
    if target == "fifo":
        os.mkfifo(model / "fifo")
    fill(model.parent / "model2", {"1": b"1"})
    path = model / place
    up = "../" if place.startswith("sub/") and not target.startswith("/") else ""
    path.symlink_to("link" if target == "link" else up + target)
    for look in (
        hash_folder,
        walk,
        sizes_of,
    ):
        with pytest.raises(UnreadableError, match=message) as caught:
            look(model, ignore=RESERVED)
        if target != "fifo":  # which is refused itself, or by its link, whatever comes first
            assert caught.value.where == str(path)
            assert ("Download it again" if "nowhere" in target else "cp -rL") in str(caught.value)


def test_a_loop_of_two_links_is_refused(model: Path) -> None:
    (model / "a").symlink_to("b")
    (model / "b").symlink_to("a")
    with pytest.raises(UnreadableError, match="is a symbolic link to itself"):
        hash_folder(model)


@pytest.mark.parametrize("last", ["config.json", "nothing"])
def test_a_long_chain_of_links_is_refused(model: Path, last: str) -> None:
    for number in range(3000):
        (model / f"link{number}").symlink_to(f"link{number - 1}" if number else last)
    with pytest.raises(UnreadableError, match="symbolic link"):
        hash_folder(model)


@pytest.mark.parametrize("target", [".cache", "sub/../.cache"])
def test_what_is_left_out_is_not_hidden_behind_a_link_to_the_folder_above_it(
    model: Path, target: str
) -> None:
    fill(model, {".cache/huggingface/config.json": b"1"})
    (model / "link").symlink_to(target)
    for look in (hash_folder, walk, sizes_of):
        with pytest.raises(UnreadableError, match="not part of the model") as caught:
            look(model, ignore=RESERVED)
        assert caught.value.where == f"{model}/link/huggingface"


FOLLOWED = {
    "a file": ("config.json", {"link": "config.json"}),
    "a file further down": ("sub/tok.txt", {"link": "sub/tok.txt"}),
    "a folder": ("sub", {"link/tok.txt": "sub/tok.txt"}),
    "a link": ("first", {"first": "config.json", "link": "config.json"}),
    "through a folder's link": (
        "folder/tok.txt",
        {"folder/tok.txt": "sub/tok.txt", "link": "sub/tok.txt"},
    ),
    "out and in again": ("../outside/back/config.json", {"link": "config.json"}),
    "an absolute path": ("/config.json", {"link": "config.json"}),
}


@pytest.mark.parametrize(("target", "added"), FOLLOWED.values(), ids=FOLLOWED)
def test_a_link_counts_as_the_file_of_the_folder_that_it_leads_to(
    model: Path, tmp_path: Path, target: str, added: dict[str, str]
) -> None:
    before = hash_folder(model).by_name()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/back").symlink_to(model)
    if "first" in added:
        (model / "first").symlink_to("config.json")
    if "folder/tok.txt" in added:
        (model / "folder").symlink_to("sub")
    (model / "link").symlink_to(f"{model}{target}" if target.startswith("/") else target)
    found = hash_folder(model).by_name()
    assert found.keys() - before.keys() == added.keys()
    for name, file in added.items():
        assert (found[name].size, found[name].sha256) == (before[file].size, before[file].sha256)
    assert sizes_of(model) == {name: entry.size for name, entry in found.items()}
    assert {name: place.file for name, place in walk(model).items() if name in added} == added


def test_a_file_behind_many_links_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, {"large": bytes(3 * CHUNK_BYTES), "small": b"s"})
    for number in range(50):
        (tmp_path / f"large{number}").symlink_to("large")
        (tmp_path / f"small{number}").symlink_to("small")
    read: list[int] = []
    assert len(hash_folder(tmp_path, progress=read.append).entries) == 102
    assert sum(read) == 3 * CHUNK_BYTES + 1


CYCLES = {
    "a link to the folder above": {"a/up": ".."},
    "two folders that hold links to one another": {"a/b": "../b", "b/a": "../a"},
    "a link to a folder whose subfolder links back": {"x": "a/b", "a/b/c": ".."},
}


@pytest.mark.parametrize("links", CYCLES.values(), ids=CYCLES)
def test_links_in_a_circle_are_refused(tmp_path: Path, links: dict[str, str]) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    if "a/b" in links:
        (tmp_path / "a/b").rmdir()
        (tmp_path / "b").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with pytest.raises(UnreadableError, match="is a symbolic link to a folder that it is in"):
        hash_folder(tmp_path)


@pytest.mark.parametrize("files", [{}, {"d0/file": b"1"}])
def test_nested_links_cannot_explode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]
) -> None:
    monkeypatch.setattr(walking, "MAX_LINKED", 1000)
    for level in range(40):
        (tmp_path / f"d{level}").mkdir()
        for name in ("a", "b") if level else ():
            (tmp_path / f"d{level}" / name).symlink_to(f"../d{level - 1}")
    fill(tmp_path, files)
    with pytest.raises(UnreadableError, match="more than 1,000 files behind symbolic links"):
        hash_folder(tmp_path)


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


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty/empty").mkdir(parents=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    cases = {
        tmp_path / "missing": "no such folder",
        tmp_path / "dangling": "no such folder",
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

    def walk_then_lose(root: Path, **how: Any) -> dict[str, Place]:  # noqa: ANN401
        names = real(root, **how)
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

    both = {name: Place(name, ()) for name in ("large", "small")}
    monkeypatch.setattr(manifests, "walk", lambda *_, **__: both)
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


_NAMES = st.binary(max_size=3).filter(lambda name: b"/" not in name)  # else it leaves the folder


@given(st.lists(_NAMES, unique=True, min_size=1, max_size=5))
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
    hash_all = manifests._hash_all  # noqa: SLF001 - the moment between the walks

    def hash_then_change(*arguments: Any) -> Any:  # noqa: ANN401
        hashed = hash_all(*arguments)
        change(model)
        return hashed

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_hash_all", hash_then_change)
        with pytest.raises(UnreadableError, match="changed while the folder was read"):
            hash_folder(model)
    assert hash_folder(model).entries


def point(link: Path, target: str) -> None:
    link.unlink()
    link.symlink_to(target)


def point_and_back(link: Path, target: str) -> None:
    before = str(link.readlink())
    point(link, target)
    point(link, before)


def replace_link(link: Path) -> None:
    link.unlink()
    link.write_bytes(b"{}")


def swap(file: Path, link: Path) -> None:
    file.rename(link)
    file.symlink_to(link.name)


LINK_CHANGES: dict[str, Callable[[Path], object]] = {
    "a new link to a file": lambda folder: (folder / "new").symlink_to("config.json"),
    "to an equal file": lambda folder: point(folder / "link", "equal.json"),
    "to another file and back": lambda folder: point_and_back(folder / "link", "equal.json"),
    "to the outside and back": lambda folder: point_and_back(folder / "link", "/etc/passwd"),
    "a folder's link": lambda folder: point(folder / "linked", "empty"),
    "a folder's link to the outside and back": lambda folder: point_and_back(
        folder / "linked", "/etc"
    ),
    "a file in its place": lambda folder: replace_link(folder / "link"),
    "a link in the place of its file": lambda folder: swap(folder / "config.json", folder / "link"),
}


@pytest.mark.parametrize("change", LINK_CHANGES.values(), ids=LINK_CHANGES)
def test_a_link_that_changes_while_the_folder_is_read(
    model: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    fill(model, {"equal.json": b"{}", "empty/x": b"x"})
    (model / "link").symlink_to("config.json")
    (model / "linked").symlink_to("sub")
    hash_all = manifests._hash_all  # noqa: SLF001 - the moment between the walks

    def change_then_hash(*arguments: Any) -> Any:  # noqa: ANN401
        change(model)
        return hash_all(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_hash_all", change_then_hash)
        with pytest.raises(UnreadableError, match=r"changed while|is a symbolic link, not a file"):
            hash_folder(model)
    assert hash_folder(model).entries


def test_a_link_that_leaves_the_folder_meanwhile_is_never_opened(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "link").symlink_to("config.json")
    fill(tmp_path, {"secret": b"secret of another user"})
    read: list[str] = []
    hash_all = manifests._hash_all  # noqa: SLF001 - the moment between the walks
    monkeypatch.setattr(manifests, "_hash", lambda path, *_, **__: read.append(path))

    def change_then_hash(*arguments: Any) -> Any:  # noqa: ANN401
        point(model / "link", "../secret")
        return hash_all(*arguments)

    monkeypatch.setattr(manifests, "_hash_all", change_then_hash)
    with pytest.raises(UnreadableError, match="is a symbolic link that leaves the folder"):
        hash_folder(model)
    assert sorted(read) == [str(model / n) for n in ("config.json", "sub-x.txt", "sub/tok.txt")]


def test_a_large_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"large": bytes(CHUNK_BYTES), "small": b"s"})
    opened: list[str] = []

    def open_and_tell(path: str) -> tuple[int, os.stat_result]:
        opened.append(path)
        return open_file(path)

    monkeypatch.setattr(manifests, "open_file", open_and_tell)
    hash_folder(tmp_path)
    assert sorted(opened) == [str(tmp_path / "large"), str(tmp_path / "small")]


@pytest.mark.skipif(sys.platform == "darwin", reason="it has no /proc")
@pytest.mark.parametrize("fails", [False, True])
def test_many_large_files_take_few_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    for number in range(40):
        with (tmp_path / f"{number}").open("wb") as file:
            file.truncate(CHUNK_BYTES)
    monkeypatch.setattr(manifests, "MAX_OPEN", 4)
    folder = Path("/proc/self/fd")
    before, most = len(list(folder.iterdir())), 0

    def progress(_: int) -> None:
        nonlocal most
        most = max(most, len(list(folder.iterdir())))
        if fails:
            raise UnreadableError("gone")

    if fails:
        with pytest.raises(UnreadableError, match="gone"):
            hash_folder(tmp_path, progress=progress)
    else:
        assert len(hash_folder(tmp_path, progress=progress).entries) == 40
    assert most - before <= 4 + 2 + 2 * (os.cpu_count() or 1)
    assert len(list(folder.iterdir())) <= before + 1


def test_a_look_goes_on_past_what_is_wrong(model: Path) -> None:
    os.mkfifo(model / "fifo")
    (model / "out").symlink_to("/etc/passwd")
    (model / "link").symlink_to("config.json")
    (model / "sub" / "a\nb").write_bytes(b"")
    problems: list[ProvenanceError] = []
    seen = look_at(model, refuse=problems.append)
    assert seen.keys() == {"config.json", "link", "sub/tok.txt", "sub-x.txt"}
    assert seen["link"].sha256 == sha256(b"{}")
    assert {type(problem) for problem in problems} == {UnreadableError, MalformedError}


def test_a_look_leaves_out_what_changes_meanwhile(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "link").symlink_to("config.json")
    hash_all = manifests._hash_all  # noqa: SLF001 - the moment between the walks

    def hash_then_write(*arguments: Any) -> Any:  # noqa: ANN401
        hashed = hash_all(*arguments)
        (model / "config.json").write_bytes(b"still being written")
        (model / "log").write_bytes(b"new")
        return hashed

    monkeypatch.setattr(manifests, "_hash_all", hash_then_write)
    problems: list[ProvenanceError] = []
    seen = look_at(model, refuse=problems.append)
    assert seen.keys() == {"sub/tok.txt", "sub-x.txt"}
    assert {problem.what for problem in problems} == {"changed while the folder was read"}


def test_comparing_sizes_reads_nothing(model: Path) -> None:
    with (model / "extra.bin").open("wb") as file:
        file.truncate(2**42)
    with (model / "config.json").open("wb") as file:
        file.truncate(2**42)
    stated = {"config.json": 2, "sub/tok.txt": 1, "sub-x.txt": None, "gone/b": 1, "gone-a": None}
    found = compare_sizes(sizes_of(model), stated)
    assert found.changed == ("config.json",)
    assert found.missing == ("gone/b", "gone-a")
    assert found.extra == ("extra.bin",)
    assert found
    assert not compare_sizes(
        sizes_of(model, ignore=frozenset({"extra.bin"})),
        {"config.json": 2**42, "sub/tok.txt": 1, "sub-x.txt": 1},
    )


def test_comparing_sizes_refuses_what_a_walk_refuses(model: Path) -> None:
    (model / "link").symlink_to("/etc/passwd")
    with pytest.raises(UnreadableError, match="is a symbolic link"):
        sizes_of(model)
    with pytest.raises(UnreadableError, match="no such folder"):
        sizes_of(model / "missing")
