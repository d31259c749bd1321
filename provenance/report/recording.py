"""What a recorder captured: six lines after the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provenance.errors import count, some_of
from provenance.folder.claims import in_words
from provenance.report.explain_text import shorten
from provenance.report.verification import code_texts, input_text, seeds_text, weights_texts
from provenance.statement.training import Collected, TrainingStatement


def captured_lines(statement: TrainingStatement) -> list[str]:
    """Return six lines, or up to eight, on what *statement* holds, not yet safe to print."""
    recipe, manifest = statement.recipe, statement.manifest
    collectors = statement.build.internal_parameters.collectors
    known = {name: said.values for name, said in collectors.items() if said.status == "ok"}
    inputs = (*recipe.data, *recipe.config)
    size = f"{count(len(manifest.entries), 'file')}, {count(manifest.size, 'byte')}"
    parts = {
        "code": code_texts(statement) or ["none"],
        "data": [*map(input_text, inputs), *([] if recipe.data else ["none named"])],
        "base": [input_text(recipe.base_model)] if recipe.base_model else [],
        "software": _software(known),
        "run": _run(statement, known),
        "trace": [*_trace(collectors.get("trace"))],
    }
    if weights := weights_texts(statement):
        parts["weights"] = weights
    return [
        f"{statement.level} {size}, root sha256 {manifest.root_digest}",
        *(f"{label:<9}{'; '.join(map(shorten, texts))}" for label, texts in parts.items() if texts),
    ]


def not_covered_lines(not_covered: Mapping[str, int]) -> list[str]:
    """Say what lies in a model's folder and is not part of the model, if anything does."""
    return [f"not covered  {in_words(not_covered)}"] if not_covered else []


def _trace(said: Collected | None) -> Iterator[str]:
    """Say what was read and not declared, and what was declared and not read."""
    if said is None or said.status != "ok":
        yield from [f"nothing was seen: {said.reason}"] if said else []
        return
    seen, problem = said.values, f" ({said.reason})" if said.reason else ""
    yield f"by {seen['mechanism']}, which may not see all{problem}"
    if number := seen.get("undeclaredFiles", 0):
        names = some_of(seen["undeclared"], number - len(seen["undeclared"]))
        yield f"read {count(number, 'file')} that nobody declared: {names}"
    for key, about in seen["unopened"].items():
        some = f"{about['files']:,} of {count(about['of'], 'file')} of {key} not opened"
        yield some if about["files"] < about["of"] else f"declared {key} was never opened"
    yield from (f"{key} was written meanwhile" for key in seen["writtenMeanwhile"])


def _software(known: dict[str, dict[str, Any]]) -> Iterator[str]:
    if about := known.get("interpreter"):
        said = f", as {about['saidBy']} said" if "saidBy" in about else ""
        packages = known.get("packages", {}).get("distributions")
        beside = count(packages, "package") if packages is not None else "packages unknown"
        yield f"{about.get('implementation')} {about.get('version')}, {beside}{said}"
    else:
        yield "interpreter and packages unknown"
    if system := known.get("system"):
        yield f"{system.get('system')} {system.get('machine')}"
    if processor := known.get("processor", {}).get("name"):
        yield processor
    if gpus := known.get("gpus", {}).get("gpus"):
        yield f"{len(gpus)} x {gpus[0].get('name')}"


def _run(statement: TrainingStatement, known: dict[str, dict[str, Any]]) -> Iterator[str]:
    recipe, outcome, run = statement.recipe, statement.run.provenance_outcome, statement.run
    if outcome.signal:
        yield f"killed by {outcome.signal}"
    elif outcome.exit_status is not None:
        yield f"status {outcome.exit_status}"
    else:
        yield "its end was not seen" if run.metadata.started_on else "not observed"
    if recipe.seeds:
        yield f"seeds {seeds_text(recipe.seeds)}"
    if number := known.get("metrics", {}).get("records"):
        yield count(number, "metric")
    if reads := known.get("reads"):
        processes = reads.get("processes", 0)
        yield f"reads told by {count(processes, 'process', 'processes')}"
    if world := known.get("distribution"):
        restarts = f", restarts {world['restarts']}" if world.get("restarts") else ""
        yield f"ranks {world.get('ranks', 'none')} of {world.get('worldSize')}{restarts}"
    yield f"equality {recipe.equality.name if recipe.equality else 'none'}"
