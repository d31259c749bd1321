"""The code: commits, the git trees of tracked files, what lies beside them, and named files.

Observed are the repositories of the working folder and of the files that the command names, with
their submodules, and the folders of editable distributions. A repository inside one of them that is
no submodule is a folder of untracked files; it is described if the run read files in it.

Untracked files are listed with their digests. Which of them are code is known only after the run
(:mod:`provenance.capture.code.reread`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from provenance.capture.code.git import LINK, GitError, find_root, free_name, is_bare, state_of
from provenance.capture.code.worktrees import (
    MAX_PRESENT,
    PYTHON,
    Observer,
    Repository,
    Surroundings,
    is_installed,
    text_of,
    walk,
)
from provenance.capture.python.records import FileState
from provenance.encoding import strict_json
from provenance.errors import UnreadableError
from provenance.files.digest import hash_file
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected, ProgramFile, Source

MAX_LISTED = 1000
"""Most untracked files that a statement names; its digest covers all."""

MAX_HASHED_FILES = 10_000
MAX_HASHED_BYTES = 2**30
"""Most untracked files, and bytes of them, that are hashed (1 to 2 s), the smallest first."""

MAX_LINKS = 64
"""Most tracked links that are followed out of the repositories."""

MAX_PROBLEMS = 8
"""Most reasons that a statement gives; the rest is counted."""

OUTSIDE = ".."
"""``Source.folder`` of a command that ran outside of the repository."""


@dataclass(frozen=True, slots=True)
class ObservedSource:
    """The source, its repositories, and how well they could be observed.

    ``hint`` is the way out of what is wrong, for a terminal: it may hold paths. ``named`` are
    ``source.files`` by their real paths. ``untracked`` are digests by name, "" where the name says
    that the file is secret and where there was no room to hash it: that is ``unhashed`` files.
    ``present`` are the files that were there ``at`` this time (ns since 1970), by their paths.
    """

    source: Source | None
    repositories: tuple[Repository, ...]
    collected: Collected
    hint: str = ""
    around: Surroundings = field(default_factory=lambda: Surroundings({}))
    named: Mapping[Path, ProgramFile] = field(default_factory=dict)
    untracked: Mapping[str, str] = field(default_factory=dict)
    unhashed: int = 0
    present: Mapping[str, FileState] = field(default_factory=dict)
    at: int = 0

    def lacking(self, what: str, hint: str = "") -> ObservedSource:
        """Return this source with the reason *what* why it is not whole, and the way out."""
        reason = "; ".join(filter(None, (self.collected.reason, what)))
        collected = Collected("error", self.collected.values, reason)
        return replace(self, collected=collected, hint=hint or self.hint)

    @property
    def collectors(self) -> dict[str, Collected]:
        """The collectors ``source`` and ``untracked``."""
        if not self.repositories:
            return {"source": self.collected}
        rows = sorted(self.untracked.items())
        values = {
            "count": len(rows),
            "files": dict(rows[:MAX_LISTED]),
            "digest": hashlib.sha256(strict_json.format(list(map(list, rows)))).hexdigest(),
        }
        if self.unhashed:
            values["unhashed"] = self.unhashed
        return {"source": self.collected, "untracked": Collected("ok", values)}


def observe_source(
    folder: Path,
    around: Surroundings,
    *,
    files: Mapping[Path, ProgramFile] | None = None,
    folders: Sequence[Path] = (),
    editable: Sequence[tuple[str, Path]] = (),
    before: ObservedSource | None = None,
) -> ObservedSource:
    """Return the code in *folder*, of *files*, and of *editable* distributions. Never raises.

    The program may change to one of *folders*. What a tracked link outside of all repositories
    leads to counts as if the command named it, or as if it were an editable distribution.
    Files with the times that they had *before* are not hashed again, and untracked ones not at all.
    """
    at, files = time.time_ns(), files or {}
    known = {one.root: one for one in before.repositories} if before else {}
    observer = Observer(around, known, before.at if before else 0)
    places = (folder, *(path.parent for path in files), *folders)
    failed = _observe_tops(observer, places)
    linked, behind = _behind_links(observer)
    files, editable = {**linked, **files}, [*editable, *behind]
    source = _describe(folder, tuple(observer.found.values()), tuple(files.values()))
    outside = not observer.found and failed is None
    for name, path in editable:
        _observe_editable(observer, name, path)
    if outside:
        bare = is_bare(folder)
        what = "a bare repository has no work tree" if bare else "not in a git repository"
        reasons = "; ".join([what, *observer.problems[:MAX_PROBLEMS]])
        collected = Collected("error" if bare else "absent", reason=reasons)
    else:
        collected = _collected(len(observer.found), observer.problems, failed)
    observed = ObservedSource(
        source,
        (*observer.found.values(), *observer.aliases),
        collected,
        hint=(failed.hint if failed else None) or "",
        around=around,
        named=files,
        at=at,
    )
    if before is not None:
        return observed
    tops = [root for root in observer.found if not observer.found.keys() & set(root.parents)]
    inside = itertools.chain.from_iterable(walk(root, around) for root in tops)
    present = {path: state_of(status) for path, status in itertools.islice(inside, MAX_PRESENT)}
    untracked, unhashed = _hash_untracked(observer.untracked, present, around)
    return replace(observed, present=present, untracked=untracked, unhashed=unhashed)


def _observe_tops(observer: Observer, places: Iterable[Path]) -> GitError | None:
    """Observe the repositories in which *places* are, and return the first error."""
    failed: dict[Path, GitError] = {}
    for place in places:
        root = find_root(place)
        if root is None or root in observer.found or root in failed:
            continue
        try:
            observer.observe(root, *_name_of(root, observer.found))
        except GitError as error:
            failed[root] = error
    return next(iter(failed.values()), None)


def _name_of(root: Path, found: Mapping[Path, Repository]) -> tuple[str, str]:
    """Return the name of the repository *root* beside those *found*, and the prefix of its files.

    One that is not inside the first is ``../NAME``.
    """
    if not found:
        return "source", ""
    outermost = next(iter(found))
    name = os.path.relpath(root, outermost)
    if not root.is_relative_to(outermost):
        taken = {repository.name.removeprefix("source/") for repository in found.values()}
        name = free_name(f"../{root.name}", taken)
    return f"source/{name}", f"{name}/"


def _behind_links(observer: Observer) -> tuple[dict[Path, ProgramFile], list[tuple[str, Path]]]:
    """Return the Python files and the folders outside of all repositories that tracked links name.

    git keeps only where a link leads.
    """
    files: dict[Path, ProgramFile] = {}
    folders: list[tuple[str, Path]] = []
    for repository in list(observer.found.values()):
        for name, entry in repository.entries.items():
            if entry.mode != LINK or len(files) + len(folders) >= MAX_LINKS:
                continue
            real = Path(os.path.realpath(repository.root / os.fsdecode(name)))
            inside = observer.found.keys() & {real, *real.parents}
            if inside or observer.around.holds(real) or is_installed(real):
                continue
            shown = repository.prefix + text_of(name)
            first = itertools.islice(walk(real, observer.around), MAX_HASHED_FILES)
            python = (path for path, _ in first if path.endswith(PYTHON))
            if os.path.isdir(real) and any(python):  # noqa: PTH112 - never raises
                folders.append((shown, real))
            elif os.path.isfile(real) and real.name.endswith(PYTHON):  # noqa: PTH113 - as above
                files[real] = ProgramFile(shown, digest_of(str(real)))
    return files, folders


def _describe(
    folder: Path, repositories: tuple[Repository, ...], files: tuple[ProgramFile, ...]
) -> Source | None:
    if not repositories:
        return Source(files=files) if files else None
    outermost = repositories[0]
    home = Path(os.path.realpath(folder))
    inside = home.is_relative_to(outermost.root)
    where = os.path.relpath(home, outermost.root) if inside else OUTSIDE
    return Source(
        commit=outermost.commit,
        tree=outermost.tree,
        dirty=any(repository.dirty for repository in repositories if repository.count),
        folder="" if where == "." else where,
        uri=outermost.uri,
        files=files,
    )


def _collected(repositories: int, problems: Sequence[str], failed: GitError | None) -> Collected:
    reasons = [*([failed.what] if failed else []), *problems]
    shown = "; ".join(reasons[:MAX_PROBLEMS])
    if len(reasons) > MAX_PROBLEMS:
        shown += f"; and {len(reasons) - MAX_PROBLEMS} more"
    status = failed.status if failed else "error" if reasons else "ok"
    return Collected(status, {"repositories": repositories} if repositories else {}, shown)


def _observe_editable(observer: Observer, name: str, path: Path) -> None:
    """Observe the folder *path* of the distribution *name*, unless a repository found covers it."""
    path, name = Path(os.path.realpath(path)), f"editable/{name}"
    if not os.path.isdir(path) or path == Path("/"):  # noqa: PTH112 - never raises
        return
    root = find_root(path)
    if root is not None and root not in observer.found:
        try:
            observer.observe(root, name, f"{name}/")
        except GitError as error:
            observer.problems.append(f"{name}: {error.what}")
    if root in observer.found:
        below = b"" if path == root else os.fsencode(os.path.relpath(path, root)) + b"/"
        repository = observer.found[root]
        if any(file.startswith(below) for file in repository.entries):
            if not repository.count:
                observer.found[root] = replace(repository, name=name, count=True)
            elif repository.name.startswith("editable/") and repository.name != name:
                observer.aliases.append(replace(repository, name=name))
            return
    observer.observe_folder(path, name)


def _hash_untracked(
    files: Mapping[str, str], present: Mapping[str, FileState], around: Surroundings
) -> tuple[dict[str, str], int]:
    """Return the digests of *files*, paths by name, and how many there was no room for."""
    sizes = {name: present[path].size if path in present else 0 for name, path in files.items()}
    digests = dict.fromkeys(files, "")
    room = MAX_HASHED_BYTES
    hashed = 0
    shown = [name for name in files if not around.hides(files[name])]
    for name in sorted(shown, key=lambda name: (sizes[name], name)):
        room -= sizes[name]
        if room < 0 or hashed == MAX_HASHED_FILES:
            continue
        digests[name] = digest_of(files[name])
        hashed += 1
    return digests, len(shown) - hashed


def digest_of(path: str) -> str:
    """Return the SHA-256 of the file *path*, or of a link's target; "" if there is neither."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()  # noqa: PTH115 - str
        return hash_file(path)[0]
    except (OSError, UnreadableError):
        return ""


def describe_repositories(repositories: Iterable[Repository]) -> list[ResourceDescriptor]:
    """Return *repositories* as dependencies.

    A digest set matches if any digest in it does, so a commit is a digest only if there are no
    uncommitted changes; else it is an annotation.
    """
    described = []
    for repository in (each for each in repositories if each.count):
        digest = {"gitTree": repository.tree}
        annotations: dict[str, object] = {}
        if not repository.is_git:
            annotations["pythonFiles"] = len(repository.entries)
        elif repository.dirty:
            annotations["baseCommit"] = repository.commit or None
        else:
            digest["gitCommit"] = repository.commit
        uri = f"git+{repository.uri}" if repository.uri else ""
        name = repository.name
        described.append(ResourceDescriptor(name, uri, digest, annotations=annotations))
    return described
