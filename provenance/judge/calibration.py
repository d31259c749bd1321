"""Limits from rebuilds of one's own: how far apart they are, and how far another recipe is.

Two models are measured by a rule whose limits no difference keeps: its findings are the distances.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Context
from itertools import combinations
from statistics import median_low
from typing import Any, Final

import msgspec

from provenance.equality.declaration import Declaration, parse
from provenance.equality.lattice import AGREES
from provenance.equality.patterns import fault
from provenance.equality.rules import MAX_RELATIVE, MIN_RELATIVE
from provenance.errors import PolicyError, one_line, some_of
from provenance.judge.comparators import apply
from provenance.judge.measured import MeasuredWeights
from provenance.judge.suggestion import Suggestion, to_toml
from provenance.weights.model import Model
from provenance.weights.pairs import SideBySide

_TIMES: Final = 3
"""A limit is so many times the largest honest distance, and any other recipe beyond it."""

_FAR, _LARGE = 30, 0.01
"""A matrix so many times as far as the middle one, by so much of itself, has no gradient."""

_MAX_PATTERNS: Final = 64
_LIMITS: Final = {"relative_l2": "L2", "relative_linf": "L∞", "relative_l2_rows": "rows"}
_ROUNDED_UP: Final = Context(prec=2, rounding=ROUND_CEILING)
_NO_USE: Final = "so no limit is of use: let 'behaviour' judge"

_Distances = dict[str, float]
"""By the keys of their limits; the largest limit, where a tensor that differs has no distance."""


class Farthest(msgspec.Struct, frozen=True):
    """The largest distances of two models, and the tensor that is farthest."""

    left: str
    right: str
    tensor: str | None
    distances: _Distances


class Calibration(msgspec.Struct, frozen=True):
    """What was measured, and a declaration; ``against``: why ``toml`` holds the figures alone.

    ``rebuilds`` are each two of them, ``others`` the other recipes, each beside the first rebuild;
    both but for the vectors ``without_gradient``, which have limits of their own.
    """

    rebuilds: tuple[Farthest, ...]
    others: tuple[Farthest, ...]
    without_gradient: dict[str, _Distances]
    toml: str
    against: tuple[str, ...]
    warnings: tuple[str, ...]


def trial(name: str, initial: str | None) -> Declaration:
    """Return the declaration called *name* by which models are measured."""
    rule = _close(["*"], initial, dict.fromkeys(_LIMITS, MIN_RELATIVE), "to measure")
    return parse(to_toml(Suggestion(None), name, [[rule]]).encode())


def calibrate(
    models: Mapping[str, Model],
    number: int,
    tried: Declaration,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Calibration:
    """Return a declaration under which the first *number* of *models* agree, or why none.

    The other models followed other recipes; the first is compared with them. All are measured by
    *tried*, a :func:`trial`, whose name is taken. PolicyError: what no limit is about differs.
    """

    def beside(one: str, other: str) -> MeasuredWeights:
        return MeasuredWeights(SideBySide(models[one], models[other]), tried, on_bytes=on_bytes)

    names = [*models]
    honest = {who: beside(*who) for who in combinations(names[:number], 2)}
    found = {who: _measured(each, tried) for who, each in honest.items()}
    for who, (_, different) in found.items():
        if different:
            what = f"rebuilds differ in what no limit is about: {some_of(different)}"
            hint = "name the weight files alone, and add exceptions to the declaration by hand"
            raise PolicyError(what, where=", ".join(who), hint=hint)
    every = [tensors for tensors, _ in found.values()]
    largest = {it: _largest(each.get(it, {}) for each in every) for each in every for it in each}
    noise, against = _without_gradient(largest, honest.values())
    rows = [_farthest(who, tensors, noise) for who, (tensors, _) in found.items()]
    strange = {it: _measured(beside(names[0], it), tried) for it in names[number:]}
    recipes = [_farthest((names[0], it), each, noise) for it, (each, _) in strange.items()]
    rest = _farthest(("", ""), largest, noise)
    rules = _rules(rest, noise, recipes, number, tried) if rest.tensor else []
    alternatives = [[{"equality": "tensors"}], *([rules] if rules else [])]
    toml = to_toml(Suggestion(None), tried.name, alternatives)
    if not against:
        declared = parse(toml.encode())
        if any(apply(declared, each).conclusion not in AGREES for each in honest.values()):
            against = [f"{some_of([*noise])}: over 1 % of the model, or all zero, {_NO_USE}"]
    far = sorted(largest.keys() - noise, key=lambda it: largest[it]["relative_l2"], reverse=True)
    than = f"less than {_TIMES} times as far as rebuilds, which are farthest in {some_of(far)}"
    limits = rules[0] if rules else {}
    against += [
        f"another recipe, {each.right}, is {than if far else 'equal, too'}"
        for each in recipes
        if (each.distances or not strange[each.right][1])
        and all(value <= limits.get(key, 0) for key, value in each.distances.items())
    ]
    said = [f"{each.left} | {each.right}: {_words(each)}" for each in rows]
    said += [f"another recipe, {each.right}: {_words(each)}" for each in recipes]
    said += [] if against else ['say what differed: axes = ["instruction-set", "thread-count"]']
    comments = "".join(f"# {one_line(each)}\n" for each in said)
    warnings = tuple(_warnings(rows, recipes, noise))
    toml = comments + ("" if against else toml)
    return Calibration(tuple(rows), tuple(recipes), noise, toml, tuple(against), warnings)


def _measured(
    weights: MeasuredWeights, declaration: Declaration
) -> tuple[dict[str, _Distances], list[str]]:
    """Return the distances of the tensors that differ, and what else does."""
    outcome = apply(declaration, weights)
    tensors: dict[str, _Distances] = {}
    beside = list(outcome.missing)
    for each in outcome.alternatives[0].findings:
        key = each.measure.partition("-of-")[0].replace("-", "_")
        if each.tensor is not None and key in _LIMITS:
            value = MAX_RELATIVE if each.value is None else each.value
            tensors[each.tensor] = _largest([tensors.get(each.tensor, {}), {key: value}])
        elif not each.held:
            why = f" ({each.note})" if each.note else ""
            beside.append(f"{each.file}: {each.tensor or each.measure}{why}")
    return tensors, beside


def _largest(each: Iterable[_Distances]) -> _Distances:
    found: _Distances = {}
    for key, value in (item for it in each for item in it.items()):
        found[key] = max(value, found.get(key, 0.0))
    return found


def _farthest(
    who: tuple[str, str], tensors: Mapping[str, _Distances], but: Collection[str] = ()
) -> Farthest:
    rest = {tensor: each for tensor, each in tensors.items() if tensor not in but}
    farthest = max(rest, key=lambda tensor: rest[tensor]["relative_l2"], default=None)
    return Farthest(*who, farthest, _largest(rest.values()))


def _words(it: Farthest) -> str:
    said = ", ".join(f"{_LIMITS[key]} {value:.2g}" for key, value in it.distances.items())
    return f"{said} ({it.tensor})" if said else "the same floats"


def _without_gradient(
    honest: dict[str, _Distances], rebuilds: Iterable[MeasuredWeights]
) -> tuple[dict[str, _Distances], list[str]]:
    """Return the vectors that are far above the rest; and that no limit is of use for matrices."""
    contents = (each for weights in rebuilds for each in weights.all())
    ranks = {it.name: len(it.left.shape) for each in contents for it in each.tensors if it.left}
    matrices = {it: each["relative_l2"] for it, each in honest.items() if ranks[it] > 1}
    most = _largest(honest[tensor] for tensor in matrices or honest)
    noise = {
        tensor: each
        for tensor, each in honest.items()
        if tensor not in matrices and any(each[key] > _TIMES * most[key] for key in each)
    }
    least = max(_LARGE, _FAR * median_low(matrices.values() or [0]))
    large = [tensor for tensor, l2 in matrices.items() if l2 > least or _TIMES * l2 >= 1]
    against = f"{some_of(large)}: too far apart in honest rebuilds, {_NO_USE}"
    return noise, [against] if large else []


def _rules(
    rest: Farthest,
    noise: Mapping[str, _Distances],
    recipes: Sequence[Farthest],
    number: int,
    tried: Declaration,
) -> list[dict[str, Any]]:
    initial = getattr(tried.rules[0], "initial", None)
    of = f"{number} rebuilds, each with each, at most"
    names, why = [*map(_pattern, noise)], f"{of} {_words(rest)}"
    if len(names) >= _MAX_PATTERNS:
        names = [*dict.fromkeys(re.sub(r"\d+", "*", each) for each in names)]
    if measured := [each for each in recipes if each.distances]:
        nearest = min(measured, key=lambda each: each.distances["relative_l2"])
        why += f"; another recipe, {nearest.right}: {_words(nearest)}"
    rules = [_close(["*", *(f"!{each}" for each in names)], initial, rest.distances, why)]
    if noise:
        far = _farthest(("", ""), noise)
        why = f"far above the rest, as where there is no gradient: {of} {_words(far)}"
        wider = _close(names, initial, far.distances, why)
        rules.append({"equality": "close", "max_rank": 1, "max_share": 0.01, **wider})
    return rules


def _close(
    tensors: Sequence[str], initial: str | None, distances: _Distances, reason: str
) -> dict[str, Any]:
    limits = {
        key: min(max(MIN_RELATIVE, float(_ROUNDED_UP.create_decimal(_TIMES * it))), MAX_RELATIVE)
        for key, it in distances.items()
    }
    start = {"relative_to": "weights"} if initial is None else {"initial": initial}
    rule = {"equality": "close", "tensors": tensors, **start, **limits}
    return {**rule, "reason": one_line(reason)[:2000]}


def _pattern(tensor: str) -> str:
    """Return a pattern for the name *tensor*, with ``?`` for what no pattern can hold."""
    exact = re.sub(r"[\[*?]", r"[\g<0>]", tensor)
    return exact if fault(f"!{exact}") is None else re.sub(r"[^\w.]", "?", tensor)[:200] + "*"


def _warnings(
    rows: Sequence[Farthest], recipes: Sequence[Farthest], noise: Mapping[str, _Distances]
) -> Iterator[str]:
    equal = [each for each in rows if not each.distances]
    if len(equal) == len(rows):
        yield (
            "all rebuilds are equal: two runs on one machine show nothing about other machines, "
            "so compare other thread counts and instruction sets"
        )
    elif equal:
        yield f"{equal[0].right} equals {equal[0].left}: what was varied varies nothing"
    if len(rows) == 1:
        yield "two rebuilds have one distance: make a third"
    if not recipes:
        yield "nothing shows what the limits refuse: measure an --other recipe"
    if any(_TIMES * each["relative_l2"] >= 1 for each in noise.values()):
        yield "a limit of 1 or more admits any tensor of the same size: add 'behaviour'"
