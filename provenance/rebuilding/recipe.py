"""Whether two trainings followed the same recipe.

Compared are the command, the code (the git tree of the work tree and the folder in it, the trees of
its submodules, and the files that the command names), configuration, data and base model by content
*and* names, and the seeds. Not compared is what may differ between people: where a repository was
cloned from, which commit a tree belongs to, what an input is called.

A recipe with gaps is *incomplete*: nobody can repeat it, and agreement over it proves less than it
seems to. Something redacted is a gap. Two redaction marks are neither the same nor a difference.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from provenance.errors import count
from provenance.statement.training import REDACTION

if TYPE_CHECKING:
    from provenance.statement.training import BuildDefinition, Input, Recipe

MAX_SHOWN = 120
"""Longest text shown of each side, in characters."""

_NOT_COMPARED = frozenset({"variables.others"})
"""The number of other variables does not affect the training."""


def differences(left: BuildDefinition, right: BuildDefinition) -> tuple[str, ...]:
    """Describe how the recipe *right* differs from the published *left*, by part."""
    recipes = (left.external_parameters, right.external_parameters)
    seeds = ({f"the seed {name}": n for name, n in each.seeds.items()} for each in recipes)
    bases = ((each.base_model,) if each.base_model else () for each in recipes)
    found = (
        _command(*(each.command for each in recipes)),
        _changes(_code(left), _code(right)),
        _inputs("the configuration", *(each.config for each in recipes)),
        _inputs("the data", *(each.data for each in recipes)),
        _inputs("the base model", *bases),
        _changes(*seeds),
    )
    return tuple(text for text in found if text)


def gaps(recipe: Recipe) -> tuple[str, ...]:
    """Return what is missing in *recipe*."""
    source = recipe.source
    found = {
        "no command": not recipe.command,
        "a redacted argument": any(REDACTION.search(word) for word in recipe.command),
        "no code": source is None or not (source.tree or source.files),
        "no data": not recipe.data,
    }
    return tuple(gap for gap, is_open in found.items() if is_open)


def environment_differences(left: BuildDefinition, right: BuildDefinition) -> tuple[str, ...]:
    """Return the path (``collector.name…``) of every environment value that differs.

    Installed distributions are compared by version and RECORD: ``packages.numpy``. A redacted value
    is listed as such, because it may differ.
    """
    mine, other = (side.internal_parameters.collectors for side in (left, right))
    paths = []
    for name in sorted(mine.keys() | other.keys()):
        paths += _paths(
            name, *(side[name].values if name in side else {} for side in (mine, other))
        )
    return tuple(paths + _paths("packages", _packages(left), _packages(right)))


def _packages(build: BuildDefinition) -> dict[str, Any]:
    return {
        item.name: f"{item.uri} {item.annotations.get('recordDigest', '')}"
        for item in build.resolved_dependencies
        if item.uri.startswith("pkg:")
    }


def _paths(path: str, left: Any, right: Any) -> list[str]:  # noqa: ANN401 - JSON values
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted(left.keys() | right.keys())
        return [p for key in keys for p in _paths(f"{path}.{key}", left.get(key), right.get(key))]
    if any(REDACTION.search(str(side)) for side in (left, right)):  # lists of texts, too
        return [f"{path} (redacted)"]
    return [] if left == right or path in _NOT_COMPARED else [path]


def _command(published: Sequence[str], rebuilt: Sequence[str]) -> str:
    """Describe how the commands differ; "" if they do not, or may not because of redaction."""
    pairs = list(zip(published, rebuilt, strict=False))
    start = len(list(takewhile(_may_be_the_same, pairs)))
    if start == len(published) == len(rebuilt):
        return ""
    rest = zip(reversed(published[start:]), reversed(rebuilt[start:]), strict=False)
    end = len(list(takewhile(_may_be_the_same, rest)))
    theirs, ours = (
        shlex.join(side[start : len(side) - end]) or "nothing" for side in (published, rebuilt)
    )
    shown = _shown(ours, theirs), _shown(theirs, ours)
    return f"the command has {shown[0]} where the published one has {shown[1]}"


def _may_be_the_same(pair: tuple[str, str]) -> bool:
    """Tell whether two arguments may be the same, where a mark stands for any text."""
    if pair[0] == pair[1] or not any(REDACTION.search(word) for word in pair):
        return pair[0] == pair[1]
    ends = [(parts[0], parts[-1]) for parts in (REDACTION.split(word) for word in pair)]
    (head, tail), (other_head, other_tail) = ends
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _code(build: BuildDefinition) -> dict[str, str]:
    source = build.external_parameters.source
    if source is None:
        return {}
    found = {f"the file {file.name}": f"sha256 {file.sha256}" for file in source.files}
    if source.tree:
        found |= {
            "the code": f"git tree {source.tree}",
            "the working folder": source.folder or "the root of the repository",
        }
    for item in build.resolved_dependencies:
        if item.name.startswith("source/"):
            name = item.name.removeprefix("source/")
            found[f"the repository {name}"] = f"git tree {item.digest.get('gitTree', '')}"
    return found


def _inputs(kind: str, published: tuple[Input, ...], rebuilt: tuple[Input, ...]) -> str:
    """Describe how inputs of one kind differ, by role and content; names may differ."""
    mine, other = (Counter((item.role, item.manifest) for item in s) for s in (published, rebuilt))

    def described(inputs: tuple[Input, ...], only: Counter[tuple[str, str]]) -> dict[str, str]:
        texts: dict[str, str] = {}
        for item in inputs:
            if only[item.role, item.manifest]:
                label = f"{kind} {item.role or item.name}"
                text = f"{count(item.files, 'file')} with manifest sha256 {item.manifest}"
                texts[label] = f"{texts[label]}, {text}" if label in texts else text
        return texts

    return _changes(described(published, mine - other), described(rebuilt, other - mine))


def _changes(published: Mapping[str, str], rebuilt: Mapping[str, str]) -> str:
    """Describe how named things differ; "" if they do not."""
    found = []
    for name in sorted(published.keys() | rebuilt.keys()):
        theirs, ours = published.get(name), rebuilt.get(name)
        if theirs is None:
            found.append(f"{name} is only in the rebuild ({ours})")
        elif ours is None:
            found.append(f"{name} is missing (published: {theirs})")
        elif theirs != ours:
            found.append(f"{name} is {ours} instead of {theirs}")
    return "; ".join(found)


def _shown(text: str, other: str = "") -> str:
    """Return *text*, or the part of a long one where it begins to differ from *other*."""
    if len(text) <= MAX_SHOWN:
        return text
    pairs = enumerate(zip(text, other, strict=False))
    same = next((place for place, (mine, theirs) in pairs if mine != theirs), len(other))
    start = min(max(0, same - MAX_SHOWN // 4), len(text) - MAX_SHOWN)
    shown = text[start : start + MAX_SHOWN]
    return ("…" if start else "") + shown + ("…" if start + MAX_SHOWN < len(text) else "")
