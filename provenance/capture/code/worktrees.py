"""The repositories in which the code lies: their trees, and what lies beside the tracked files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from provenance.capture.code.checkout import as_checked_out
from provenance.capture.code.git import (
    FILE,
    PROGRAM,
    SUBMODULE,
    Entry,
    Git,
    GitError,
    Listing,
    committed_below,
    list_work_tree,
    look,
    open_git,
    settings_of,
    tree_of,
)
from provenance.capture.secrecy.redact import public_remote
from provenance.capture.secrecy.secrets import is_secret_file
from provenance.errors import UnreadableError
from provenance.keys import is_private_key

MAX_REPOSITORIES = 256
"""Most repositories that are observed, on all levels."""

MAX_PRESENT = 200_000
"""Most files whose times are noted (1 s), to tell later what was there before the run."""

MAX_PYTHON_FILES = 20_000
MAX_PYTHON_BYTES = 2**30
"""Most files, and bytes, of a folder of code without a repository."""

_FRESH_NS = 2 * 10**9
"""A file that was written this short before it was hashed is not known again by its times."""

PYTHON = (".py", ".pyi", ".pyx", ".pxd", ".so", ".pyd")
_SITES = frozenset({"site-packages", "dist-packages"})
_OF_ENVIRONMENTS = frozenset({"lib", "lib64", "bin", "include", "share", "etc", "pkgs"})


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository, or a folder of Python files without one (``commit`` is "").

    ``name`` is its name among the dependencies; the names of its files follow ``prefix``. One that
    does not ``count`` is no submodule: it is described only if the run read files in it. If it
    is ``dirty``, ``changed`` names the files that are not as committed.
    """

    name: str
    prefix: str
    root: Path
    commit: str = ""
    tree: str = ""
    dirty: bool = False
    changed: tuple[str, ...] = ()
    uri: str = ""
    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    algorithm: str = "sha1"
    count: bool = True
    is_git: bool = True


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The training's ``environ``, its ``model``, what else is ``known``, and ``secret`` files.

    All paths are without links.
    """

    environ: Mapping[str, str]
    model: Path | None = None
    known: frozenset[str] = frozenset()
    below: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        environ: Mapping[str, str],
        model: Path | None = None,
        known: Iterable[Path] = (),
        secret: frozenset[str] = frozenset(),
        files: Iterable[str] = (),
    ) -> Surroundings:
        """Return these, with links resolved; *files* are known, too, and are resolved already."""
        paths = frozenset(os.path.realpath(path) for path in (*known, *([model] if model else [])))
        return cls(environ, model, paths.union(files), tuple(f"{path}/" for path in paths), secret)

    def holds(self, path: str | Path) -> bool:
        """Tell whether *path*, without links in it, is in the model or in what is known."""
        return str(path) in self.known or str(path).startswith(self.below)

    def hides(self, path: str | Path) -> bool:
        """Tell whether a digest of *path* must not be published: it helps to guess a secret."""
        name = str(path)
        return name in self.secret or is_secret_file(name) or is_private_key(Path(path))


@dataclass(frozen=True, slots=True)
class Observer:
    """Observes repositories into ``found``, by their roots, outer ones first.

    Those ``before`` were observed at the time ``at`` (ns since 1970); their files are not read
    again if they have the same times. ``aliases`` are of those found, with another name.
    """

    around: Surroundings
    before: Mapping[Path, Repository] = field(default_factory=dict)
    at: int = 0
    found: dict[Path, Repository] = field(default_factory=dict)
    untracked: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    aliases: list[Repository] = field(default_factory=list)

    def observe(self, root: Path, name: str, prefix: str, *, count: bool = True) -> Repository:
        """Observe the repository *root* and those in it, or raise GitError."""
        if len(self.found) >= MAX_REPOSITORIES:
            raise GitError(f"more than {MAX_REPOSITORIES} repositories")
        git = open_git(root, self.around.environ)
        listing = list_work_tree(git)
        settings = settings_of(git)
        uri = public_remote(settings.get("remote.origin.url", ""))
        blank = Repository(
            name, prefix, root, git.commit, uri=uri, algorithm=git.algorithm, count=count
        )
        self.found[root] = blank
        try:
            entries = self._entries(git, listing, blank)
            if settings.get("core.filemode") == "false":
                entries = _with_modes_of(listing.tracked, entries)
        except (GitError, OSError) as error:
            del self.found[root]
            raise error if isinstance(error, GitError) else GitError(str(error)) from error
        tree = tree_of(entries, git.algorithm)
        changed = _changed(git, entries) if tree != git.tree else ()
        found = replace(blank, entries=entries, tree=tree, dirty=tree != git.tree, changed=changed)
        self.found[root] = found
        if not self.before:  # after the run they are of no interest
            self._note_untracked(listing, found)
        return found

    def _entries(self, git: Git, listing: Listing, repository: Repository) -> dict[bytes, Entry]:
        index = dict(listing.tracked)
        kept: dict[bytes, Entry] = {}
        if (inside := _relative(self.around.model, git.folder)) is not None:
            if inside == ".":
                text = "the model folder is the whole work tree: only the commit is recorded"
                self.problems.append(repository.prefix + text)
            below = b"" if inside == "." else os.fsencode(inside) + b"/"
            held = [name for name in index if name.startswith(below)]
            for name in held:
                del index[name]
            kept = committed_below(git, inside) if held and git.commit else {}
        entries = {}
        for name, staged in index.items():
            if staged.mode == SUBMODULE:
                entry = self._submodule(git, name, staged, repository)
            elif name in listing.omitted and not os.path.lexists(git.folder / os.fsdecode(name)):
                entry = staged
            else:
                entry = self._look(repository, name)
            if entry is not None:
                entries[name] = entry
        differing = {name: entry for name, entry in entries.items() if entry.id != index[name].id}
        return entries | as_checked_out(git, differing, index) | kept

    def _look(self, repository: Repository, name: bytes) -> Entry | None:
        old = self.before.get(repository.root)
        entry = old.entries.get(name) if old else None
        if entry and entry.state and entry.state.ctime_ns + _FRESH_NS > self.at:
            entry = None
        try:
            return look(repository.root, name, repository.algorithm, entry)
        except UnreadableError as error:
            self.problems.append(f"{repository.prefix}{text_of(name)}: {error.what}")
            return None

    def _submodule(self, git: Git, name: bytes, staged: Entry, outer: Repository) -> Entry | None:
        """Return the commit that the submodule *name* has; None if something else lies there."""
        below = git.folder / os.fsdecode(name)
        shown = outer.prefix + text_of(name)
        if os.path.lexists(below / ".git"):
            try:
                name_of_it = f"{outer.name}/{text_of(name)}"
                inner = self.observe(below, name_of_it, f"{shown}/", count=outer.count)
            except GitError as error:
                self.problems.append(f"{shown}: {error.what}")
                return staged
            return replace(staged, id=inner.commit or staged.id)
        if os.path.islink(below) or not os.path.isdir(below):  # noqa: PTH112, PTH114 - never raise
            return self._look(outer, name)
        with os.scandir(below) as rows:
            if not any(rows):
                return staged  # not checked out
        self.problems.append(f"{shown}: the submodule's folder holds files, but no repository")
        return None

    def _note_untracked(self, listing: Listing, repository: Repository) -> None:
        """Note the untracked files of *repository*, and those of the repositories among them."""
        names = list(listing.untracked)
        if not repository.count:
            names += [name for name, entry in repository.entries.items() if entry.mode != SUBMODULE]
        for name in names:
            path = f"{repository.root}/{os.fsdecode(name)}".rstrip("/")
            shown = repository.prefix + text_of(name)
            if b"__pycache__" in name.split(b"/") or self.around.holds(path):
                continue
            if not name.endswith(b"/"):
                self.untracked[shown] = path
                continue
            try:
                inner = f"{repository.name}/{text_of(name)}".rstrip("/")
                self.observe(Path(path), inner, shown, count=False)
            except GitError as error:
                self.problems.append(f"{shown}: {error.what}")

    def observe_folder(self, root: Path, name: str) -> None:
        """Observe the Python files below *root*, which is in no repository."""
        entries: dict[bytes, Entry] = {}
        blank = Repository(name, f"{name}/", root, is_git=False)
        left = MAX_PYTHON_BYTES
        for path, status in itertools.islice(walk(root, self.around), MAX_PRESENT):
            if not path.endswith(PYTHON) or "__pycache__" in path:
                continue
            left -= status.st_size
            if len(entries) == MAX_PYTHON_FILES or left < 0:
                self.problems.append(f"{name}: not all of its Python files were looked at")
                break
            relative = os.fsencode(os.path.relpath(path, root))
            if (entry := self._look(blank, relative)) is not None:
                entries[relative] = entry
        self.found[root] = replace(blank, entries=entries, tree=tree_of(entries, blank.algorithm))


def _changed(git: Git, entries: Mapping[bytes, Entry]) -> tuple[str, ...]:
    """Return the tracked files that are not as the commit has them, or not in one of the two."""
    committed = committed_below(git, ".") if git.commit else {}
    then, now = ({n: (e.mode, e.id) for n, e in side.items()} for side in (committed, entries))
    names = sorted(then.keys() | now.keys())
    return tuple(text_of(name) for name in names if then.get(name) != now.get(name))


def walk(root: Path, around: Surroundings) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the regular files below *root*, without what git keeps, installed software, and data.

    What cannot be read is left out.
    """
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as rows:
                inside = sorted(rows, key=lambda row: row.name)
        except OSError:
            continue
        names = {row.name for row in inside}
        installed = _OF_ENVIRONMENTS if names & {"pyvenv.cfg", "conda-meta"} else frozenset()
        for row in inside:
            try:
                if row.is_dir(follow_symlinks=False):
                    if row.name not in {".git", *installed} and not around.holds(row.path):
                        waiting.append(row.path)
                elif row.is_file(follow_symlinks=False):
                    yield row.path, row.stat(follow_symlinks=False)
            except OSError:
                continue


def is_installed(path: Path) -> bool:
    """Tell whether *path* is in an environment's folders of installed software.

    Python code is installed in ``site-packages`` alone: a stray ``pyvenv.cfg`` hides no ``lib/``.
    """
    if path.suffix in (*PYTHON, ".pyc") and not _SITES & set(path.parts):
        return False
    inside = zip(path.parents, (path, *path.parents), strict=False)
    return any(
        below.name in _OF_ENVIRONMENTS
        and any(os.path.exists(parent / mark) for mark in ("pyvenv.cfg", "conda-meta"))  # noqa: PTH110 - never raises
        for parent, below in inside
    )


def text_of(name: bytes) -> str:
    r"""Return *name* as text: ``\\`` stands for a backslash, ``\xff`` for what is not UTF-8."""
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def _relative(path: Path | None, root: Path) -> str | None:
    """Return where *path* is below *root*, with links resolved, or None."""
    if path is None:
        return None
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    return os.path.relpath(real, root) if real.is_relative_to(root) else None


def _with_modes_of(index: Mapping[bytes, Entry], entries: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Return *entries* with the modes of *index* if the file system keeps none: all are alike."""
    modes = {entry.mode for entry in entries.values() if entry.mode in (FILE, PROGRAM)}
    if len(modes) != 1:
        return entries
    return {
        name: replace(entry, mode=index[name].mode)
        if name in index and entry.mode in (FILE, PROGRAM) and index[name].mode in (FILE, PROGRAM)
        else entry
        for name, entry in entries.items()
    }
