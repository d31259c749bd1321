"""The files below a folder, those behind symbolic links too.

A link counts as what it leads to, a file or folder in the same folder, under the link's name
(trainers write ``last.ckpt -> epoch=3.ckpt``). A link out of the folder counts where it ends at a
file below one of *link_roots*, or leads at once to one in a cache whose layout is known. Any other,
one to nothing, to a folder that it lies in, or to what *ignore* leaves out is refused, as are
FIFOs, sockets and devices. *ignore* holds paths below the folder; one that ends with ``/`` is a
folder's, and no link's; another is a file's.

Caches hold a folder's files elsewhere and are known by their layout: the Hub's client puts links
into ``models--ORG--NAME/snapshots/REVISION`` that lead to files in ``models--ORG--NAME/blobs``, DVC
links to ``.dvc/cache`` and git-annex to ``.git/annex/objects`` of the repository that holds the
folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from provenance.errors import MalformedError, ProvenanceError, UnreadableError, reason
from provenance.files.names import check_name, is_within
from provenance.files.reading import Identity, identity, kind

MAX_DEPTH = 64
"""Deepest folder read, in levels: deeper is a mistake or an attack on the walk."""

MAX_LINKED = 100_000
"""Most files and folders reached through links to folders: nested ones double at each level."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the bytes of a name are: in ``file`` below the folder, through these ``links``.

    Outside the folder, ``file`` is a whole path.
    """

    file: str
    links: tuple[Identity, ...]


def path_of(root: str, file: str) -> str:
    """Return the path of the *file* of a :class:`Place` in the folder *root*."""
    return file if file.startswith("/") else f"{root}/{file}"


def raise_it(error: ProvenanceError) -> None:
    """Refuse what is wrong."""
    raise error


def walk(
    root: Path,
    *,
    ignore: frozenset[str] = frozenset(),
    link_roots: Sequence[Path] = (),
    refuse: Callable[[ProvenanceError], None] = raise_it,
) -> dict[str, Place]:
    """Return every file below *root* by name, in no special order.

    Whatever is wrong goes to *refuse*; if that returns, what is concerned is left out.
    """
    found = {}
    for name, place in walk_again(root, ignore, link_roots, refuse):
        try:
            found[check_name(name, where=str(root))] = place
        except MalformedError as error:
            refuse(error)
    return found


class _Rules(msgspec.Struct, frozen=True):
    """What a walk over ``root``, which is really ``top``, goes by."""

    root: Path
    top: str
    ignore: frozenset[str]
    link_roots: tuple[str, ...]
    caches: tuple[str, ...]

    def admits(self, link: str, target: str) -> bool:
        """Tell whether *link*, whose folder is real, may end at *target* out of the folder.

        Whoever made the folder may have made what lies on a longer way to a cache, and can turn it.
        """
        if _is_below(target, self.link_roots):
            return True
        text = str(Path(link).readlink())
        straight = os.path.normpath(Path(link).parent / text) == target
        return straight and "/../" not in text.lstrip("./") and _is_below(target, self.caches)


def _is_below(path: str, folders: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(each) for each in folders)


class _Folder(msgspec.Struct, frozen=True):
    """A folder of the walk; ``above`` holds ``path``, and those of the folders on the way to it."""

    name: str
    path: str
    links: tuple[Identity, ...] = ()
    above: tuple[str, ...] = ("",)


def walk_again(
    root: Path,
    ignore: frozenset[str],
    link_roots: Sequence[Path],
    refuse: Callable[[ProvenanceError], None],
) -> Iterator[tuple[str, Place]]:
    """Yield each file below *root*, or *root* if it is one; names are not checked again."""
    if os.path.isfile(root):  # noqa: PTH113 - Path.is_file raises where it may not look
        yield root.name, Place(os.path.realpath(root), ())
    else:
        yield from _walk_folder(root, ignore, link_roots, refuse)


def _walk_folder(
    root: Path,
    ignore: frozenset[str],
    link_roots: Sequence[Path],
    refuse: Callable[[ProvenanceError], None],
) -> Iterator[tuple[str, Place]]:
    folders, linked = [_Folder("", "")], 0
    rules = _rules(root, ignore, link_roots)
    while folders:
        folder = folders.pop()
        if len(folder.above) > MAX_DEPTH + 1:
            what = f"is deeper than {MAX_DEPTH} folders"
            refuse(UnreadableError(what, where=f"{root}/{folder.name}"))
            continue
        for item in _listed(root, folder, refuse):
            linked += bool(folder.links)
            if linked > MAX_LINKED:
                what = f"holds more than {MAX_LINKED:,} files behind symbolic links"
                refuse(UnreadableError(what, where=str(root), hint=_COPY))
                return
            name, is_folder = folder.name + item.name, False
            try:
                if item.is_file(follow_symlinks=False):
                    place = Place(folder.path + item.name if folder.links else name, folder.links)
                else:
                    place, is_folder = _look(rules, folder, item)
            except UnreadableError as error:
                refuse(error)
                continue
            path = f"{place.file}/" if is_folder else place.file
            if path in ignore or (not is_folder and name in ignore):
                if (f"{name}/" if is_folder else name) not in ignore:
                    what = f"is {path}, which is not part of the model, behind a symbolic link"
                    refuse(UnreadableError(what, where=f"{root}/{name}", hint=_COPY))
                continue
            if is_folder:
                folders.append(_Folder(f"{name}/", path, place.links, (*folder.above, path)))
            else:
                yield name, place


def walk_folders(
    root: Path, refuse: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield what ``os.walk`` does, which recurses before Python 3.12: too deep is refused."""
    for path, folders, names in os.walk(root, onerror=refuse):
        if path.count("/") > str(root).count("/") + MAX_DEPTH:
            raise UnreadableError(f"is deeper than {MAX_DEPTH} folders", where=path)
        yield path, folders, names


def _rules(root: Path, ignore: frozenset[str], link_roots: Sequence[Path]) -> _Rules:
    try:
        top = os.path.realpath(root)
        given = tuple(os.path.realpath(each) for each in link_roots)
        return _Rules(root, top, ignore, given, tuple(caches_of(Path(top))))
    except (OSError, ValueError) as error:  # ValueError: the path holds NUL
        raise UnreadableError(reason(error), where=str(root)) from error


def check_link(root: Path, name: str, link_roots: Sequence[Path]) -> None:
    """Return if the link *name* at the top of *root* leads to a file, as a walk would have it."""
    _, mode = _follow(_rules(root, frozenset(), link_roots), _Folder("", ""), name)
    if not stat.S_ISREG(mode):
        raise UnreadableError("is a symbolic link to a folder", where=f"{root}/{name}")


def _look(rules: _Rules, folder: _Folder, item: os.DirEntry[str]) -> tuple[Place, bool]:
    """Return where the bytes of *item*, no plain file, are, and whether it is a folder."""
    where = f"{rules.root}/{folder.name}{item.name}"
    try:
        if item.is_dir(follow_symlinks=False):
            return Place(folder.path + item.name, folder.links), True
        status = item.stat(follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            raise UnreadableError(f"is {kind(status.st_mode)}, not a file", where=where)
        target, mode = _follow(rules, folder, item.name)
    except OSError as error:
        raise UnreadableError(reason(error), where=where) from error
    return Place(target, (*folder.links, identity(status))), stat.S_ISDIR(mode)


def _listed(
    root: Path, folder: _Folder, refuse: Callable[[ProvenanceError], None]
) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(f"{os.fspath(root)}/{folder.path}") as listing:
            yield from listing
    except ValueError as error:  # the path holds NUL
        refuse(UnreadableError(reason(error), where=str(root)))
    except OSError as error:
        place = f"{root}/{folder.name}".rstrip("/")
        what = "no such folder" if isinstance(error, FileNotFoundError) else reason(error)
        refuse(UnreadableError(what, where=place))


_COPY = "copy the folder with 'cp -rL' first, so that it holds the files themselves"
_NAME_THE_ROOT = "name the folder of such files with --link-root, or copy this one with 'cp -rL'"


def _follow(rules: _Rules, folder: _Folder, name: str) -> tuple[str, int]:
    """Return where the link *name* in *folder* leads, and the mode of what is there.

    This resolves names and opens nothing; a link that moves is noticed by who walks again. The
    system follows 40 links at most; ``realpath``, which recurses, would follow them all.
    """
    root, top, ignore = rules.root, rules.top, rules.ignore
    path, where, hint = root / folder.path / name, f"{root}/{folder.name}{name}", _COPY
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            what = "is a symbolic link to itself, or the first of too many"
            raise UnreadableError(what, where=where, hint=hint) from error
    target = os.path.realpath(path)
    found, mode = os.path.relpath(target, top), 0
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(target).st_mode
    inside = Path(target).is_relative_to(top)
    elsewhere = not inside or is_within(found, ignore)
    if elsewhere and stat.S_ISREG(mode) and rules.admits(f"{top}/{folder.path}{name}", target):
        return target, mode
    if mode == 0:
        problem, hint = "to nothing", "was it downloaded whole? Download it again, or remove it"
    elif not inside:
        problem, hint = "that leaves the folder", _NAME_THE_ROOT
    elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        if found != "." and f"{found}/" not in folder.above:
            if not is_within(f"{found}/" if stat.S_ISDIR(mode) else found, ignore):
                return found, mode
            problem = f"to {found}, which is not part of the model"
        else:
            problem = "to a folder that it is in"
    else:
        problem = f"to {kind(mode)}"
    raise UnreadableError(f"is a symbolic link {problem}", where=where, hint=hint)


_REPOSITORY = re.compile(r"(model|dataset|space)s--[\w.-]+", re.ASCII)
_NAMED = re.compile(r"(models|datasets)--([\w.-]+?)(?:--([\w.-]+?))?", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}")


def caches_of(top: Path) -> Iterator[str]:
    """Yield below which folders links out of the real folder *top* end, by its layout.

    They are not resolved: of a cache that is a link itself, the layout does not say where it leads.
    """
    above = (top, *top.parents)
    for folder in above:
        if _is_snapshot(folder):
            yield f"{folder.parent.parent}/blobs"
    for owner, cache in ((".dvc", "cache"), (".git", "annex/objects")):
        repository = next((folder for folder in above if (folder / owner).is_dir()), None)
        if repository and top.exists() and _owner(repository / owner) == _owner(top):
            yield f"{repository / owner}/{cache}"


def _owner(path: Path) -> int:
    """Return whose *path* is: in a folder of everybody's, as ``/tmp``, others can plant a cache."""
    return path.stat().st_uid


def _is_snapshot(folder: Path) -> bool:
    parent = folder.parent
    return parent.name == "snapshots" and bool(_REPOSITORY.fullmatch(parent.parent.name))


def hub_uri(path: Path) -> str:
    """Return the Hub's repository and revision of *path*, in its cache; "" if it is not there.

    A package URL for a model, and for a data set, of which there are none, the Hub's own form.
    """
    place = Path(os.path.realpath(path if path.is_dir() else path.parent))
    snapshot = next((each for each in (place, *place.parents) if _is_snapshot(each)), None)
    place = place if path.is_dir() else place / path.name
    if snapshot is None or not _REVISION.fullmatch(snapshot.name):
        return ""
    named = _NAMED.fullmatch(snapshot.parent.parent.name)
    if named is None or "--" in (named[2] + (named[3] or "")):
        return ""
    repository = "/".join(filter(None, (named[2], named[3]))) + f"@{snapshot.name}"
    inside = quote("/".join(place.relative_to(snapshot).parts), errors="surrogateescape")
    if named[1] == "models":
        return f"pkg:huggingface/{repository}" + (f"#{inside}" if inside else "")
    return f"hf://datasets/{repository}" + (f"/{inside}" if inside else "")
