"""The git tree of a work tree as it is: uncommitted and untracked files too, ignored ones not.

The repository stays untouched. A copy of its index (with the same modification time: git tells by
it which entries to read again) is brought up to date outside, new trees go to a folder of objects
outside that has the repository's as its alternate, and of changed files only the ids are computed,
not stored: a work tree may hold the data too.

The tree is what ``git add --all && git write-tree`` would give, except:

- What the index says to overlook (``assume-unchanged``; ``skip-worktree`` where the file is there)
  is looked at.
- Content filters (Git LFS) do not run: a changed file that one governs counts with its raw bytes.
- Untracked Python caches (``__pycache__``) are left out: importing a module writes them.
- One folder, the model's, stays as committed: else the tree would depend on the training's output.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.capture.git import Git, GitError
from provenance.files.atomic import reason

if TYPE_CHECKING:
    from collections.abc import Iterable

_GITLINK = b"160000 "


def commit_of_head(git: Git) -> str:
    """Return the id of the commit that is checked out; empty: there is none yet.

    Raises:
        GitError: git refuses.
    """
    return git.line("rev-parse", "--quiet", "--verify", "HEAD^{commit}", expect=(0, 1))


def tree_of_work_tree(top: Git, *, as_committed: str | None = None) -> tuple[str, list[str]]:
    """Return the id of the tree of the work tree with the root *top*, and the submodules in it.

    *as_committed* is the folder, below the root, that counts as it is in the commit.

    Raises:
        GitError: git refuses, or something in the way cannot be hashed.
    """
    with tempfile.TemporaryDirectory(prefix="provenance-git-") as folder:
        try:
            git = _outside(top, Path(folder))
        except OSError as error:
            raise GitError(f"the index cannot be copied: {reason(error)}") from error
        names = _uncommitted(git)
        if as_committed is not None:
            kept = os.fsencode(as_committed)
            below = b"" if kept == b"." else kept + b"/"
            names = {name for name in names if name != kept and not name.startswith(below)}
        listing = b"".join(name + b"\0" for name in sorted(names))
        git.ask(
            "update-index", "--info-only", "--add", "--remove", "--replace", "-z", "--stdin",
            stdin=listing,
        )  # fmt: skip
        tree = git.line("write-tree", "--missing-ok")
        staged = git.names("ls-files", "--stage", "-z")
    links = [row.partition(b"\t")[2] for row in staged if row.startswith(_GITLINK)]
    return tree, [os.fsdecode(name) for name in links]


def _outside(git: Git, folder: Path) -> Git:
    """Return *git* with an index and a folder of objects in *folder*."""
    information = folder / "objects" / "info"
    information.mkdir(parents=True)
    objects = os.path.realpath(git.folder / git.line("rev-parse", "--git-path", "objects"))
    if "\n" in objects:
        raise GitError("the repository's path holds a line feed")
    information.joinpath("alternates").write_bytes(os.fsencode(objects) + b"\n")
    index = git.folder / git.line("rev-parse", "--git-path", "index")
    if index.exists():
        shutil.copy2(index, folder / "index")
    return git.with_variables(
        GIT_INDEX_FILE=str(folder / "index"), GIT_OBJECT_DIRECTORY=str(folder / "objects")
    )


def _uncommitted(git: Git) -> set[bytes]:
    """Set the index to the commit and return the names whose content may be another."""
    if commit_of_head(git):
        staged = git.names("diff-index", "--cached", "--name-only", "-z", "HEAD")
        git.ask("read-tree", "--reset", "HEAD")
    else:
        staged = git.names("ls-files", "-z")
        git.ask("read-tree", "--empty")
    _overlook_nothing(git)
    changed = git.names("diff-files", "--name-only", "-z", "--ignore-submodules=dirty")
    untracked = git.names("ls-files", "--others", "--exclude-standard", "-z")
    return {*staged, *changed, *_worth_adding(git, untracked)}


def _overlook_nothing(git: Git) -> None:
    """Clear the marks in the index that tell git not to look at a file."""
    assumed: list[bytes] = []
    skipped: list[bytes] = []
    for row in git.names("ls-files", "-v", "-z"):
        tag, _, name = row.partition(b" ")
        if tag.islower():
            assumed.append(name)
        if tag.upper() == b"S" and os.path.lexists(os.path.join(os.fsencode(git.folder), name)):  # noqa: PTH118 - bytes
            skipped.append(name)
    for names, option in ((assumed, "--no-assume-unchanged"), (skipped, "--no-skip-worktree")):
        if names:
            git.ask(
                "update-index", option, "-z", "--stdin", stdin=b"".join(n + b"\0" for n in names)
            )


def _worth_adding(git: Git, untracked: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the names of *untracked* less Python caches; a repository without commits has no id."""
    for name in untracked:
        if b"__pycache__" in name.split(b"/"):
            continue
        if name.endswith(b"/"):
            inner = Git(git.folder / os.fsdecode(name), _own_index(git), git.settings)
            if not commit_of_head(inner):
                continue
        yield name.rstrip(b"/")


def _own_index(git: Git) -> dict[str, str]:
    redirections = ("GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
    return {name: value for name, value in git.variables.items() if name not in redirections}
