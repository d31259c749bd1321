"""The code: a commit, the git tree of the work tree, and the files that the command names.

In a git repository the tree covers everything (:mod:`provenance.capture.git`); submodules and
nested repositories have their own. Elsewhere only the files that the command names are known.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from provenance.capture.git import Git, GitError, commit_of_head, open_git, tree_of_work_tree
from provenance.capture.redact import public_remote
from provenance.files.digest import hash_file
from provenance.statement.intoto import ResourceDescriptor
from provenance.statement.training import Collected, ProgramFile, Source

MAX_SUBMODULES = 256
"""Most repositories inside a work tree that are observed, on all levels."""

MAX_PROGRAM_FILES = 256
"""Most files taken from one command line."""


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository; ``path`` is relative to the outermost one, ``.`` for that itself."""

    path: str
    commit: str
    tree: str
    dirty: bool
    uri: str
    folder: str = ""


@dataclass(frozen=True, slots=True)
class ObservedSource:
    """The source, its repositories, and how well they could be observed."""

    source: Source | None
    repositories: tuple[Repository, ...]
    collected: Collected


def observe_source(
    folder: Path,
    environ: Mapping[str, str],
    *,
    model: Path | None = None,
    files: tuple[ProgramFile, ...] = (),
) -> ObservedSource:
    """Return the code in *folder*, except what is in *model*, and *files*. Never raises."""
    try:
        top, prefix = _open_work_tree(folder, environ)
        repositories, problems = _observe_all(top, prefix, environ, model)
    except GitError as error:
        collected = Collected(error.status, reason=error.what)
        return ObservedSource(Source(files=files) if files else None, (), collected)
    outermost = repositories[0]
    source = Source(
        commit=outermost.commit,
        tree=outermost.tree,
        dirty=any(repository.dirty for repository in repositories),
        folder=outermost.folder,
        uri=outermost.uri,
        files=files,
    )
    values = {"repositories": len(repositories)}
    collected = Collected("error" if problems else "ok", values, reason="; ".join(problems))
    return ObservedSource(source, repositories, collected)


def _open_work_tree(folder: Path, environ: Mapping[str, str]) -> tuple[Git, str]:
    """Return git at the root of *folder*'s work tree, and the path of *folder* in it."""
    git = open_git(folder, environ)
    if git.line("rev-parse", "--is-inside-work-tree") != "true":
        raise GitError("a bare repository has no work tree")
    prefix = git.line("rev-parse", "--show-prefix").rstrip("/")
    top = Path(git.line("rev-parse", "--show-toplevel"))
    return replace(git, folder=top), prefix


def _observe_all(
    top: Git, prefix: str, environ: Mapping[str, str], model: Path | None
) -> tuple[tuple[Repository, ...], list[str]]:
    """Return the repository *top* and those inside it, outermost first, and any problems."""
    found: list[Repository] = []
    problems: list[str] = []
    waiting: list[tuple[Git, str]] = [(top, ".")]
    while waiting:
        git, path = waiting.pop(0)
        if len(found) == MAX_SUBMODULES:
            problems.append(f"more than {MAX_SUBMODULES} repositories")
            break
        try:
            if path != ".":
                git, _ = _open_work_tree(git.folder, environ)
            repository, inner, note = _observe_one(git, path, model)
        except GitError as error:
            if path == ".":
                raise
            problems.append(f"{path}: {error.what}")
            continue
        found.append(repository)
        problems.extend(note)
        for name in inner:
            below = git.folder / name
            if below.joinpath(".git").exists() and not _is_below(below, model):
                outer = name if path == "." else f"{path}/{name}"
                waiting.append((replace(git, folder=below), outer))
    return (replace(found[0], folder=prefix), *found[1:]), problems


def _observe_one(
    git: Git, path: str, model: Path | None
) -> tuple[Repository, list[str], list[str]]:
    commit = commit_of_head(git)
    as_committed = None
    notes: list[str] = []
    if _is_below(model, git.folder):
        as_committed = os.path.relpath(os.path.realpath(model or "."), os.path.realpath(git.folder))
        if as_committed == ".":
            notes.append("the model folder is the whole work tree: only the commit is recorded")
    tree, inner = tree_of_work_tree(git, as_committed=as_committed)
    committed = git.line("rev-parse", f"{commit}^{{tree}}") if commit else ""
    remote = public_remote(git.line("config", "--get", "remote.origin.url", expect=(0, 1)))
    return Repository(path, commit, tree, tree != committed, remote), inner, notes


def _is_below(path: Path | None, folder: Path | None) -> bool:
    """Tell whether *path* is *folder* or in it, with links resolved."""
    if path is None or folder is None:
        return False
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def describe_repositories(repositories: tuple[Repository, ...]) -> list[ResourceDescriptor]:
    """Return *repositories* as dependencies.

    A digest set matches if any digest in it does, so a commit is a digest only if there are no
    uncommitted changes; else it is an annotation.
    """
    described = []
    for repository in repositories:
        digest = {"gitTree": repository.tree}
        annotations = {}
        if repository.dirty:
            annotations["baseCommit"] = repository.commit or None
        else:
            digest["gitCommit"] = repository.commit
        name = "source" if repository.path == "." else f"source/{repository.path}"
        uri = f"git+{repository.uri}" if repository.uri else ""
        described.append(
            ResourceDescriptor(name=name, uri=uri, digest=digest, annotations=annotations)
        )
    return described


def program_files(
    command: Sequence[str],
    folder: Path,
    *,
    leave_out: Callable[[Path], bool],
    redacted: Collection[int] = (),
) -> tuple[ProgramFile, ...]:
    """Return the files that *command* names, except those for which *leave_out* is true.

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
        found[real] = ProgramFile(name, hash_file(real)[0])
    return tuple(sorted(found.values(), key=lambda file: file.name))


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
