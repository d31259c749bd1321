"""What an equality declaration says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from provenance.equality import declaration as declarations
from provenance.equality.declaration import Alternative, Bytes, Close
from provenance.equality.findings import CONCLUDES
from provenance.report.explain_text import explained, row, rows

if TYPE_CHECKING:
    from provenance.equality.declaration import Declaration, Rule
    from provenance.report.explain_text import Explained


class EqualityFile(msgspec.Struct, frozen=True, tag_field="kind", tag="equality-declaration"):
    """An equality declaration."""

    name: str
    sha256: str
    axes: tuple[str, ...]
    any: tuple[Alternative, ...]


def explain_equality(data: bytes, where: str) -> Explained:
    """Return what the declaration *data* says.

    Raises:
        MalformedError: it is none.
    """
    declaration = declarations.parse(data, where=where)
    content = EqualityFile(declaration.name, declaration.digest, declaration.axes, declaration.any)
    lines = [
        f"{where}: equality declaration (not verified)",
        row("name", declaration.name),
        row("sha256", declaration.digest),
        *declaration_rows(declaration),
    ]
    return explained(content, lines)


def declaration_rows(declaration: Declaration, depth: int = 1) -> list[str]:
    """Return the axes and the alternatives of *declaration*."""
    axes = ", ".join(declaration.axes) or "none named"
    lines = rows("axes", [axes], depth)
    for number, alternative in enumerate(declaration.any):
        lines += _alternative_rows(alternative, "same if" if number == 0 else "or if", depth)
    return lines


def _alternative_rows(alternative: Alternative, label: str, depth: int) -> list[str]:
    lines = []
    for number, rule in enumerate(alternative.all):
        lines.append(row("  and" if number else label, _rule_text(rule), depth))
        if isinstance(rule, Close):
            lines.append(row("", f"because {rule.reason}", depth))
    lines.append(row("", f"then: {CONCLUDES[alternative.strength]}", depth))
    return lines


def _rule_text(rule: Rule) -> str:
    files = f"files {', '.join(rule.files)}" if rule.files else "every file"
    if isinstance(rule, Bytes):
        return f"bytes: {files}, equal byte for byte"
    tensors = "every tensor" if rule.tensors == ("*",) else f"tensors {', '.join(rule.tensors)}"
    if not isinstance(rule, Close):
        return f"tensors: {files}, {tensors} equal bit for bit"
    of = f"the update from {rule.initial}" if rule.relative_to == "update" else "the weights"
    ulp = f", at most {rule.max_ulp} ULP" if rule.max_ulp is not None else ""
    limits = f"L2 ≤ {rule.relative_l2:g} and L∞ ≤ {rule.relative_linf:g} of {of}{ulp}"
    return f"close: {files}, {tensors}: {limits}"
