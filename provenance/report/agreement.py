"""How a verdict reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provenance.equality.lattice import AGREES, LATTICE, Conclusion
from provenance.errors import count, cut, one_line
from provenance.rebuilding.verdict import Diameter, Rebuild, Verdict
from provenance.report.comparison import (
    apart_from,
    conclusion_text,
    distance_text,
    outcome_lines,
)
from provenance.report.terminal import bad, dim

SHOWN_DISTANCES, SHOWN_ENVIRONMENT = 8, 12
"""Tensors, those farthest apart first, and differing environment values listed of one rebuild."""

LIKENESS: dict[Conclusion, str] = {
    "match": "same model by {}",
    "consistent": "within the declared tolerance by {}, which is not proof of honesty:"
    " a change that small can hide a backdoor",
    "plausible": "what was reported looks alike by {}, which says nothing about the weights",
}
"""What is said of models that agree."""


def verdict_lines(
    verdict: Verdict, names: Sequence[str], keys: Mapping[str, str] | None = None
) -> list[str]:
    """Return *verdict* in lines.

    *names* are what the user called the models, in order, and *keys* the key files by key id.
    """
    lines = []
    for name, rebuild in zip(names[1:], verdict.rebuilds, strict=True):
        lines.append(f"{one_line(name)} against {one_line(names[0])}")
        lines += [f"  {line}" for line in _rebuild_lines(rebuild)]
    by = "declared by the first attestation"
    declared = by if verdict.equality.declared else bad(f"NOT {by}")
    lines.append(f"equality  {verdict.equality.name} ({declared})")
    said = ", said to be independently operated" if verdict.independent else ""
    needed = f"{verdict.quorum} needed{said}"
    noun = "signer" if any(party.subject for party in verdict.parties) else "key"
    lines.append(f"builders  {count(len(verdict.builders), noun)}, {needed}")
    files = {key: one_line(name) for key, name in (keys or {}).items() if key in verdict.builders}
    width = max(map(len, files.values()), default=0)
    for it in verdict.built:
        file = f"{files[it.signer]:<{width}}  {it.key_id}" if it.signer in files else ""
        if who := one_line(it.subject) or file:
            lines.append(f"          {who}  {it.level}")
    if verdict.diameter is not None and len(verdict.rebuilds) > 1:
        lines.append(f"diameter  {_diameter(verdict.diameter)}")
    lines += [f"because   {one_line(reason)}" for reason in verdict.reasons]
    both = f"{model_text(verdict)}; {one_line(_recipe_text(verdict))}"
    return [*lines, f"verdict   {conclusion_text(verdict.conclusion)}: {both}"]


def model_text(verdict: Verdict) -> str:
    """Say whether it is the same model; the recipe aside."""
    if (by := verdict.strongest) is not None:
        said = verdict.conclusion if verdict.conclusion in AGREES else LATTICE[by].concludes
        used = [each for rebuild in verdict.rebuilds for each in rebuild.outcome.exceptions]
        return LIKENESS[said].format(by) + apart_from([*dict.fromkeys(used)])
    differs = any(rebuild.outcome.conclusion == "mismatch" for rebuild in verdict.rebuilds)
    return "another model" if differs else "too little is known of the models"


def _recipe_text(verdict: Verdict) -> str:
    if verdict.recipe == "same":
        return "the recipe is the same"
    texts = [
        text
        for rebuild in verdict.rebuilds
        for text in (
            [each.part for each in rebuild.recipe_differences]
            if verdict.recipe == "differs"
            else rebuild.recipe_unknown
        )
    ]
    verb = "differs" if verdict.recipe == "differs" else "is unknown"
    return f"the recipe {verb}: {', '.join(dict.fromkeys(texts))}"


def _diameter(diameter: Diameter) -> str:
    named = {"L2/update": diameter.relative_l2_update, "L∞": diameter.linf}
    return ", ".join(
        f"{name} {'not computed' if value is None else f'{value:.3g}'}"
        for name, value in named.items()
    )


def _rebuild_lines(rebuild: Rebuild) -> list[str]:
    outcome = rebuild.outcome
    farthest = sorted(outcome.distances, key=lambda d: d.relative_l2_update or 0, reverse=True)
    texts = [
        f"{one_line(each.file)}: {one_line(each.tensor)}: {distance_text(each)}"
        for each in farthest
    ]
    lines = outcome_lines(outcome)
    lines += [f"  {text}" for text in cut(texts, SHOWN_DISTANCES, "more tensors")]
    # How many other variables were set tells nobody anything; the signed verdict has it.
    differing = [name for name in rebuild.environment_differences if name != "variables.others"]
    if differing:
        shown = ", ".join(cut(differing, SHOWN_ENVIRONMENT))
        lines.append(dim(f"  environments differ in {one_line(shown)}"))
    return lines
