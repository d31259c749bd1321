"""What an equality declaration demands, guarantees and admits, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from provenance.equality import declaration as declarations
from provenance.equality.declaration import Alternative, strength_of
from provenance.equality.lattice import CONCLUDES, LATTICE
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Close,
    Curves,
    Metrics,
    Rounded,
    Tensors,
)
from provenance.errors import count
from provenance.report.explain_text import explained, row, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provenance.equality.coverage import Selection
    from provenance.equality.declaration import Declaration
    from provenance.equality.rules import Rule
    from provenance.report.explain_text import Explained


class EqualityFile(msgspec.Struct, frozen=True, tag_field="kind", tag="equality-declaration"):
    """An equality declaration; ``sha256`` is that of its canonical form."""

    name: str
    version: int
    sha256: str
    axes: tuple[str, ...]
    any: tuple[Alternative, ...]


def equality_content(declaration: Declaration) -> EqualityFile:
    """Return *declaration* for programs."""
    return EqualityFile(
        declaration.name,
        declaration.version,
        declaration.digest,
        declaration.axes,
        declaration.any,
    )


def explain_equality(data: bytes, where: str) -> Explained:
    """Return what the declaration *data* says.

    Raises:
        MalformedError: it is none.
    """
    declaration = declarations.parse(data, where=where)
    lines = [f"{where}: equality declaration (not verified)", *heading_rows(declaration)]
    return explained(equality_content(declaration), lines + declaration_rows(declaration))


def heading_rows(declaration: Declaration) -> list[str]:
    """Return name, version and digest of *declaration*."""
    return [
        row("name", f"{declaration.name}, version {declaration.version}"),
        row("sha256", declaration.digest),
    ]


def declaration_rows(
    declaration: Declaration, depth: int = 1, selections: Sequence[Selection] = ()
) -> list[str]:
    """Return the axes and the alternatives of *declaration*, and what they select in a model."""
    axes = ", ".join(declaration.axes) or "none named"
    lines = rows("may differ", [axes], depth)
    for number, alternative in enumerate(declaration.any):
        selection = selections[number] if selections else None
        lines += _alternative_rows(alternative, number, depth, selection)
    return lines


def _alternative_rows(
    alternative: Alternative, number: int, depth: int, selection: Selection | None
) -> list[str]:
    lines = []
    for index, rule in enumerate(alternative.all):
        label = "  and" if index else "same if" if number == 0 else "or if"
        lines.append(row(label, f"{strength_of(rule)}: {demand(rule)}", depth))
        if isinstance(rule, Tensors | Rounded | Close) and rule.optional:
            lines.append(row("", "where there are such tensors", depth))
        if rule.reason is not None:
            lines.append(row("", f"because {rule.reason}", depth))
        if selection is not None:
            lines.append(row("", f"here: {_selected(selection, index)}", depth))
    lines.append(row("", f"then: {CONCLUDES[alternative.strength]}", depth))
    return lines


def _selected(selection: Selection, index: int) -> str:
    units, tensors = selection.rules[index].units, selection.rules[index].tensors
    if tensors == 0:
        return "nothing"
    if not units:
        return "what the training statement recorded"
    shown = ", ".join(units[:3]) + (f" and {len(units) - 3} more" if len(units) > 3 else "")  # noqa: PLR2004
    held = "" if tensors is None else f"{count(tensors, 'tensor')} of "
    return f"{held}{shown}"


def consequences(declaration: Declaration) -> list[str]:
    """Return what *declaration* guarantees, and what it admits, alternative by alternative.

    What all files but the selected ones must be is said once.
    """
    lines = []
    for number, alternative in enumerate(declaration.any):
        name = alternative.strength
        which = f"alternative {number + 1} " if len(declaration.any) > 1 else ""
        lines.append(f"{which}concludes '{CONCLUDES[name]}' as its weakest rule, '{name}'")
        kinds = dict.fromkeys(strength_of(rule) for rule in alternative.all)
        for kind in kinds:
            lines.append(f"  {kind} guarantees: {LATTICE[kind].guarantees}")
            lines.append(f"  {kind} admits:     {LATTICE[kind].admits}")
        lines += [f"  note: {text}" for rule in alternative.all for text in _notes(rule)]
    lines.append("any file without tensors that no rule selects must be equal byte for byte")
    if not all(LATTICE[alternative.strength].transitive for alternative in declaration.any):
        lines.append(
            "not transitive: two rebuilds that each agree with the published model may not agree"
            " with each other"
        )
    return lines


def _notes(rule: Rule) -> list[str]:
    """Return what the values of *rule* admit beyond what its equality does."""
    notes = []
    if isinstance(rule, Close):
        if max(rule.relative_l2, rule.relative_linf) >= 1:
            notes.append("a limit of 1 or more admits any tensor of the same size")
        if rule.relative_to == "weights":
            notes.append(
                "measured against the weights: training may move them by less than this limit"
            )
    if isinstance(rule, Behaviour) and rule.disagreement is not None:
        fewest = _probes_needed(rule.disagreement, rule.confidence)
        notes.append(
            f"needs {fewest:,} probes or more: with fewer, not even equal answers can show a rate"
            f" of at most {rule.disagreement:g}"
        )
    if isinstance(rule, Behaviour | Metrics | Curves) and rule.files is not None:
        notes.append(
            f"the weights in {', '.join(rule.files)} may be anything that passes this rule"
        )
    return notes


def _probes_needed(rate: float, confidence: float) -> int:
    """Return how many probes without disagreement bound the rate by *rate*.

    The exact bound of none in n is ``1 - (1 - confidence)^(1/n)`` (Clopper and Pearson 1934).
    """
    from math import ceil, log1p  # noqa: PLC0415 - a name of the language, used here alone

    return ceil(log1p(-confidence) / log1p(-rate))


def demand(rule: Rule) -> str:
    """Return what *rule* demands, in words."""
    words: str = _WORDS[type(rule)](rule)
    return words


def _bytes(rule: Bytes) -> str:
    return f"{_files(rule)}, equal byte for byte"


def _tensors(rule: Tensors) -> str:
    return f"{_files(rule)}, {_which(rule)} equal bit for bit"


def _rounded(rule: Rounded) -> str:
    zero = "" if rule.signed_zero == "distinct" else ", -0 as +0"
    what = f"equal bit for bit once rounded to {rule.to}"
    return f"{_files(rule)}, {_which(rule)} {what}{zero}{_nan(rule)}"


def _close(rule: Close) -> str:
    of = f"the update from {rule.initial}" if rule.relative_to == "update" else "the weights"
    ulp = f", at most {rule.max_ulp} ULP" if rule.max_ulp is not None else ""
    zero = "" if rule.signed_zero == "equal" else ", -0 apart from +0"
    limits = f"L2 ≤ {rule.relative_l2:g} and L∞ ≤ {rule.relative_linf:g} of {of}"
    return f"{_files(rule)}, {_which(rule)}: {limits}{ulp}{zero}{_nan(rule)}"


def _behaviour(rule: Behaviour) -> str:
    if rule.run is not None:
        probes = rule.probes or "the probes given at comparison"
        source = f"what {rule.run} answers to {probes}"
    else:
        source = f"the outputs in {', '.join(rule.outputs or ())}"
    limits = [
        f"{words} ≤ {value:g}"
        for words, value in (
            ("largest difference", rule.max_difference),
            ("mean difference", rule.mean_difference),
            ("mean KL divergence in nats", rule.kl_divergence),
        )
        if value is not None
    ]
    if rule.disagreement is not None:
        limits.append(
            f"top answers differ at a rate ≤ {rule.disagreement:g}"
            f" (upper bound at {rule.confidence:g})"
        )
    return f"{source}, as {rule.kind}: {', '.join(limits)}"


def _metrics(rule: Metrics) -> str:
    names = "every metric" if rule.metrics == ("*",) else f"metrics {', '.join(rule.metrics)}"
    test = "TOST" if rule.test == "tost" else f"paired bootstrap of {rule.resamples:,}"
    churn = f", changed answers ≤ {rule.max_churn:g}" if rule.max_churn is not None else ""
    return (
        f"{names} in {', '.join(rule.samples)}: means within ±{rule.margin:g}"
        f" ({test}, level {rule.alpha:g}){churn}"
    )


def _curves(rule: Curves) -> str:
    source = ", ".join(rule.sources) if rule.sources else "the recorded metrics"
    return (
        f"{', '.join(rule.curves)} in {source}: the first {count(rule.points, 'point')} within"
        f" {rule.pointwise:g}, means of the last {rule.window:,} within {rule.terminal:g}"
    )


_WORDS: dict[type[Rule], Any] = {
    Bytes: _bytes,
    Tensors: _tensors,
    Rounded: _rounded,
    Close: _close,
    Behaviour: _behaviour,
    Metrics: _metrics,
    Curves: _curves,
}


def _files(rule: Bytes | Tensors | Rounded | Close) -> str:
    if rule.files:
        return f"files {', '.join(rule.files)}"
    return "every file" if isinstance(rule, Bytes) else "every weight file"


def _which(rule: Tensors | Rounded | Close) -> str:
    return "every tensor" if rule.tensors == ("*",) else f"tensors {', '.join(rule.tensors)}"


def _nan(rule: Rounded | Close) -> str:
    return ", NaN equal to the same bits" if rule.nan == "same-bits" else ""
