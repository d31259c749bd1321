"""Whether two trainings followed the same recipe.

Compared are the command, the code (the git tree of the work tree and the folder in it, the trees of
its submodules, and the files that the command names), configuration, data and base model by content
*and* names, and the seeds. Not compared are what may differ between people: where a repository was
cloned from, which commit a tree belongs to, what an input is called.

A recipe that leaves something open is *incomplete*: nobody can repeat it, and agreement over it
proves less than it seems to. An argument that was redacted is open: it can have been anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.capture.redact import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.statement.training import BuildDefinition, Environment, Input, Recipe

MAX_SHOWN = 120
"""Longest text shown of one side, in characters."""


def differences(left: BuildDefinition, right: BuildDefinition) -> tuple[str, ...]:
    """Return the parts in which the recipes differ, each with both sides in words."""
    found = []
    for name, of in _PARTS.items():
        mine, other = of(left), of(right)
        if mine != other:
            found.append(f"{name}: {_shown(mine, other)} against {_shown(other, mine)}")
    return tuple(found)


def gaps(recipe: Recipe) -> tuple[str, ...]:
    """Return what *recipe* leaves open."""
    found = []
    if not recipe.command:
        found.append("no command")
    if any(REDACTED in word for word in recipe.command):
        found.append("a redacted argument")
    if recipe.source is None or not (recipe.source.tree or recipe.source.files):
        found.append("no code")
    if not recipe.data:
        found.append("no data")
    return tuple(found)


def environment_differences(left: BuildDefinition, right: BuildDefinition) -> tuple[str, ...]:
    """Return the path (``collector.name…``) of every environment value that differs.

    An installed distribution counts by its version and its RECORD: ``packages.numpy``.
    """
    mine, other = left.internal_parameters, right.internal_parameters
    names = sorted(mine.collectors.keys() | other.collectors.keys())
    paths = [
        path
        for name in names
        for path in _paths(name, *(_values(side, name) for side in (mine, other)))
    ]
    return tuple(paths + _paths("packages", _packages(left), _packages(right)))


def _packages(build: BuildDefinition) -> dict[str, Any]:
    return {
        item.name: f"{item.uri} {item.annotations.get('recordDigest', '')}"
        for item in build.resolved_dependencies
        if item.uri.startswith("pkg:")
    }


def _values(environment: Environment, collector: str) -> dict[str, Any]:
    collected = environment.collectors.get(collector)
    return collected.values if collected else {}


def _paths(path: str, left: Any, right: Any) -> list[str]:  # noqa: ANN401 - JSON values
    if not (isinstance(left, dict) and isinstance(right, dict)):
        return [] if left == right else [path]
    keys = sorted(left.keys() | right.keys())
    return [p for key in keys for p in _paths(f"{path}.{key}", left.get(key), right.get(key))]


def _code(build: BuildDefinition) -> Any:  # noqa: ANN401 - compared and shown, nothing else
    source = build.external_parameters.source
    if source is None:
        return None
    submodules = [
        [item.name, item.digest.get("gitTree", "")]
        for item in build.resolved_dependencies
        if item.name.startswith("source/")
    ]
    files = [[file.name, file.sha256] for file in source.files]
    return [source.tree, source.folder, sorted(submodules), sorted(files)]


def _inputs(inputs: tuple[Input, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((item.role, item.manifest) for item in inputs))


def _of_recipe(part: Callable[[Recipe], Any]) -> Callable[[BuildDefinition], Any]:
    return lambda build: part(build.external_parameters)


_PARTS: dict[str, Callable[[BuildDefinition], Any]] = {
    "command": _of_recipe(lambda recipe: recipe.command),
    "code": _code,
    "configuration": _of_recipe(lambda recipe: _inputs(recipe.config)),
    "data": _of_recipe(lambda recipe: _inputs(recipe.data)),
    "base model": _of_recipe(lambda recipe: recipe.base_model and recipe.base_model.manifest),
    "seeds": _of_recipe(lambda recipe: tuple(sorted(recipe.seeds.items()))),
}


def _shown(value: Any, other: Any) -> str:  # noqa: ANN401 - JSON values
    """Return *value* in words; of a long one, the part where it begins to differ from *other*."""
    text, theirs = _text(value), _text(other)
    if len(text) <= MAX_SHOWN:
        return text
    pairs = enumerate(zip(text, theirs, strict=False))
    same = next((n for n, (mine, other_one) in pairs if mine != other_one), len(theirs))
    start = min(max(0, same - MAX_SHOWN // 4), len(text) - MAX_SHOWN)
    shown = text[start : start + MAX_SHOWN]
    return ("…" if start else "") + shown + ("…" if start + MAX_SHOWN < len(text) else "")


def _text(value: Any) -> str:  # noqa: ANN401 - JSON values
    if not value:
        return "none"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
