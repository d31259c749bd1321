"""How a verification reads: its steps as they hold, and what was proven at the end."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from provenance.errors import one_line
from provenance.report.terminal import bad, dim, good
from provenance.trust.verification import STEPS

if TYPE_CHECKING:
    from provenance.statement.training import Input, Recipe
    from provenance.trust.verification import Step, Verified


def step_line(step: Step) -> str:
    """Return the line that reports *step*."""
    mark = dim("–") if step.skipped else good("✓")
    return f"{mark} {step.number} {step.name:<21}{one_line(step.detail)}"


def failed_line(steps_held: int, what: str) -> str:
    """Return the line that names the step after *steps_held*, which did not hold, and why."""
    return f"{bad('✗')} {steps_held + 1} {STEPS[steps_held]:<21}{one_line(what)}"


def summary_lines(verified: Verified) -> list[str]:
    """Return what was proven, and how the model was made."""
    if verified.claim is None:
        return [
            "",
            good("signed") + ": these are the files that the key signed.",
            "How they were made is not stated.",
        ]
    training = verified.claim.training
    lines = [
        "",
        good("verified") + f": {one_line(training.model_name)} is what "
        f"{verified.claim.opened.key.key_id} attested.",
    ]
    lines += [f"  {name:<11}{one_line(text)}" for name, text in _recipe_rows(training.recipe)]
    metadata = training.run.metadata
    if metadata.started_on:
        lines.append(
            f"  {'run':<11}{one_line(metadata.started_on)} to {one_line(metadata.finished_on)}"
        )
    return lines


def _recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    rows = []
    if recipe.command:
        rows.append(("command", shlex.join(recipe.command)))
    if recipe.source is not None:
        tree = f"git tree {recipe.source.tree}" if recipe.source.tree else "no repository"
        dirty = " with uncommitted changes" if recipe.source.dirty else ""
        rows.append(("code", tree + dirty))
        rows += [("", f"{file.name} sha256 {file.sha256[:16]}…") for file in recipe.source.files]
    rows += [("config", _input_text(item)) for item in recipe.config]
    rows += [("data", _input_text(item)) for item in recipe.data]
    if recipe.base_model is not None:
        rows.append(("base model", _input_text(recipe.base_model)))
    if recipe.seeds:
        rows.append(("seeds", ", ".join(f"{k}={v}" for k, v in sorted(recipe.seeds.items()))))
    return rows


def _input_text(item: Input) -> str:
    role = f"{item.role}: " if item.role not in ("", item.name) else ""
    return f"{role}{item.name} sha256 {item.digest['sha256'][:16]}…"


def verified_document(verified: Verified) -> dict[str, Any]:
    """Return *verified* for programs."""
    claim = verified.claim
    return {
        "verified": True,
        "model": str(verified.root),
        "rootDigest": {"sha256": verified.manifest.root_digest},
        "keyId": claim.opened.key.key_id if claim else None,
        "recipe": claim.training.recipe if claim else None,
        "run": claim.training.run if claim else None,
        "equality": verified.declaration.name if verified.declaration else None,
        "logIndex": verified.log_index,
        "steps": verified.steps,
    }
