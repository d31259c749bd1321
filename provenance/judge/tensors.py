"""Rules, applied to what was read of one pair of weights. Nothing is read here.

A rule holds only where ``value <= limit`` is shown: an absent number, NaN or an infinity breaks it.
A tensor that is equal in every bit, even with NaN, satisfies every rule (P1 implies P2 and P4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from provenance.equality.rules import Close, Rounded, TensorRule
from provenance.judge.selection import Judges
from provenance.measure.contents import Contents, TensorPair
from provenance.measure.findings import AS_NARROWER, Finding, Judged, TensorDistance, unlike
from provenance.measure.squares import at_most, enlarged

_ABSENT: Final = {
    "update": ("overflow", "zero-update", "zero-weights", "initial-not-finite", "ratio-overflow"),
    "weights": ("overflow", "zero-weights", "ratio-overflow"),
}


MAX_LOST: Final = 0.5
"""Largest part of the elements that are not zero of which rounding may leave no digit."""


def judge_contents(
    file: str, judges: Judges, found: Sequence[tuple[TensorRule, Contents]]
) -> Judged:
    """Judge the pair of weights *file* under each of one or more rules, with what was read for it.

    *judges* says which judges what. What was read differs only in the initial weights. Metadata are
    judged apart (:mod:`~provenance.judge.exceptions`).
    """
    contents = found[0][1]
    findings = _structure(file, contents)
    missing: list[str] = []
    used: dict[TensorRule, None] = {}
    for index, pair in enumerate(contents.tensors):
        if not pair.differing:
            continue
        for rule, each in found:
            if pair.left is None or not judges.judges(rule, pair.name, len(pair.left.shape)):
                continue
            used[rule] = None
            judged = _judge(file, rule, each, each.tensors[index])
            findings.extend(judged.findings)
            missing.extend(judged.missing)
    findings += [
        _share(file, rule, rule.max_share, judges, contents)
        for rule in used
        if isinstance(rule, Close) and rule.max_share is not None
    ]
    return Judged(tuple(dict.fromkeys(findings)), tuple(dict.fromkeys(missing)))


def _judge(file: str, rule: TensorRule, contents: Contents, pair: TensorPair) -> Judged:
    if isinstance(rule, Close):
        return _judge_close(file, rule, contents, pair)
    if isinstance(rule, Rounded):
        return Judged((_judge_rounded(file, rule, pair),))
    return Judged((_bits(file, pair),))


def _structure(file: str, contents: Contents) -> list[Finding]:
    """Return the differences of structure, which break every rule."""
    against = (
        []
        if contents.normalisers is not None
        else [Finding(file=file, measure="container", held=False)]
    )
    unlikes = (pair for pair in contents.tensors if pair.differing is None)
    return against + [unlike(file, pair.name, pair.left, pair.right) for pair in unlikes]


def _share(file: str, rule: Close, limit: float, judges: Judges, contents: Contents) -> Finding:
    """Judge how much of the file the tensors hold that *rule* selects."""
    sizes = [
        (it.elements, judges.judges(rule, it.name, len(it.shape)))
        for pair in contents.tensors
        if (it := pair.left) is not None and not judges.leaves(it.name)
    ]
    share = sum(size for size, taken in sizes if taken) / sum(size for size, _ in sizes)
    measure = "share-of-parameters"
    return Finding(file=file, measure=measure, held=share <= limit, value=share, limit=limit)


def _bits(file: str, pair: TensorPair, note: str | None = None) -> Finding:
    return Finding(
        file=file,
        tensor=pair.name,
        measure="differing-elements",
        held=False,
        value=float(pair.differing or 0),
        limit=0.0,
        place=pair.distance.first if pair.distance is not None else None,
        note=note,
    )


def _judge_rounded(file: str, rule: Rounded, pair: TensorPair) -> Finding:
    rounded = pair.rounded.get(rule.to)
    if rounded is None:
        return _bits(file, pair, "not-wider")
    if rounded.overflow:
        return _bits(file, pair, "beyond-the-narrower-type")
    if rounded.nan and rule.nan == "refused":
        return _bits(file, pair, "not-a-number")
    differing, place = rounded.differing, rounded.first
    if rule.signed_zero == "equal":
        differing, place = differing - rounded.zero_signs, rounded.first_value
    found = partial(Finding, file=file, tensor=pair.name)
    if rounded.lost > MAX_LOST * rounded.nonzero:
        share = rounded.lost / rounded.nonzero
        return found(measure=f"lost-as-{rule.to}", held=False, value=share, limit=MAX_LOST)
    return found(
        measure=f"{AS_NARROWER}{rule.to}",
        held=differing == 0,
        value=float(differing),
        limit=0.0,
        place=place,
    )


def _judge_close(file: str, rule: Close, contents: Contents, pair: TensorPair) -> Judged:
    distance = pair.distance
    note = _beyond_distance(rule, distance)
    if distance is None or note is not None:
        return Judged((_bits(file, pair, note),))
    if rule.initial != contents.initial and rule.initial is not None:
        return Judged((), (f"{rule.initial}: not the same initial weights in both models",))
    if rule.initial is not None and not pair.in_initial:
        what = f"{file}: {pair.name}: no tensor of its type and shape in {rule.initial}"
        return Judged((), (what,))
    return Judged(_distances(rule, partial(Finding, file=file, tensor=distance.tensor), distance))


def _beyond_distance(rule: Close, distance: TensorDistance | None) -> str | None:
    """Return why a tensor that differs cannot be judged by its distance; None: it can."""
    if distance is None or "exact-type" in distance.notes:
        return "exact-type"
    if "not-finite" in distance.notes:
        return "not-finite"
    if distance.nan and rule.nan == "refused":
        return "not-a-number"
    if distance.zero_signs and rule.signed_zero == "distinct":
        return "sign-of-zero"
    return None


def _distances(
    rule: Close, found: Callable[..., Finding], distance: TensorDistance
) -> tuple[Finding, ...]:
    """Judge the relative norms, and ULP if limited: all must be within their limits."""
    why = next((word for word in distance.notes if word in _ABSENT[rule.relative_to]), None)
    norms = [
        (name.replace("_", "-"), _stricter(rule, distance, name), limit)
        for name in ("relative_l2", "relative_linf", "relative_l2_rows")
        if (limit := getattr(rule, name)) is not None
        and (name != "relative_l2_rows" or len(distance.shape) > 1)
    ]
    findings = [
        found(
            measure=f"{measure}-of-{rule.relative_to}",
            held=value is not None and at_most(value, limit),
            value=None if value is None else enlarged(value),
            limit=limit,
            place=distance.worst,
            note=why if value is None else None,
        )
        for measure, value, limit in norms
    ]
    if rule.max_ulp is not None:
        within = partial(found, measure="max-ulp", limit=float(rule.max_ulp))
        ulp = distance.max_ulp
        findings.append(
            within(held=False, note="ulp-too-large")
            if ulp is None
            else within(held=ulp <= rule.max_ulp, value=float(ulp))
        )
    return tuple(findings)


def _stricter(rule: Close, distance: TensorDistance, name: str) -> float | None:
    """Return the larger: distant initial weights would make any part of the update small."""
    of_weights: float | None = getattr(distance, f"{name}_weights")
    if rule.relative_to == "weights":
        return of_weights
    of_update: float | None = getattr(distance, f"{name}_update")
    return None if of_weights is None or of_update is None else max(of_weights, of_update)
