from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.capture.code import git as git_module
from provenance.capture.code import worktrees as worktrees_module
from provenance.capture.code.git import GitError, open_git
from provenance.capture.code.named import program_files
from provenance.capture.code.source import describe_repositories, observe_source
from provenance.capture.code.worktrees import Surroundings
from provenance.errors import UnavailableError, UnreadableError
from provenance.statement.training import ProgramFile

if TYPE_CHECKING:
    from tests.capture.conftest import Repository


def everything_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return each file below *folder* with its modification time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tree(repository: Repository, model: Path | None = None) -> str:
    observed = observe_source(repository.path, Surroundings.of(repository.environ, model))
    assert observed.collected.status == "ok", observed.collected.reason
    assert observed.source is not None
    return observed.source.tree


def test_a_clean_work_tree_is_the_tree_of_its_commit(repository: Repository) -> None:
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.source is not None
    assert observed.source.commit == repository.git("rev-parse", "HEAD")
    assert observed.source.tree == repository.git("rev-parse", "HEAD^{tree}")
    assert not observed.source.dirty
    assert observed.collected.status == "ok"
    [described] = describe_repositories(observed.repositories)
    assert described.digest == {
        "gitCommit": observed.source.commit,
        "gitTree": observed.source.tree,
    }


def test_uncommitted_changes_of_tracked_files_are_in_the_tree(repository: Repository) -> None:
    repository.commit({"gone.py": "", "kept.py": "1\n", "tool": "x", "folder/a": "1"})
    repository.path.joinpath("gone.py").unlink()
    repository.path.joinpath("tool").chmod(0o755)
    shutil.rmtree(repository.path / "folder")
    repository.write({"kept.py": "2\n", "new.py": "n\n", "sub/deep.py": "d\n", "folder": "a file"})
    repository.write({"run.log": "ignored"})
    repository.path.joinpath("link").symlink_to("kept.py")
    repository.write({"staged.py": "s\n"})
    repository.git("add", "staged.py")
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.source is not None
    assert observed.source.tree == repository.tree_by_git()
    assert observed.source.dirty
    [described] = describe_repositories(observed.repositories)
    # A digest set matches if any digest does: the commit alone would be a lie.
    assert described.digest == {"gitTree": observed.source.tree}
    assert described.annotations == {"baseCommit": observed.source.commit}


def test_the_repository_is_left_as_it_was(repository: Repository) -> None:
    repository.write({"new.py": "n\n", "train.py": "print(2)\n"})
    before = everything_in(repository.path)
    tree(repository)
    assert everything_in(repository.path) == before


def test_an_ignored_file_that_is_staged_is_in_the_tree(repository: Repository) -> None:
    repository.write({"kept.log": "k"})
    clean = tree(repository)
    repository.git("add", "--force", "kept.log")
    assert tree(repository) != clean


def test_what_the_index_says_to_overlook_is_looked_at(repository: Repository) -> None:
    repository.commit({"settings.py": "a = 1\n", "skipped.py": "b = 1\n"})
    clean = tree(repository)
    repository.git("update-index", "--assume-unchanged", "settings.py")
    repository.git("update-index", "--skip-worktree", "skipped.py")
    assert tree(repository) == clean
    repository.write({"settings.py": "a = 2\n"})
    one = tree(repository)
    repository.write({"skipped.py": "b = 2\n"})
    assert len({clean, one, tree(repository)}) == 3


def test_a_sparse_checkout_counts_what_is_not_checked_out(repository: Repository) -> None:
    repository.commit({"here/a": "1", "there/b": "2"})
    clean = tree(repository)
    repository.git("sparse-checkout", "set", "here")
    assert not repository.path.joinpath("there").exists()
    assert tree(repository) == clean


def test_a_change_that_keeps_size_and_time_is_seen(repository: Repository) -> None:
    path = repository.path / "train.py"
    repository.git("config", "core.checkStat", "minimal")
    repository.git("config", "core.trustctime", "false")
    clean, status = tree(repository), path.stat()
    path.write_text("print(7)\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tree(repository) != clean


@pytest.mark.parametrize("committed", [False, True])
def test_the_tree_does_not_depend_on_the_model(repository: Repository, *, committed: bool) -> None:
    if committed:
        repository.commit({"out/model/w.bin": "first"})
    model = repository.path / "out" / "model"
    before = tree(repository, model)
    repository.write({"out/model/w.bin": "trained", "out/model/more/x": "y"})
    repository.git("add", "--all")
    assert tree(repository, model) == before
    repository.write({"out/models.py": "not in the model"})
    repository.git("add", "out/models.py")
    assert tree(repository, model) != before


def test_a_model_that_is_the_whole_work_tree_leaves_the_commit(repository: Repository) -> None:
    repository.write({"new.py": "n"})
    observed = observe_source(repository.path, Surroundings.of(repository.environ, repository.path))
    assert observed.source is not None
    assert observed.source.tree == repository.git("rev-parse", "HEAD^{tree}")
    assert "only the commit" in observed.collected.reason


def test_names_may_be_anything(repository: Repository) -> None:
    for name in ("a b", 'quo"te', "new\nline", "-option", ":(top)x", "é", "*"):
        repository.write({name: name})
    repository.path.joinpath(os.fsdecode(b"\xff")).write_text("not UTF-8")
    repository.git("add", "--all")
    assert tree(repository) == repository.tree_by_git()


def test_a_repository_without_commits_has_a_tree(empty_repository: Repository) -> None:
    empty_repository.write({"a.py": "1", "b.py": "2"})
    empty_repository.git("add", "a.py")
    observed = observe_source(empty_repository.path, Surroundings.of(empty_repository.environ))
    assert observed.source is not None
    assert (observed.source.commit, observed.source.dirty) == ("", True)
    assert observed.source.tree == empty_repository.git("write-tree")
    [described] = describe_repositories(observed.repositories)
    assert described.annotations == {"baseCommit": None}


def test_a_merge_with_conflicts_can_be_recorded(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit({"train.py": "print('side')\n"})
    repository.git("checkout", "--quiet", "main")
    repository.commit({"train.py": "print('main')\n"})
    with pytest.raises(subprocess.CalledProcessError):
        repository.git("merge", "side")
    assert tree(repository) == repository.tree_by_git()


def test_a_linked_work_tree_is_its_own(repository: Repository, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    repository.git("worktree", "add", "--quiet", "--detach", str(linked))
    linked.joinpath("train.py").write_text("x")
    observed = observe_source(linked, Surroundings.of(repository.environ))
    assert observed.source is not None
    assert observed.source.dirty
    assert observed.source.commit == repository.git("rev-parse", "HEAD")
    assert tree(repository) == repository.git("rev-parse", "HEAD^{tree}")


def test_a_folder_inside_is_named(repository: Repository) -> None:
    repository.commit({"src/train/main.py": "1"})
    observed = observe_source(
        repository.path / "src" / "train", Surroundings.of(repository.environ)
    )
    assert observed.source is not None
    assert observed.source.folder == "src/train"
    assert observed.source.tree == repository.git("rev-parse", "HEAD^{tree}")


def test_a_changed_submodule_is_recorded_with_its_own_tree(
    repository: Repository, other_repository: Repository
) -> None:
    repository.add_submodule(other_repository, "library")
    clean = observe_source(repository.path, Surroundings.of(repository.environ))
    assert clean.source is not None
    assert not clean.source.dirty
    assert [found.name for found in clean.repositories] == ["source", "source/library"]
    repository.write({"library/library.py": "x = 2\n"})
    dirty = observe_source(repository.path, Surroundings.of(repository.environ))
    assert dirty.source is not None
    assert dirty.source.tree == clean.source.tree  # a git tree names a submodule's commit only
    assert dirty.source.dirty
    assert dirty.repositories[1].tree != clean.repositories[1].tree
    assert [item.name for item in describe_repositories(dirty.repositories)] == [
        "source",
        "source/library",
    ]


def test_a_repository_inside_the_work_tree_is_recorded(
    repository: Repository, other_repository: Repository
) -> None:
    shutil.move(other_repository.path, repository.path / "vendored")
    subprocess.run(["git", "init", "--quiet", repository.path / "no-commits"], check=True)
    repository.path.joinpath("no-commits", "x").write_text("x")
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.collected.status == "ok"
    [described] = describe_repositories(observed.repositories)  # it is no submodule
    assert described.name == "source"
    assert observed.untracked.keys() == {"vendored/library.py", "no-commits/x"}


def test_a_broken_repository_inside_is_told(repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},broken")
    repository.write({"broken/.git": "gitdir: nowhere"})
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.collected.status == "error"


def test_a_submodule_of_somebody_else_is_told_and_the_rest_recorded(
    repository: Repository, other_repository: Repository
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    shutil.move(other_repository.path, repository.path / "vendored")
    repository.git("add", "vendored")
    repository.git("commit", "--quiet", "--message", "a repository inside")
    inner = repository.path / "vendored"
    for path in (inner, *inner.rglob("*")):
        os.chown(path, 12345, 12345)
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.source is not None
    assert observed.source.tree == repository.git("rev-parse", "HEAD^{tree}")
    assert observed.collected.status == "error"
    assert observed.collected.reason.startswith("vendored: ")


def test_no_program_of_the_repository_is_run(repository: Repository, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    program = f"touch {proof}; cat"
    repository.commit({".gitattributes": "*.py filter=evil diff=evil\n* filter=a.b\n"})
    for name, value in {
        "filter.evil.clean": program,
        "filter.evil.process": program,
        "filter.evil.required": "true",
        "filter.a.b.clean": program,
        "core.fsmonitor": program,
        "diff.evil.textconv": program,
        "core.pager": program,
    }.items():
        repository.git("config", name, value)
    for hook in ("post-index-change", "pre-commit", "fsmonitor-watchman"):
        path = repository.path / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {proof}\n")
        path.chmod(0o755)
    proof.unlink(missing_ok=True)
    repository.write({"train.py": "print(2)\n", "new.py": "x"})
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.collected.status == "ok"
    assert not proof.exists()


@pytest.mark.parametrize("first", [".", "", "bin"])
def test_a_git_in_the_repository_is_not_run(repository: Repository, first: str) -> None:
    program = repository.path / first / "git"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o755)
    environ = {**repository.environ, "PATH": f"{first}:{repository.environ['PATH']}"}
    assert observe_source(repository.path, Surroundings.of(environ)).collected.status == "ok"
    assert not (repository.path / "ran").exists()


def test_variables_cannot_redirect_git(
    repository: Repository, other_repository: Repository
) -> None:
    environ = {
        **repository.environ,
        "GIT_DIR": str(other_repository.path / ".git"),
        "GIT_WORK_TREE": str(other_repository.path),
        "GIT_INDEX_FILE": "elsewhere",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.worktree",
        "GIT_CONFIG_VALUE_0": str(other_repository.path),
    }
    observed = observe_source(repository.path, Surroundings.of(environ))
    assert observed.source is not None
    assert observed.source.commit == repository.git("rev-parse", "HEAD")


def test_a_replaced_commit_does_not_stand_in(repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    tree_of_commit = repository.git("rev-parse", "HEAD^{tree}")
    other = repository.commit({"train.py": "print('other')\n"})
    repository.git("checkout", "--quiet", commit)
    repository.git("replace", commit, other)
    assert tree(repository) == tree_of_commit


def test_a_repository_of_somebody_else_is_denied(repository: Repository) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    for path in (repository.path, *repository.path.rglob("*")):
        os.chown(path, 12345, 12345)
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.collected.status == "denied"
    assert "dubious ownership" in observed.collected.reason
    assert observed.source is None


def test_outside_a_repository_only_the_named_files_are_known(tmp_path: Path) -> None:
    file = ProgramFile("train.py", "0" * 64)
    around = Surroundings.of({"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    observed = observe_source(tmp_path, around, files={tmp_path / "train.py": file})
    assert observed.collected.status == "absent"
    assert observed.source is not None
    assert (observed.source.files, observed.source.tree) == ((file,), "")
    assert observe_source(tmp_path, around).source is None


def test_a_bare_repository_has_no_source(repository: Repository, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    repository.git("clone", "--quiet", "--bare", str(repository.path), str(bare))
    observed = observe_source(bare, Surroundings.of(repository.environ))
    assert observed.collected.status == "error"
    assert "bare" in observed.collected.reason


def test_without_git_a_repository_is_said_to_be_there(
    repository: Repository, tmp_path: Path
) -> None:
    observed = observe_source(repository.path, Surroundings.of({"PATH": str(tmp_path)}))
    assert observed.collected.status == "error"
    assert "not installed" in observed.collected.reason


def test_git_that_takes_too_long_is_an_error(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(git_module, "TIMEOUT_SECONDS", 0.2)
    git = git_module.Git(repository.path, {"PATH": f"{slow.parent}:{os.environ['PATH']}"})
    with pytest.raises(GitError, match="longer than"):
        git.ask("status")


def test_git_that_cannot_be_executed_is_an_error(repository: Repository, tmp_path: Path) -> None:
    tmp_path.joinpath("git").write_bytes(b"\x7fELF broken")
    tmp_path.joinpath("git").chmod(0o755)
    with pytest.raises(GitError):
        open_git(repository.path, {"PATH": str(tmp_path)})


def test_an_unreadable_index_is_an_error(repository: Repository) -> None:
    index = repository.path / ".git" / "index"
    index.unlink()
    index.mkdir()
    assert (
        observe_source(repository.path, Surroundings.of(repository.environ)).collected.status
        == "error"
    )


def test_too_many_repositories_are_told(
    repository: Repository, other_repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(other_repository.path, repository.path / "vendored")
    monkeypatch.setattr(worktrees_module, "MAX_REPOSITORIES", 1)
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.collected.status == "error"
    assert "more than 1" in observed.collected.reason


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://alice:s3cret@example.org/a/b.git?x=1", "https://example.org/a/b.git"),
        ("git@example.org:a/b.git", "ssh://example.org/a/b.git"),
        ("/home/alice/secret", ""),
        ("file:///home/alice/secret", ""),
    ],
)
def test_the_remote_is_published_without_its_user(
    repository: Repository, url: str, public: str
) -> None:
    repository.git("remote", "add", "origin", url)
    observed = observe_source(repository.path, Surroundings.of(repository.environ))
    assert observed.source is not None
    assert observed.source.uri == public


def test_files_of_the_command_line_are_named_below_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    for name in ("train.py", "conf/a.toml", "pkg/module.py", "tool/__main__.py", "run.sh"):
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(name).write_text(name)
    tmp_path.joinpath("outside.yaml").write_text("x")
    tmp_path.joinpath("data.csv").write_text("x")
    data = Path(os.path.realpath(tmp_path / "data.csv"))

    def names(*command: str) -> list[str]:
        found = program_files(command, folder, leave_out=lambda path: path == data)
        return [file.name for file in found.values()]

    assert names("python", "train.py", "../outside.yaml", "--c=conf/a.toml", "../data.csv") == [
        "conf/a.toml",
        "outside.yaml",
        "train.py",
    ]
    assert names("python", "-m", "pkg.module") == ["pkg/module.py"]
    assert names("python", "-m", "tool") == ["tool/__main__.py"]
    assert names("./run.sh", "x" * 5000, "nul\0", "--empty=", "conf") == ["run.sh"]
    assert names() == []


@pytest.mark.parametrize(
    "text",
    [
        "python3 train.py",
        "set -e; cd . && exec python3 'train.py' > out.log 2>&1",
        "python3 train.py | tee out.log",
        "cd sub; python3 ../train.py",
        "bash -c 'python3 -m train'",
    ],
)
def test_files_in_a_text_for_a_shell_are_named_and_not_what_it_writes(
    tmp_path: Path, text: str
) -> None:
    for name in ("train.py", "out.log", "other.py"):
        tmp_path.joinpath(name).write_text(name)
    tmp_path.joinpath("sub").mkdir()
    found = program_files(["nice", "bash", "-ec", text], tmp_path, leave_out=lambda _: False)
    assert [file.name for file in found.values()] == ["train.py"]


def test_a_file_of_the_command_line_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads everything")
    tmp_path.joinpath("train.py").touch(mode=0)
    with pytest.raises(UnreadableError):
        program_files(["python", "train.py"], tmp_path, leave_out=lambda _: False)


def test_files_of_the_same_last_name_are_told_apart(tmp_path: Path) -> None:
    names = ("project/a.sh", "x/a.sh", "y/a.sh")
    for name in names:
        tmp_path.joinpath(name).parent.mkdir()
        tmp_path.joinpath(name).write_text(name)
    command = [str(tmp_path / name) for name in names]
    found = program_files(command, tmp_path / "project", leave_out=lambda _: False)
    assert [file.name for file in found.values()] == ["a.sh", "a.sh (2)", "a.sh (3)"]


def test_a_redacted_argument_is_not_looked_at(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        tmp_path.joinpath(name).write_text(name)
    command = ["./a", "b", "--password=c"]
    found = program_files(command, tmp_path, leave_out=lambda _: False, redacted=(2,))
    assert [file.name for file in found.values()] == ["a", "b"]


@pytest.mark.parametrize("where", ["info", "user", "gone"])
def test_attributes_outside_the_tree_do_not_count(repository: Repository, where: str) -> None:
    clean = repository.commit({"id.py": 'P = "$Id$"\n', "lines.sh": "a\n"})
    attributes = repository.path / ".git" / "info" / "attributes"
    if where == "user":
        attributes = repository.home / "attributes"
        repository.git("config", "core.attributesFile", str(attributes))
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.py ident\n*.sh text\n")
    repository.write({"id.py": 'P = "$Id: other $"\n', "lines.sh": "a\r\n"})
    repository.git("add", "--all")  # git now holds both for unchanged
    assert repository.git("rev-parse", f"{clean}^{{tree}}") == repository.git("write-tree")
    if where == "gone":
        attributes.unlink()
    first = tree(repository)
    assert first != repository.git("write-tree")
    repository.write({"id.py": 'P = "$Id: evil $"\n'})
    assert tree(repository) != first


def test_attributes_in_the_tree_count(repository: Repository) -> None:
    repository.commit({".gitattributes": "*.bat text eol=crlf\n", "a.bat": "a\n"})
    repository.write({"a.bat": "a\r\n"})
    assert tree(repository) == repository.git("rev-parse", "HEAD^{tree}")


def test_line_ends_are_not_converted_by_a_setting(repository: Repository) -> None:
    repository.git("config", "core.autocrlf", "true")
    clean = tree(repository)
    repository.write({"train.py": "print(1)\r\n"})
    assert tree(repository) != clean


def test_a_file_under_git_lfs_is_as_committed_until_it_changes(repository: Repository) -> None:
    sha256 = hashlib.sha256(b"weights").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 7\n"
    repository.git("config", "filter.lfs.clean", f"printf '{pointer}'".replace("\n", "\\n"))
    repository.write({".gitattributes": "*.bin filter=lfs\n", "w.bin": "weights"})
    os.utime(repository.path / "w.bin", (10**9, 10**9))  # surely before the index is written
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "a pointer")
    assert repository.git("show", "HEAD:w.bin") == pointer.strip()
    assert tree(repository) == repository.git("rev-parse", "HEAD^{tree}")
    repository.write({"w.bin": "other weights"})
    assert tree(repository) != repository.git("rev-parse", "HEAD^{tree}")


def test_a_repository_of_sha256_has_a_tree(tmp_path: Path, repository: Repository) -> None:
    folder = tmp_path / "sha256"
    subprocess.run(
        ["git", "init", "--quiet", "--object-format=sha256", folder], check=True, timeout=60
    )
    folder.joinpath("a.py").write_text("1")
    observed = observe_source(folder, Surroundings.of(repository.environ))
    assert observed.source is not None, observed.collected.reason
    assert len(observed.source.tree) == 64


def test_what_git_cannot_do_is_something_outside() -> None:
    assert issubclass(GitError, UnavailableError)
