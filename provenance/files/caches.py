"""Caches that hold a folder's files elsewhere, known by their layout, and links into them.

The Hub's client puts links into ``models--ORG--NAME/snapshots/REVISION`` that lead to files in
``models--ORG--NAME/blobs``, DVC links to ``.dvc/cache`` and git-annex to ``.git/annex/objects`` of
the repository that holds the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

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
