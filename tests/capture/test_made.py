from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from provenance.capture import made
from provenance.capture.made import (
    Looks,
    Made,
    choose,
    is_pattern,
    look_after,
    look_again,
    look_before,
    look_now,
)
from provenance.errors import NotMadeError, ProvenanceError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder whose files look old: the run begins ten seconds from now."""
    clock = time.time_ns
    monkeypatch.setattr("provenance.capture.made.time.time_ns", lambda: clock() + 10**10)
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def fresh(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder in a run that began long ago: no file is older than that."""
    monkeypatch.setattr("provenance.capture.made.time.time_ns", lambda: 0)
    return work


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def sh(folder: Path, script: str) -> None:
    """Run *script*, in which ``old DIR`` makes a model."""
    old = 'old() { mkdir "$1"; printf old > "$1/weights"; }\n'
    subprocess.run(["sh", "-ec", old + script], cwd=folder, check=True)


def run(work: Path, training: Callable[[], object], model: str = "m") -> Looks:
    before = look_before(Path(model), work)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    training()
    return look_after(before)


def names(found: Made) -> list[str]:
    return [entry.name for entry in found.manifest.entries]


def test_what_the_run_wrote_is_the_model(fresh: Path) -> None:
    found = choose(run(fresh, lambda: fill(fresh / "m", weights="1", config="2")))
    assert (found.folder, names(found)) == (fresh / "m", ["config", "weights"])
    assert (found.untouched, found.rewritten, found.unseen) == ((), (), ())


@pytest.mark.parametrize("name", ["m", "*/"])
def test_a_clock_that_is_set_back_makes_no_file_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As at the start of a machine: an hour ahead, until it asks another one for the time."""
    clock, ahead = time.time_ns, [3600 * 10**9]
    monkeypatch.setattr("provenance.capture.made.time.time_ns", lambda: clock() + ahead[0])

    def train() -> None:
        ahead[0] = 0
        fill(tmp_path / "m", weights="1")

    found = choose(run(tmp_path, train, name))
    assert (names(found), found.untouched) == (["weights"], ())


WRITES = {
    "other bytes": "echo new > m/weights",
    "other bytes of the same length": "printf OLD > m/weights",
    "another file in its place": "printf old > tmp; mv tmp m/weights",
    "another time": "touch m/weights",
    "a time set back": "printf OLD > m/weights; touch -d 1970-01-01 m/weights",
}


@pytest.mark.parametrize("script", WRITES.values(), ids=WRITES)
def test_a_file_with_another_identity_was_written(fresh: Path, script: str) -> None:
    fill(fresh / "m", weights="old", other="x")
    found = choose(run(fresh, lambda: sh(fresh, script)))
    assert found.untouched == ("other",)


def test_equal_bytes_are_rewritten(fresh: Path) -> None:
    fill(fresh / "m", weights="old", config="2", other="x")
    found = choose(run(fresh, lambda: fill(fresh / "m", weights="old", config="3")))
    assert (found.untouched, found.rewritten) == (("other",), ("weights",))


NOTHING = {
    "nothing at all": ("", "", "no such folder"),
    "an empty folder": ("", "mkdir m", "holds no files"),
    "a file elsewhere": ("old m", "old modle", "the run wrote none of its files"),
    "an old model": ("old m", "", "the run wrote none of its files"),
    "an old model that was read": ("old m", "cat m/*", "the run wrote none of its files"),
    "reserved files only": (
        "",
        "mkdir -p m/provenance; touch m/claims.jsonl m/.gitignore m/provenance/x",
        "holds no files",
    ),
    "reserved files beside an old model": ("old m", "touch m/model.sig", "none of its files"),
    "a link to an old file": ("old m", "ln -s weights m/model.bin", "none of its files"),
    "an old file removed": ("old m; touch m/other", "rm m/other", "none of its files"),
    "an old model moved there": ("old other", "mv other m", "none of its files"),
    "an old file instead": ("old a", "mv a/weights m", "the run wrote none of its files"),
}


@pytest.mark.parametrize(("before", "training", "message"), NOTHING.values(), ids=NOTHING)
def test_where_nothing_was_written_nothing_was_made(
    work: Path, before: str, training: str, message: str
) -> None:
    sh(work, before)
    with pytest.raises(NotMadeError, match=message):
        choose(run(work, lambda: sh(work, training)))


MOVES = {
    "the link": ("latest", "ln -sfn v2 latest"),
    "a link above": ("above/m", "ln -sfn v2 above"),
    "a link in the place of the folder": ("v1", "mv v1 away; ln -s v2 v1"),
    "a link where there was nothing": ("new", "ln -s v2 new"),
    "a folder in the place of the link": ("latest", "rm latest; mkdir latest; touch latest/x"),
}


@pytest.mark.parametrize(("model", "move"), MOVES.values(), ids=MOVES)
def test_a_model_that_is_elsewhere_after_the_run_is_an_error_that_names_both(
    fresh: Path, model: str, move: str
) -> None:
    for version in ("v1", "v2"):
        fill(fresh / version / "m", weights=version)
    sh(fresh, "ln -s v1 latest; ln -s v1 above")
    before = os.path.realpath(fresh / model)
    looks = run(fresh, lambda: sh(fresh, f"echo made > v2/m/weights; {move}"), model)
    after = os.path.realpath(fresh / model)
    with pytest.raises(NotMadeError) as caught:
        choose(looks)
    assert f"led to {os.path.relpath(before, fresh)} before the run" in caught.value.what
    assert f"leads to {os.path.relpath(after, fresh)} after it" in caught.value.what
    found = look_again(looks, Path(after))  # which was seen when the command ended
    assert found.unseen == ()


def test_a_link_to_the_model_that_stays_is_followed(fresh: Path) -> None:
    fill(fresh / "v1", old="1")
    (fresh / "latest").symlink_to("v1")
    found = choose(run(fresh, lambda: fill(fresh / "latest", weights="2"), "latest"))
    assert (found.folder, names(found)) == (fresh / "v1", ["old", "weights"])


def test_an_old_folder_to_which_the_link_was_moved_is_not_what_the_run_made(work: Path) -> None:
    for version in ("v1", "v2"):
        fill(work / version, weights=version)
    (work / "latest").symlink_to("v1")
    looks = run(work, lambda: sh(work, "ln -sfn v2 latest"), "latest")
    found = look_again(looks, work / "v2")
    assert found.unseen == ("weights",)


@pytest.mark.parametrize("pattern", ["runs/*/", "runs/*", "runs/v?", "runs/[a-z]3", "*/v3"])
def test_a_pattern_means_the_one_folder_that_the_run_wrote(fresh: Path, pattern: str) -> None:
    for number in (1, 2):
        fill(fresh / f"runs/v{number}", weights=str(number))
    fill(fresh / "runs", log="x")
    found = choose(run(fresh, lambda: fill(fresh / "runs/v3", weights="3"), pattern))
    assert (found.folder, names(found)) == (fresh / "runs/v3", ["weights"])


def test_a_pattern_finds_a_folder_that_was_there(fresh: Path) -> None:
    fill(fresh / "runs/v1", weights="1")
    fill(fresh / "runs/v2", weights="2", config="c")
    found = choose(run(fresh, lambda: fill(fresh / "runs/v2", weights="3"), "runs/*/"))
    assert (found.folder, found.untouched) == (fresh / "runs/v2", ("config",))


def test_a_link_that_matches_beside_its_folder_is_no_second_folder(fresh: Path) -> None:
    def training() -> None:
        fill(fresh / "runs/v1", weights="1")
        (fresh / "runs/latest").symlink_to("v1")

    assert choose(run(fresh, training, "runs/*/")).folder == fresh / "runs/v1"


def test_the_beginning_of_a_pattern_may_be_a_link(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (fresh / "runs").symlink_to(tmp_path / "scratch")
    found = choose(run(fresh, lambda: fill(fresh / "runs/v1", weights="1"), "runs/*/"))
    assert found.folder == tmp_path / "scratch/v1"


NONE = {
    "none": ("", ["no folder matches"]),
    "a file": ("mkdir runs; touch runs/v1", ["no folder matches"]),
    "none written": ("mkdir runs; old runs/v1", ["none of the folders that match", "runs/v1"]),
    "a link to elsewhere": (
        "old else; mkdir runs; ln -s ../else runs/v1",
        ["only links match, which lead elsewhere: runs/v1 -> ", "/else"],
    ),
}


@pytest.mark.parametrize(("training", "words"), NONE.values(), ids=NONE)
def test_a_pattern_that_means_no_folder(work: Path, training: str, words: list[str]) -> None:
    looks = run(work, lambda: sh(work, training), "runs/*/")
    with pytest.raises(NotMadeError) as caught:
        choose(looks)
    assert caught.value.where == "runs/*"
    for word in words:
        assert word in caught.value.what


def test_a_pattern_that_means_several_folders_names_them_and_one_is_chosen_later(
    fresh: Path,
) -> None:
    fill(fresh / "runs/old", weights="old")

    def training() -> None:
        for number in range(7):
            fill(fresh / f"runs/v{number}", weights=str(number))

    looks = run(fresh, training, "runs/*/")
    with pytest.raises(NotMadeError, match=r"7 folders that match: runs/v0, .*, and 2 more"):
        choose(looks)
    assert len(looks.folders) == 7
    kept = msgspec.json.decode(msgspec.json.encode(looks), type=Looks)
    assert kept == looks
    found = look_again(kept, fresh / "runs/v3")
    assert (found.folder, names(found), found.unseen) == (fresh / "runs/v3", ["weights"], ())
    assert look_again(kept, fresh / "runs/old").unseen == ("weights",)


def test_a_pattern_matches_a_bounded_number_of_folders(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "MAX_CANDIDATES", 2)
    fill(fresh, **{f"file{number}": "" for number in range(5)})
    for number in range(3):
        (fresh / f"v{number}").mkdir()
    with pytest.raises(UnreadableError, match="more than 2 folders"):
        look_before(Path("*"), fresh)
    assert look_before(Path("v[01]"), fresh).before.keys() == {f"{fresh}/v0", f"{fresh}/v1"}


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(fresh: Path) -> None:
    assert is_pattern(Path("runs/[v1]"), fresh)
    fill(fresh / "runs/[v1]", weights="old")
    assert not is_pattern(Path("runs/[v1]"), fresh)
    found = choose(run(fresh, lambda: fill(fresh / "runs/[v1]", weights="1"), "runs/[v1]"))
    assert found.folder == fresh / "runs/[v1]"


WRONG = {
    "a link that leaves": ("ln -s /etc/passwd m/wrong", "leaves the folder"),
    "a dangling link": ("ln -s nowhere m/wrong", "to nothing"),
    "a FIFO": ("mkfifo m/wrong", "is a FIFO"),
    "a Latin-1 name": (r"touch m/$(printf 'gr\366\337e')", "is not UTF-8"),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_one_bad_file_does_not_cost_what_is_known_of_the_others(
    fresh: Path, spoil: str, message: str
) -> None:
    fill(fresh / "m", old="1")
    looks = run(fresh, lambda: sh(fresh, f"echo 2 > m/weights; {spoil}"))
    with pytest.raises(NotMadeError, match=message):
        choose(looks)
    [look] = looks.folders
    assert (set(look.files), look.untouched) == ({"old", "weights"}, ("old",))
    with pytest.raises(ProvenanceError, match=message):
        look_again(looks, fresh / "m")
    for path in (fresh / "m").iterdir():
        if path.name not in look.files:
            path.unlink()
    found = look_again(looks, fresh / "m")
    assert (names(found), found.untouched, found.unseen) == (["old", "weights"], ("old",), ())


def test_a_socket_that_was_there_before_the_run_is_no_matter(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fresh / "m")
    monkeypatch.chdir(fresh / "m")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        looks = run(fresh, lambda: sh(fresh, "rm m/socket; touch m/w"))
    assert names(choose(looks)) == ["w"]


def test_looking_again_tells_what_is_not_as_it_was_when_the_command_ended(fresh: Path) -> None:
    fill(fresh / "m", old="1", same="1", changes="1")
    looks = run(fresh, lambda: fill(fresh / "m", weights="1", copied="1", same="1", log="1"))
    assert look_again(looks, fresh / "m") == choose(looks)
    fill(fresh / "m", old="2", added="1", copied="1", log="2")
    (fresh / "m/changes").unlink()
    found = look_again(looks, fresh / "m")
    assert found.unseen == ("added", "log", "old")
    assert (found.untouched, found.rewritten) == ((), ("same",))
    assert "changes" not in names(found)
    for name in ("weights", "copied", "same", "log", "old", "added"):
        (fresh / "m" / name).unlink()
    with pytest.raises(UnreadableError, match="holds no files"):
        look_again(looks, fresh / "m")


def test_looking_again_at_old_files_alone_finds_nothing_made(fresh: Path) -> None:
    fill(fresh / "m", old="1")
    looks = run(fresh, lambda: fill(fresh / "m", weights="1"))
    (fresh / "m/weights").unlink()
    with pytest.raises(NotMadeError, match="none of its files"):
        look_again(looks, fresh / "m")


def test_a_model_of_another_time_is_taken_as_it_is(work: Path) -> None:
    found = look_now(fill(work / "m", weights="1"))
    assert (found.folder, names(found), found.untouched) == (work / "m", ["weights"], ())
