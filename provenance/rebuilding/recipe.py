"""Whether two trainings followed the same recipe.

Compared are the command, the code (:mod:`provenance.rebuilding.code`), configuration, data and base
model, and the seeds. Inputs are compared by content under the names by which the program reads
them: an input that the command names by its place in the command, others by their role, and those
without one by their name where both sides have it. Not compared is what may differ between people:
where a repository was cloned from, which commit a tree belongs to, where an input lies.

A recipe with gaps is *incomplete*: nobody can repeat it, and agreement over it proves less than it
seems to. Something redacted is a gap. Two redaction marks are neither the same nor a difference.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import msgspec

from provenance.capture.python.inside import SHELLS
from provenance.errors import count, cut
from provenance.rebuilding.code import MAX_NAMED, changes, compare_code
from provenance.statement.training import REDACTION, BuildDefinition, Input, Recipe

MAX_SHOWN = 120
"""Longest text shown of each side, in characters."""

NO_DATA = "no data"
"""The gap of a recipe that declares no data; a training may make its own."""

Answer = Literal["same", "differs", "unknown"]
"""Whether a rebuild followed the published recipe."""

_NOT_COMPARED = frozenset({"variables.others"})
"""The number of other variables does not affect the training."""

_ASIDE = frozenset({"cost", "reads", "untracked"})
"""Collectors that tell of the code, which is compared as such, or of no cause of a difference."""

_PYTHON = re.compile(r"python(3(\.\d+)*)?")
_OPEN_FILE = re.compile(r"/dev/(stdin|fd/\d+)|/proc/self/fd/\d+")
_PROGRAM_FOLLOWS = re.compile(r"-[A-Za-z]*[cm].*|--(version|help)|-[hV]+")

_NAMED_INPUT = re.compile(r"(?<!\$)\$\{((data|config):[^{}]*|baseModel)\}")

KINDS: dict[str, Literal["configuration", "data", "base model"]] = {
    "config": "configuration", "data": "data", "baseModel": "base model",
}  # fmt: skip
"""The parts of a recipe that are inputs, by the beginning of their keys."""


class Difference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the recipe that differs, and how, in words."""

    part: Literal["command", "code", "configuration", "data", "base model", "seeds"]
    text: str


class Comparison(NamedTuple):
    """How a recipe differs from the published one, by part, and what nobody can tell."""

    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]


def answer(differences: Sequence[Difference], unknown: Sequence[str]) -> Answer:
    """Return whether the recipe is the same, in a word."""
    return "differs" if differences else "unknown" if unknown else "same"


def compare(left: BuildDefinition, right: BuildDefinition) -> Comparison:
    """Compare the recipe *right* with the published *left*."""
    recipes = left.external_parameters, right.external_parameters
    command, places = _command(*(each.command for each in recipes))
    code, unknown = compare_code(left, right)
    seeds = ({f"the seed {name}": n for name, n in each.seeds.items()} for each in recipes)
    found = [
        Difference("command", command),
        Difference("code", "; ".join(cut(code, MAX_NAMED))),
        *(Difference(part, _inputs(kind, recipes, places)) for kind, part in KINDS.items()),
        Difference("seeds", "; ".join(cut(changes(*seeds), MAX_NAMED))),
    ]
    missing = dict.fromkeys(f"it names {gap}" for each in recipes for gap in gaps(each))
    return Comparison(tuple(each for each in found if each.text), (*unknown, *missing))


def gaps(recipe: Recipe) -> tuple[str, ...]:
    """Return what is missing in *recipe*."""
    source = recipe.source
    found = {
        "no command: nothing is known of what was run and read": not recipe.command,
        "no program: it came by standard input": _came_by_stdin(recipe.command),
        "a redacted argument": any(REDACTION.search(word) for word in recipe.command),
        "no code": source is None or not (source.tree or source.files),
        NO_DATA: not recipe.data,
    }
    return tuple(gap for gap, is_open in found.items() if is_open)


def _came_by_stdin(command: Sequence[str]) -> bool:
    """Tell whether a Python or a shell of *command* reads its program from an open file."""
    for number, word in enumerate(command):
        name = word.rpartition("/")[2]
        if not _PYTHON.fullmatch(name) and name not in SHELLS:
            continue
        rest = iter(command[number + 1 :])
        for argument in rest:
            if argument in (("-o", "-O") if name in SHELLS else ("-W", "-X")):
                next(rest, None)
                continue
            if argument in ("-", "-s") or _OPEN_FILE.fullmatch(argument):
                return True
            if not argument.startswith("-") or _PROGRAM_FOLLOWS.fullmatch(argument):
                return False
        return True
    return False


def environment_differences(left: BuildDefinition, right: BuildDefinition) -> tuple[str, ...]:
    """Return the path (``collector.name…``) of every environment value that differs.

    Installed distributions are compared by version and RECORD: ``packages.numpy``. A redacted value
    is listed as such, because it may differ.
    """
    mine, other = (side.internal_parameters.collectors for side in (left, right))
    paths = []
    for name in sorted((mine.keys() | other.keys()) - _ASIDE):
        paths += _paths(
            name, *(side[name].values if name in side else {} for side in (mine, other))
        )
    return tuple(paths + _paths("packages", _packages(left), _packages(right)))


def _packages(build: BuildDefinition) -> dict[str, Any]:
    return {
        item.name: f"{item.uri} {item.annotations.get('recordDigest', '')}"
        for item in build.resolved_dependencies
        if item.uri.startswith("pkg:pypi/")
    }


def _paths(path: str, left: Any, right: Any) -> list[str]:  # noqa: ANN401 - JSON values
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted(left.keys() | right.keys())
        return [p for key in keys for p in _paths(f"{path}.{key}", left.get(key), right.get(key))]
    if any(REDACTION.search(str(side)) for side in (left, right)):  # lists of texts, too
        return [f"{path} (redacted)"]
    return [] if left == right or path in _NOT_COMPARED else [path]


def _command(published: Sequence[str], rebuilt: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """Describe how the commands differ apart from what their inputs hold; "" if they do not.

    They may not because of redaction. Returned beside it are the keys, on either side, of the
    inputs that both commands name in the same place.
    """
    pairs = list(zip(published, rebuilt, strict=False))
    start = len(list(takewhile(_may_be_the_same, pairs)))
    rest = list(zip(reversed(published[start:]), reversed(rebuilt[start:]), strict=False))
    end = len(list(takewhile(_may_be_the_same, rest)))
    places = [
        (theirs[1], ours[1])
        for pair in (*pairs[:start], *rest[:end])
        for theirs, ours in zip(*map(_NAMED_INPUT.finditer, pair), strict=False)
    ]
    if start == len(published) == len(rebuilt):
        return "", places
    theirs, ours = (
        shlex.join(side[start : len(side) - end]) or "nothing" for side in (published, rebuilt)
    )
    shown = _shown(ours, theirs), _shown(theirs, ours)
    return f"the command has {shown[0]} where the published one has {shown[1]}", places


def _may_be_the_same(pair: tuple[str, str]) -> bool:
    """Tell whether two arguments may be the same, where a mark stands for any text.

    What an input is called does not count: its content is compared.
    """
    pair = _without_names(pair[0]), _without_names(pair[1])
    if all(map(_PYTHON.fullmatch, pair)):
        return True  # which Python it was stands in the environment
    if pair[0] == pair[1] or not any(REDACTION.search(word) for word in pair):
        return pair[0] == pair[1]
    ends = [(parts[0], parts[-1]) for parts in (REDACTION.split(word) for word in pair)]
    (head, tail), (other_head, other_tail) = ends
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _without_names(word: str) -> str:
    return _NAMED_INPUT.sub(lambda match: f"${{{match[2] or match[1]}}}", word)


def _inputs(kind: str, recipes: tuple[Recipe, Recipe], places: Sequence[tuple[str, str]]) -> str:
    """Describe how the inputs of one kind differ; both commands name those at *places*."""
    label = f"the {KINDS[kind]}"
    sides = tuple(_keyed(kind, recipe) for recipe in recipes)
    published, rebuilt = ({key: _content(items) for key, items in s.items()} for s in sides)
    keys = {content: key for key, content in reversed(published.items())}
    found = []
    for theirs, ours in places:
        was, now = published.get(theirs, theirs), rebuilt.get(ours, ours)
        if theirs.partition(":")[0] == kind and was != now:
            name, other = theirs.partition(":")[2], keys.get(now, "").partition(":")[2]
            text = f"{label} {name}".rstrip() + f" is {now} instead of {was}"
            if other:
                text = f"the command reads {other} where the published one reads {name}"
            found.append(text)
    named = {key for key, _ in places}, {key for _, key in places}
    unnamed = (
        [item for key, items in side.items() if key not in done for item in items]
        for side, done in zip(sides, named, strict=True)
    )
    found += _unnamed(label, *unnamed)
    return "; ".join(cut([*dict.fromkeys(found)], MAX_NAMED))


def _keyed(kind: str, recipe: Recipe) -> dict[str, list[Input]]:
    """Return the inputs of one kind by their keys, by which a recorded command names them."""
    if kind == "baseModel":
        return {} if recipe.base_model is None else {kind: [recipe.base_model]}
    found: dict[str, list[Input]] = {}
    for item in recipe.data if kind == "data" else recipe.config:
        found.setdefault(f"{kind}:{item.name}", []).append(item)
    return found


def same_base(published: Recipe, rebuilt: Recipe) -> bool:
    """Tell whether both name one base model, by its digest."""
    one, other = published.base_model, rebuilt.base_model
    return one is not None and other is not None and _digest(one) == _digest(other)


def _content(items: Sequence[Input]) -> str:
    return ", ".join(sorted(f"{count(each.files, 'file')} with {_digest(each)}" for each in items))


def _digest(item: Input) -> str:
    """Return the digest that binds what is in *item*; what one file is called is not in it."""
    one = item.files == 1
    return f"root sha256 {item.digest['sha256']}" if one else f"manifest sha256 {item.manifest}"


def _unnamed(label: str, published: Sequence[Input], rebuilt: Sequence[Input]) -> list[str]:
    """Describe how inputs differ that the command does not name.

    The program may find them by their role or name. A name that only one side has is what somebody
    chose to call it: there the content alone counts.
    """
    shared = {item.name for item in published} & {item.name for item in rebuilt}

    def key(item: Input) -> tuple[str, str]:
        return item.role or (item.name if item.name in shared else ""), _digest(item)

    mine, other = Counter(map(key, published)), Counter(map(key, rebuilt))

    def described(inputs: Sequence[Input], only: Counter[tuple[str, str]]) -> dict[str, str]:
        texts: dict[str, list[Input]] = {}
        for item in inputs:
            if only[key(item)]:
                texts.setdefault(f"{label} {item.role or item.name}", []).append(item)
        return {name: _content(items) for name, items in texts.items()}

    called = {_content([item]): item.role or item.name for item in published}
    ours = described(rebuilt, other - mine)
    for name, content in ours.items():
        if called.get(content, item_name := name.removeprefix(f"{label} ")) != item_name:
            ours[name] = f"what the published one has as {called[content]}"
    return changes(described(published, mine - other), ours)


def _shown(text: str, other: str = "") -> str:
    """Return *text*, or the part of a long one where it begins to differ from *other*."""
    if len(text) <= MAX_SHOWN:
        return text
    pairs = enumerate(zip(text, other, strict=False))
    same = next((place for place, (mine, theirs) in pairs if mine != theirs), len(other))
    start = min(max(0, same - MAX_SHOWN // 4), len(text) - MAX_SHOWN)
    shown = text[start : start + MAX_SHOWN]
    return ("…" if start else "") + shown + ("…" if start + MAX_SHOWN < len(text) else "")
