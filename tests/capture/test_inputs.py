from __future__ import annotations

import os
from pathlib import Path

import pytest

from provenance.capture.inputs import (
    Inputs,
    check_model_folder,
    hash_again,
    hash_input,
    input_paths,
)
from provenance.errors import UnreadableError, UsageError
from provenance.files.manifest import hash_folder


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
    assert hash_input(place).manifest.entries[0].name == "a.csv"


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
