"""Links into caches: those whose layout is known, and those below a root that is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.errors import UnreadableError
from provenance.files import walking
from provenance.files.manifest import hash_folder, hash_path, look_at, sizes_of
from provenance.files.names import RESERVED
from provenance.files.walking import hub_uri, walk
from tests.world import write_files

if TYPE_CHECKING:
    from collections.abc import Callable

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "sub/weights.bin": b"1234", "twin.bin": b"1234"}


def hub(tmp_path: Path) -> tuple[Path, Path]:
    """Return a snapshot, as the Hub's client lays it, and where its files are."""
    repository = tmp_path / "drive" / "hub" / "models--org--name"
    return repository / "snapshots" / REVISION, repository / "blobs"


def dvc(tmp_path: Path) -> tuple[Path, Path]:
    write_files(tmp_path, {"repository/.dvc/config": b""})
    return tmp_path / "repository/data/raw", tmp_path / "repository/.dvc/cache/files/md5/aa"


def old_dvc(tmp_path: Path) -> tuple[Path, Path]:
    folder, _ = dvc(tmp_path)
    return folder, tmp_path / "repository/.dvc/cache/aa"


def dvc_at_the_top(tmp_path: Path) -> tuple[Path, Path]:
    write_files(tmp_path, {"repository/.dvc/config": b""})
    return tmp_path / "repository", tmp_path / "repository/.dvc/cache/files/md5/aa"


def annex(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "repository/model", tmp_path / "repository/.git/annex/objects/x/y/KEY"


LAYOUTS = (hub, dvc, old_dvc, dvc_at_the_top, annex)


def lay(folder: Path, cache: Path, *, absolute: bool = False) -> None:
    """Put :data:`FILES` into *cache* under digests, and links to them into *folder*."""
    for name, data in FILES.items():
        blob = cache / f"{hash(data) % 2**64:016x}"
        write_files(cache, {blob.name: data})
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob if absolute else os.path.relpath(blob, link.parent))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_files(tmp_path / "plain", FILES)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_of_a_known_layout_is_read(
    tmp_path: Path,
    plain: Path,
    layout: Callable[[Path], tuple[Path, Path]],
    absolute: bool,
) -> None:
    folder, cache = layout(tmp_path)
    lay(folder, cache, absolute=absolute)
    assert hash_folder(folder, ignore=RESERVED) == hash_folder(plain)
    assert sizes_of(folder, ignore=RESERVED) == {name: len(data) for name, data in FILES.items()}
    (tmp_path / "link").symlink_to(folder)
    assert hash_path(tmp_path / "link" / "sub") == hash_path(plain / "sub")


def test_the_bytes_behind_two_links_are_hashed_once(tmp_path: Path) -> None:
    folder, cache = hub(tmp_path)
    lay(folder, cache)
    counts: list[int] = []
    look_at(folder, progress=counts.append)
    assert sum(counts) == len(b"{}") + len(b"1234")
    places = walk(folder)
    assert places["twin.bin"].file == places["sub/weights.bin"].file
    assert all(place.links for place in places.values())


def test_a_root_that_is_named(tmp_path: Path, plain: Path) -> None:
    folder, cache = tmp_path / "model", tmp_path / "store" / "deep"
    lay(folder, cache)
    with pytest.raises(UnreadableError, match=r"leaves the folder .*--link-root.*cp -rL"):
        hash_folder(folder)
    for root in (tmp_path / "store", Path(os.path.relpath(cache))):
        assert hash_folder(folder, link_roots=(root,)) == hash_folder(plain)
    with pytest.raises(UnreadableError, match="leaves the folder"):
        hash_folder(folder, link_roots=(tmp_path / "stor", folder))


def escape_above(blobs: Path) -> Path:
    return blobs.parent / "refs" / "main"


def escape_by_name(blobs: Path) -> Path:
    return blobs.with_name("blobs-evil") / "x"


def escape_to_another_repository(blobs: Path) -> Path:
    return blobs.parents[1] / "models--org--evil" / "blobs" / "x"


def escape_by_dots(blobs: Path) -> Path:
    return blobs / ".." / ".." / "x"


def escape_by_a_blob(blobs: Path) -> Path:
    (blobs.parents[1] / "outside").write_bytes(b"evil")
    (blobs / "blob").symlink_to("../../outside")
    return blobs / "blob"


def escape_by_a_chain(blobs: Path) -> Path:
    (blobs.parents[1] / "outside").write_bytes(b"evil")
    (blobs.parent / "snapshots" / REVISION / "sub").mkdir()
    link = blobs.parent / "snapshots" / REVISION / "sub" / "next"
    link.symlink_to(blobs.parents[1] / "outside")
    return link


def a_chain_in_the_cache(blobs: Path) -> Path:
    (blobs / "next").symlink_to("x")
    return blobs / "next"


def a_chain_through_elsewhere(blobs: Path) -> Path:
    (blobs.parents[1] / "next").symlink_to(blobs / "x")
    return blobs.parents[1] / "next"


def a_folder_on_the_way(blobs: Path) -> Path:
    (blobs.parents[1] / "way").symlink_to(blobs)
    return blobs.parents[1] / "way" / "x"


def up_again_behind_a_link(blobs: Path) -> Path:
    write_files(blobs.parents[1], {"deep/sub/x": b""})
    (blobs.parents[1] / "way").symlink_to("deep/sub")
    return blobs.parents[1] / "way" / ".." / ".." / blobs.relative_to(blobs.parents[1]) / "x"


def escape_by_a_folder_of_blobs(blobs: Path) -> Path:
    write_files(blobs.parents[1], {"outside/x": b"evil"})
    (blobs / "folder").symlink_to("../../outside")
    return blobs / "folder" / "x"


def a_folder(blobs: Path) -> Path:
    return write_files(blobs / "folder", {"x": b""})


def a_snapshot(blobs: Path) -> Path:
    return write_files(blobs.parent / "snapshots" / "other", {"x": b""})


def a_fifo(blobs: Path) -> Path:
    os.mkfifo(blobs / "fifo")
    return blobs / "fifo"


def nothing(blobs: Path) -> Path:
    return blobs / "not fetched yet"


REFUSED = (
    escape_above, escape_by_name, escape_to_another_repository, escape_by_dots, escape_by_a_blob,
    escape_by_a_chain, escape_by_a_folder_of_blobs, a_chain_in_the_cache,
    a_chain_through_elsewhere, a_folder_on_the_way, up_again_behind_a_link,
    a_folder, a_snapshot, a_fifo, nothing,
)  # fmt: skip


@pytest.mark.parametrize("target", REFUSED)
def test_what_is_no_file_of_the_cache_is_refused(
    tmp_path: Path, target: Callable[[Path], Path]
) -> None:
    snapshot, blobs = hub(tmp_path)
    write_files(blobs, {"x": b"1"})
    snapshot.mkdir(parents=True)
    (snapshot / "good").symlink_to(blobs / "x")
    assert len(hash_folder(snapshot).entries) == 1
    path = target(blobs)
    if target not in (a_folder, a_snapshot, a_fifo, nothing):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"evil")
    (snapshot / "weights").symlink_to(path)
    for look in (hash_folder, sizes_of, walk):
        with pytest.raises(UnreadableError, match="is a symbolic link") as caught:
            look(snapshot)
        assert ("Download it again" if target is nothing else "cp -rL") in str(caught.value)


def test_a_root_that_is_named_is_reached_on_any_way(tmp_path: Path) -> None:
    snapshot, blobs = hub(tmp_path)
    write_files(blobs, {"x": b"1"})
    write_files(snapshot, {"config.json": b"{}"})
    (snapshot / "weights").symlink_to(a_chain_through_elsewhere(blobs))
    assert len(hash_folder(snapshot, link_roots=(blobs,)).entries) == 2


def test_a_cache_that_is_a_link_itself_is_not_known(tmp_path: Path) -> None:
    snapshot, blobs = hub(tmp_path)
    write_files(tmp_path, {"elsewhere/x": b"1"})
    snapshot.mkdir(parents=True)
    blobs.symlink_to(tmp_path / "elsewhere")
    (snapshot / "weights").symlink_to("../../blobs/x")
    with pytest.raises(UnreadableError, match="leaves the folder"):
        hash_folder(snapshot)
    assert len(hash_folder(snapshot, link_roots=(blobs,)).entries) == 1


@pytest.mark.parametrize("layout", [dvc, annex])
def test_a_cache_that_somebody_else_planted_above_the_folder_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Callable[[Path], tuple[Path, Path]]
) -> None:
    folder, cache = layout(tmp_path)
    lay(folder, cache)
    assert walk(folder).keys() == FILES.keys()
    monkeypatch.setattr(walking, "_owner", lambda path: int(path.name in (".dvc", ".git")))
    with pytest.raises(UnreadableError, match="that leaves the folder"):
        walk(folder)


def test_another_repositorys_cache_is_not_known(tmp_path: Path) -> None:
    folder, cache = dvc(tmp_path)
    write_files(folder, {".dvc/config": b""})
    lay(folder, cache)
    with pytest.raises(UnreadableError, match="leaves the folder"):
        hash_folder(folder, ignore=RESERVED)


@pytest.mark.parametrize("what", ["the link", "the file", "the bytes"])
def test_what_moves_while_it_is_read_is_noticed(tmp_path: Path, what: str) -> None:
    snapshot, blobs = hub(tmp_path)
    write_files(blobs, {"x": b"1", "y": b"1"})
    snapshot.mkdir(parents=True)
    (snapshot / "weights").symlink_to("../../blobs/x")

    def move(_: int) -> None:
        if what == "the link":
            (snapshot / "weights").unlink()
            (snapshot / "weights").symlink_to("../../blobs/y")
        elif what == "the file":
            (blobs / "y").replace(blobs / "x")
        else:
            (blobs / "x").write_bytes(b"22")

    with pytest.raises(UnreadableError, match="changed while"):
        hash_folder(snapshot, progress=move)


NAMED = {
    f"models--org--name/snapshots/{REVISION}": f"pkg:huggingface/org/name@{REVISION}",
    f"models--gpt2/snapshots/{REVISION}": f"pkg:huggingface/gpt2@{REVISION}",
    f"models--org--name/snapshots/{REVISION}/sub dir": (
        f"pkg:huggingface/org/name@{REVISION}#sub%20dir"
    ),
    f"datasets--org--a.b/snapshots/{REVISION}": f"hf://datasets/org/a.b@{REVISION}",
    "models--org--name/snapshots/main": "",
    f"models--org--name/snapshots/{REVISION.upper()}": "",
    f"models--a--b--c/snapshots/{REVISION}": "",
    f"models--a@evil--b/snapshots/{REVISION}": "",
    f"spaces--org--name/snapshots/{REVISION}": "",
    f"models--org--name/blobs/{REVISION}": "",
    "plain": "",
}


@pytest.mark.parametrize("place", NAMED)
def test_the_hubs_cache_tells_repository_and_revision(tmp_path: Path, place: str) -> None:
    write_files(tmp_path / place, {"x": b""})
    assert hub_uri(tmp_path / place) == NAMED[place]
    (tmp_path / "link").symlink_to(tmp_path / place)
    assert hub_uri(tmp_path / "link") == NAMED[place]


def test_the_hubs_cache_tells_of_one_file(tmp_path: Path) -> None:
    snapshot, blobs = hub(tmp_path)
    lay(snapshot, blobs)
    uri = f"pkg:huggingface/org/name@{REVISION}#sub/weights.bin"
    assert hub_uri(snapshot / "sub" / "weights.bin") == uri
