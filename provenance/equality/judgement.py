"""Rules, applied to what was read of one pair of weight files. Pure: nothing is read here.

Every test is written so that an absent number, NaN or an infinity is against the rule: what must be
shown is ``value <= limit``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from provenance.equality.declaration import Close, Tensors
from provenance.equality.distances import RELATIVE_ERROR, at_most
from provenance.equality.findings import Finding
from provenance.equality.patterns import selects_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.equality.contents import Contents, TensorPair
    from provenance.tensors.view import TensorInfo

_ABSENT: Final = {
    "update": ("overflow", "zero-update", "zero-weights", "initial-not-finite", "ratio-overflow"),
    "weights": ("overflow", "zero-weights", "ratio-overflow"),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found, and what could not be judged."""

    findings: tuple[Finding, ...]
    missing: tuple[str, ...]


def judge_contents(file: str, found: Sequence[tuple[Tensors | Close, Contents]]) -> Judged:
    """Judge the weight file *file* under each rule, with what was read for that rule.

    There is at least one rule. What was read differs between rules only in the initial weights.
    """
    contents = found[0][1]
    findings = _structure(file, contents)
    missing: list[str] = []
    for index, pair in enumerate(contents.tensors):
        if not pair.differing:
            continue
        selecting = [each for each in found if selects_tensor(each[0].tensors, pair.name)]
        close = [(rule, each) for rule, each in selecting if isinstance(rule, Close)]
        if not close or len(close) < len(selecting):
            findings.append(_bits(file, pair))
        for rule, each in close:
            judged = _judge_close(file, rule, each, each.tensors[index])
            findings.extend(judged.findings)
            missing.extend(judged.missing)
    return Judged(tuple(findings), tuple(missing))


def _structure(file: str, contents: Contents) -> list[Finding]:
    """Return what is against every rule: the structure must be the same."""
    against = [
        Finding(file=file, measure=measure, held=False)
        for measure, same in (
            ("metadata", contents.metadata_equal),
            ("container", contents.normalisers is not None),
        )
        if not same
    ]
    for pair in contents.tensors:
        if pair.differing is None:
            measure = "presence" if pair.left is None or pair.right is None else "type-and-shape"
            against.append(
                Finding(
                    file=file,
                    tensor=pair.name,
                    measure=measure,
                    held=False,
                    left=_described(pair.left),
                    right=_described(pair.right),
                )
            )
    return against


def _described(info: TensorInfo | None) -> str | None:
    return None if info is None else f"{info.dtype.name}{list(info.shape)}"


def _bits(file: str, pair: TensorPair, note: str | None = None) -> Finding:
    return Finding(
        file=file,
        tensor=pair.name,
        measure="differing-elements",
        held=False,
        value=float(pair.differing or 0),
        limit=0.0,
        note=note,
    )


def _judge_close(file: str, rule: Close, contents: Contents, pair: TensorPair) -> Judged:
    """Judge a tensor of *contents* that differs in some bit."""
    distance = pair.distance
    if distance is None or "exact-type" in distance.notes:
        return Judged((_bits(file, pair, "exact-type"),), ())
    if "not-finite" in distance.notes:
        return Judged((_bits(file, pair, "not-finite"),), ())
    if rule.initial != contents.initial and rule.initial is not None:
        return Judged((), (f"{rule.initial}: not the same initial weights in both models",))
    if rule.initial is not None and not pair.in_initial:
        what = f"{file}: {pair.name}: no tensor of its type and shape in {rule.initial}"
        return Judged((), (what,))
    l2, linf = distance.relative_l2_weights, distance.relative_linf_weights
    if rule.relative_to == "update":
        l2 = _stricter(l2, distance.relative_l2_update)
        linf = _stricter(linf, distance.relative_linf_update)
    note = next((word for word in distance.notes if word in _ABSENT[rule.relative_to]), None)
    findings = [
        Finding(
            file=file,
            tensor=pair.name,
            measure=f"{measure}-of-{rule.relative_to}",
            held=value is not None and at_most(value, limit),
            value=None if value is None else value * (1 + RELATIVE_ERROR),
            limit=limit,
            note=note if value is None else None,
        )
        for measure, value, limit in (
            ("relative-l2", l2, rule.relative_l2),
            ("relative-linf", linf, rule.relative_linf),
        )
    ]
    if rule.max_ulp is not None:
        ulp = distance.max_ulp
        findings.append(
            Finding(
                file=file,
                tensor=pair.name,
                measure="max-ulp",
                held=ulp is not None and ulp <= rule.max_ulp,
                value=None if ulp is None else float(ulp),
                limit=float(rule.max_ulp),
                note="ulp-too-large" if ulp is None else None,
            )
        )
    return Judged(tuple(findings), ())


def _stricter(of_weights: float | None, of_update: float | None) -> float | None:
    """Return the distance as a part of the update or of the weights, whichever is smaller.

    The initial weights are the publisher's: far away ones would make any distance a small part of
    the update.
    """
    if of_weights is None or of_update is None:
        return None
    return max(of_weights, of_update)
