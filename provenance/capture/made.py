"""What the run made: the model's folder, looked at before the run and when it ends.

A file counts as *written* if it has another identity (device, inode, size, mtime or ctime) than any
file of its folder had before the run; nobody can set a ctime. A file that lies under a new name but
was last touched before the run began was moved there, not made.

``--model`` names a folder, or a pattern (``runs/*/``) for the one folder that matches after the run
and that the run wrote to. Both looks keep going past what cannot be read, so that one socket or a
log that is still being written does not cost what is known of the rest: :func:`choose` refuses it.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from provenance.errors import NotMadeError, ProvenanceError, UnreadableError, some_of
from provenance.files.manifest import Manifest, Seen, as_manifest, hash_folder, look_at
from provenance.files.names import RESERVED
from provenance.files.reading import identity
from provenance.files.walking import hub_uri, path_of, walk
from provenance.keys import refuse_private_key, refuse_private_keys

MAX_CANDIDATES = 1000
"""Most folders that a pattern may match."""

_look_at = partial(look_at, ignore=RESERVED)

CLOCK_TICK = 2 * 10**9
"""The coarsest clock of a file system (FAT), in nanoseconds: a ctime may lie that far back."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The folders that may become the model's, as they were when the run ``began``.

    ``named`` is what the user gave, ``target`` where it led; "" for a pattern. ``before`` holds the
    files of each folder; digests only of the one that is named. ``ahead`` tells, by a clock that
    nobody sets, whether the other one was set back meanwhile.
    """

    named: Path
    working_folder: Path
    target: str
    before: Mapping[str, Mapping[str, Seen]]
    began: int
    ahead: int
    link_roots: tuple[Path, ...] = ()


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """The files in a folder when the command had ended, and which of them it did not make."""

    folder: str
    files: dict[str, Seen]
    untouched: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def written(self) -> bool:
        """Whether the run wrote to any of the files."""
        return len(self.untouched) < len(self.files)


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why there is no model that can be signed as it is."""

    what: str
    where: str = ""
    hint: str = ""


class Looks(msgspec.Struct, frozen=True, omit_defaults=True):
    """The folders that the run wrote to, and why they are not just one, or that one unreadable."""

    folders: tuple[Look, ...]
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The model in ``folder``, as :class:`~provenance.statement.training.Outcome` has its files.

    ``uri`` is where a cache says that it is from.
    """

    folder: Path
    manifest: Manifest
    untouched: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    uri: str = ""


def look_before(
    named: Path,
    working_folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    link_roots: tuple[Path, ...] = (),
) -> Candidates:
    """Return the folders that *named*, a path or pattern in *working_folder*, means now."""
    began, ahead = time.time_ns(), _ahead()
    if is_pattern(named, working_folder):
        folders, _ = _matches(named, working_folder)
        before = {folder: _without_digests(folder, link_roots) for folder in folders}
        return Candidates(named, working_folder, "", before, began, ahead, link_roots)
    target = os.path.realpath(working_folder / named)
    files = _look_at(Path(target), link_roots=link_roots, progress=progress, refuse=_overlook)
    return Candidates(named, working_folder, target, {target: files}, began, ahead, link_roots)


def _ahead() -> int:
    return time.time_ns() - time.monotonic_ns()


def is_pattern(named: Path, working_folder: Path) -> bool:
    """Tell whether *named* holds ``*``, ``?`` or ``[``, and is not there itself."""
    return glob.has_magic(str(named)) and not os.path.lexists(working_folder / named)


def look_after(before: Candidates, progress: Callable[[int], None] | None = None) -> Looks:
    """Return what the run wrote: of a pattern all folders, with every file that can be read."""
    before = replace(before, began=before.began + min(0, _ahead() - before.ahead))
    if before.target:
        return _look_at_target(before, progress)
    folders, elsewhere = _matches(before.named, before.working_folder)
    looked: list[tuple[Look, Problem | None]] = []
    for folder in folders:
        now = _without_digests(folder, before.link_roots)
        known = _identities(before.before.get(folder, {}))
        if any(not _is_old(seen, known, before.began - CLOCK_TICK) for seen in now.values()):
            looked.append(_look(folder, before, progress))
    if len(looked) == 1:
        [(look, problem)] = looked
        return Looks((look,), problem)
    looks = tuple(look for look, _ in looked)
    if looks:
        names = some_of([_shown(look.folder, before) for look in looks])
        what = f"the run wrote to {len(looks)} folders that match: {names}"
    elif elsewhere:
        led = some_of(sorted(f"{_shown(link, before)} -> {to}" for link, to in elsewhere.items()))
        what = f"only links match, which lead elsewhere: {led}"
    elif folders:
        names = some_of([_shown(folder, before) for folder in folders])
        what = f"the run wrote to none of the folders that match: {names}"
    else:
        what = "no folder matches"
    return Looks(looks, Problem(what, str(before.named)))


def _look_at_target(before: Candidates, progress: Callable[[int], None] | None) -> Looks:
    look, problem = _look(before.target, before, progress)
    now = os.path.realpath(before.working_folder / before.named)
    if now != before.target:
        old, new = _shown(before.target, before), _shown(now, before)
        what = f"led to {old} before the run, and leads to {new} after it"
        found, _ = _look(now, before, progress)
        looks = tuple(each for each in (look, found) if each.written)
        return Looks(looks, Problem(what, str(before.named)))
    if problem is None and not look.written:
        what = "the run wrote none of its files" if look.files else "holds no files"
        problem = Problem(what, str(before.named))
    return Looks((look,), problem)


def choose(looks: Looks) -> Made:
    """Return the model that the run made; raise NotMadeError, or SecretError for a private key."""
    if looks.problem is not None:
        problem = looks.problem
        raise NotMadeError(problem.what, where=problem.where or None, hint=problem.hint or None)
    [look] = looks.folders
    folder = Path(look.folder)
    refuse_private_keys(folder, look.files)
    return Made(folder, as_manifest(look.files, folder), look.untouched, look.rewritten)


def look_now(
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    link_roots: tuple[Path, ...] = (),
) -> Made:
    """Return the model that is in *folder* now, of which nobody saw how it was made."""
    manifest = hash_folder(
        folder, ignore=RESERVED, link_roots=link_roots, progress=progress, check=refuse_private_key
    )
    return Made(folder, manifest, uri=hub_uri(folder))


def look_again(
    looks: Looks,
    folder: Path,
    progress: Callable[[int], None] | None = None,
    *,
    began: int = 0,
    link_roots: tuple[Path, ...] = (),
) -> Made:
    """Return the model in *folder* now, some time after the run; raise what is wrong with it.

    What is not as it was when the command ended is ``unseen``, unless it was last touched before
    the run *began*, in nanoseconds.
    """
    target = os.path.realpath(folder)
    roots = link_roots
    files = _look_at(Path(target), link_roots=roots, progress=progress, check=refuse_private_key)
    manifest = as_manifest(files, folder)
    look = next((each for each in looks.folders if each.folder == target), Look(target, {}))
    new = {name for name, seen in files.items() if not _same(look.files.get(name), seen)}
    old = {name for name in new if files[name].identity[-1] < began}
    unseen, old = new - old, old | (files.keys() & set(look.untouched) - new)
    if old >= files.keys():
        raise NotMadeError("the run wrote none of its files", where=str(folder))
    return Made(
        Path(target),
        manifest,
        untouched=tuple(sorted(old)),
        rewritten=tuple(name for name in look.rewritten if name in files and name not in unseen),
        unseen=tuple(sorted(unseen)),
    )


def _same(then: Seen | None, now: Seen) -> bool:
    return then is not None and (then.identity == now.identity or then.sha256 == now.sha256)


def _look(
    folder: str, before: Candidates, progress: Callable[[int], None] | None
) -> tuple[Look, Problem | None]:
    """Return the files in *folder* now, as far as they can be read, and what is first wrong."""
    errors: list[ProvenanceError] = []
    roots, place = before.link_roots, Path(folder)
    files = _look_at(place, link_roots=roots, progress=progress, refuse=errors.append)
    old = before.before.get(folder, {})
    looked = folder in before.before or not before.target
    known, since = _identities(old), before.began - CLOCK_TICK if looked else before.began
    untouched = {name for name, seen in files.items() if _is_old(seen, known, since)}
    rewritten = [
        name
        for name, seen in files.items()
        if name not in untouched and name in old and old[name].sha256 == seen.sha256
    ]
    look = Look(folder, files, tuple(sorted(untouched)), tuple(sorted(rewritten)))
    problems = [Problem(each.what, each.where or "", each.hint or "") for each in errors[:1]]
    return look, next(iter(problems), None)


def _is_old(seen: Seen, known: frozenset[tuple[int, ...]], since: int) -> bool:
    """Tell whether a file is one of those *known*, or was last touched before *since*."""
    return seen.identity in known or seen.identity[-1] < since


def _identities(files: Mapping[str, Seen]) -> frozenset[tuple[int, ...]]:
    return frozenset(seen.identity for seen in files.values())


def _without_digests(folder: str, link_roots: tuple[Path, ...]) -> dict[str, Seen]:
    found = {}
    places = walk(Path(folder), ignore=RESERVED, link_roots=link_roots, refuse=_overlook)
    for name, place in places.items():
        try:
            status = os.lstat(path_of(folder, place.file))
        except OSError:  # it is gone
            continue
        found[name] = Seen(status.st_size, "", identity(status))
    return found


def _overlook(_: ProvenanceError) -> None:
    """Go on: what is wrong with a folder before the run is no matter, the run may replace it."""


def _matches(pattern: Path, working_folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the real folders that match, and where links lead that match and leave them."""
    found: list[str] = []
    links: dict[str, str] = {}
    beginning = working_folder / _fixed_part(pattern)
    # Path.glob finds hidden folders too, of which a shell's user does not think.
    for name in glob.iglob(str(pattern), root_dir=working_folder):  # noqa: PTH207 - see above
        path = working_folder / name
        if not path.is_dir():
            continue
        if len(found) + len(links) == MAX_CANDIDATES:
            what = f"matches more than {MAX_CANDIDATES} folders"
            raise UnreadableError(what, where=str(pattern), hint="narrow the pattern")
        target, rest = os.path.realpath(path), os.path.relpath(path, beginning)
        if target == os.path.normpath(f"{os.path.realpath(beginning)}/{rest}"):
            found.append(target)
        else:
            links[str(path)] = target
    elsewhere = {link: target for link, target in sorted(links.items()) if target not in found}
    return sorted(found), elsewhere


def _fixed_part(pattern: Path) -> Path:
    """Return the folder that *pattern* begins with, before its first part that varies."""
    parts = pattern.parts
    fixed = next((n for n, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])


def _shown(folder: str, before: Candidates) -> str:
    """Return *folder* from the working folder, if it is below that."""
    top = os.path.realpath(before.working_folder)
    return os.path.relpath(folder, top) if Path(folder).is_relative_to(top) else folder
