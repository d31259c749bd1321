"""What a recorder captured: five lines after the run, and the same facts for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from provenance.errors import count
from provenance.report.verification import unread_code
from provenance.statement import metrics

if TYPE_CHECKING:
    from provenance.statement.training import Collected, TrainingStatement


def captured_lines(statement: TrainingStatement) -> list[str]:
    """Return five lines on what *statement* holds, not yet safe to print."""
    facts = captured_document(statement)
    size = f"{count(facts['files'], 'file')}, {facts['size']:,} bytes"
    parts = {
        "code": _code(statement),
        "data": _inputs(statement),
        "software": _software(facts),
        "run": _run(statement, facts),
    }
    return [
        f"{facts['level']} {size}, root sha256 {statement.manifest.root_digest}",
        *(f"{label:<9}{'; '.join(texts)}" for label, texts in parts.items()),
    ]


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
        "metrics": measured.annotations.get("records", 0) if measured else 0,
        "outcome": run.provenance_outcome,
    }


def _ok(collected: Collected | None) -> dict[str, Any] | None:
    return collected.values if collected is not None and collected.status == "ok" else None


def _code(statement: TrainingStatement) -> Iterator[str]:
    source = statement.recipe.source
    if source is None:
        yield unread_code(statement) or "none"
        return
    if source.tree:
        changed = " and what is not committed" if source.dirty else ""
        yield f"git tree {source.tree[:12]}, commit {source.commit[:12] or 'none'}{changed}"
    if unread := unread_code(statement):
        yield unread
    if source.files:
        yield f"{count(len(source.files), 'file')} named"
    if source.read:
        yield f"{count(len(source.read), 'untracked file')} read"


def _inputs(statement: TrainingStatement) -> Iterator[str]:
    recipe = statement.recipe
    base = (recipe.base_model,) if recipe.base_model else ()
    for item in (*recipe.data, *recipe.config, *base):
        yield f"{item.name} ({count(item.files, 'file')}, {item.size:,} bytes)"
    if not recipe.data:
        yield "none named"


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
        yield f"seeds {', '.join(f'{key}={n}' for key, n in sorted(facts['seeds'].items()))}"
    if facts["metrics"]:
        yield count(facts["metrics"], "metric")
    if facts["reads"]:
        processes = facts["reads"].get("processes", 0)
        yield f"reads told by {count(processes, 'process', 'processes')}"
    yield f"equality {facts['equality'] or 'none'}"
