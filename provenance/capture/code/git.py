"""The tracked files of an untrusted repository, as they lie in the work tree.

git is asked only where a repository is, what is checked out, and which names are tracked or
ignored; it never reads a file of the work tree. The bytes of tracked files are hashed here as they
lie, and the tree is put together here, so nothing in a repository decides what counts
(docs/spec/training.md, "The source"). The repository is not modified.

A repository's configuration can name programs to run: hooks, filters, a file-system monitor. Here
git runs none, ignores variables that redirect it, uses no network, takes no lock, and has a time
limit, because anything that it opens may be a FIFO.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shlex
import stat
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from provenance.capture.python.records import FileState
from provenance.errors import UnavailableError, reason
from provenance.files.digest import hash_open
from provenance.files.reading import kind, open_file, unreadable

QUICK_SECONDS = 30
"""Time limit for git to say what is checked out, which takes milliseconds."""

TIMEOUT_SECONDS = 300
"""Time limit for git to list a work tree: a million files take some 5 s."""

_SETTINGS = (
    "core.fsmonitor=false", "core.hooksPath=/dev/null", "core.untrackedCache=false",
    "core.quotePath=false", "core.pager=cat", "core.sshCommand=false",
    "credential.helper=", "protocol.allow=never", "submodule.recurse=false",
    # These are not in the tree; .gitattributes and .gitignore may be.
    "core.attributesFile=/dev/null", "core.excludesFile=/dev/null", "core.autocrlf=false",
    # With it, an untracked helper.py is hidden by a tracked Helper.py.
    "core.ignoreCase=false",
    # Nobody checks it against the commits for which it stands in.
    "core.commitGraph=false",
)  # fmt: skip
_USERS_CONFIGURATION = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")

_FSCK = "see 'git status' and 'git fsck' there"

FILE, PROGRAM, LINK, SUBMODULE = b"100644", b"100755", b"120000", b"160000"
"""git's modes."""


class GitError(UnavailableError):
    """A repository cannot be read."""

    @property
    def status(self) -> Literal["denied", "error"]:
        """The status to report; ``denied`` if the repository belongs to somebody else."""
        return "denied" if "dubious ownership" in self.what else "error"


@dataclass(frozen=True, slots=True)
class Git:
    """git in *folder*, with environment *variables*, and what is checked out there.

    ``commit`` and ``tree`` are "" before the first commit; ids are of the ``algorithm``.
    """

    folder: Path
    variables: Mapping[str, str]
    commit: str = ""
    tree: str = ""
    objects: Path = Path()
    algorithm: str = "sha1"

    def ask(
        self,
        *arguments: str,
        stdin: Iterable[bytes] = (),
        expect: tuple[int, ...] = (0,),
        seconds: float | None = None,
    ) -> bytes:
        """Return the output of ``git ARGUMENTS``, which reads the names *stdin*, or raise GitError.

        The exit status must be one of *expect*.
        """
        options = [part for setting in _SETTINGS for part in ("-c", setting)]
        seconds = TIMEOUT_SECONDS if seconds is None else seconds
        try:
            # S603, S607: no shell; which git is found is the user's choice, by PATH.
            done = subprocess.run(
                ["git", *options, *arguments],  # noqa: S607
                cwd=self.folder,
                env=dict(self.variables),
                input=b"".join(name + b"\0" for name in stdin),
                capture_output=True,
                check=False,
                timeout=seconds,
            )
        except FileNotFoundError as error:
            raise GitError("git is not installed", hint="install git") from error
        except subprocess.TimeoutExpired as error:
            hint = "look for a FIFO or a device among the files of its configuration"
            raise GitError(f"git took longer than {seconds} s", hint=hint) from error
        except OSError as error:
            raise GitError(f"git cannot be run: {reason(error)}") from error
        if done.returncode not in expect:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            said = lines[0].removeprefix("fatal: ")[:300]
            if "not a git repository" in said:
                raise GitError("there is a .git, which git cannot read", hint=_FSCK)
            mine = f"git config --global --add safe.directory {shlex.quote(str(self.folder))}"
            hint = mine if "dubious ownership" in said else _FSCK
            raise GitError(f"git {arguments[0]} failed: {said}", hint=hint)
        return done.stdout


@dataclass(frozen=True, slots=True)
class Entry:
    """A tracked file: git's mode, the id of its bytes ("" in a conflict), and when it was so."""

    mode: bytes
    id: str
    state: FileState | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in a work tree: the index's entries, those that sparse checkout omits, the rest.

    An untracked name that ends in ``/`` is another repository. Ignored files are not listed.
    """

    tracked: Mapping[bytes, Entry]
    omitted: frozenset[bytes]
    untracked: tuple[bytes, ...]


def free_name(name: str, taken: set[str]) -> str:
    """Return *name*, with a number if it is *taken*, and add it to these."""
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    name = next(free for free in itertools.chain([name], numbered) if free not in taken)
    taken.add(name)
    return name


def find_root(folder: Path) -> Path | None:
    """Return the folder at or above *folder* that has a ``.git``, if any."""
    folder = Path(os.path.realpath(folder))
    return next((at for at in (folder, *folder.parents) if os.path.lexists(at / ".git")), None)


def is_bare(folder: Path) -> bool:
    """Tell whether *folder* is, or is in, a repository without a work tree."""
    folder = Path(os.path.realpath(folder))
    return any(
        all(os.path.exists(at / name) for name in ("HEAD", "objects", "refs"))  # noqa: PTH110 - never raises
        for at in (folder, *folder.parents)
    )


def open_git(root: Path, environ: Mapping[str, str]) -> Git:
    """Return git for the work tree *root*.

    Whoever owns the repository is checked by git; afterwards git is bound to this folder, whatever
    ``core.worktree`` and ``core.bare`` say, and reads only the repository's own configuration.
    """
    variables = {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name in _USERS_CONFIGURATION
    }
    places = environ.get("PATH", os.defpath).split(os.pathsep)  # none that the repository may fill
    variables |= {
        "PATH": os.pathsep.join(p for p in places if p.startswith("/")) or os.defpath,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",  # no local replacement of the commit
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(root.parent),  # a damaged one is not taken for the outer
    }
    git = Git(root, variables)
    about = ("rev-parse", "--absolute-git-dir", "--git-path", "objects", "--show-object-format")
    answer = git.ask(*about, "HEAD^{commit}", "HEAD^{tree}", expect=(0, 128), seconds=QUICK_SECONDS)
    rows = os.fsdecode(answer).splitlines()
    found = len(rows) == len(about) and rows[-1].isalnum()
    if not found:  # no commit, or nothing that git can read
        answer = git.ask(*about, seconds=QUICK_SECONDS)
        rows = [*os.fsdecode(answer).splitlines(), "", ""]
    if len(rows) != len(about):
        raise GitError("the repository's path holds a line feed")
    folder, objects, algorithm, commit, tree = rows
    bound = {
        "GIT_DIR": folder,
        "GIT_WORK_TREE": str(root),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    git = Git(root, variables | bound, commit, tree, root / objects, algorithm)
    if not found:
        _require_unborn(git)
    return git


def _require_unborn(git: Git) -> None:
    """Raise GitError unless the branch that is checked out has no commit yet."""

    def line(*arguments: str) -> str:
        return os.fsdecode(git.ask(*arguments, expect=(0, 1), seconds=QUICK_SECONDS)).rstrip("\n")

    branch = line("symbolic-ref", "--quiet", "HEAD")
    named = line("rev-parse", "--quiet", "--verify", "HEAD")
    if named or not branch or os.path.lexists(git.folder / line("rev-parse", "--git-path", branch)):
        raise GitError("the commit that is checked out is damaged or missing", hint=_FSCK)


def list_work_tree(git: Git) -> Listing:
    """Return the names in the work tree of *git*."""
    arguments = ("ls-files", "-t", "-s", "-o", "-z", "--exclude-standard")
    try:
        listed = git.ask(*arguments, seconds=QUICK_SECONDS)
    except GitError:
        _refuse_traps(git.folder)
        listed = git.ask(*arguments)
    tracked: dict[bytes, Entry] = {}
    omitted, untracked = set(), []
    for row in listed.split(b"\0")[:-1]:
        tag, _, rest = row.partition(b" ")
        if tag == b"?":
            untracked.append(rest)
            continue
        about, _, name = rest.partition(b"\t")
        mode, id_, stage = about.split(b" ")
        tracked[name] = Entry(mode, id_.decode() if stage == b"0" else "")
        if tag == b"S":
            omitted.add(name)
    return Listing(tracked, frozenset(omitted), tuple(untracked))


def _refuse_traps(root: Path) -> None:
    """Raise GitError if a list of what to ignore is something that git would wait for."""
    for folder, _, names in os.walk(root):
        for name in {".gitignore", "exclude"}.intersection(names):  # the one is in .git/info
            path = f"{folder}/{name}"
            with contextlib.suppress(OSError):
                mode = os.lstat(path).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
                    raise GitError(f"{os.path.relpath(path, root)} is {kind(mode)}, not a file")


def committed_below(git: Git, name: str) -> dict[bytes, Entry]:
    """Return what the commit holds in the folder *name*."""
    below = () if name == "." else (name,)
    rows = git.ask("ls-tree", "-r", "-z", "--full-tree", "HEAD", *below).split(b"\0")[:-1]
    parted = (row.partition(b"\t") for row in rows)
    heads = ((path, about.split(b" ")) for about, _, path in parted)
    return {path: Entry(mode, id_.decode()) for path, (mode, _, id_) in heads}


def settings_of(git: Git) -> dict[str, str]:
    """Return where the repository comes from, and whether git found that files have modes."""
    pattern = r"^(remote\.origin\.url|core\.filemode)$"
    arguments = ("config", "-z", "--get-regexp", pattern)
    rows = git.ask(*arguments, expect=(0, 1), seconds=QUICK_SECONDS).split(b"\0")[:-1]
    parted = (os.fsdecode(row).partition("\n") for row in rows)
    return {name: value for name, _, value in parted}


def look(root: Path, name: bytes, algorithm: str, before: Entry | None = None) -> Entry | None:
    """Return the file *name* below *root* as it lies; None if there is no file and no link.

    A file whose times are those of *before* is not read again.
    """
    path = os.path.join(os.fsencode(root), name)  # noqa: PTH118 - bytes
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)  # noqa: PTH115 - bytes
            return Entry(LINK, object_id(algorithm, b"blob", target).hex(), state_of(status))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(error, os.fsdecode(name)) from error
    if not stat.S_ISREG(status.st_mode):
        return None
    if before is not None and before.state == state_of(status):
        return replace(before, mode=_mode_of(status)) if before.mode in (FILE, PROGRAM) else before
    shown = os.fsdecode(name)
    descriptor, status = open_file(os.fsdecode(path), shown=shown)
    hasher = _object_hasher(algorithm, b"blob", status.st_size)
    id_, _ = hash_open(descriptor, status, shown, hasher=hasher)
    return Entry(_mode_of(status), id_, state_of(status))


def _mode_of(status: os.stat_result) -> bytes:
    return PROGRAM if status.st_mode & stat.S_IXUSR else FILE


def state_of(status: os.stat_result) -> FileState:
    """Return the part of *status* that a write changes."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def object_id(algorithm: str, kind: bytes, data: bytes) -> bytes:
    """Return the id of the object *data*."""
    hasher = _object_hasher(algorithm, kind, len(data))
    hasher.update(data)
    return hasher.digest()


def _object_hasher(algorithm: str, kind: bytes, size: int) -> hashlib._Hash:
    return hashlib.new(algorithm, b"%s %d\0" % (kind, size), usedforsecurity=False)


def tree_of(entries: Mapping[bytes, Entry], algorithm: str) -> str:
    """Return the id of the git tree of *entries*."""
    folders: dict[bytes, dict[bytes, bytes]] = {b"": {}}
    for name, entry in entries.items():
        parts = name.split(b"/")
        for end in range(1, len(parts)):
            folders.setdefault(b"/".join(parts[:end]), {})
        where, _, last = name.rpartition(b"/")
        row = b"%s %s\0%s" % (entry.mode, last, bytes.fromhex(entry.id))
        folders[where][last] = row
    ids: dict[bytes, bytes] = {}
    for folder in sorted(folders, key=lambda name: name.count(b"/") + bool(name), reverse=True):
        rows = folders[folder]
        data = b"".join(rows[key] for key in sorted(rows))
        ids[folder] = object_id(algorithm, b"tree", data)
        if folder:
            where, _, last = folder.rpartition(b"/")
            folders[where][last + b"/"] = b"40000 %s\0%s" % (last, ids[folder])
    return ids[b""].hex()
