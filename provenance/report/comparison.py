"""How a comparison reads: a line for each file, a table of the tensors that differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from provenance.equality.lattice import AGREES, Conclusion
from provenance.errors import count, cut, one_line
from provenance.measure.findings import (
    REPORTED,
    AlternativeOutcome,
    Divergence,
    Excepted,
    Finding,
    Outcome,
    TensorDistance,
)
from provenance.report.explain_text import MAX_TEXT, MAX_VALUE, shorten
from provenance.report.terminal import bad, dim, good, table

if TYPE_CHECKING:
    from provenance.judge.side_by_side import FileComparison, MetadataDifference, TensorComparison
    from provenance.loaders.choice import Apart

SHOWN_TENSORS, SHOWN_METADATA, SHOWN_FINDINGS, SHOWN_EXCEPTED, SHOWN_KEYS = 40, 10, 5, 20, 3
"""Differing tensors and metadata keys listed of one file, findings of an alternative, exceptions,
and keys of one."""

MIN_OUTLYING: Final = 0.01
"""Part of a squared norm that few elements carry, from which on it is shown."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

_COLUMNS: Final = ("tensor", "type", "shape", "differ", "L2", "L∞", "row", "worst at", "ULP")


def comparison_lines(
    files: Sequence[FileComparison],
    not_compared: Sequence[str] = (),
    apart: Sequence[Apart] = (),
) -> list[str]:
    """Return a line for each file, and under a changed weight file a table of its tensors."""
    lines = []
    for item in files:
        mark = good("=") if item.same else bad("≠")
        state = "same tensors, another file" if item.same_tensors else _state(item.state)
        lines.append(f"{mark} {one_line(item.name)}  {state}")
        if item.unread is not None:
            lines.append(f"    not read: {one_line(item.unread)}")
        lines += [f"    not judged: {one_line(doubt)}" for doubt in item.doubts]
        lines += _metadata_lines(item.metadata)
        if item.normalisers:
            names = ", ".join(normaliser.name for normaliser in item.normalisers)
            lines.append(dim(f"    the containers differ: {names}"))
        lines += _tensor_lines(item)
    for each in apart:
        taken = (one_line(name or "nothing") for name in (each.left, each.right))
        lines.append(f"{bad('≠')} {' from A, '.join(taken)} from B: {', '.join(each.loaders)}")
    lines += [dim(f"– {one_line(name)}  not compared") for name in not_compared]
    equal = sum(item.state == "equal" for item in files)
    alike = sum(item.same_tensors for item in files)
    more = f", {alike} with the same tensors" if alike else ""
    lines.append(f"{equal} of {count(len(files), 'file')} equal{more}")
    return lines


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return the outcome of an equality on two models."""
    agreed, excepted = outcome.conclusion in AGREES, _excepted(outcome.exceptions)
    by = f" by {outcome.strongest}{apart_from(outcome.exceptions)}" if agreed else ""
    lines = [conclusion_text(outcome.conclusion) + by]
    if not agreed or len(excepted) > 1:
        lines += [dim(f"  excepted: {text}") for text in cut(excepted, SHOWN_EXCEPTED)]
    for number, alternative in enumerate(outcome.alternatives, 1):
        word = {True: "holds", False: "does not hold", None: "cannot be decided"}[alternative.held]
        lines.append(f"  alternative {number} (weakest rule: {alternative.strength}) {word}")
        if alternative.held:
            lines += _worst_lines(alternative.findings)
            lines += [f"    {one_line(text)}" for text in _less(alternative)]
            continue
        lines += [f"    missing: {one_line(text)}" for text in alternative.missing]
        failed = [one_line(_finding(each)) for each in alternative.findings if not each.held]
        lines += [f"    {text}" for text in cut(failed, SHOWN_FINDINGS)]
    if outcome.same_weights and outcome.conclusion not in AGREES:
        lines.append("  all weights are equal, bit for bit")
    if outcome.first is not None:
        lines.append(dim(f"  the weights begin to differ at {_place(outcome.first)}"))
    if outcome.normalisers:
        names = dict.fromkeys(normaliser.name for normaliser in outcome.normalisers)
        lines.append(dim(f"  normalisers used: {', '.join(names)}"))
    return lines


def apart_from(exceptions: Sequence[Excepted]) -> str:
    """Return what differs and was admitted, as the end of a conclusion; of much, where it is."""
    if len(texts := _excepted(exceptions)) == 1:
        return f", apart from {texts[0]}"
    files = [one_line(file) for file in dict.fromkeys(each.file for each in exceptions)]
    unsafe = " (UNSAFE)" if any(each.unsafe for each in exceptions) else ""
    return f", apart from {', '.join(cut(files, SHOWN_KEYS))}{unsafe}" if texts else ""


def _excepted(exceptions: Sequence[Excepted]) -> list[str]:
    """Return a text for each reason in each file."""
    keys: dict[tuple[str, str], list[str]] = {}
    for each in exceptions:
        said = f"({shorten(each.reason, MAX_TEXT)}{', UNSAFE' if each.unsafe else ''})"
        file = each.file if each.member is None else f"{each.file}: {each.member}"
        keys.setdefault((file, said), []).extend([each.key] if each.key is not None else [])
    texts = []
    for (file, said), named in keys.items():
        short = [it if len(it) <= MAX_VALUE else f"…{it[-MAX_VALUE:]}" for it in named]
        what = f": {', '.join(cut(short, SHOWN_KEYS))}" if named else ""
        texts.append(one_line(f"{file}{what} {said}"))
    return texts


def conclusion_text(conclusion: Conclusion) -> str:
    """Return *conclusion* in its colour."""
    return good(conclusion) if conclusion in AGREES else bad(conclusion)


def distance_text(distance: TensorDistance) -> str:
    """Return the distances of one tensor in words, without absent ones."""
    parts = [f"{distance.differing:,} of {distance.elements:,} elements"]
    named = {
        "L2": distance.l2,
        "L∞": distance.linf,
        "L2/update": distance.relative_l2_update,
        "L∞/update": distance.relative_linf_update,
        "row L2/update": distance.relative_l2_rows_update,
        "L2/weights": distance.relative_l2_weights,
        "L∞/weights": distance.relative_linf_weights,
        "row L2/weights": distance.relative_l2_rows_weights,
    }
    parts += [f"{name} {value:.3g}" for name, value in named.items() if value is not None]
    parts += [] if distance.max_ulp is None else [f"{distance.max_ulp:,} ULP"]
    exact = distance.parts or {}
    parts += [f"{number:,} {name}" for name, number in exact.items() if number]
    return ", ".join([*parts, *_outlying(distance), *distance.notes])


def _outlying(distance: TensorDistance) -> list[str]:
    """Return how much of a tensor few elements carry, where that is worth a word."""
    share = distance.outlying_share or 0
    return [f"{share:.0%} in few elements"] if share >= MIN_OUTLYING else []


def _metadata_lines(metadata: Sequence[MetadataDifference]) -> list[str]:
    texts = [
        f"{bad('≠')} metadata {one_line(each.key)}: {_side(each.left)} ≠ {_side(each.right)}"
        for each in metadata
    ]
    return [f"    {text}" for text in cut(texts, SHOWN_METADATA, "more keys of the metadata")]


def _worst_lines(findings: Sequence[Finding]) -> list[str]:
    """Return, for each measure, the finding that came nearest to its limit."""
    nearest: dict[str, tuple[float, Finding]] = {}
    for each in findings:
        if each.value is not None and each.limit:
            part = each.value / each.limit
            if each.measure not in nearest or part > nearest[each.measure][0]:
                nearest[each.measure] = part, each
    return [dim(f"    at most: {one_line(_finding(finding))}") for _, finding in nearest.values()]


def _less(alternative: AlternativeOutcome) -> Iterator[str]:
    """Yield why *alternative*, which holds, concludes less than its equality can."""
    if files := [each.file for each in alternative.findings if each.note == REPORTED]:
        what = "plausible: only numbers that a builder reports speak for"
        yield f"{what} {', '.join(cut(files, SHOWN_FINDINGS))}"
    elif alternative.strength == "rounded" and alternative.concludes != "match":
        yield "consistent: nothing shows that the narrower type is shipped"


def _tensor_lines(item: FileComparison) -> list[str]:
    tensors = item.tensors or ()
    differing = [tensor for tensor in tensors if tensor.state != "equal"]
    lines = []
    if differing:
        rows = [_cells(tensor) for tensor in differing[:SHOWN_TENSORS]]
        right = frozenset({3, 4, 5, 6, 8})
        lines += [f"    {line}" for line in table(_COLUMNS, rows, right=right)]
        if len(differing) > SHOWN_TENSORS:
            lines.append(f"    and {len(differing) - SHOWN_TENSORS:,} more; --json has all")
        if any(each.distance and each.distance.l2 is not None for each in differing):
            norms = "L2 = ‖A-B‖ / the smaller of ‖A‖ and ‖B‖; L∞ the same of the largest"
            lines.append(dim(f"    {norms}"))
        if any(each.distance and each.distance.relative_l2_rows_weights for each in differing):
            lines.append(dim("    row = the largest L2 of a row, as a part of their mean square"))
        if item.first is not None:
            lines.append(dim(f"    they begin to differ at {_place(item.first)}"))
    if tensors:
        equal = len(tensors) - len(differing)
        lines.append(dim(f"    {equal:,} of {count(len(tensors), 'tensor')} equal"))
    return lines


def _cells(tensor: TensorComparison) -> tuple[str, ...]:
    name, distance = one_line(tensor.name), tensor.distance
    dtype = tensor.left_dtype or tensor.right_dtype or ""
    shape = _bracketed(tensor.left_shape) or _bracketed(tensor.right_shape)
    if tensor.state == "dtype":
        return (name, f"{tensor.left_dtype} ≠ {tensor.right_dtype}", shape)
    if tensor.state == "shape":
        return (name, dtype, f"{shape} ≠ {_bracketed(tensor.right_shape)}")
    if distance is None:
        return (name, dtype, shape, _state(tensor.state))
    exact = [f"{number:,} {part}" for part, number in (distance.parts or {}).items()]
    norms = (
        distance.relative_l2_weights,
        distance.relative_linf_weights,
        distance.relative_l2_rows_weights,
    )
    return (
        name,
        dtype,
        shape,
        f"{distance.differing:,} of {distance.elements:,}",
        *("" if value is None else f"{value:.3g}" for value in norms),
        _bracketed(distance.worst if distance.worst is not None else distance.first),
        "" if distance.max_ulp is None else f"{distance.max_ulp:,}",
        ", ".join([*exact, *_outlying(distance), *distance.notes]),
    )


def _bracketed(numbers: tuple[int, ...] | None) -> str:
    """Return a shape, or the place of an element."""
    return "" if numbers is None else f"[{','.join(map(str, numbers))}]"


def _place(first: Divergence) -> str:
    return f"{one_line(first.file)}: {one_line(first.tensor)}{_bracketed(first.index)}"


def _state(state: str) -> str:
    return {"missing-left": "only in B", "missing-right": "only in A"}.get(state, state)


def _finding(finding: Finding) -> str:
    place = finding.file + (f": {finding.tensor}" if finding.tensor else "")
    at = f", worst at {_bracketed(finding.place)}" if finding.place is not None else ""
    note = f" ({finding.note})" if finding.note else ""
    if finding.value is not None and finding.limit is not None:
        said = f"{finding.measure} {finding.value:.3g} (limit {finding.limit:.3g})"
        return f"{place}: {said}{at}{note}"
    sides = f" ({_side(finding.left)} against {_side(finding.right)})"
    return f"{place}: {finding.measure}{sides if finding.left or finding.right else ''}{note}"


def _side(text: str | None) -> str:
    """Return one side of a finding, with digests cut."""
    if text is None:
        return "nothing"
    return one_line(_SHA256.sub(lambda found: f"{found[0][:16]}…", text))
