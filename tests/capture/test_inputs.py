from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from provenance.capture.inputs import (
    MAX_LISTED,
    HashedInput,
    InputPath,
    Inputs,
    changed_input,
    check_model_folder,
    hash_again,
    hash_input,
    input_paths,
)
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import FileEntry, Manifest, hash_folder
from provenance.statement.training import describe_input

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.statement.training import ChangedInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/a.csv", "data/eval/b.csv", "conf/x/a.toml", "conf/y/a.toml", "base/w.bin"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_inputs_have_keys(folder: Path) -> None:
    inputs = Inputs(
        model=Path("model"),
        working_folder=folder,
        data=(("train", Path("data")), ("", Path("data/eval/b.csv")), ("all", Path(".."))),
        config=(Path("conf/x/a.toml"), Path("conf/y/a.toml"), folder / "data/a.csv"),
        base_model=Path("base"),
    )
    assert [(place.key, place.name, place.role) for place in input_paths(inputs)] == [
        ("data:train", "train", "train"),
        ("data:b.csv", "b.csv", ""),
        ("data:all", "all", "all"),
        ("config:conf/x/a.toml", "conf/x/a.toml", ""),
        ("config:conf/y/a.toml", "conf/y/a.toml", ""),
        ("config:a.csv", "a.csv", ""),
        ("baseModel", "base", ""),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((("train", Path("data")), ("train", Path("base"))), "two inputs are called data:train"),
        ((("", Path("data")), ("data", Path("base"))), "two inputs are called data:data"),
        ((("a}b", Path("data")),), "invalid name"),
        ((("a\nb", Path("data")),), "invalid name"),
        ((("$x", Path("data")),), "invalid name"),
        ((("x" * 300, Path("data")),), "invalid name"),
    ],
)
def test_names_that_cannot_be_told_apart_or_written_are_refused(
    folder: Path, data: tuple[tuple[str, Path], ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        input_paths(Inputs(model=Path("m"), working_folder=folder, data=data))


def test_a_folder_is_named_by_where_it_is(folder: Path) -> None:
    inputs = Inputs(model=Path("m"), working_folder=folder / "data", data=(("", Path()),))
    assert input_paths(inputs)[0].key == "data:data"


@pytest.mark.parametrize("model", ["data", "data/model", "data/eval/../model", "base"])
def test_a_model_in_an_input_is_refused(folder: Path, model: str) -> None:
    inputs = Inputs(
        model=Path(model),
        working_folder=folder,
        data=(("train", Path("data")),),
        base_model=Path("base"),
    )
    with pytest.raises(UsageError, match="would change"):
        check_model_folder(inputs)


def test_a_model_folder_need_not_exist(folder: Path) -> None:
    inputs = Inputs(model=Path("a/b/c"), working_folder=folder)
    assert check_model_folder(inputs) == folder / "a/b/c"
    assert not folder.joinpath("a").exists()


@pytest.mark.parametrize("model", ["data/a.csv", "data/a.csv/model"])
def test_a_model_folder_that_is_a_file_is_refused(folder: Path, model: str) -> None:
    with pytest.raises(UnreadableError):
        check_model_folder(Inputs(model=Path(model), working_folder=folder))


def test_a_model_folder_that_cannot_be_written_is_refused(folder: Path) -> None:
    if os.getuid() == 0:
        model = Path("/proc/self/model")
    else:
        folder.joinpath("data").chmod(0o500)
        model = folder / "data/model"
    with pytest.raises(UnreadableError, match="not writable"):
        check_model_folder(Inputs(model=model, working_folder=folder))


def test_a_base_model_has_the_digest_that_is_attested_for_it(folder: Path) -> None:
    inputs = Inputs(model=Path("m"), working_folder=folder, base_model=Path("base"))
    [place] = input_paths(inputs)
    bare = hash_folder(folder / "base")
    folder.joinpath("base/claims.jsonl").write_text("{}")
    assert hash_input(place).manifest == bare
    assert hash_input(place).manifest.root_digest == bare.root_digest


def test_an_input_may_be_given_through_a_link(folder: Path) -> None:
    folder.joinpath("link").symlink_to("data/a.csv")
    inputs = Inputs(model=Path("m"), working_folder=folder, data=(("", Path("link")),))
    [place] = input_paths(inputs)
    assert place.key == "data:link"
    assert hash_input(place).manifest.entries[0].name == "link"


def test_changed_and_vanished_inputs_are_named(folder: Path) -> None:
    inputs = Inputs(
        model=Path("m"),
        working_folder=folder,
        data=(("train", Path("data")), ("same", Path("conf/y")), ("gone", Path("conf/x"))),
    )
    hashed = tuple(hash_input(place) for place in input_paths(inputs))
    assert hash_again(hashed) == ()
    folder.joinpath("data/a.csv").write_text("edited")
    folder.joinpath("conf/x/a.toml").unlink()
    edited, gone = hash_again(hashed)
    assert (edited.name, edited.changed) == ("data:train", ("a.csv",))
    assert (gone.name, gone.problem) == ("data:gone", "holds no files")


def test_a_renamed_file_is_a_change(folder: Path) -> None:
    inputs = Inputs(model=Path("m"), working_folder=folder, data=(("train", Path("conf/x")),))
    hashed = tuple(hash_input(place) for place in input_paths(inputs))
    folder.joinpath("conf/x/a.toml").rename(folder / "conf/x/b.toml")
    [changed] = hash_again(hashed)  # though the root digest is the same
    assert changed.removed == ("a.toml",)
    assert [entry.name for entry in changed.added] == ["b.toml"]


# --- Links ----------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder in which ``current`` leads to ``v1``; ``v2`` holds the same."""
    for name in ("v1/digits/a", "v2/digits/a"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("the same")
    tmp_path.joinpath("current").symlink_to("v1")
    return tmp_path


def looked_at(inputs: Inputs) -> tuple[HashedInput, ...]:
    return tuple(hash_input(place) for place in input_paths(inputs))


def lead(folder: Path, target: str) -> None:
    folder.joinpath("current").unlink()
    folder.joinpath("current").symlink_to(target)


FOLDERS = ("current", "current/digits", "v3/../current")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *((kind, path) for kind in ("data", "base_model") for path in FOLDERS),
        *((kind, "current/digits/a") for kind in ("data", "config")),
    ],
)
def test_a_link_that_moves_is_a_changed_input(linked: Path, kind: str, path: str) -> None:
    linked.joinpath("v3").mkdir()
    named = Path(path)
    inputs = {
        "data": Inputs(Path("m"), linked, data=(("x", named),)),
        "config": Inputs(Path("m"), linked, config=(named,)),
        "base_model": Inputs(Path("m"), linked, base_model=named),
    }[kind]
    hashed = looked_at(inputs)
    assert hashed[0].place.given == linked / path  # as the user named it
    assert hash_again(hashed) == ()
    lead(linked, "v2")
    [changed] = hash_again(hashed)
    assert changed.name == hashed[0].place.key
    assert "its link leads elsewhere" in changed.problem
    assert not changed.only_added


def test_a_moved_link_names_where_it_leads_and_led(linked: Path) -> None:
    hashed = looked_at(Inputs(Path("m"), linked, data=(("x", Path("current")),)))
    lead(linked, "v2")
    assert hash_again(hashed)[0].problem == "its link leads elsewhere: to v2 instead of v1"
    lead(linked, "nowhere")
    assert hash_again(hashed)[0].problem == "its link leads elsewhere: to nowhere instead of v1"
    lead(linked, "current")
    assert "its link leads elsewhere" in hash_again(hashed)[0].problem
    linked.joinpath("current").unlink()
    assert hash_again(hashed)[0].problem == "no such file or folder"
    linked.joinpath("v1").rename(linked / "current")  # a folder in the place of the link to it
    assert "its link leads elsewhere" in hash_again(hashed)[0].problem


def test_links_to_folders_of_one_name_are_told_apart(linked: Path) -> None:
    hashed = looked_at(Inputs(Path("m"), linked, data=(("x", Path("current/digits")),)))
    lead(linked, "v2")
    words = "its link leads elsewhere: to v2/digits instead of v1/digits"
    assert hash_again(hashed)[0].problem == words


def test_a_moved_link_names_no_user(linked: Path) -> None:
    place = InputPath("data:x", "x", "", linked / "v1/digits", Path("/home/alice/digits"))
    nothing = Manifest(())
    [changed] = hash_again((HashedInput(place, nothing, *describe_input("x", nothing)),))
    assert "its link leads elsewhere" in changed.problem
    assert "alice" not in changed.problem


def test_a_link_that_leads_to_the_same_place_by_another_way_is_no_change(linked: Path) -> None:
    hashed = looked_at(Inputs(Path("m"), linked, data=(("x", Path("current")),)))
    lead(linked, str(linked / "v2" / ".." / "v1"))
    assert hash_again(hashed) == ()


def test_a_folder_that_becomes_a_link_leads_elsewhere(linked: Path) -> None:
    hashed = looked_at(Inputs(Path("m"), linked, data=(("x", Path("v2")),)))
    linked.joinpath("v2").rename(linked / "moved")
    linked.joinpath("v2").symlink_to("v1")
    assert hash_again(hashed)[0].problem == "its link leads elsewhere: to v1 instead of v2"


# --- What is in a folder --------------------------------------------------------------------------


Data: TypeAlias = "tuple[Path, Callable[[], tuple[ChangedInput, ...]]]"


@pytest.fixture
def data(folder: Path) -> Data:
    """A data folder that was hashed, and what looks at it again."""
    hashed = looked_at(Inputs(Path("m"), folder, data=(("train", Path("data")),)))
    return folder / "data", lambda: hash_again(hashed)


def test_files_that_were_only_added_are_told_with_their_digests(data: Data) -> None:
    root, again = data
    for name in ("labels.cache", "eval/dataset_info.json", "eval/a.lock"):
        root.joinpath(name).write_text(name)
    [changed] = again()
    assert changed.only_added
    assert changed.added == tuple(
        entry
        for entry in hash_folder(root).entries
        if entry.name in ("labels.cache", "eval/dataset_info.json", "eval/a.lock")
    )


def test_added_is_told_from_changed_and_removed(data: Data) -> None:
    root, again = data
    root.joinpath("labels.cache").write_text("x")
    root.joinpath("a.csv").write_text("x")
    root.joinpath("eval/b.csv").unlink()
    [changed] = again()
    assert not changed.only_added
    assert (changed.changed, changed.removed) == (("a.csv",), ("eval/b.csv",))
    assert [entry.name for entry in changed.added] == ["labels.cache"]


def test_equal_bytes_are_no_change(data: Data) -> None:
    root, again = data
    path = root / "a.csv"
    content = path.read_bytes()
    path.unlink()
    root.joinpath("eval").joinpath("tmp").touch()
    root.joinpath("eval").joinpath("tmp").unlink()  # other times of the folder
    root.joinpath("new").write_bytes(content)
    root.joinpath("new").rename(path)  # another identity
    os.utime(path, (0, 0))
    path.chmod(0o400)
    assert again() == ()


@pytest.mark.parametrize("kind", ["link", "socket", "fifo", "name", "unreadable"])
def test_what_cannot_be_hashed_afterwards_is_a_problem_and_no_error(
    data: Data, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, again = data
    path = root / "eval" / kind
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "socket":
        monkeypatch.chdir(root / "eval")  # the path that is bound may have 107 bytes
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(kind)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "name":
        Path(os.fsdecode(os.fsencode(root / "eval") + b"/name\xff")).touch()
    elif os.getuid() == 0:
        pytest.skip("root reads everything")
    else:
        path.touch()
        path.chmod(0)
    [changed] = again()
    assert not changed.only_added
    assert changed.problem.startswith((f"eval/{kind}: ", "the file name 'eval/name"))
    assert str(root) not in changed.problem
    changed.problem.encode()


def test_a_file_that_grows_while_it_is_hashed_is_a_problem(folder: Path) -> None:
    path = folder / "data/a.csv"
    path.write_bytes(bytes(2**22))
    hashed = looked_at(Inputs(Path("m"), folder, data=(("train", Path("data")),)))

    def grow(_: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    [changed] = hash_again(hashed, grow)
    assert changed.problem == "a.csv: changed while it was read"


def test_a_large_data_set_that_changed_is_a_short_list() -> None:
    def manifest(prefix: str, digest: str) -> Manifest:
        return Manifest(tuple(FileEntry(f"{prefix}{n}", 1, digest) for n in range(MAX_LISTED + 7)))

    one, other = manifest("a", "11" * 32), manifest("a", "22" * 32)
    more = manifest("b", "11" * 32)
    changed = changed_input("data:x", one, other)
    assert (len(changed.changed), changed.more, changed.more_added) == (MAX_LISTED, 7, 0)
    removed = changed_input("data:x", Manifest((*one.entries, *more.entries)), one)
    assert (len(removed.removed), removed.more, removed.only_added) == (MAX_LISTED, 7, False)
    added = changed_input("data:x", one, Manifest((*one.entries, *more.entries)))
    assert (len(added.added), added.more, added.more_added) == (MAX_LISTED, 0, 7)
    assert added.only_added
