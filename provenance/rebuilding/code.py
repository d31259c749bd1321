"""Whether two trainings ran the same code.

Compared are the git tree of the work tree and the folder in it, the trees of the repositories
inside it and of the distributions installed for editing, the files that the command names, and the
untracked files that a run was seen to read. That a run did *not* read a file is known only where
every open was seen: elsewhere an untracked file that differs was *perhaps read*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from provenance.encoding import strict_json
from provenance.statement.training import Collected

if TYPE_CHECKING:
    from provenance.statement.training import BuildDefinition

SHOWN_FILES = 8
"""Files named of those that were read, or perhaps; the rest are counted."""

_INSIDE = {"source": "the repository", "editable": "the editable distribution"}


_TREE = "git tree "
"""How a tree is shown; other folders have a SHA-256, which tells nothing of a tree."""


class _Untracked(msgspec.Struct, frozen=True):
    """The untracked files that lay there before a run, as its collector has them."""

    count: int = 0
    files: dict[str, str] = {}
    digest: str = ""


@dataclass(frozen=True, slots=True)
class _Files:
    """What is known of the files of one run that git does not track.

    Files are SHA-256 by name, "" where the content was not recorded. ``all`` says that every file
    that was read is in ``read``, and ``cut`` that not all that lay there are listed.
    """

    read: Mapping[str, str]
    untracked: _Untracked
    all: bool
    cut: bool

    def known(self, name: str) -> str | None:
        """Return the digest of *name*; None if it was not there, as far as is known."""
        return self.read.get(name, self.untracked.files.get(name))


def compare_code(left: BuildDefinition, right: BuildDefinition) -> tuple[list[str], list[str]]:
    """Return how the code of *right* differs from the published *left*, and what is not known."""
    published, rebuilt = _trees(left), _trees(right)
    unknown = []
    for name in sorted(published.keys() & rebuilt.keys()):
        texts = published[name], rebuilt[name]
        if "" in texts or len({text.startswith(_TREE) for text in texts}) > 1:
            unknown.append(f"{name} has digests that tell nothing of each other")
            del published[name], rebuilt[name]
    differing, doubts = _compare_files(_files(left), _files(right))
    return [*changes(published, rebuilt), *differing], [*unknown, *doubts]


def changes(published: Mapping[str, str], rebuilt: Mapping[str, str]) -> list[str]:
    """Describe how named things differ."""
    found = []
    for name in sorted(published.keys() | rebuilt.keys()):
        theirs, ours = published.get(name), rebuilt.get(name)
        if theirs is None:
            found.append(f"{name} is only in the rebuild ({ours})")
        elif ours is None:
            found.append(f"{name} is missing (published: {theirs})")
        elif theirs != ours:
            found.append(f"{name} is {ours} instead of {theirs}")
    return found


def _trees(build: BuildDefinition) -> dict[str, str]:
    """Return the code that was recorded whole, by what it is called: its digest in words."""
    source = build.external_parameters.source
    found: dict[str, str] = {}
    if source is not None:
        found = {f"the file {file.name}": _sha256(file.sha256) for file in source.files}
        if source.tree:
            found["the code"] = f"{_TREE}{source.tree}"
            found["the working folder"] = f"/{source.folder}"
    for item in build.resolved_dependencies:
        origin, _, name = item.name.partition("/")
        if origin in _INSIDE and name:
            tree, other = item.digest.get("gitTree"), item.digest.get("sha256", "")
            found[f"{_INSIDE[origin]} {name}"] = f"{_TREE}{tree}" if tree else _sha256(other)
    return found


def _sha256(digest: str) -> str:
    return f"sha256 {digest}" if digest else ""


def _files(build: BuildDefinition) -> _Files:
    source, collectors = build.external_parameters.source, build.internal_parameters.collectors
    reads = collectors.get("reads", Collected("absent"))
    listed = collectors.get("untracked", Collected("absent"))
    untracked = strict_json.convert(listed.values, _Untracked, where="the collector 'untracked'")
    return _Files(
        {} if source is None else {file.name: file.sha256 for file in source.read},
        untracked,
        reads.status == "ok" and reads.values.get("complete") is True,
        untracked.count > len(untracked.files) or listed.status in ("denied", "error"),
    )


def _compare_files(left: _Files, right: _Files) -> tuple[list[str], list[str]]:
    """Compare what git does not track; where reads may have been missed, nothing else is sure."""
    complete = left.all and right.all
    names = left.read.keys() | right.read.keys()
    same_list = left.untracked.digest and left.untracked.digest == right.untracked.digest
    if not (complete or same_list):
        names |= left.untracked.files.keys() | right.untracked.files.keys()
    published: dict[str, str] = {}
    rebuilt: dict[str, str] = {}
    perhaps, hidden = [], []
    for name in sorted(names):
        theirs, ours = (s.read.get(name) if complete else s.known(name) for s in (left, right))
        uncertain = not complete and any(s.cut and s.known(name) is None for s in (left, right))
        if theirs == ours and theirs:
            continue
        if (name not in left.read and name not in right.read) or uncertain:
            perhaps.append(name)
        elif "" in (theirs, ours) or _is_cache(name):
            hidden.append(name)
        else:
            label = f"the file {name}, which was read,"
            sides = ((published, theirs), (rebuilt, ours))
            for side, digest in sides:
                if digest is not None:
                    side[label] = f"sha256 {digest}"
    if not (complete or same_list or perhaps) and (left.cut or right.cut):
        perhaps.append("untracked files beyond those listed")
    kinds = {"perhaps read": perhaps, "read, and perhaps another": hidden}
    differing = changes(published, rebuilt)
    if len(differing) > SHOWN_FILES:
        differing[SHOWN_FILES:] = [f"and {len(differing) - SHOWN_FILES} more files that were read"]
    return differing, [f"{kind}: {_listed(found)}" for kind, found in kinds.items() if found]


def _is_cache(name: str) -> bool:
    """Tell whether *name* is byte-compiled beside its source: it holds a time and a path."""
    folder, _, last = name.rpartition("/")
    return folder.rpartition("/")[2] == "__pycache__" and last.endswith(".pyc")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_FILES
    return ", ".join(names[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
