"""Reading the files beside the weights: signed claims, the model signature, byproducts.

They are not part of the model (:mod:`provenance.files.names`): no manifest covers them. A byproduct
is checked by its name, which is its SHA-256. What other tools keep and what a killed writer left
cannot be checked; it is reported and not refused, since the model is still the one that was
attested: no loader opens it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from provenance.encoding import strict_base64
from provenance.envelope import bundle
from provenance.envelope.bundle import Bundle
from provenance.errors import ContentError, MalformedError, UnreadableError, count, cut
from provenance.files.atomic import TEMPORARY_SUFFIX
from provenance.files.digest import hash_file
from provenance.files.manifest import sizes_of
from provenance.files.names import (
    BOOKKEEPING,
    BYPRODUCTS,
    CLAIMS,
    LINK,
    MAX_BYPRODUCT_BYTES,
    MODEL_SIGNATURE,
    TEMPORARY,
)
from provenance.files.reading import read_file
from provenance.files.walking import check_link, walk, walk_folders
from provenance.statement.training import TrainingStatement
from provenance.weights.names import is_loaded, opened_by

MAX_CLAIMS_BYTES = 2**28
"""Largest claims file read, in bytes: they are all in memory, three times. It holds seventeen
claims about a hundred thousand files each."""

_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_LEFTOVER_NAME = re.compile(rf"([0-9a-f]{{64}}|{LINK.pattern}){re.escape(TEMPORARY_SUFFIX)}")

MAX_UNNAMED_BYTES = 2**28
"""Most bytes of byproducts, all together, that are hashed though no trusted claim names them."""

MAX_LEFTOVER_BYTES = 2**26
"""Largest file that a killed writer can have left."""

MAX_NAMED = 20
"""Most names in a text of what is not covered: more than other tools have."""


def beside(model: Path, name: str) -> Path:
    """Return where what is called *name* in a model's folder is beside *model*: a file's, too."""
    if os.path.isdir(model):  # noqa: PTH112 - Path.is_dir raises where it may not look
        return model / name
    return model.with_name(f"{model.name}.{'sig' if name == MODEL_SIGNATURE else name}")


def name_in(model: Path, path: Path) -> str:
    """Return the name that *path* has in the folder *model*; "" where it lies elsewhere."""
    folder = os.path.realpath(path.parent)
    name = os.path.relpath(os.path.join(folder, path.name), os.path.realpath(model))  # noqa: PTH118
    return "" if name.startswith("..") else name


def require_model(path: Path) -> None:
    """Return if *path* is a folder, or a file."""
    if not os.path.isfile(path):  # noqa: PTH113 - as above
        require_folder(path)


def require_folder(path: Path) -> None:
    """Return if *path* is a folder."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it may not look
        if os.path.lexists(path):
            raise UnreadableError(
                "is not a folder", where=str(path), hint="name the folder that holds the model"
            )
        raise UnreadableError("no such folder", where=str(path))


def model_name(model: Path) -> str:
    """Return the name under which the folder *model* is stated: its own, links resolved."""
    is_file = os.path.isfile(model)  # noqa: PTH113 - as above
    path = os.path.abspath(model) if is_file else os.path.realpath(model)  # noqa: PTH100 - its link's
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise MalformedError("the path is not UTF-8", where=str(model), hint="rename the folder")
    return Path(path).name


def folder_names(model: Path) -> tuple[str, ...]:
    """Return what the folder *model* is called, first as whoever named it sees it.

    That is the name of a link to it, then its own, or its repository's: a snapshot in the Hugging
    Face cache is ``models--ORG--NAME/snapshots/REVISION``. A file is called as it is.
    """
    if model.is_file():
        return (model.name,)
    typed, path = os.path.abspath(model), Path(os.path.realpath(model))  # noqa: PTH100 - its link's
    names = [path.name]
    kind, *repository = path.parent.parent.name.split("--")
    if path.parent.name == "snapshots" and kind == "models" and repository:
        names = ["/".join(repository), repository[-1], path.name]
    if (link := Path(typed).name) not in names:
        names.insert(0, link)
    return tuple(names)


def read_bundles(path: Path, *, max_bytes: int | None = None) -> tuple[Bundle, ...]:
    """Return the bundles in the file *path*: one a line, or one over several lines."""
    if os.path.isdir(path):  # noqa: PTH112 - see below
        hint = "move it away, or name the file of the claims"
        raise UnreadableError("is a folder, not a file", where=str(path), hint=hint)
    return bundle.parse_any(read_file(path, max_bytes or MAX_CLAIMS_BYTES), where=str(path))


def read_beside(root: Path, link_roots: Sequence[Path] = ()) -> list[tuple[str, Bundle]]:
    """Return the bundles beside the model in *root*, each with its place."""
    both = (beside(root, CLAIMS), beside(root, MODEL_SIGNATURE))
    found = [path for path in both if os.path.lexists(path)]
    if not found:
        snapshots = sorted(root.glob("snapshots/*/")) if root.is_dir() else []
        hint = "name them with --claims or --signature, or ask the trainer for them"
        hint = f"name a snapshot of this cache: {snapshots[0]}" if snapshots else hint
        if root.is_file() and any((root.parent / it).exists() for it in (CLAIMS, MODEL_SIGNATURE)):
            hint = f"name the folder of the model: {root.parent}"
        what = f"neither {both[0].name} nor {both[1].name} is there"
        raise UnreadableError(what, where=str(root), hint=hint)
    for path in found:
        try:
            if path.is_symlink():
                check_link(path.parent, path.name, link_roots)
        except UnreadableError as error:
            hint = f"name the claims themselves with --claims; {error.hint}"
            raise UnreadableError(error.what, where=error.where, hint=hint) from error
    return [item for path in found for item in read_claims(path)]


def read_claims(path: Path) -> list[tuple[str, Bundle]]:
    """Return the bundles in the file *path*, each with its place: the file's name and its line."""
    parsed = read_bundles(path)
    if len(parsed) == 1:
        return [(path.name, parsed[0])]
    return [(f"{path.name}:{number}", item) for number, item in enumerate(parsed, 1)]


def not_covered(
    root: Path, stated: Collection[str] = (), *, link_roots: Sequence[Path] = ()
) -> dict[str, int]:
    """Return what lies in the model's folder *root* and no claim covers, with numbers of files.

    That is the bookkeeping of other tools and what a killed writer left. A ContentError if a folder
    of theirs holds code or weights that are not *stated*; git names those in its stores.
    A link under a file's name counts as that file; whether it may, the walk of the model says.
    """
    found: dict[str, int] = {}
    for name in (*BOOKKEEPING, *TEMPORARY, *_leftovers(root)):
        try:
            status = os.stat(root / name, follow_symlinks=not name.endswith("/"))  # noqa: PTH116 - a path that ends with a slash follows
        except (OSError, ValueError):
            continue
        if name.endswith("/") and stat.S_ISDIR(status.st_mode):
            found[name] = _count_of(root, name, stated, link_roots)
        elif stat.S_ISREG(status.st_mode) and not name.endswith("/"):
            found[name] = 1
        if name.endswith(TEMPORARY_SUFFIX) and (
            name not in found or status.st_size > MAX_LEFTOVER_BYTES
        ):
            what = "is extra: what a writer leaves under this name is a small file"
            raise ContentError(what, where=f"{root}/{name}")
    return found


def counted(names: Iterable[str]) -> dict[str, int]:
    """Return numbers of files by what stands at the top of their *names*."""
    return Counter(sorted(name[: name.find("/") + 1] or name for name in names))


def _leftovers(root: Path) -> list[str]:
    try:
        names = sorted(os.listdir(root / BYPRODUCTS))  # noqa: PTH208 - names are all that is needed
    except (OSError, ValueError):
        return []  # there is none, or the walk says what is wrong with it
    return [f"{BYPRODUCTS}/{name}" for name in names if _LEFTOVER_NAME.fullmatch(name)]


_GIT_STORES: Final = tuple(
    f".git/{name}/" for name in ("annex", "lfs", "logs", "modules", "objects", "refs", "worktrees")
)
"""Folders in which git and its extensions name files as content and branches are called."""


def _count_of(root: Path, name: str, stated: Collection[str], link_roots: Sequence[Path]) -> int:
    """Return how many files are in the folder *name* of another tool."""
    if name == ".git/":
        inside = []
        for at, folders, files in walk_folders(root / name):
            linked = (Path(at, it) for it in folders if os.path.islink(f"{at}/{it}"))  # noqa: PTH114
            there = [f"{link}/{each}" for link in linked for each in walk(link)]
            inside += [
                os.path.relpath(it, root) for it in (*there, *(f"{at}/{it}" for it in files))
            ]
    else:
        inside = [name + each for each in walk(root / name, link_roots=link_roots)]
    beside = frozenset(inside)
    for each in inside:
        loader = "" if each in stated else opened_by(each, beside)
        if loader and not each.startswith(_GIT_STORES):
            # Settings, too: those of sentence-transformers name the folders of its modules.
            what = "is code or weights" if is_loaded(each) else f"is opened by {loader}"
            what, hint = f"{what}, and no claim covers {name}", "move it away"
            raise ContentError(what, where=f"{root}/{each}", hint=hint)
    return len(inside)


def not_compared(root: Path, uncovered: Iterable[str]) -> tuple[str, ...]:
    """Return the names of what is no part of the model in *root*: claims, and the *uncovered*.

    A ContentError if loaders would open a file among the byproducts, when settings name it.
    """
    if os.path.isdir(root / BYPRODUCTS):  # noqa: PTH112 - Path.is_dir raises where it may not look
        _count_of(root, f"{BYPRODUCTS}/", (), ())
    own = (CLAIMS, MODEL_SIGNATURE, f"{BYPRODUCTS}/")
    return (*(name for name in own if os.path.lexists(root / name)), *uncovered)


def in_words(not_covered: Mapping[str, int]) -> str:
    """Return names and numbers of files as a text; a list is cut, and what we left comes last."""
    names = sorted(not_covered, key=lambda name: name.startswith(f"{BYPRODUCTS}/"))
    texts = [
        f"{name} ({count(not_covered[name], 'file')})" if name.endswith("/") else name
        for name in names
    ]
    return ", ".join(cut(texts, MAX_NAMED))


def check_beside(
    root: Path,
    matching: Iterable[TrainingStatement],
    trusted: Iterable[TrainingStatement],
    uncovered: Mapping[str, int],
    link_roots: Sequence[Path] = (),
) -> str:
    """Check the byproducts beside the model in *root*; return what was not checked, as a text.

    *matching* are the statements about these files, *trusted* all that the given keys signed;
    *uncovered* is what :func:`not_covered` found.
    """
    stated, named = _stated(matching), _stated(trusted)
    present = _byproducts(beside(root, BYPRODUCTS), named, link_roots)
    links = set(filter(LINK.fullmatch, present))
    unnamed = present - named - links
    notes = [count(len(links), "in-toto link")] if links else []
    if missing := stated - present:
        notes.append(f"{count(len(missing), 'byproduct')} not here")
    if unnamed:
        notes.append(f"{count(len(unnamed), 'file')} in {BYPRODUCTS}/ that no such claim names")
    if uncovered:
        notes.append(f"not covered: {in_words(uncovered)}")
    return f" ({'; '.join(notes)})" if notes else ""


def read_byproduct(root: Path, training: TrainingStatement, name: str) -> bytes | None:
    """Return the byproduct *name* of *training*, which is about the model in *root*.

    None if none is stated, or it has other content or is missing: it is not part of the model, and
    copies may lack it.
    """
    item = next((each for each in training.run.byproducts if each.name == name), None)
    if item is None:
        return None
    sha256 = item.digest.get("sha256", "")
    try:
        data = strict_base64.parse(item.content) if item.content else None
        if data is None and _SHA256_NAME.fullmatch(sha256):
            data = read_file(beside(root, BYPRODUCTS) / sha256, MAX_BYPRODUCT_BYTES)
    except (MalformedError, UnreadableError):
        return None
    return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None


def _stated(trainings: Iterable[TrainingStatement]) -> set[str]:
    """Return the SHA-256 of every byproduct of *trainings* that is kept beside the weights."""
    return {
        item.digest["sha256"]
        for training in trainings
        for item in training.run.byproducts
        if not item.content and "sha256" in item.digest  # of a redacted one only the name is left
    }


def _byproducts(folder: Path, named: Collection[str], link_roots: Sequence[Path]) -> set[str]:
    """Check the files in *folder*, of which trusted claims name some; return their names."""
    if folder.is_symlink():
        raise UnreadableError("is a symbolic link, not a folder", where=str(folder))
    sizes = sizes_of(folder, link_roots=link_roots) if folder.is_dir() else {}
    present = [name for name in sizes if not _LEFTOVER_NAME.fullmatch(name)]
    unnamed = 0
    for name in present:
        path, size = folder / name, sizes[name]
        is_link = LINK.fullmatch(name) is not None
        if not (is_link or _SHA256_NAME.fullmatch(name)):
            raise ContentError("is extra: byproducts are named by their SHA-256", where=str(path))
        unnamed += 0 if name in named else size
        if size > MAX_BYPRODUCT_BYTES or unnamed > MAX_UNNAMED_BYTES:
            what = "is too large for a byproduct" + " that no claim names" * (name not in named)
            raise ContentError(what, where=str(path), hint="move it away")
        if not is_link and hash_file(path, follow=True)[0] != name:
            raise ContentError("its content is not what its name says", where=str(path))
    return set(present)
