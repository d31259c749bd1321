"""Limits from rebuilds of one's own: how far apart they are, and how far another recipe is.

Two models are measured by a rule whose limits no difference keeps: its findings are the distances.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, Context
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

import msgspec

from provenance.equality.declaration import Declaration, parse
from provenance.equality.lattice import AGREES
from provenance.equality.patterns import fault
from provenance.equality.rules import MAX_RELATIVE, MIN_RELATIVE
from provenance.errors import PolicyError, one_line, some_of
from provenance.judge.comparators import apply
from provenance.judge.suggestion import Suggestion, to_toml

if TYPE_CHECKING:
    from provenance.judge.measured import MeasuredWeights

_TIMES: Final = 3
"""A limit is so many times the largest honest distance, and any other recipe beyond it."""

_FAR, _LARGE = 30, 0.01
"""A matrix so many times as far as the middle one, by so much of itself, has no gradient."""

_MAX_PATTERNS: Final = 64
_LIMITS: Final = {"relative_l2": "L2", "relative_linf": "L∞"}
_ROUNDED_UP: Final = Context(prec=2, rounding=ROUND_CEILING)
_NO_USE: Final = "so no limit is of use: let 'behaviour' judge"

_Distances = dict[str, float]
"""By the keys of their limits; the largest limit, where a tensor that differs has no distance."""


class Apart(msgspec.Struct, frozen=True):
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

    rebuilds: tuple[Apart, ...]
    others: tuple[Apart, ...]
    without_gradient: dict[str, _Distances]
    toml: str
    against: tuple[str, ...]
    warnings: tuple[str, ...]


def trial(name: str, initial: str | None) -> Declaration:
    """Return the declaration called *name* by which models are measured."""
    rule = _close(["*"], initial, dict.fromkeys(_LIMITS, MIN_RELATIVE), "to measure")
    return parse(to_toml(Suggestion(None), name, [[rule]]).encode())


def calibrate(
    rebuilds: Mapping[tuple[str, str], MeasuredWeights],
    others: Mapping[tuple[str, str], MeasuredWeights],
    number: int,
    tried: Declaration,
) -> Calibration:
    """Return a declaration under which *number* models, each two of *rebuilds*, agree, or why none.

    *others* are the first beside models of other recipes. All are measured by *tried*, a
    :func:`trial`, whose name is taken. PolicyError: what no limit is about differs.
    """
    found = {who: _measured(each, tried) for who, each in rebuilds.items()}
    for who, (_, beside) in found.items():
        if beside:
            what = f"rebuilds differ in what no limit is about: {some_of(beside)}"
            hint = "name the weight files alone, and add exceptions to the declaration by hand"
            raise PolicyError(what, where=", ".join(who), hint=hint)
    every = [tensors for tensors, _ in found.values()]
    honest = {it: _largest(each.get(it, {}) for each in every) for each in every for it in each}
    noise, against = _without_gradient(honest, rebuilds.values())
    strange = {who: _measured(each, tried) for who, each in others.items()}
    rows, recipes = (
        [_apart(who, tensors, noise) for who, (tensors, _) in each.items()]
        for each in (found, strange)
    )
    rest = _apart(("", ""), honest, noise)
    rules = _rules(rest, noise, recipes, number, tried) if rest.tensor else []
    toml = to_toml(
        Suggestion(None), tried.name, [[{"equality": "tensors"}], rules][: 1 + bool(rules)]
    )
    if not against:
        declared = parse(toml.encode())
        if any(apply(declared, each).conclusion not in AGREES for each in rebuilds.values()):
            against = [f"{some_of([*noise])}: over 1 % of the model, or all zero, {_NO_USE}"]
    limits = rules[0] if rules else {}
    far = sorted(honest.keys() - noise, key=lambda it: honest[it]["relative_l2"], reverse=True)
    than = f"less than {_TIMES} times as far as rebuilds, which are farthest in {some_of(far)}"
    against += [
        f"another recipe, {each.right}, is {than if far else 'equal, too'}"
        for each, (_, beside) in zip(recipes, strange.values(), strict=True)
        if (each.distances or not beside)
        and all(value <= limits.get(key, 0) for key, value in each.distances.items())
    ]
    said = [f"{each.left} | {each.right}: {_words(each)}" for each in rows]
    said += [f"another recipe, {each.right}: {_words(each)}" for each in recipes]
    said += [] if against else ['say what differed: axes = ["instruction-set", "thread-count"]']
    comments = "".join(f"# {one_line(each)}\n" for each in said)
    toml = comments if against else comments + toml
    warnings = _warnings(rows, recipes, noise)
    return Calibration(tuple(rows), tuple(recipes), noise, toml, tuple(against), tuple(warnings))


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
    every = list(each)
    found = {key: [it[key] for it in every if key in it] for key in _LIMITS}
    return {key: max(values) for key, values in found.items() if values}


def _apart(
    who: tuple[str, str], tensors: Mapping[str, _Distances], but: Collection[str] = ()
) -> Apart:
    rest = {tensor: each for tensor, each in tensors.items() if tensor not in but}
    farthest = max(rest, key=lambda tensor: rest[tensor]["relative_l2"], default=None)
    return Apart(*who, farthest, _largest(rest.values()))


def _words(it: Apart) -> str:
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
    return noise, [
        f"{some_of(large)}: too far apart in honest rebuilds, {_NO_USE}"
    ] if large else []


def _rules(
    rest: Apart,
    noise: Mapping[str, _Distances],
    recipes: Sequence[Apart],
    number: int,
    tried: Declaration,
) -> list[dict[str, Any]]:
    """Return a rule for *rest* and, if there is, one for *noise*."""
    initial, of = (
        getattr(tried.rules[0], "initial", None),
        f"{number} rebuilds, each with each, at most",
    )
    names, why = [*map(_pattern, noise)], f"{of} {_words(rest)}"
    if len(names) >= _MAX_PATTERNS:
        names = [*dict.fromkeys(re.sub(r"\d+", "*", each) for each in names)]
    if measured := [each for each in recipes if each.distances]:
        nearest = min(measured, key=lambda each: each.distances["relative_l2"])
        why += f"; another recipe, {nearest.right}: {_words(nearest)}"
    rules = [_close(["*", *(f"!{each}" for each in names)], initial, rest.distances, why)]
    if noise:
        far = _apart(("", ""), noise)
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
    rows: Sequence[Apart], recipes: Sequence[Apart], noise: Mapping[str, _Distances]
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
