"""Asking git, in a repository that nobody vouches for.

git runs programs that a repository's own configuration names: hooks, filters, a file-system
monitor. Here it runs none of them, takes no variable that redirects it (``GIT_DIR`` …), asks
nothing over a network, takes no lock, and has a time limit.

The git tree of a work tree is that of what is there: uncommitted and untracked files too, ignored
ones not. The repository stays untouched: its files are counted in a git folder outside that knows
the commit, has the repository's objects as its alternate, and is the only one to say what git goes
by. Nothing that is not in the tree itself (``info/attributes``, ``info/exclude``, attributes and
excludes of the user or the system, times in the index) decides what a file counts as. Of changed
files only the ids are computed, not stored: a work tree may hold the data too.

The tree is what ``git add --all && git write-tree`` would give, except:

- What the index says to overlook (``assume-unchanged``; ``skip-worktree`` where the file is there)
  is looked at.
- Attributes and excludes count only as ``.gitattributes`` and ``.gitignore`` in the work tree, and
  line ends are converted only where such an attribute says so.
- Content filters do not run: a file that one governs counts with its raw bytes. Under Git LFS a
  file that the index says is unchanged counts as committed: its raw bytes are never in the tree.
- A repository inside that has no commit yet counts as a folder of files: it has no id.
- Untracked Python caches (``__pycache__``) are left out: importing a module writes them.
- One folder, the model's, stays as committed: else the tree would depend on the training's output.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import UnavailableError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TIMEOUT_SECONDS = 900
"""Longest that one git command may take: git hashes some 300 MB/s, so this allows 250 GB."""

_SETTINGS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.splitIndex=false",
    "core.attributesFile=/dev/null",  # these three are not in the tree: .gitattributes is
    "core.excludesFile=/dev/null",
    "core.autocrlf=false",
    "core.checkStat=default",  # a repository may ask git to overlook changes
    "core.trustctime=true",
    "core.ignoreStat=false",
    "core.quotePath=false",
    "core.pager=cat",
    "core.sshCommand=false",
    "credential.helper=",
    "protocol.allow=never",
    "submodule.recurse=false",
)


_GITLINK = b"160000 "

_KEPT_SETTINGS = ("core.fileMode", "core.symlinks", "core.ignoreCase", "core.precomposeUnicode")
"""Settings that say what the file system can hold; git found them out when it made the clone."""


class GitError(UnavailableError):
    """git refused; ``denied`` where it does not trust the repository's owner."""

    @property
    def denied(self) -> bool:
        """Whether git refused because the repository belongs to somebody else."""
        return "dubious ownership" in self.what


class NoGitError(UnavailableError):
    """git is not installed."""


@dataclass(frozen=True, slots=True)
class Git:
    """git in *folder*, with the environment *variables* and additional *settings*."""

    folder: Path
    variables: Mapping[str, str]
    settings: tuple[str, ...] = ()
    timeout_seconds: float = field(default=TIMEOUT_SECONDS)

    def ask(self, *arguments: str, stdin: bytes = b"", expect: tuple[int, ...] = (0,)) -> bytes:
        """Return what ``git ARGUMENTS`` writes to its standard output.

        Raises:
            NoGitError: git is not installed.
            GitError: its exit status is none of *expect*, or it takes too long.
        """
        options = [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        try:
            # S603, S607: no shell; which git is found is the user's choice, by PATH.
            done = subprocess.run(
                ["git", *options, *arguments],  # noqa: S607
                cwd=self.folder,
                env=dict(self.variables),
                input=stdin,
                capture_output=True,
                check=False,
                timeout=self.timeout_seconds,
            )
        except FileNotFoundError as error:
            raise NoGitError("git is not installed") from error
        except subprocess.TimeoutExpired as error:
            raise GitError(f"git took longer than {self.timeout_seconds:g} s") from error
        except OSError as error:
            raise GitError(f"git cannot be run: {reason(error)}") from error
        if done.returncode not in expect:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            raise GitError(f"git {arguments[0]} failed: {lines[0].removeprefix('fatal: ')[:300]}")
        return done.stdout

    def line(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> str:
        """Return the output of ``git ARGUMENTS`` as text, less the line feed at its end."""
        return os.fsdecode(self.ask(*arguments, expect=expect)).removesuffix("\n")

    def names(self, *arguments: str) -> list[bytes]:
        """Return the output of ``git ARGUMENTS`` as names that end in NUL."""
        return self.ask(*arguments).split(b"\0")[:-1]

    def with_variables(self, **variables: str) -> Git:
        """Return the same with *variables* added to the environment."""
        return Git(
            self.folder, {**self.variables, **variables}, self.settings, self.timeout_seconds
        )


def open_git(folder: Path, environ: Mapping[str, str]) -> Git:
    """Return git in *folder*, with every filter that its configuration names switched off."""
    variables = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    variables |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # else a local replacement could stand in for the commit
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    git = Git(folder, variables)
    found = git.ask(
        "config", "-z", "--name-only", "--get-regexp", r"^filter\..*", expect=(0, 1)
    ).split(b"\0")[:-1]
    names = {os.fsdecode(name).removeprefix("filter.") for name in found}
    drivers = sorted({name.rpartition(".")[0] for name in names})
    if any("=" in driver for driver in drivers):  # "-c" cannot name it
        raise GitError("a filter in the git configuration has '=' in its name")
    switched_off = tuple(
        f"filter.{driver}.{setting}"
        for driver in drivers
        for setting in ("clean=", "smudge=", "process=", "required=false")
    )
    return Git(folder, variables, switched_off)


def commit_of_head(git: Git) -> str:
    """Return the id of the commit that is checked out; empty: there is none yet."""
    return git.line("rev-parse", "--quiet", "--verify", "HEAD^{commit}", expect=(0, 1))


def tree_of_work_tree(top: Git, *, as_committed: str | None = None) -> tuple[str, list[str]]:
    """Return the id of the tree of the work tree with the root *top*, and the submodules in it.

    *as_committed* is the folder, below the root, that counts as it is in the commit.

    Raises:
        GitError: git refuses, or something in the way cannot be hashed.
    """
    with tempfile.TemporaryDirectory(prefix="provenance-git-") as folder:
        try:
            known = _with_copied_index(top, Path(folder))
            plain = _outside(top, Path(folder) / "git")
        except OSError as error:
            raise GitError(f"the index cannot be copied: {reason(error)}") from error
        names = _to_be_read(known, plain)
        if as_committed is not None:
            kept = os.fsencode(as_committed)
            below = b"" if kept == b"." else kept + b"/"
            names = {name for name in names if name != kept and not name.startswith(below)}
        plain.ask(
            "update-index", "--info-only", "--add", "--remove", "--replace", "-z", "--stdin",
            stdin=_listing(sorted(names)),
        )  # fmt: skip
        tree = plain.line("write-tree", "--missing-ok")
        staged = plain.names("ls-files", "--stage", "-z")
    links = [row.partition(b"\t")[2] for row in staged if row.startswith(_GITLINK)]
    return tree, [os.fsdecode(name) for name in links]


def _with_copied_index(git: Git, folder: Path) -> Git:
    """Return *git* with a copy of its index in *folder*.

    The copy keeps the modification time: git tells by it which entries to read again.
    """
    index = git.folder / git.line("rev-parse", "--git-path", "index")
    if index.exists():
        shutil.copy2(index, folder / "index")
    return git.with_variables(GIT_INDEX_FILE=str(folder / "index"))


def _outside(git: Git, folder: Path) -> Git:
    """Return git at the same work tree with *folder* as its git folder and HEAD as its index."""
    objects = os.path.realpath(git.folder / git.line("rev-parse", "--git-path", "objects"))
    if "\n" in objects:
        raise GitError("the repository's path holds a line feed")
    for name in ("objects/info", "refs"):
        folder.joinpath(name).mkdir(parents=True)
    folder.joinpath("objects/info/alternates").write_bytes(os.fsencode(objects) + b"\n")
    commit = commit_of_head(git)
    folder.joinpath("HEAD").write_text(f"{commit or 'ref: refs/heads/none'}\n")
    form = git.line("rev-parse", "--show-object-format")
    extension = "" if form == "sha1" else f"[extensions]\n\tobjectFormat = {form}\n"
    version = 1 if extension else 0
    folder.joinpath("config").write_text(
        f"[core]\n\trepositoryFormatVersion = {version}\n\tbare = false\n{extension}"
    )
    settings = tuple(
        f"{name}={value}"
        for name in _KEPT_SETTINGS
        if (value := git.line("config", "--bool", "--get", name, expect=(0, 1)))
    )
    plain = Git(
        git.folder,
        {**git.variables, "GIT_DIR": str(folder), "GIT_WORK_TREE": str(git.folder)},
        (*git.settings, *settings),
        git.timeout_seconds,
    )
    plain.ask("read-tree", commit or "--empty")
    return plain


def _to_be_read(known: Git, plain: Git) -> set[bytes]:
    """Return the names that count as they are in the work tree; the others stay as committed."""
    tracked = plain.names("ls-files", "-z")
    if tracked:
        staged = known.names("diff-index", "--cached", "--name-only", "-z", "HEAD")
        known.ask("read-tree", "--reset", "HEAD")
    else:
        staged = known.names("ls-files", "-z")
        known.ask("read-tree", "--empty")
    as_committed = _not_checked_out(known)
    pointers = _under_lfs(plain, tracked)
    if pointers:
        as_committed |= pointers.difference(
            known.names("diff-files", "--name-only", "-z", "--ignore-submodules=dirty")
        )
    return {*staged, *tracked, *_untracked(plain)} - as_committed


def _not_checked_out(git: Git) -> set[bytes]:
    """Clear the marks in the index that tell git not to look at a file.

    Returns:
        The names that are not in the work tree because a sparse checkout leaves them out.
    """
    assumed: list[bytes] = []
    skipped: list[bytes] = []
    missing: set[bytes] = set()
    for row in git.names("ls-files", "-v", "-z"):
        tag, _, name = row.partition(b" ")
        if tag.islower():
            assumed.append(name)
        if tag.upper() == b"S":
            if os.path.lexists(os.path.join(os.fsencode(git.folder), name)):  # noqa: PTH118 - bytes
                skipped.append(name)
            else:
                missing.add(name)
    for names, option in ((assumed, "--no-assume-unchanged"), (skipped, "--no-skip-worktree")):
        if names:
            git.ask("update-index", option, "-z", "--stdin", stdin=_listing(names))
    return missing


def _under_lfs(git: Git, names: list[bytes]) -> set[bytes]:
    """Return those of *names* that ``.gitattributes`` gives to Git LFS."""
    answer = git.ask("check-attr", "--stdin", "-z", "filter", stdin=_listing(names)).split(b"\0")
    return {name for name, value in zip(answer[::3], answer[2::3], strict=False) if value == b"lfs"}


def _untracked(git: Git) -> Iterator[bytes]:
    """Yield what is in *git*'s work tree and not in its index, less ignored files and caches."""
    for name in git.names("ls-files", "--others", "--exclude-per-directory=.gitignore", "-z"):
        if b"__pycache__" in name.split(b"/"):
            continue
        if name.endswith(b"/") and not _has_commit(git, name):
            yield from (name + inner for inner in _untracked(_work_tree_inside(git, name)))
        else:
            yield name.rstrip(b"/")


def _has_commit(git: Git, name: bytes) -> bool:
    redirections = ("GIT_INDEX_FILE", "GIT_DIR", "GIT_WORK_TREE")
    own = {name: value for name, value in git.variables.items() if name not in redirections}
    return bool(commit_of_head(Git(git.folder / os.fsdecode(name), own, git.settings)))


def _work_tree_inside(git: Git, name: bytes) -> Git:
    """Return *git* with the folder *name* for its work tree, and an empty index."""
    folder = git.folder / os.fsdecode(name)
    inside = Git(folder, git.variables, git.settings, git.timeout_seconds)
    return inside.with_variables(
        GIT_WORK_TREE=str(folder), GIT_INDEX_FILE=f"{git.variables['GIT_DIR']}/no-index"
    )


def _listing(names: Iterable[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)
