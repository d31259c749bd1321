"""Whether two trainings ran the same code.

Compared are the git tree of the work tree and the folder in it, the trees of the repositories
inside it and of the distributions installed for editing, the files that the command names, and the
untracked files that a run was seen to read. That a run did *not* read a file is known only where
every open was seen: elsewhere an untracked file that differs was *perhaps read*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from provenance.encoding import strict_json
from provenance.errors import cut
from provenance.statement.training import ELSEWHERE, MODEL, BuildDefinition, Collected

MAX_NAMED = 8
"""Files, trees or inputs named of one part of a recipe; the rest are counted."""

MAX_REASON = 200
"""Longest reason shown why code could not be looked at, in characters."""

_INSIDE = {"source": "the repository", "editable": "the editable distribution"}


class _Untracked(msgspec.Struct, frozen=True):
    """The untracked files that lay there before a run, as its collector has them."""

    count: int = 0
    files: dict[str, str] = {}
    digest: str = ""
    unhashed: int = 0


@dataclass(frozen=True, slots=True)
class _Files:
    """What is known of the files of one run that git does not track.

    Files are SHA-256 by name, "" where the content was not recorded. ``complete`` says that every
    file that was read is in ``read``, ``spoke`` that reads were seen at all, and ``cut`` that not
    all that lay there are listed.
    """

    read: Mapping[str, str]
    untracked: _Untracked
    complete: bool
    spoke: bool
    cut: bool

    def known(self, name: str) -> str | None:
        """Return the digest of *name*; None if it was not there, as far as is known."""
        return self.read.get(name, self.untracked.files.get(name))

    def may_have(self, name: str, other: _Files) -> bool:
        """Tell whether *name*, which *other* read, may have been there unseen."""
        if self.known(name) is not None:
            return False
        if name.startswith((ELSEWHERE, MODEL)):
            return True  # it may lie there under another name, or be what an earlier run left
        return self.cut if name in other.untracked.files else not self.spoke  # git may ignore it


def compare_code(left: BuildDefinition, right: BuildDefinition) -> tuple[list[str], list[str]]:
    """Return how the code of *right* differs from the published *left*, and what is not known."""
    published, rebuilt = _trees(left), _trees(right)
    unknown = list(dict.fromkeys(_problem(side) for side in (left, right)))
    for name in sorted(published.keys() & rebuilt.keys()):
        texts = published[name], rebuilt[name]
        if "" in texts or len({text.startswith("git tree ") for text in texts}) > 1:
            unknown.append(f"{name} has digests that tell nothing of each other")
            del published[name], rebuilt[name]
    for name in _renamed(published, rebuilt):
        published.pop(name, None)
        rebuilt.pop(name, None)
    if any(map(_ran_unseen, (left, right))):
        unknown.append("a Python ran, and nobody saw what it read")
    differing, doubts = _compare_files(_files(left), _files(right))
    unknown = [*filter(None, unknown), *doubts]
    return [*changes(published, rebuilt), *differing], cut(unknown, MAX_NAMED)


def _problem(build: BuildDefinition) -> str:
    """Return which code of *build* could not be looked at, if any."""
    collected = build.internal_parameters.collectors.get("source")
    if collected is None or collected.status in ("ok", "absent"):
        return ""
    return f"code that could not be looked at: {collected.reason[:MAX_REASON] or collected.status}"


def _renamed(published: Mapping[str, str], rebuilt: Mapping[str, str]) -> set[str]:
    """Return the folders of code that only their names tell apart: those on PYTHONPATH have any."""
    kind = _INSIDE["editable"]
    only = (
        {side[name]: name for name in side.keys() - other if name.startswith(kind) and side[name]}
        for side, other in ((published, rebuilt), (rebuilt, published))
    )
    theirs, ours = only
    return {side[tree] for tree in theirs.keys() & ours.keys() for side in (theirs, ours)}


def _ran_unseen(build: BuildDefinition) -> bool:
    """Tell whether a Python of the run was silent, as with -I, -E or -S."""
    collectors = build.internal_parameters.collectors
    reads, interpreter = collectors.get("reads"), collectors.get("interpreter")
    if interpreter is not None and interpreter.status == "error":  # nobody can tell which trained
        return True
    command = build.external_parameters.command
    python = any(word.rpartition("/")[2].startswith(("python", "pypy")) for word in command)
    return python and reads is not None and reads.status != "ok"


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
            found["the code"] = f"git tree {source.tree}"
            found["the working folder"] = f"/{source.folder}"
    for item in build.resolved_dependencies:
        origin, _, name = item.name.partition("/")
        if origin in _INSIDE and name:
            # Without a repository the tree is that of the Python files alone.
            kind = "tree of Python files" if "pythonFiles" in item.annotations else "git tree"
            tree, other = item.digest.get("gitTree"), item.digest.get("sha256", "")
            found[f"{_INSIDE[origin]} {name}"] = f"{kind} {tree}" if tree else _sha256(other)
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
        complete=reads.status == "ok" and reads.values.get("complete") is True,
        spoke=reads.status == "ok" and not reads.values.get("lost"),
        cut=untracked.count > len(untracked.files) or listed.status in ("denied", "error"),
    )


def _compare_files(left: _Files, right: _Files) -> tuple[list[str], list[str]]:
    """Compare what git does not track; where reads may have been missed, nothing else is sure."""
    complete = left.complete and right.complete
    names = left.read.keys() | right.read.keys()
    if not complete:
        names |= left.untracked.files.keys() | right.untracked.files.keys()
    published: dict[str, str] = {}
    rebuilt: dict[str, str] = {}
    perhaps, hidden = [], []
    for name in sorted(names):
        theirs, ours = (s.read.get(name) if complete else s.known(name) for s in (left, right))
        if theirs == ours and theirs:
            continue
        if (name not in left.read and name not in right.read) or (
            not complete and (left.may_have(name, right) or right.may_have(name, left))
        ):
            perhaps.append(name)
        elif "" in (theirs, ours):
            hidden.append(name)
        else:
            for side, digest in ((published, theirs), (rebuilt, ours)):
                if digest is not None:
                    side[f"the file {name}, which was read,"] = f"sha256 {digest}"
    lists = left.untracked, right.untracked
    same_list = lists[0].digest == lists[1].digest and not any(each.unhashed for each in lists)
    if (left.cut or right.cut) and not (complete or perhaps or same_list):
        perhaps.append("untracked files beyond those listed")
    kinds = {
        "perhaps read": cut(perhaps, MAX_NAMED),
        "read, and perhaps another": cut(hidden, MAX_NAMED),
    }
    doubts = [f"{kind}: {', '.join(texts)}" for kind, texts in kinds.items() if texts]
    return changes(published, rebuilt), doubts
