"""Code that git hides, repositories that cannot be read, and folders without one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.capture.code import git as git_module
from provenance.capture.code.git import GitError, find_root, open_git
from provenance.capture.code.named import program_files, program_folders
from provenance.capture.code.source import ObservedSource, describe_repositories, observe_source
from provenance.capture.code.worktrees import Surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.statement.intoto import ResourceDescriptor
    from tests.capture.conftest import Repository


def observe(
    repository: Repository,
    folder: Path | None = None,
    *,
    command: Sequence[str] = (),
    editable: Sequence[tuple[str, Path]] = (),
) -> ObservedSource:
    folder = folder or repository.path
    files = program_files(command, folder, leave_out=lambda _: False)
    folders = [folder / place for place in program_folders(command)]
    around = Surroundings.of(repository.environ)
    return observe_source(folder, around, files=files, folders=folders, editable=editable)


def dependencies(observed: ObservedSource) -> dict[str, ResourceDescriptor]:
    return {item.name: item for item in describe_repositories(observed.repositories)}


def is_clean(repository: Repository) -> bool:
    observed = observe(repository)
    assert observed.source is not None
    committed = repository.git("rev-parse", "HEAD^{tree}")
    assert observed.source.dirty == (observed.source.tree != committed)
    return not observed.source.dirty


def test_ident_hides_no_code(repository: Repository) -> None:
    repository.commit({".gitattributes": "*.py ident\n", "helper.py": 'version = "$Id$"\n'})
    assert is_clean(repository)
    repository.path.joinpath("helper.py").unlink()
    repository.git("checkout", "--", "helper.py")  # git writes the blob's id into it
    assert "$Id: " in repository.path.joinpath("helper.py").read_text()
    assert is_clean(repository)
    repository.write({"helper.py": 'version = "$Id: "; evil = 1; x = " $"\n'})
    assert repository.git("diff", "--name-only") == ""
    assert not is_clean(repository)


@pytest.mark.parametrize(
    ("attributes", "raw", "clean"),
    [
        ("*.txt text\n", "a\r\nb\r\n", True),
        ("*.txt text=auto\n", "a\r\nb\r\n", True),
        ("*.txt text eol=crlf\n", "a\r\nb\r\n", True),
        ("*.txt text eol=lf\n", "a\r\nb\r\n", False),
        ("*.txt text\n", "a\r\nb\n", False),  # git checks out no such mixture
        ("*.txt -text\n", "a\r\nb\r\n", False),
        ("", "a\r\nb\r\n", False),
        ("*.txt working-tree-encoding=UTF-16LE\n", "a\0\n\0b\0\n\0", True),
        ("*.txt working-tree-encoding=UTF-7\n", "a\nb+AAo-", False),
    ],
)
def test_a_conversion_counts_as_git_checks_it_out(
    repository: Repository, attributes: str, raw: str, *, clean: bool
) -> None:
    repository.commit({"a.txt": "a\nb\n"})
    repository.write({".gitattributes": attributes})
    repository.git("add", ".gitattributes")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "attributes")
    repository.path.joinpath("a.txt").write_bytes(raw.encode())
    assert is_clean(repository) == clean


def test_attributes_that_are_not_tracked_convert_nothing(repository: Repository) -> None:
    repository.commit({"a.txt": "a\nb\n"})
    repository.write({".gitattributes": "*.txt text\n", "a.txt": "a\r\nb\r\n"})
    assert not is_clean(repository)


@pytest.mark.parametrize(
    "setting",
    [
        "core.ignoreCase=true", "core.fileMode=false", "core.symlinks=false", "core.bare=true",
        "core.worktree=/", "core.trustctime=false", "core.sparseCheckout=true",
        "core.commentChar=x", "core.attributesFile=/dev/zero", "core.excludesFile=/dev/zero",
        "index.sparse=true", "status.showUntrackedFiles=no", "diff.ignoreSubmodules=all",
    ],
)  # fmt: skip
def test_no_setting_hides_a_change_or_an_untracked_file(
    repository: Repository, setting: str
) -> None:
    repository.commit({"Helper.py": "1\n", "b": ""})
    repository.git("config", *setting.split("="))
    observed = observe(repository)
    assert observed.source is not None
    assert not observed.source.dirty
    repository.write({"helper.py": "evil"})
    repository.path.joinpath("train.py").chmod(0o755)
    observed = observe(repository)
    assert observed.source is not None
    assert observed.source.dirty
    assert observed.untracked.keys() == {"helper.py"}


def test_a_file_system_without_modes_makes_no_change(repository: Repository) -> None:
    repository.git("config", "core.fileMode", "false")
    for path in repository.path.iterdir():
        if path.is_file():
            path.chmod(0o755)
    assert is_clean(repository)


def test_a_link_in_place_of_a_file_is_a_change(repository: Repository) -> None:
    repository.git("config", "core.symlinks", "false")
    repository.path.joinpath("other.py").write_text("print(1)\n")
    repository.path.joinpath("train.py").unlink()
    repository.path.joinpath("train.py").symlink_to("other.py")
    assert not is_clean(repository)


def test_files_in_a_submodules_folder_without_a_repository_make_it_dirty(
    repository: Repository,
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},library")
    repository.git("commit", "--quiet", "--message", "a submodule")
    repository.path.joinpath("library").mkdir()
    assert is_clean(repository)  # not checked out
    repository.write({"library/code.py": "x = 1\n"})
    observed = observe(repository)
    assert observed.source is not None
    assert observed.source.dirty
    assert "library" in observed.collected.reason


def test_an_ignore_file_that_is_itself_ignored_hides_nothing_that_counts(
    repository: Repository,
) -> None:
    repository.write({"sub/.gitignore": "*\n", "sub/evil.py": "x"})
    observed = observe(repository)
    assert str(repository.path / "sub" / "evil.py") in observed.present


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_tree_is_gits_own_for_any_names(tmp_path: Path, algorithm: str) -> None:
    from tests.capture.conftest import Repository  # noqa: PLC0415 - a fixture has sha1 alone

    tmp_path.joinpath("home").mkdir()
    repository = Repository(tmp_path / "r", tmp_path / "home")
    repository.path.mkdir()
    repository.git("init", "--quiet", "--object-format", algorithm)
    names = ("a", "a.b/c", "a-b", "a0", "b/a/c", "b.c", "b-/x", "é/è", "z" * 200)
    repository.commit(dict.fromkeys(names, "x") | {"deep/" * 300 + "x": "y"})
    assert is_clean(repository)


def test_a_program_in_a_repository_is_found_from_elsewhere(
    repository: Repository, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    commit = repository.git("rev-parse", "HEAD")
    observed = observe(repository, scratch, command=("python", "../repository/train.py"))
    assert observed.source is not None
    assert (observed.source.commit, observed.source.folder) == (commit, "..")
    assert observed.collected.status == "ok"


@pytest.mark.parametrize(
    "command",
    [
        ("make", "-C", "../repository", "train"),
        ("uv", "run", "--directory=../repository", "train.py"),
        ("env", "--chdir", "../repository", "python", "train.py"),
        ("bash", "-ec", "set -x; cd '../repository' && python train.py"),
        ("sh", "-c", "cd ../repository;python train.py"),
    ],
)
def test_a_command_that_changes_to_a_repository_is_followed(
    repository: Repository, tmp_path: Path, command: tuple[str, ...]
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    observed = observe(repository, scratch, command=command)
    assert observed.source is not None
    assert observed.source.commit == repository.git("rev-parse", "HEAD")
    assert list(program_folders(command, range(len(command)))) == []


def test_code_behind_a_tracked_link_is_recorded(
    repository: Repository, other_repository: Repository, tmp_path: Path
) -> None:
    tmp_path.joinpath("helper.py").write_text("V = 1\n")
    tmp_path.joinpath("data").mkdir()
    tmp_path.joinpath("data", "a.csv").write_text("1")
    links = {
        "helper.py": "../helper.py",
        "lib": str(other_repository.path),
        "data": "../data",
        "again.py": "train.py",
        "broken": "nowhere",
    }
    for name, target in links.items():
        repository.path.joinpath(name).symlink_to(target)
    repository.git("add", "--all")
    observed = observe(repository)
    assert observed.source is not None
    assert [file.name for file in observed.source.files] == ["helper.py"]
    assert dependencies(observed).keys() == {"source", "editable/lib"}


def test_the_programs_repository_stands_beside_that_of_the_working_folder(
    repository: Repository, other_repository: Repository
) -> None:
    other_repository.commit({"train.py": "x"})
    other_repository.write({"stray.txt": "y"})
    command = ("python", str(other_repository.path / "train.py"), "train.py")
    observed = observe(repository, command=command)
    found = dependencies(observed)
    assert found.keys() == {"source", "source/../other"}
    assert found["source/../other"].digest["gitCommit"] == other_repository.git("rev-parse", "HEAD")
    assert observed.untracked.keys() == {"../other/stray.txt"}


def spoil_head(path: Path) -> None:
    path.joinpath(".git/HEAD").write_text("")


def spoil_branch(path: Path) -> None:
    path.joinpath(".git/refs/heads/main").write_text("")


def spoil_objects(path: Path) -> None:
    for one in path.joinpath(".git/objects").glob("??/*"):
        one.chmod(0o644)
        one.write_text("")


def spoil_index(path: Path) -> None:
    path.joinpath(".git/index").write_text("DIRC but not an index")


def spoil_settings(path: Path) -> None:
    path.joinpath(".git/config").write_text("[core\n")


def lead_nowhere(path: Path) -> None:
    shutil.rmtree(path / ".git")
    path.joinpath(".git").write_text("gitdir: ../nowhere\n")


def leave_a_link(path: Path) -> None:
    shutil.rmtree(path / ".git")
    path.joinpath(".git").symlink_to("nowhere")


def forget_objects(path: Path) -> None:
    shutil.rmtree(path / ".git" / "objects")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_head, spoil_branch, spoil_objects, spoil_index, spoil_settings, lead_nowhere,
        leave_a_link, forget_objects,
    ],
)  # fmt: skip
def test_a_damaged_repository_is_never_no_repository(
    repository: Repository, other_repository: Repository, spoil: object
) -> None:
    inner = repository.path / "inner"  # the outer one must not stand in for it
    shutil.move(other_repository.path, inner)
    assert callable(spoil)
    spoil(inner)
    observed = observe(repository, inner)
    assert observed.collected.status == "error"
    assert observed.source is None
    assert observed.hint


def test_the_way_out_of_a_foreign_owner_is_told(repository: Repository) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository.path, *repository.path.rglob("*")):
        os.chown(path, 12345, 12345)
    observed = observe(repository)
    assert observed.collected.status == "denied"
    assert observed.hint == f"git config --global --add safe.directory {repository.path}"
    subprocess.run(observed.hint.split(), env=repository.environ, check=True)
    assert observe(repository).collected.status == "ok"


@pytest.mark.parametrize(
    "place",
    [".git/config", ".git/HEAD", ".git/index", ".gitignore", ".git/included", "train.py", ".git/x",
     ".git/info/exclude"],
)  # fmt: skip
def test_a_fifo_cannot_hang_the_recorder(
    repository: Repository, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_module, "QUICK_SECONDS", 3)
    monkeypatch.setattr(git_module, "TIMEOUT_SECONDS", 3)
    repository.git("config", "include.path", "included")
    repository.git("config", "core.excludesFile", str(repository.path / ".git" / "x"))
    repository.git("config", "core.attributesFile", str(repository.path / ".git" / "x"))
    path = repository.path / place
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    observed = observe(repository)
    if place in ("train.py", ".gitignore", ".git/x"):
        assert observed.source is not None
        assert observed.source.dirty == (place != ".git/x")
    elif place == ".git/info/exclude":
        assert "is a FIFO" in observed.collected.reason
    else:
        assert observed.collected.status == "error"
        assert "longer than" in observed.collected.reason


def test_a_socket_in_place_of_a_tracked_file_is_a_change(repository: Repository) -> None:
    os.chdir(repository.path)
    repository.path.joinpath("train.py").unlink()
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind("train.py")
        assert not is_clean(repository)


def test_a_folder_without_a_repository_is_told_from_one_with(tmp_path: Path) -> None:
    assert find_root(tmp_path) is None
    tmp_path.joinpath(".git").mkdir()
    assert find_root(tmp_path / "a" / "b") == tmp_path
    with pytest.raises(GitError):
        open_git(tmp_path, dict(os.environ))


@pytest.mark.parametrize("where", [".venv/src/lib", "lib", "../elsewhere"])
def test_an_editable_distribution_is_recorded_wherever_it_lies(
    repository: Repository, other_repository: Repository, where: str
) -> None:
    repository.commit({".gitignore": ".venv\n"})
    folder = repository.path / where
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(other_repository.path, folder)
    observed = observe(repository, editable=[("lib", folder)])
    commit = subprocess.run(
        ["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert dependencies(observed)["editable/lib"].digest["gitCommit"] == commit


def test_an_editable_distribution_that_a_recorded_repository_tracks_is_covered(
    repository: Repository,
) -> None:
    repository.commit({"packages/lib/lib.py": "x"})
    observed = observe(repository, editable=[("lib", repository.path / "packages" / "lib")])
    assert dependencies(observed).keys() == {"source"}


@pytest.mark.parametrize("inside", [True, False])
def test_an_editable_distribution_without_a_repository_has_a_digest_of_its_code(
    repository: Repository, tmp_path: Path, *, inside: bool
) -> None:
    folder = (repository.path if inside else tmp_path) / "plain.log"  # ignored in the repository
    folder.mkdir()
    folder.joinpath("lib.py").write_text("x = 1\n")
    folder.joinpath("notes.txt").write_text("not code")
    one = dependencies(observe(repository, editable=[("lib", folder)]))["editable/lib"]
    assert one.annotations == {"pythonFiles": 1}
    folder.joinpath("lib.py").write_text("x = 2\n")
    other = dependencies(observe(repository, editable=[("lib", folder)]))["editable/lib"]
    assert one.digest["gitTree"] != other.digest["gitTree"]


def test_two_editable_distributions_of_one_repository_are_both_named(
    repository: Repository, other_repository: Repository
) -> None:
    other_repository.commit({"a/a.py": "1", "b/b.py": "2"})
    editable = [(name, other_repository.path / name) for name in ("a", "b")]
    found = dependencies(observe(repository, editable=editable))
    assert found["editable/a"].digest == found["editable/b"].digest


def test_a_folder_that_cannot_be_looked_at_is_no_editable_distribution(
    repository: Repository,
) -> None:
    places = [Path("/" + "x" * 5000), Path("/"), Path("/nowhere"), Path("/dev/null")]
    observed = observe(repository, editable=[("lib", place) for place in places])
    assert dependencies(observed).keys() == {"source"}


def test_an_untracked_fifo_for_ignored_names_is_named(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_module, "QUICK_SECONDS", 3)
    repository.path.joinpath("sub").mkdir()
    repository.write({"sub/a.txt": ""})
    os.mkfifo(repository.path / "sub/.gitignore")
    observed = observe(repository)
    assert observed.collected.status == "error"
    assert observed.collected.reason == "sub/.gitignore is a FIFO, not a file"
