"""The code: commits, the git trees of tracked files, what lies beside them, and named files.

Observed are the repositories of the working folder and of the files that the command names, with
their submodules, and the folders of editable distributions. A repository inside one of them that is
no submodule is a folder of untracked files; it is described if the run read files in it.

Untracked files are listed with their digests. Which of them are code is known only after the run
(:mod:`provenance.capture.reread`).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.capture.git import GitError, find_root, is_bare, state_of
from provenance.capture.secrets import is_secret_file
from provenance.capture.worktrees import (
    MAX_PRESENT,
    Observer,
    Repository,
    Surroundings,
    walk,
)
from provenance.encoding import strict_json
from provenance.errors import UnreadableError
from provenance.files.digest import hash_file
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected, ProgramFile, Source

if TYPE_CHECKING:
    from provenance.capture.records import FileState

MAX_PROGRAM_FILES = 256
"""Most files taken from one command line."""

MAX_LISTED = 1000
"""Most untracked files that a statement names; its digest covers all."""

MAX_HASHED_FILES = 10_000
MAX_HASHED_BYTES = 2**30
"""Most untracked files, and bytes of them, that are hashed (1 to 2 s), the smallest first."""

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

    @property
    def collectors(self) -> dict[str, Collected]:
        """The collectors ``source`` and ``untracked``."""
        if not self.repositories:
            return {"source": self.collected}
        rows = ([name, self.untracked[name]] for name in sorted(self.untracked))
        digest = hashlib.sha256(b"[")
        for number, row in enumerate(rows):
            digest.update(b"," * bool(number) + strict_json.format(row))
        digest.update(b"]")
        listed = sorted(self.untracked.items())[:MAX_LISTED]
        values = {
            "count": len(self.untracked),
            "files": dict(listed),
            "digest": digest.hexdigest(),
        }
        if self.unhashed:
            values["unhashed"] = self.unhashed
        return {"source": self.collected, "untracked": Collected("ok", values)}


def observe_source(
    folder: Path,
    around: Surroundings,
    *,
    files: Mapping[Path, ProgramFile] | None = None,
    editable: Sequence[tuple[str, Path]] = (),
    before: ObservedSource | None = None,
) -> ObservedSource:
    """Return the code in *folder*, of *files*, and of *editable* distributions. Never raises.

    Files with the times that they had *before* are not hashed again, and untracked ones not at all.
    """
    at, files = time.time_ns(), files or {}
    known = {one.root: one for one in before.repositories} if before else {}
    observer = Observer(around, known, before.at if before else 0)
    failed = _observe_tops(observer, (folder, *(path.parent for path in files)))
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
    present = _present(observer)
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
        taken = {repository.name for repository in found.values()}
        names = (f"../{root.name}" + f" ({n})" * (n > 1) for n in itertools.count(1))
        name = next(free for free in names if f"source/{free}" not in taken)
    return f"source/{name}", f"{name}/"


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
    if not path.is_dir() or path == Path("/"):
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


def _present(observer: Observer) -> dict[str, FileState]:
    """Return the state of every file in the outermost repositories."""
    tops = [root for root in observer.found if not observer.found.keys() & set(root.parents)]
    files = itertools.chain.from_iterable(walk(root, observer.around) for root in tops)
    return {path: state_of(status) for path, status in itertools.islice(files, MAX_PRESENT)}


def _hash_untracked(
    files: Mapping[str, str], present: Mapping[str, FileState], around: Surroundings
) -> tuple[dict[str, str], int]:
    """Return the digests of *files*, paths by name, and how many there was no room for."""
    sizes = {name: present[path].size if path in present else 0 for name, path in files.items()}
    digests = dict.fromkeys(files, "")
    room = MAX_HASHED_BYTES
    hashed = 0
    for name in sorted(files, key=lambda name: (sizes[name], name)):
        if around.hides(files[name]):
            continue
        room -= sizes[name]
        if room < 0 or hashed == MAX_HASHED_FILES:
            continue
        digests[name] = digest_of(files[name])
        hashed += 1
    secret = sum(map(around.hides, files.values()))
    return digests, len(files) - secret - hashed


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
    for repository in repositories:
        if not repository.count:
            continue
        digest = {"gitTree": repository.tree}
        annotations: dict[str, object] = {}
        if not repository.is_git:
            annotations["pythonFiles"] = len(repository.entries)
        elif repository.dirty:
            annotations["baseCommit"] = repository.commit or None
        else:
            digest["gitCommit"] = repository.commit
        uri = f"git+{repository.uri}" if repository.uri else ""
        described.append(
            ResourceDescriptor(
                name=repository.name, uri=uri, digest=digest, annotations=annotations
            )
        )
    return described


def program_files(
    command: Sequence[str],
    folder: Path,
    *,
    leave_out: Callable[[Path], bool],
    redacted: Collection[int] = (),
) -> dict[Path, ProgramFile]:
    """Return the files that *command* names by real path, except where *leave_out* is true.

    Considered are the first word if it is a path, every argument, the value of each
    ``--option=VALUE``, and the module of ``-m MODULE`` if *folder* has it. A file outside *folder*
    is named by its last name, with a number if that is taken. Arguments with the indices
    *redacted* are skipped: a digest of a file that holds a password helps to guess it.
    """
    found: dict[Path, ProgramFile] = {}
    taken: set[str] = set()
    for word in _words(command, redacted):
        path = folder / word
        if not os.path.isfile(path) or len(found) == MAX_PROGRAM_FILES:  # noqa: PTH113 - never raises
            continue
        real = Path(os.path.realpath(path))
        if real in found or leave_out(real):
            continue
        home = os.path.realpath(folder)
        name = os.path.relpath(real, home) if real.is_relative_to(home) else real.name
        if name in taken:
            numbered = (f"{name} ({number})" for number in itertools.count(2))
            name = next(free for free in numbered if free not in taken)
        taken.add(name)
        found[real] = ProgramFile(name, "" if is_secret_file(name) else hash_file(real)[0])
    return dict(sorted(found.items(), key=lambda item: item[1].name))


def redacted_files(
    command: Sequence[str], folder: Path, redacted: Collection[int]
) -> frozenset[str]:
    """Return the real paths that the arguments *redacted* may name."""
    others = set(range(len(command))).difference(redacted)
    words = _words(("", *command[1:]), others)
    return frozenset(os.path.realpath(folder / word) for word in words)


def _words(command: Sequence[str], redacted: Collection[int]) -> list[str]:
    words = [word for word in command[:1] if "/" in word]
    for number, argument in enumerate(command[1:], 1):
        if number in redacted:
            continue
        words.append(argument)
        _, equals, value = argument.partition("=")
        if equals:
            words.append(value)
        if command[number - 1] == "-m":
            module = argument.replace(".", "/")
            words += [f"{module}.py", f"{module}/__main__.py"]
    return [word for word in words if word and "\0" not in word]
