"""How two models read side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from provenance.equality.findings import AGREES
from provenance.errors import one_line
from provenance.report.terminal import bad, dim, good

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.equality.findings import Finding, Outcome, TensorDistance
    from provenance.equality.side_by_side import FileComparison, TensorComparison

SHOWN_TENSORS = 40
"""Tensors listed of one file; equal ones are only counted."""

SHOWN_DIGITS = 16
"""Digits shown of a SHA-256; ``--json`` has all."""

_SHA256 = re.compile(r"[0-9a-f]{64}")

SHOWN_FINDINGS = 5
"""Findings listed of an alternative that does not hold."""


def comparison_lines(files: Sequence[FileComparison]) -> list[str]:
    """Return a line a file, and under a changed weight file a line a tensor."""
    lines = []
    for item in files:
        mark = good("=") if item.state == "equal" else bad("≠")
        lines.append(f"{mark} {one_line(item.name)}  {_state(item.state)}")
        if item.unread is not None:
            lines.append(f"    not read: {one_line(item.unread)}")
        if item.metadata_equal is False:
            lines.append("    the metadata differ")
        lines += [dim(f"    the containers differ: {n.name}") for n in item.normalisers]
        lines += _tensor_lines(item.tensors or ())
    equal = sum(item.state == "equal" for item in files)
    lines.append(f"{equal} of {len(files)} files equal")
    return lines


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return what an equality says of the two models."""
    colour = good if outcome.conclusion in AGREES else bad
    strongest = f" by '{outcome.strongest}'" if outcome.conclusion in AGREES else ""
    lines = [colour(outcome.conclusion) + strongest]
    for number, alternative in enumerate(outcome.alternatives, 1):
        word = {True: "holds", False: "does not hold", None: "cannot be decided"}[alternative.held]
        lines.append(f"  alternative {number} ({alternative.strength}) {word}")
        if not alternative.held:
            lines += [f"    missing: {one_line(text)}" for text in alternative.missing]
            failed = [finding for finding in alternative.findings if not finding.held]
            lines += [f"    {one_line(_finding(f))}" for f in failed[:SHOWN_FINDINGS]]
            if len(failed) > SHOWN_FINDINGS:
                lines.append(f"    and {len(failed) - SHOWN_FINDINGS} more")
    return lines


def distance_text(distance: TensorDistance) -> str:
    """Return the distances of one tensor in words; absent ones are left out."""
    parts = [f"{distance.differing:,} of {distance.elements:,} elements"]
    named = {
        "L2": distance.l2,
        "L∞": distance.linf,
        "L2/update": distance.relative_l2_update,
        "L∞/update": distance.relative_linf_update,
        "L2/weights": distance.relative_l2_weights,
    }
    parts += [f"{name} {value:.3g}" for name, value in named.items() if value is not None]
    if distance.max_ulp is not None:
        parts.append(f"{distance.max_ulp:,} ULP")
    return ", ".join([*parts, *distance.notes])


def _tensor_lines(tensors: Sequence[TensorComparison]) -> list[str]:
    differing = [tensor for tensor in tensors if tensor.state != "equal"]
    lines = [f"    {bad('≠')} {one_line(t.name)}  {_tensor(t)}" for t in differing[:SHOWN_TENSORS]]
    if len(differing) > SHOWN_TENSORS:
        lines.append(f"    and {len(differing) - SHOWN_TENSORS} more")
    if tensors:
        lines.append(dim(f"    {len(tensors) - len(differing)} of {len(tensors)} tensors equal"))
    return lines


def _tensor(tensor: TensorComparison) -> str:
    if tensor.state == "dtype":
        return f"{tensor.left_dtype} against {tensor.right_dtype}"
    if tensor.state == "shape":
        return f"shape {tensor.left_shape} against {tensor.right_shape}"
    if tensor.distance is not None:
        return distance_text(tensor.distance)
    return _state(tensor.state)


def _state(state: str) -> str:
    return {"missing-left": "only in B", "missing-right": "only in A"}.get(state, state)


def _finding(finding: Finding) -> str:
    place = finding.file + (f": {finding.tensor}" if finding.tensor else "")
    if finding.value is not None and finding.limit is not None:
        return f"{place}: {finding.measure} {finding.value:.3g}, limit {finding.limit:.3g}"
    sides = ""
    if finding.left or finding.right:
        sides = f" ({_side(finding.left)} against {_side(finding.right)})"
    return f"{place}: {finding.measure}{sides}"


def _side(text: str | None) -> str:
    """Return one side of a finding: a digest in its first digits, what is absent as nothing."""
    if text is None:
        return "nothing"
    return f"{text[:SHOWN_DIGITS]}…" if _SHA256.fullmatch(text) else text
