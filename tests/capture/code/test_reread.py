"""The code after the run: what was read beside the tracked files, and what changed."""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.capture.code import bytecode, reread
from provenance.capture.code.git import state_of
from provenance.capture.code.named import program_files
from provenance.capture.code.reread import Code, look_again
from provenance.capture.code.source import describe_repositories, observe_source
from provenance.capture.code.worktrees import Surroundings
from provenance.capture.python.records import FileState, Reads
from provenance.statement.training import ChangedInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.capture.conftest import Repository


def nothing() -> None:
    """Change nothing."""


def states(paths: Iterable[Path]) -> dict[Path, FileState]:
    return {path: state_of(path.lstat()) for path in paths}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def run(
    repository: Repository,
    first: Callable[[], object] = nothing,
    then: Callable[[], object] = nothing,
    *,
    read: tuple[str, ...] = (),
    written: tuple[str, ...] = (),
    model: str = "out",
    known: tuple[Path, ...] = (),
    command: tuple[str, ...] = (),
) -> Code:
    """Play a run: *first* happens, it opens the files *read*, and *then* happens."""
    around = Surroundings.of(repository.environ, repository.path / model, known)
    files = program_files(command, repository.path, leave_out=lambda _: False)
    before = observe_source(repository.path, around, files=files)
    first()
    opened = states(repository.path / name for name in read)
    then()
    reads = Reads(opened, frozenset(repository.path / name for name in written), processes=1)
    return look_again(before, repository.path, reads)


def read_in(code: Code) -> dict[str, str]:
    assert code.observed.source is not None
    return {file.name: file.sha256 for file in code.observed.source.read}


def test_untracked_and_ignored_files_that_were_read_are_code(repository: Repository) -> None:
    repository.write({"helper.py": "V = 1\n", "a.log": "ignored", "err.txt": "x", "train.py": "2"})
    code = run(repository, read=("helper.py", "a.log", "train.py"))
    assert read_in(code) == {"helper.py": digest("V = 1\n"), "a.log": digest("ignored")}
    assert (code.changed, code.drift) == ((), ())


def test_what_nothing_read_is_listed_and_changes_no_code(repository: Repository) -> None:
    clean = run(repository).observed
    repository.write({"err.txt": "x", "sub/b.txt": "y", "a.log": "ignored", ".env": "TOKEN=1"})
    repository.write({".git/info/exclude": "/mine/", "mine/notes": "ignored in this clone alone"})
    repository.write({"__pycache__/train.cpython-311.pyc": "x", "out/w": "the model"})
    stray = run(repository).observed
    assert stray.source == clean.source
    values = stray.collectors["untracked"].values
    assert values["files"] == {".env": "", "err.txt": digest("x"), "sub/b.txt": digest("y")}
    rows = [[".env", ""], ["err.txt", digest("x")], ["sub/b.txt", digest("y")]]
    text = json.dumps(rows, separators=(",", ":"))
    assert (values["count"], values["digest"]) == (3, digest(text))


def test_a_secret_file_that_was_read_is_named_without_a_digest(repository: Repository) -> None:
    key = f"-----BEGIN {'PRIVATE'} KEY-----\nMC4CAQ==\n-----END {'PRIVATE'} KEY-----\n"
    repository.write({".env": "TOKEN=1", "credentials.py": "code, whatever its name", "mine": key})
    code = run(repository, read=(".env", "credentials.py", "mine"))
    assert read_in(code)[".env"] == read_in(code)["mine"] == ""
    assert read_in(code)["credentials.py"] != ""
    untracked = code.observed.collectors["untracked"].values
    assert (untracked["files"]["mine"], untracked.get("unhashed")) == ("", None)


def test_models_inputs_and_installed_files_are_no_code(repository: Repository) -> None:
    inside = ".venv/lib/python3.11/site-packages/x.py"
    repository.write({"data/a.csv": "1", "out/w": "1", ".venv/pyvenv.cfg": "", inside: "x"})
    code = run(repository, read=("data/a.csv", inside), known=(repository.path / "data",))
    assert read_in(code) == {}
    elsewhere = ("site-packages/y.py", ".venv/lib/y.py")
    repository.write(dict.fromkeys(elsewhere, "not of an environment"))
    assert read_in(run(repository, read=elsewhere)).keys() == set(elsewhere)


def test_code_outside_the_repositories_goes_by_its_name_in_its_package(
    repository: Repository,
) -> None:
    files = {"a/pack/__init__.py": "", "a/pack/m.py": "1", "b/m.py": "2", "c/m.py": "3"}
    repository.write({f"../{name}": text for name, text in files.items()} | {"../data.csv": "4"})
    names = tuple(f"../{name}" for name in (*files, "data.csv"))
    code = run(repository, read=tuple(os.path.normpath(repository.path / name) for name in names))
    inits = {"…/pack/__init__.py": digest(""), "…/pack/m.py": digest("1")}
    twice = dict(zip(["…/m.py", "…/m.py (2)"], sorted([digest("2"), digest("3")]), strict=True))
    assert read_in(code) == inits | twice
    assert code.changed == ()


def test_code_outside_that_is_edited_is_a_changed_input(repository: Repository) -> None:
    repository.write({"../m.py": "1"})
    path = os.path.normpath(repository.path / "../m.py")
    code = run(repository, then=lambda: repository.write({"../m.py": "22"}), read=(path,))
    assert code.changed == (ChangedInput("source", changed=("…/m.py",)),)


def test_what_lay_in_the_models_folder_and_was_read_is_named(repository: Repository) -> None:
    repository.write({"out/kept": "1", "out/gone.py": "2"})

    def train() -> None:
        repository.path.joinpath("out/gone.py").unlink()
        repository.write({"out/new": "3"})

    code = run(
        repository,
        lambda: repository.write({"out/own": "3"}),
        train,
        read=("out/kept", "out/gone.py", "out/own"),
    )
    assert read_in(code) == {"${model}/kept": digest("1"), "${model}/gone.py": ""}
    assert code.changed == ()


def test_code_in_the_git_folder_counts_and_what_git_keeps_there_does_not(
    repository: Repository,
) -> None:
    repository.write({".git/evil.py": "x = 1\n"})
    assert read_in(run(repository, read=(".git/evil.py", ".git/HEAD"))).keys() == {".git/evil.py"}


def test_what_the_run_made_is_no_code(repository: Repository) -> None:
    made = {"made.py": "x", "made.log": "x"}
    code = run(repository, lambda: repository.write(made), read=tuple(made))
    assert read_in(code) == {}
    assert (code.changed, code.drift) == ((), ())


@pytest.mark.parametrize("name", ["train.py", "untracked.py", "ignored.log"])
@pytest.mark.parametrize("when", ["first", "then"])
def test_a_file_that_is_edited_during_the_run_is_a_changed_input(
    repository: Repository, name: str, when: str
) -> None:
    repository.write({"untracked.py": "old", "ignored.log": "old"})

    def edit() -> None:
        repository.write({name: "new code"})

    first, then = (edit, nothing) if when == "first" else (nothing, edit)
    code = run(repository, first, then, read=(name,))
    assert code.changed == (ChangedInput("source", changed=(name,)),)
    assert bool(code.drift) == (name == "train.py")


def test_an_edit_that_is_undone_before_the_end_is_seen_if_it_was_read(
    repository: Repository,
) -> None:
    def edit() -> None:
        repository.write({"train.py": "print(9)\n"})

    def undo() -> None:
        repository.write({"train.py": "print(1)\n"})

    assert run(repository, edit, undo, read=("train.py",)).changed != ()
    assert run(repository, nothing, repository.path.joinpath("train.py").touch).changed == ()
    touch = repository.path.joinpath("train.py").touch
    assert run(repository, touch, read=("train.py",)).changed == ()


def test_a_tracked_file_that_goes_or_comes_is_told_apart(repository: Repository) -> None:
    def change() -> None:
        repository.path.joinpath("train.py").unlink()
        repository.commit({"new.py": "n"})

    code = run(repository, change)
    [changed] = code.changed
    assert changed.removed == ("train.py",)
    assert [(entry.name, entry.size, entry.sha256) for entry in changed.added] == [
        ("new.py", 1, digest("n"))
    ]
    assert {item.name for item in code.drift} == {"commit", "tree"}


def test_a_commit_during_the_run_is_drift_alone(repository: Repository) -> None:
    start = repository.git("rev-parse", "HEAD")
    commit = ("commit", "--quiet", "--allow-empty", "--message", "x")
    code = run(repository, lambda: repository.git(*commit))
    end = repository.git("rev-parse", "HEAD")
    assert [(d.collector, d.name, d.start, d.end) for d in code.drift] == [
        ("source", "commit", start, end)
    ]
    assert code.changed == ()


def test_a_tracked_file_that_the_run_only_writes_is_drift_alone(repository: Repository) -> None:
    repository.commit({"results.csv": "1\n"})

    def append() -> None:
        repository.write({"results.csv": "1\n2\n"})

    code = run(repository, then=append, written=("results.csv",))
    assert code.changed == ()
    assert [item.name for item in code.drift] == ["tree"]
    repository.write({"results.csv": "1\n"})
    both = run(repository, then=append, written=("results.csv",), read=("results.csv",))
    assert [item.name for item in both.changed] == ["source"]


def test_an_untracked_file_that_the_run_reads_and_then_writes_counts_as_it_was(
    repository: Repository,
) -> None:
    repository.write({"results.json": "{}"})
    code = run(
        repository,
        then=lambda: repository.write({"results.json": "{1}"}),
        read=("results.json",),
        written=("results.json",),
    )
    assert read_in(code) == {"results.json": digest("{}")}
    assert code.changed == ()


@pytest.mark.parametrize(("name", "is_changed"), [("runs.log", False), ("a.pyc", True)])
def test_an_ignored_file_that_the_run_reads_and_then_writes_has_no_digest(
    repository: Repository, name: str, is_changed: bool
) -> None:
    """A cache or a database changes no input; code does."""
    repository.write({name: "1", ".git/info/exclude": "*.pyc", ".gitignore": "*.log\n*.pyc\n"})
    code = run(
        repository, then=lambda: repository.write({name: "22"}), read=(name,), written=(name,)
    )
    assert bool(code.changed) == is_changed
    assert (read_in(code)[name] == "") == (not is_changed)


def test_a_script_that_the_command_names_is_looked_at_again(
    repository: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "run.sh"
    outside.write_text("echo 1\n")
    repository.write({"own.sh": "echo 1\n"})

    def edit() -> None:
        outside.write_text("echo 2\n")
        repository.path.joinpath("own.sh").unlink()

    code = run(repository, edit, command=("bash", "own.sh", str(outside)))
    assert code.changed == (ChangedInput("source", changed=("run.sh",), removed=("own.sh",)),)


def test_a_changed_submodule_and_one_that_vanished_are_inputs_of_their_own(
    repository: Repository, other_repository: Repository
) -> None:
    repository.add_submodule(other_repository, "library")
    code = run(repository, lambda: repository.write({"library/library.py": "x = 2\n"}))
    assert code.changed == (ChangedInput("source/library", changed=("library.py",)),)
    gone = run(repository, lambda: shutil.rmtree(repository.path / "library"))
    assert [(item.name, bool(item.problem)) for item in gone.changed] == [("source/library", True)]


@pytest.mark.parametrize("in_git", [True, False])
def test_an_editable_distribution_that_is_edited_is_a_changed_input(
    repository: Repository, other_repository: Repository, *, in_git: bool
) -> None:
    if not in_git:
        shutil.rmtree(other_repository.path / ".git")
    around = Surroundings.of(repository.environ)
    editable = [("lib", other_repository.path)]
    before = observe_source(repository.path, around, editable=editable)
    other_repository.write({"library.py": "x = 2\n"})
    code = look_again(before, repository.path, Reads(), editable=editable)
    assert code.changed == (ChangedInput("editable/lib", changed=("library.py",)),)
    assert [(item.collector, item.name) for item in code.drift] == [("editable/lib", "tree")]


def test_code_behind_a_link_that_is_edited_is_a_changed_input(
    repository: Repository, tmp_path: Path
) -> None:
    tmp_path.joinpath("helper.py").write_text("V = 1\n")
    repository.path.joinpath("helper.py").symlink_to("../helper.py")
    repository.git("add", "--all")
    code = run(repository, lambda: tmp_path.joinpath("helper.py").write_text("V = 2\n"))
    assert code.changed == (ChangedInput("source", changed=("helper.py",)),)


def test_a_repository_that_cannot_be_read_afterwards_is_a_changed_input(
    repository: Repository,
) -> None:
    [changed] = run(repository, lambda: shutil.rmtree(repository.path / ".git")).changed
    assert (changed.name, changed.only_added) == ("source", False)


def test_a_repository_beside_the_tracked_files_is_described_if_it_was_read(
    repository: Repository, other_repository: Repository
) -> None:
    shutil.move(other_repository.path, repository.path / "vendored")
    unread = run(repository).observed
    assert [item.name for item in describe_repositories(unread.repositories)] == ["source"]
    code = run(repository, read=("vendored/library.py",))
    names = [item.name for item in describe_repositories(code.observed.repositories)]
    assert names == ["source", "source/vendored"]
    assert read_in(code) == {"vendored/library.py": digest("x = 1\n")}


def test_reads_beyond_the_limit_are_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write({"a.py": "1", "b.py": "2"})
    monkeypatch.setattr(reread, "MAX_READ", 1)
    code = run(repository, read=("a.py", "b.py"))
    assert list(read_in(code)) == ["a.py"]
    assert code.observed.collected.status == "error"


def test_what_is_too_large_to_hash_is_named_without_a_digest_and_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write({"helper.py": "V = 1\n", "data.bin": "x" * 100})
    monkeypatch.setattr(reread, "MAX_READ_BYTES", 50)
    monkeypatch.setattr("provenance.capture.code.source.MAX_HASHED_BYTES", 50)
    code = run(repository, read=("helper.py", "data.bin"))
    assert read_in(code) == {"helper.py": digest("V = 1\n"), "data.bin": ""}
    assert code.changed == ()
    assert code.observed.collected.status == "error"
    assert "1 files that the run read were too large" in code.observed.collected.reason
    assert run(repository, read=("helper.py",)).observed.collected.status == "ok"


def test_added_files_beyond_those_named_refuse_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.capture.inputs.MAX_LISTED", 1)
    [changed] = run(repository, lambda: repository.commit({"a.py": "1", "b.py": "2"})).changed
    assert ([entry.name for entry in changed.added], changed.more_added) == (["a.py"], 1)
    assert changed.only_added


def test_files_beyond_the_room_for_times_are_known_by_their_age(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provenance.capture.code.source.MAX_PRESENT", 0)
    repository.write({"old.log": "1"})
    code = run(repository, lambda: repository.write({"new.log": "1"}), read=("old.log", "new.log"))
    assert read_in(code) == {"old.log": digest("1")}


def compiled(repository: Repository, name: str, source: str, code: str) -> str:
    """Put *source* at *name* and what *code* compiles to in its cache; return the cache's name."""
    path = repository.path / name
    repository.write({name: code})
    cache = py_compile.compile(str(path), doraise=True, invalidation_mode=UNCHECKED)
    repository.write({name: source})
    return os.path.relpath(cache or "", repository.path)


MODES = py_compile.PycInvalidationMode
UNCHECKED = MODES.UNCHECKED_HASH


def test_an_honest_cache_counts_as_its_source(repository: Repository) -> None:
    tracked = compiled(repository, "train.py", "print(1)\n", "print(1)\n")
    untracked = compiled(repository, "helper.py", "V = 1\n", "V = 1\n")
    code = run(repository, read=(tracked, untracked))
    assert read_in(code) == {"helper.py": digest("V = 1\n")}


def test_a_cache_of_other_code_counts_with_its_bytes(repository: Repository) -> None:
    name = compiled(repository, "train.py", "print(1)\n", "print('evil')\n")
    data = repository.path.joinpath(name).read_bytes()
    assert read_in(run(repository, read=(name,))) == {name: hashlib.sha256(data).hexdigest()}


@pytest.mark.parametrize("data", [b"", b"\0" * 99, b"\xff" * 99])
def test_a_cache_that_cannot_be_read_counts_with_its_bytes(
    repository: Repository, data: bytes
) -> None:
    path = repository.path / "__pycache__" / "train.cpython-311.pyc"
    path.parent.mkdir()
    head = Path(py_compile.compile(str(repository.path / "train.py"), str(path)) or "")
    path.write_bytes(head.read_bytes()[:16] + data)
    name = str(path.relative_to(repository.path))
    assert read_in(run(repository, read=(name,))).keys() == {name}


def test_a_cache_in_a_tree_of_its_own_counts_as_its_source(
    repository: Repository, tmp_path: Path
) -> None:
    """As with ``PYTHONPYCACHEPREFIX``."""
    name = compiled(repository, "train.py", "print(1)\n", "print(1)\n")
    other = compiled(repository, "evil.py", "print(1)\n", "print('evil')\n")
    paths = [tmp_path / f"pre{repository.path}" / Path(each).name for each in (name, other)]
    for each, path in zip((name, other), paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository.path / each, path)
    code = run(repository, read=tuple(map(str, paths)))
    assert read_in(code).keys() == {f"…/{paths[1].name}"}


@pytest.mark.parametrize("fifo", ["__pycache__/x.cpython-311.pyc", "x.py"])
def test_a_fifo_in_place_of_a_cache_or_its_source_is_no_trap(
    repository: Repository, fifo: str
) -> None:
    cache = compiled(repository, "x.py", "V = 1\n", "V = 1\n")
    code = run(repository, then=lambda: replace_by_fifo(repository.path / fifo), read=(cache,))
    assert read_in(code).keys() == {cache}


def replace_by_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_a_cache_without_a_source_counts_with_its_bytes(repository: Repository) -> None:
    name = compiled(repository, "gone.py", "", "V = 1\n")
    repository.path.joinpath("gone.py").unlink()
    repository.write({"old.pyc": "sourceless"})
    assert read_in(run(repository, read=(name, "old.pyc"))).keys() == {name, "old.pyc"}


def test_a_stale_cache_that_python_replaces_changes_nothing(repository: Repository) -> None:
    name = compiled(repository, "train.py", "print(1)\n", "print('old')\n")

    def replace() -> None:
        py_compile.compile(str(repository.path / "train.py"))

    code = run(repository, then=replace, read=(name,))
    assert read_in(code) == {}
    assert code.changed == ()


@pytest.mark.parametrize("mode", ["TIMESTAMP", "CHECKED_HASH"])
def test_a_stale_cache_that_stays_is_not_what_ran(repository: Repository, mode: str) -> None:
    """As with ``PYTHONDONTWRITEBYTECODE``: Python opens the source, and runs that."""
    source = repository.path / "train.py"
    source.write_text("print('an older one')\n")
    path = Path(py_compile.compile(str(source), invalidation_mode=getattr(MODES, mode)) or "")
    source.write_text("print(1)\n")
    name = str(path.relative_to(repository.path))
    assert read_in(run(repository, read=(name, "train.py"))) == {}
    assert read_in(run(repository, read=(name,))).keys() == {name}  # nobody opened the source


def test_a_cache_of_another_python_is_compared_by_that_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "m.py"
    source.write_text("V = 1\n")
    path = Path(py_compile.compile(str(source)) or "")
    monkeypatch.setattr(bytecode, "MAGIC_NUMBER", b"else")
    environ = dict(os.environ)
    assert bytecode.honest([(path, source)], "", environ) == frozenset()
    assert bytecode.honest([(path, source)], sys.executable, environ) == {path}


def test_the_names_of_untracked_files_may_be_anything(repository: Repository) -> None:
    repository.path.joinpath(os.fsdecode(b"\xff")).write_text("bytes")
    repository.write({"\\xff": "text", "new\nline": "x"})
    around = Surroundings.of(repository.environ)
    values = observe_source(repository.path, around).collectors["untracked"].values
    assert values["files"].keys() == {"\\xff", "\\\\xff", "new\nline"}


def test_what_there_is_no_room_to_hash_is_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write({"big.bin": "x" * 1000, "a.txt": "a", "b.txt": "b"})
    monkeypatch.setattr("provenance.capture.code.source.MAX_HASHED_BYTES", 10)
    around = Surroundings.of(repository.environ)
    values = observe_source(repository.path, around).collectors["untracked"].values
    assert (values["count"], values["unhashed"]) == (3, 1)
    assert values["files"]["big.bin"] == ""
    assert values["files"]["a.txt"] == digest("a")


def test_a_folder_of_untracked_links_and_fifos_is_no_trap(repository: Repository) -> None:
    repository.path.joinpath("zero").symlink_to("/dev/zero")
    os.mkfifo(repository.path / "fifo")
    around = Surroundings.of(repository.environ)
    values = observe_source(repository.path, around).collectors["untracked"].values
    assert values["files"]["zero"] == digest("/dev/zero")
    assert values["files"].get("fifo", "") == ""
