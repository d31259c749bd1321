"""What an equality declaration demands, guarantees and admits, in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from provenance.equality import declaration as declarations
from provenance.equality.declaration import Alternative, Declaration, strength_of
from provenance.equality.exceptions import Except, UnsafeExcept
from provenance.equality.lattice import LATTICE
from provenance.equality.rules import (
    Behaviour,
    Bytes,
    Close,
    Curves,
    EvidenceRule,
    Metrics,
    Rounded,
    Rule,
    Tensors,
)
from provenance.errors import count, cut
from provenance.report.explain_text import MAX_VALUE, Explained, explained, row, shorten

if TYPE_CHECKING:
    from provenance.judge.coverage import Reached, Selected, Selection


UNREAD = "equal bytes satisfy every rule; where they differ, rules for tensors are inconclusive"
"""What is said of weight files that cannot be read."""

SHOWN_PATTERNS = 6
"""Patterns shown of one list; ``--json`` has all."""


class EqualityFile(msgspec.Struct, frozen=True, rename={"except_": "except"}):
    """An equality declaration; ``sha256`` is that of its canonical form."""

    name: str
    version: int
    sha256: str
    axes: tuple[str, ...]
    any: tuple[Alternative, ...]
    except_: tuple[Except, ...]
    unsafe_except: tuple[UnsafeExcept, ...]


def equality_content(declaration: Declaration) -> EqualityFile:
    """Return *declaration* for programs."""
    it = declaration
    excepted = (it.except_, it.unsafe_except)
    return EqualityFile(it.name, it.version, it.digest, it.axes, it.any, *excepted)


def explain_equality(data: bytes, where: str) -> Explained:
    """Return what the declaration *data* says."""
    declaration = declarations.parse(data, where=where)
    lines = heading_rows(declaration) + declaration_rows(declaration)
    title, content = f"{where}: equality declaration", equality_content(declaration)
    return explained("equality-declaration", title, content, lines)


def heading_rows(declaration: Declaration) -> list[str]:
    """Return name, version and digest of *declaration*."""
    named = f"{declaration.name}, version {declaration.version}"
    return [row("name", named), row("sha256", declaration.digest)]


def declaration_rows(
    declaration: Declaration,
    depth: int = 1,
    selections: Sequence[Selection] = (),
    excepted: Sequence[Reached] = (),
) -> list[str]:
    """Return what *declaration* says, and what it selects and excepts in a model."""
    lines = [row("may differ", ", ".join(declaration.axes) or "none named", depth)]
    for number, alternative in enumerate(declaration.any):
        for index, rule in enumerate(alternative.all):
            label = "  and" if index else "or if" if number else "same if"
            lines.append(row(label, f"{strength_of(rule)}: {demand(rule)}", depth))
            more = ["where there are such tensors"] if getattr(rule, "optional", False) else []
            more += [f"because {rule.reason}"] if rule.reason is not None else []
            here = [_selected(rule, each.rules[index]) for each in selections[number : number + 1]]
            more += [f"here: {text}" for text in here]
            lines += [row("", text, depth) for text in more]
        lines += [row("", text, depth) for text in _then(alternative, selections[number:])]
    for number, exception in enumerate(declaration.exceptions):
        lines.append(row("apart from", _exception(exception), depth))
        lines.append(row("", f"because {exception.reason}", depth))
        if excepted:
            lines.append(row("", f"here: {_excepted(excepted[number])}", depth))
    return lines


def _excepted(found: Reached) -> str:
    if not found.units or found.values == 0:
        return "nothing"
    held = "" if found.values is None else f"{count(found.values, 'value')} of "
    return held + ", ".join(cut(found.units, SHOWN_PATTERNS))


def _exception(it: Except) -> str:
    what = "the whole file" if it.keys is None else _listed(it.keys)
    inside = "" if it.member is None else f"in its member {_quoted(it.member)} "
    limits = {
        f" within {it.tolerance or 0:g}": it.tolerance is not None,
        " as a set": it.as_ == "set",
        " as another name of the same base model": it.as_ == "base-model",
        ", where there is such a value": it.optional,
        f" (of the set {it.set})": it.set is not None,
        " (UNSAFE: loaders may go by it)": it.unsafe,
    }
    said = "".join(text for text, holds in limits.items() if holds)
    return f"{_quoted(it.file)}: {inside}{what}{said}"


def _then(alternative: Alternative, selected: Sequence[Selection]) -> Iterator[str]:
    """Yield what *alternative* concludes, in a model or in any."""
    concluded: str = LATTICE[alternative.strength].concludes
    if alternative.strength == "rounded":
        concluded += " if the narrower type is shipped, too; otherwise consistent"
    yield f"then: {concluded}"
    reported = any(isinstance(rule, EvidenceRule) for rule in alternative.all)
    files = _listed(selected[0].reported) if selected else "any weights"
    if reported and (not selected or selected[0].reported):
        yield f"but plausible if {files} differ: nothing but what a builder reports is judged"


def _selected(rule: Rule, selected: Selected) -> str:
    if isinstance(rule, EvidenceRule) and selected.units:
        asked = isinstance(rule, Behaviour) and rule.run is not None
        what = "the answers of" if asked else "what is reported in"
        return f"{what} {', '.join(cut(selected.units, SHOWN_PATTERNS))}"
    if selected.tensors == 0:
        return "nothing"
    if not selected.units:
        return "what the training statement recorded"
    held = "" if selected.tensors is None else f"{count(selected.tensors, 'tensor')} of "
    return held + ", ".join(cut(selected.units, SHOWN_PATTERNS))


def consequences(declaration: Declaration) -> list[str]:
    """Return what *declaration* guarantees, and what it admits, alternative by alternative."""
    lines = []
    for number, alternative in enumerate(declaration.any, 1):
        which = f"alternative {number} " if len(declaration.any) > 1 else ""
        by = f"as its weakest rule, '{alternative.strength}'"
        lines.append(f"{which}concludes '{LATTICE[alternative.strength].concludes}' {by}")
        for kind in dict.fromkeys(map(strength_of, alternative.all)):
            lines.append(f"  {kind} guarantees: {LATTICE[kind].guarantees}")
            lines.append(f"  {kind} admits:     {LATTICE[kind].admits}")
        lines += [f"  note: {text}" for rule in alternative.all for text in _notes(rule)]
    but = ", but for what is excepted" if declaration.exceptions else ""
    lines.append(f"any file without tensors that no rule selects must be equal byte for byte{but}")
    if declaration.exceptions:
        lines.append("a program may read what is excepted, and do something else by it")
    if declaration.unsafe_except:
        lines.append("UNSAFE: loaders may go by what an unsafe exception is about")
    if not all(LATTICE[alternative.strength].transitive for alternative in declaration.any):
        of = "two rebuilds that each agree with the published model"
        lines.append(f"not transitive: {of} may not agree with each other")
    return lines


def _notes(rule: Rule) -> Iterator[str]:
    """Yield what the values of *rule* admit beyond what its equality does."""
    if isinstance(rule, Close):
        if max(rule.relative_l2, rule.relative_linf) >= 1:
            yield "a limit of 1 or more admits any tensor of the same size"
        if rule.relative_to == "weights":
            yield "relative to the weights: training may move them by less than this limit"
        if rule.relative_l2_rows is None and rule.max_rank not in (0, 1):
            yield "a single row, as of a rare token, may change by more: the limit is the tensor's"
        yield "large elements that reach no answer hide the others where they are more than half"
    if isinstance(rule, Behaviour) and rule.disagreement is not None:
        # The exact bound of none in n is 1 - (1 - confidence)^(1/n) (Clopper and Pearson 1934).
        fewest = math.ceil(math.log1p(-rule.confidence) / math.log1p(-rule.disagreement))
        rate = f"a rate of at most {rule.disagreement:g}"
        yield f"needs {fewest:,} probes or more: with fewer, not even equal answers can show {rate}"
    if isinstance(rule, Rounded):
        alike = f"values that {rule.to} cannot distinguish are equal: right only if the weights are"
        yield f"{alike} shipped in it, in {_quoted(rule.ships) if rule.ships else 'another file'}"
    if isinstance(rule, EvidenceRule) and not (isinstance(rule, Behaviour) and rule.run):
        yield "numbers in files are what a builder reports: they can be put beside any weights"
    if isinstance(rule, EvidenceRule) and rule.files is not None:
        yield f"the weights in {_listed(rule.files)} are judged by this rule alone"
    if isinstance(rule, Behaviour | Metrics) and not getattr(rule, "run", None):
        yield "in the files of evidence, all else is judged as weights are, by the other rules"


def demand(rule: Rule) -> str:  # noqa: PLR0911 - one for each kind of rule
    """Return what *rule* demands, in words."""
    match rule:
        case Bytes():
            return f"equal byte for byte: {_files(rule)}"
        case Tensors():
            return f"equal bit for bit: {_tensors(rule)}"
        case Rounded():
            zero = "" if rule.signed_zero == "distinct" else ", -0 as +0"
            how = f"equal bit for bit once rounded to {rule.to}{zero}{_nan(rule)}"
            return f"{how}: {_tensors(rule)}"
        case Close():
            by = "the update from the initial weights"
            of = by if rule.relative_to == "update" else "the weights"
            start = f" {_quoted(rule.initial)}" if rule.initial is not None else ""
            ulp = f", at most {rule.max_ulp} ULP" if rule.max_ulp is not None else ""
            zero = "" if rule.signed_zero == "equal" else ", -0 apart from +0"
            rows = rule.relative_l2_rows
            row = f", of a row L2 ≤ {rows:g}" if rows is not None else ""
            limits = f"L2 ≤ {rule.relative_l2:g}{row} and L∞ ≤ {rule.relative_linf:g}"
            return f"{limits} of {of}{start}{ulp}{zero}{_nan(rule)}: {_tensors(rule)}"
        case Behaviour():
            return f"{_answers(rule)}, as {rule.kind}"
        case Metrics():
            names = "every metric" if rule.metrics == ("*",) else f"metrics {_listed(rule.metrics)}"
            test = "TOST" if rule.test == "tost" else f"paired bootstrap of {rule.resamples:,}"
            churn = "" if rule.max_churn is None else f", changed answers ≤ {rule.max_churn:g}"
            limit = f"means within ±{rule.margin:g} ({test}, level {rule.alpha:g}){churn}"
            return f"{limit}: {names} in {_listed(rule.samples)}"
        case Curves():
            source = _listed(rule.sources) if rule.sources else "the recorded metrics"
            first = f"the first {count(rule.points, 'point')} within {rule.pointwise:g}"
            last = f"means of the last {rule.window:,} within {rule.terminal:g}"
            return f"{first}, {last}: {_listed(rule.curves)} in {source}"


def _answers(rule: Behaviour) -> str:
    named = {
        "largest difference": rule.max_difference,
        "mean difference": rule.mean_difference,
        "mean KL divergence in nats": rule.kl_divergence,
    }
    limits = [f"{words} ≤ {value:g}" for words, value in named.items() if value is not None]
    if rule.disagreement is not None:
        rate = f"≤ {rule.disagreement:g} (upper bound at {rule.confidence:g})"
        limits.append(f"top answers differ at a rate {rate}")
    probes = _quoted(rule.probes) if rule.probes else "the probes given at comparison"
    ran = f"what {_quoted(rule.run)} answers to {probes}" if rule.run else ""
    return f"{', '.join(limits)}: {ran or f'the outputs in {_listed(rule.outputs or ())}'}"


def _tensors(rule: Tensors | Rounded | Close) -> str:
    tensors = "every tensor" if rule.tensors == ("*",) else f"tensors {_listed(rule.tensors)}"
    return f"{tensors}{_only(rule) if isinstance(rule, Close) else ''} of {_files(rule)}"


def _only(rule: Close) -> str:
    named = {
        "rank ≥ {}": rule.min_rank,
        "rank ≤ {}": rule.max_rank,
        "together ≤ {:g} of all elements": rule.max_share,
    }
    said = ", ".join(words.format(it) for words, it in named.items() if it is not None)
    return f" ({said})" if said else ""


def _files(rule: Bytes | Tensors | Rounded | Close) -> str:
    if rule.files:
        return f"files {_listed(rule.files)}"
    return "every file" if isinstance(rule, Bytes) else "every weight file"


def _listed(patterns: Sequence[str]) -> str:
    """Return *patterns*, quoted: their text must not read as what the rule demands."""
    return ", ".join(cut([*map(_quoted, patterns)], SHOWN_PATTERNS, "more (--json has all)"))


def _quoted(text: str) -> str:
    return f"'{shorten(text, MAX_VALUE)}'"


def _nan(rule: Rounded | Close) -> str:
    return ", NaN equal to the same bits" if rule.nan == "same-bits" else ""
