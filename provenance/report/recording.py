"""What a recorder captured: six lines after the run, and the same facts for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provenance.errors import count, some_of
from provenance.folder.claims import in_words
from provenance.report.verification import code_texts, input_text, seeds_text, weights_texts
from provenance.statement import metrics
from provenance.statement.training import Collected, TrainingStatement


def captured_lines(statement: TrainingStatement) -> list[str]:
    """Return six lines, or seven, on what *statement* holds, not yet safe to print."""
    facts = captured_document(statement)
    recipe = statement.recipe
    base = (recipe.base_model,) if recipe.base_model else ()
    inputs = (*recipe.data, *recipe.config, *base)
    size = f"{count(facts['files'], 'file')}, {facts['size']:,} bytes"
    parts = {
        "code": code_texts(statement) or ["none"],
        "data": [*map(input_text, inputs), *([] if recipe.data else ["none named"])],
        "software": _software(facts),
        "run": _run(statement, facts),
        "trace": [*_trace(facts["trace"])],
    }
    if weights := weights_texts(statement):
        parts["weights"] = weights
    return [
        f"{facts['level']} {size}, root sha256 {statement.manifest.root_digest}",
        *(f"{label:<9}{'; '.join(texts)}" for label, texts in parts.items() if texts),
    ]


def not_covered_lines(not_covered: Mapping[str, int]) -> list[str]:
    """Say what lies in a model's folder and is not part of the model, if anything does."""
    return [f"not covered  {in_words(not_covered)}"] if not_covered else []


def captured_document(statement: TrainingStatement) -> dict[str, Any]:
    """Return what *statement* holds, for programs: what was not captured is null."""
    recipe, run = statement.recipe, statement.run
    collectors = statement.build.internal_parameters.collectors
    interpreter, packages = (_ok(collectors.get(name)) for name in ("interpreter", "packages"))
    measured = next((item for item in run.byproducts if item.name == metrics.BYPRODUCT), None)
    return {
        "level": statement.level,
        "files": len(statement.manifest.entries),
        "size": statement.manifest.size,
        "rootDigest": {"sha256": statement.manifest.root_digest},
        "source": recipe.source,
        "config": recipe.config,
        "data": recipe.data,
        "baseModel": recipe.base_model,
        "seeds": recipe.seeds,
        "equality": recipe.equality.name if recipe.equality else None,
        "interpreter": interpreter,
        "packages": packages.get("distributions") if packages else None,
        "system": _ok(collectors.get("system")),
        "processor": (_ok(collectors.get("processor")) or {}).get("name"),
        "gpus": [gpu.get("name") for gpu in (_ok(collectors.get("gpus")) or {}).get("gpus", ())],
        "reads": _ok(collectors.get("reads")),
        "distribution": _ok(collectors.get("distribution")),
        "trace": _ok(collectors.get("trace")),
        "metrics": measured.annotations.get("records", 0) if measured else 0,
        "outcome": run.provenance_outcome,
    }


def _ok(collected: Collected | None) -> dict[str, Any] | None:
    return collected.values if collected is not None and collected.status == "ok" else None


def _trace(seen: dict[str, Any] | None) -> Iterator[str]:
    """Say what was read and not declared, and what was declared and not read."""
    if seen is None:
        return
    yield f"by {seen['mechanism']}, which may not see all"
    if number := seen.get("undeclaredFiles", 0):
        names = some_of(seen["undeclared"], number - len(seen["undeclared"]))
        yield f"read {count(number, 'file')} that nobody declared: {names}"
    yield from (f"declared {key} was never opened" for key in seen["unopened"])
    yield from (f"{key} was written meanwhile" for key in seen["writtenMeanwhile"])


def _software(facts: dict[str, Any]) -> Iterator[str]:
    about, system = facts["interpreter"], facts["system"]
    if about:
        said = f", as {about['saidBy']} said" if "saidBy" in about else ""
        packages = facts["packages"]
        beside = count(packages, "package") if packages is not None else "packages unknown"
        yield f"{about.get('implementation')} {about.get('version')}, {beside}{said}"
    else:
        yield "interpreter and packages unknown"
    if system:
        yield f"{system.get('system')} {system.get('machine')}"
    if facts["processor"]:
        yield facts["processor"]
    if facts["gpus"]:
        yield f"{len(facts['gpus'])} x {facts['gpus'][0]}"


def _run(statement: TrainingStatement, facts: dict[str, Any]) -> Iterator[str]:
    outcome, run = statement.run.provenance_outcome, statement.run
    if outcome.signal:
        yield f"killed by {outcome.signal}"
    elif outcome.exit_status is not None:
        yield f"status {outcome.exit_status}"
    else:
        yield "its end was not seen" if run.metadata.started_on else "not observed"
    if facts["seeds"]:
        yield f"seeds {seeds_text(facts['seeds'])}"
    if facts["metrics"]:
        yield count(facts["metrics"], "metric")
    if facts["reads"]:
        processes = facts["reads"].get("processes", 0)
        yield f"reads told by {count(processes, 'process', 'processes')}"
    if world := facts["distribution"]:
        restarts = f", restarts {world['restarts']}" if world.get("restarts") else ""
        yield f"ranks {world.get('ranks', 'none')} of {world.get('worldSize')}{restarts}"
    yield f"equality {facts['equality'] or 'none'}"
