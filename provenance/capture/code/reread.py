"""The code after the run: what it read beside the tracked files, and what changed meanwhile.

Code is an input, so a change of it is a changed input, besides the drift of ``tree`` and
``commit``: of a tracked file, of one that the command names, or of one that the run was seen to
read. What the run itself made is no change: untracked files that were not there before, and files
that it was seen to write and never to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import msgspec

from provenance.capture.code import bytecode
from provenance.capture.code.git import SUBMODULE, free_name, state_of
from provenance.capture.code.source import ObservedSource, digest_of, observe_source
from provenance.capture.code.worktrees import Repository, is_installed, text_of
from provenance.capture.inputs import listed
from provenance.capture.python.records import FileState, Reads
from provenance.files.manifest import FileEntry
from provenance.statement.training import ELSEWHERE, MODEL, ChangedInput, Drift, ProgramFile, Source

MAX_READ = 10_000
"""Most files that the run read which a statement names."""

MAX_READ_BYTES = 2**30
"""Most bytes of them that are hashed, the smallest first: undeclared data may be terabytes."""

CODE = (".py", ".pyc", ".so", ".pyd", ".sh")
ARCHIVES = (".zip", ".egg", ".whl", ".pyz")

_MAX_PACKAGE_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Code:
    """The code, with what the run read of it, and how it changed."""

    observed: ObservedSource
    changed: tuple[ChangedInput, ...]
    drift: tuple[Drift, ...]


_Change = tuple[str, str, FileEntry | bool]
"""The name of an input, that of a file in it, and its entry if it was added, or if it is gone."""


def look_again(
    before: ObservedSource,
    folder: Path,
    reads: Reads,
    *,
    editable: Sequence[tuple[str, Path]] = (),
    interpreter: str = "",
) -> Code:
    """Return the code *before* with what the run *reads* of it, and what is another now.

    *interpreter* is the training's, if the recorder may run it; "" if not.
    """
    after = observe_source(
        folder,
        before.around,
        folders=[
            one.root for one in before.repositories if one.is_git and one.name.startswith("source")
        ],
        files=before.named,
        editable=editable,
        before=before,
    )
    now = {one.root: one for one in after.repositories}
    once = {one.root: one for one in reversed(before.repositories)}  # not the aliases
    changes = list(_changes_of_named(before, once, reads))
    drift: list[Drift] = []
    lost: list[ChangedInput] = []
    for repository in once.values():
        if not repository.count:
            continue
        if (later := now.get(repository.root)) is None:
            lost.append(ChangedInput(repository.name, problem="can no longer be looked at"))
            continue
        for name in ("commit", "tree"):
            start, end = getattr(repository, name), getattr(later, name)
            if start != end:
                drift.append(Drift(repository.name, name, start or None, end or None))
        changes += _changes(repository, later, before, reads)
    # The training's interpreter may be known only after the run, and with it what is editable.
    late = [
        one for root, one in now.items() if one.name.startswith("editable/") and root not in once
    ]
    before = replace(before, repositories=(*before.repositories, *late))
    once |= {one.root: one for one in late}
    read, more, large = _read(before, once, reads, interpreter)
    if large := {path for path in large if not (read[path].sha256 or before.around.hides(path))}:
        what = f"{len(large)} files that the run read were too large to hash: undeclared data?"
        before = before.lacking(what)
    changed = (*lost, *_changed_inputs([*changes, *more]))
    changed = tuple(sorted(changed, key=lambda item: item.name))
    return Code(
        _with_reads(before, once, read), changed, tuple(sorted(drift, key=lambda d: d.collector))
    )


def _only_written(path: str, reads: Reads) -> bool:
    return Path(path) in reads.written and Path(path) not in reads.files


def _changes(
    before: Repository, after: Repository, observed: ObservedSource, reads: Reads
) -> Iterator[_Change]:
    for name, old in before.entries.items():
        new = after.entries.get(name)
        path = f"{before.root}/{os.fsdecode(name)}"
        same = new is not None and (new.mode, new.id) == (old.mode, old.id)
        if same:
            first = reads.files.get(Path(path)) if reads.files else None
            same = first is None or first == old.state or (new is not None and first == new.state)
        if not same and old.mode != SUBMODULE and not _only_written(path, reads):
            yield before.name, text_of(name), new is None
    for name in after.entries.keys() - before.entries.keys():
        path = f"{before.root}/{os.fsdecode(name)}"
        if path in observed.present or _only_written(path, reads):
            continue
        if (sha256 := digest_of(path)) and (state := state_now(Path(path))):
            shown = text_of(name)
            yield before.name, shown, FileEntry(shown, state.size, sha256)


def _changes_of_named(
    before: ObservedSource, repositories: Mapping[Path, Repository], reads: Reads
) -> Iterator[_Change]:
    """Yield the files named by the command that changed, unless git tracks them."""
    for path, file in before.named.items():
        inside = _place(path, repositories)
        if inside is not None and inside[1] in inside[0].entries:
            continue
        now = digest_of(str(path))
        if file.sha256 and now != file.sha256 and not _only_written(str(path), reads):
            yield "source", file.name, not now


def _place(path: Path, repositories: Mapping[Path, Repository]) -> tuple[Repository, bytes] | None:
    """Return the innermost of *repositories* that holds *path*, and the name of *path* in it."""
    root = next((parent for parent in path.parents if parent in repositories), None)
    if root is None:
        return None
    return repositories[root], os.fsencode(os.path.relpath(path, root))


def _read(
    before: ObservedSource, repositories: Mapping[Path, Repository], reads: Reads, interpreter: str
) -> tuple[dict[Path, ProgramFile], list[_Change], set[Path]]:
    """Return the files that were there and that the run read, if no tree and no digest has them.

    With them come their changes, and which are too large to be hashed.
    """
    paths = {
        path
        for path, first in reads.files.items()
        if (str(path) in before.present or first.ctime_ns < before.at)
        and _is_code(path, repositories, before)
    }
    pairs = [(path, source) for path in paths if (source := bytecode.source_of(path))]
    honest = bytecode.honest(pairs, interpreter, before.around.environ, opened=reads.files)
    for path, source in pairs:
        if path in honest:
            paths.discard(path)
            if _is_code(source, repositories, before):
                paths.add(source)
    large = _too_large((path for path in paths if not _is_in_model(path, before)), reads)
    found: dict[Path, ProgramFile] = {}
    changes: list[_Change] = []
    elsewhere: list[tuple[str, str, Path]] = []
    for path in sorted(paths):
        if _is_in_model(path, before):
            name = MODEL + _text(path, before.around.model or path)
            same = state_now(path) == reads.files.get(path) and not before.around.hides(path)
            found[path] = ProgramFile(name, digest_of(str(path)) if same else "")
            continue
        place = _place(path, repositories)
        source_name, name = (place[0].name, text_of(place[1])) if place else ("source", "")
        shown = place[0].prefix + name if place else ELSEWHERE + _module(path)
        sha256, same = _digest(path, shown, before, reads, hashed=path not in large)
        if not same:
            changes.append((source_name, name or shown, not os.path.lexists(path)))
        if place:
            found[path] = ProgramFile(shown, sha256)
        else:
            elsewhere.append((shown, sha256, path))
    taken: set[str] = set()
    for shown, sha256, path in sorted(elsewhere):
        found[path] = ProgramFile(free_name(shown, taken), sha256)
    return found, changes, large


def _is_in_model(path: Path, before: ObservedSource) -> bool:
    return before.around.model is not None and path.is_relative_to(before.around.model)


def _is_code(path: Path, repositories: Mapping[Path, Repository], before: ObservedSource) -> bool:
    """Tell whether nothing else states *path*; outside of the repositories only code counts."""
    if _is_in_model(path, before):
        return True  # what lay there before: a checkpoint from which the run goes on
    if before.around.holds(path) or is_installed(path):
        return False
    place = _place(path, repositories)
    if place is None:
        return path not in before.named and path.suffix in (*CODE, *ARCHIVES)
    repository, name = place
    if repository.count and name in repository.entries:
        return False
    return b".git" not in name.split(b"/") or path.suffix in CODE


def _module(path: Path) -> str:
    """Return the name of *path* in its package: where that lies is nobody's business."""
    top = path.parent
    for _ in range(_MAX_PACKAGE_DEPTH):
        if not top.joinpath("__init__.py").exists():
            break
        top = top.parent
    return _text(path, top)


def _text(path: Path, top: Path) -> str:
    return text_of(os.fsencode(os.path.relpath(path, top)))


def state_now(path: Path) -> FileState | None:
    """Return the state of *path*, or None if it is not there."""
    try:
        return state_of(path.lstat())
    except OSError:
        return None


def _too_large(paths: Iterable[Path], reads: Reads) -> set[Path]:
    """Return the largest of *paths*, which are more than is hashed: data, most likely."""
    sizes = {path: reads.files[path].size for path in paths if path in reads.files}
    ordered = sorted(sizes, key=lambda path: (sizes[path], path))
    totals = accumulate(sizes[path] for path in ordered)
    return {path for path, total in zip(ordered, totals, strict=True) if total > MAX_READ_BYTES}


def _digest(
    path: Path, shown: str, before: ObservedSource, reads: Reads, *, hashed: bool
) -> tuple[str, bool]:
    """Return the digest of *path* as the run read it, and whether it stayed so, as far as known.

    The digest is "" if the file is secret, or is not to be *hashed*.
    """
    known = before.untracked.get(shown, "")
    start, first = before.present.get(str(path)), reads.files.get(path)
    now = state_now(path)
    if known and first is not None and first == start and (now == start or path in reads.written):
        return known, True  # read as it was; then the run may have written it
    sha256 = digest_of(str(path)) if hashed and not before.around.hides(path) else ""
    own = path.suffix not in CODE and path in reads.written
    if own and not known and first == start:
        return "", True  # a cache or a database: nobody knows what it held
    if known and sha256 == known and first in (None, start, now):
        return known, True
    return sha256, (first or start) == now and start in (None, now)


def _changed_inputs(changes: list[_Change]) -> Iterator[ChangedInput]:
    by_name: dict[str, dict[str, FileEntry | bool]] = {}
    for name, file, how in changes:
        by_name.setdefault(name, {})[file] = how
    for name, files in by_name.items():
        rows = sorted(files.items())
        yield listed(
            name,
            changed=[file for file, how in rows if how is False],
            removed=[file for file, how in rows if how is True],
            added=[how for _, how in rows if isinstance(how, FileEntry)],
        )


def _with_reads(
    before: ObservedSource,
    repositories: Mapping[Path, Repository],
    read: Mapping[Path, ProgramFile],
) -> ObservedSource:
    """Return *before* with the files *read*, and with the repositories among them."""
    if not read:
        return before
    roots = {place[0].root for path in read if (place := _place(path, repositories))}
    files = tuple(read.values())
    if len(files) > MAX_READ:
        before = before.lacking(f"the run read {len(files)} untracked files: {MAX_READ} are named")
    return replace(
        before,
        source=msgspec.structs.replace(before.source or Source(), read=files[:MAX_READ]),
        repositories=tuple(
            replace(one, count=one.count or one.root in roots) for one in before.repositories
        ),
    )
