"""Running git in an untrusted repository.

A repository's configuration can name programs for git to run: hooks, filters, a file-system
monitor. Here git runs none of them, ignores variables that redirect it (``GIT_DIR`` …), uses no
network, takes no lock, and has a time limit.

The git tree of a work tree includes uncommitted and untracked files, but not ignored ones. The
repository is not modified: the tree is computed in a separate git folder, which knows the commit,
uses the repository's objects as its alternate, and provides all configuration. Nothing outside the
tree (``info/attributes``, ``info/exclude``, attributes and excludes of the user or the system,
times in the index) affects it. Changed files are hashed but not stored: they may be data.

The tree is what ``git add --all && git write-tree`` would give, except:

- Files marked ``assume-unchanged``, or ``skip-worktree`` but present, are read.
- Attributes and excludes come only from ``.gitattributes`` and ``.gitignore`` in the work tree, and
  line endings are converted only where such an attribute says so.
- Content filters do not run: a file with a filter counts with its raw bytes. A Git LFS file that
  the index says is unchanged counts as committed: its raw bytes are never in the tree.
- A nested repository without a commit has no id: it counts as a folder of files.
- Untracked Python caches (``__pycache__``) are left out: importing a module writes them.
- The model's folder stays as committed: else the tree would depend on the training's output.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from provenance.errors import UnavailableError, reason

TIMEOUT_SECONDS = 900
"""Time limit for one git command: git hashes some 300 MB/s, so this allows 250 GB."""

_SETTINGS = (
    "core.fsmonitor=false", "core.hooksPath=/dev/null", "core.untrackedCache=false",
    "core.splitIndex=false", "core.quotePath=false", "core.pager=cat", "core.sshCommand=false",
    "credential.helper=", "protocol.allow=never", "submodule.recurse=false",
    # These three are not in the tree; .gitattributes is.
    "core.attributesFile=/dev/null", "core.excludesFile=/dev/null", "core.autocrlf=false",
    # A repository may ask git to overlook changes.
    "core.checkStat=default", "core.trustctime=true", "core.ignoreStat=false",
)  # fmt: skip
_GITLINK = b"160000 "

_KEPT = ("core.fileMode", "core.symlinks", "core.ignoreCase", "core.precomposeUnicode")
"""What the file system supports, as git detected when it made the clone."""


_NO_GIT = "git is not installed"


class GitError(UnavailableError):
    """git refused, or is not installed."""

    @property
    def status(self) -> Literal["absent", "denied", "error"]:
        """The status to report; ``denied`` if the repository belongs to somebody else."""
        if "dubious ownership" in self.what:
            return "denied"
        absent = self.what == _NO_GIT or "not a git repository" in self.what or "bare" in self.what
        return "absent" if absent else "error"


@dataclass(frozen=True, slots=True)
class Git:
    """git in *folder*, with environment *variables* and additional *settings*."""

    folder: Path
    variables: Mapping[str, str]
    settings: tuple[str, ...] = ()

    def ask(
        self, *arguments: str, stdin: Iterable[bytes] = (), expect: tuple[int, ...] = (0,)
    ) -> bytes:
        """Return the output of ``git ARGUMENTS``, which reads the names *stdin*, or raise GitError.

        The exit status must be one of *expect*.
        """
        options = [part for setting in (*_SETTINGS, *self.settings) for part in ("-c", setting)]
        try:
            # S603, S607: no shell; which git is found is the user's choice, by PATH.
            done = subprocess.run(
                ["git", *options, *arguments],  # noqa: S607
                cwd=self.folder,
                env=dict(self.variables),
                input=b"".join(name + b"\0" for name in stdin),
                capture_output=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
            )
        except FileNotFoundError as error:
            raise GitError(_NO_GIT) from error
        except subprocess.TimeoutExpired as error:
            raise GitError(f"git took longer than {TIMEOUT_SECONDS} s") from error
        except OSError as error:
            raise GitError(f"git cannot be run: {reason(error)}") from error
        if done.returncode not in expect:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            raise GitError(f"git {arguments[0]} failed: {lines[0].removeprefix('fatal: ')[:300]}")
        return done.stdout

    def line(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> str:
        """Return the output of ``git ARGUMENTS`` as text, without the final line feed."""
        return os.fsdecode(self.ask(*arguments, expect=expect)).removesuffix("\n")

    def names(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> list[bytes]:
        """Return the NUL-terminated names in the output of ``git ARGUMENTS``."""
        return self.ask(*arguments, expect=expect).split(b"\0")[:-1]


def open_git(folder: Path, environ: Mapping[str, str]) -> Git:
    """Return git in *folder*, with all configured filters disabled."""
    variables = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    variables |= {
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # no local replacement of the commit
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
    }
    git = Git(folder, variables)
    found = git.names("config", "-z", "--name-only", "--get-regexp", r"^filter\.", expect=(0, 1))
    drivers = {os.fsdecode(name).removeprefix("filter.").rpartition(".")[0] for name in found}
    if any("=" in driver for driver in drivers):  # "-c" cannot name it
        raise GitError("a filter in the git configuration has '=' in its name")
    switched_off = tuple(
        f"filter.{driver}.{setting}"
        for driver in sorted(drivers)
        for setting in ("clean=", "smudge=", "process=", "required=false")
    )
    return Git(folder, variables, switched_off)


def commit_of_head(git: Git) -> str:
    """Return the id of the commit that is checked out, or "" if there is none yet."""
    return git.line("rev-parse", "--quiet", "--verify", "HEAD^{commit}", expect=(0, 1))


def tree_of_work_tree(top: Git, *, as_committed: str | None = None) -> tuple[str, list[str]]:
    """Return the tree id of the work tree with the root *top*, and the submodules in it.

    *as_committed* is a folder below the root that counts as in the commit.
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
            stdin=sorted(names),
        )  # fmt: skip
        tree = plain.line("write-tree", "--missing-ok")
        staged = plain.names("ls-files", "--stage", "-z")
    links = [row.partition(b"\t")[2] for row in staged if row.startswith(_GITLINK)]
    return tree, [os.fsdecode(name) for name in links]


def _with_copied_index(git: Git, folder: Path) -> Git:
    """Return *git* with a copy of its index in *folder*.

    The copy keeps the modification time, by which git knows which entries to read again.
    """
    index = git.folder / git.line("rev-parse", "--git-path", "index")
    if index.exists():
        shutil.copy2(index, folder / "index")
    return replace(git, variables={**git.variables, "GIT_INDEX_FILE": str(folder / "index")})


def _outside(git: Git, folder: Path) -> Git:
    """Return *git* with *folder* as its git folder and HEAD as its index."""
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
    kept = ((name, git.line("config", "--bool", "--get", name, expect=(0, 1))) for name in _KEPT)
    settings = tuple(f"{name}={value}" for name, value in kept if value)
    variables = {**git.variables, "GIT_DIR": str(folder), "GIT_WORK_TREE": str(git.folder)}
    plain = replace(git, variables=variables, settings=(*git.settings, *settings))
    plain.ask("read-tree", commit or "--empty")
    return plain


def _to_be_read(known: Git, plain: Git) -> set[bytes]:
    """Return the names to be read from the work tree; the others stay as committed."""
    tracked = plain.names("ls-files", "-z")
    if tracked:
        staged = known.names("diff-index", "--cached", "--name-only", "-z", "HEAD")
        known.ask("read-tree", "--reset", "HEAD")
    else:
        staged = known.names("ls-files", "-z")
        known.ask("read-tree", "--empty")
    as_committed = _not_checked_out(known)
    if pointers := _under_lfs(plain, tracked):
        changed = known.names("diff-files", "--name-only", "-z", "--ignore-submodules=dirty")
        as_committed |= pointers.difference(changed)
    return {*staged, *tracked, *_untracked(plain)} - as_committed


def _not_checked_out(git: Git) -> set[bytes]:
    """Clear the marks in the index that hide files; return the names omitted by sparse checkout."""
    rows = [row.partition(b" ")[::2] for row in git.names("ls-files", "-v", "-z")]
    assumed = [name for tag, name in rows if tag.islower()]
    skipped = {name for tag, name in rows if tag.upper() == b"S"}
    top = os.fsencode(git.folder)
    missing = {name for name in skipped if not os.path.lexists(os.path.join(top, name))}  # noqa: PTH118 - bytes
    present = sorted(skipped - missing)
    for names, option in ((assumed, "--no-assume-unchanged"), (present, "--no-skip-worktree")):
        if names:
            git.ask("update-index", option, "-z", "--stdin", stdin=names)
    return missing


def _under_lfs(git: Git, names: list[bytes]) -> set[bytes]:
    """Return the *names* that ``.gitattributes`` assigns to Git LFS."""
    answer = git.ask("check-attr", "--stdin", "-z", "filter", stdin=names).split(b"\0")
    return {name for name, value in zip(answer[::3], answer[2::3], strict=False) if value == b"lfs"}


def _untracked(git: Git) -> Iterator[bytes]:
    """Yield the untracked files in *git*'s work tree, without ignored files and caches."""
    for name in git.names("ls-files", "--others", "--exclude-per-directory=.gitignore", "-z"):
        if b"__pycache__" in name.split(b"/"):
            continue
        if name.endswith(b"/") and not _has_commit(git, name):
            folder = git.folder / os.fsdecode(name)
            index = f"{git.variables['GIT_DIR']}/no-index"
            own = {**git.variables, "GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": index}
            inside = replace(git, folder=folder, variables=own)
            yield from (name + inner for inner in _untracked(inside))
        else:
            yield name.rstrip(b"/")


def _has_commit(git: Git, name: bytes) -> bool:
    redirections = ("GIT_INDEX_FILE", "GIT_DIR", "GIT_WORK_TREE")
    own = {name: value for name, value in git.variables.items() if name not in redirections}
    return bool(commit_of_head(replace(git, folder=git.folder / os.fsdecode(name), variables=own)))
