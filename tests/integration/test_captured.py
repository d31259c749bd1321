"""What the claims of seven real trainings have of the checklist, and what two claims differ in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.integration.captured import INTRODUCTION, columns, document, places
from tests.world import run_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.recording import Recorded

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "captured.md"

NAMES = (
    "torch", "HF Trainer", "Lightning", "scikit-learn", "notebook", "plain script", "torchrun",
    "Keras", "HF, callback", "Lightning, callback",
)  # fmt: skip
BY_HAND = ("JAX", "TensorFlow")
"""Too large to install for every check: they run with the Python that PROVENANCE_JAX names."""

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((DOCUMENT.parents[1] / "schemas/training-statement.schema.json").read_text("utf-8"))
)
HEADINGS = (
    "Code", "Command and arguments", "Data", "Numerics and threads", "Hardware", "Software",
    "What came out", "Not captured",
)  # fmt: skip

DIFFER = {
    "run/metadata/invocationId",
    "run/metadata/startedOn",
    "run/metadata/finishedOn",
    "run/provenance_signer",
    "collectors/cost/cpuSeconds/system",
    "collectors/cost/cpuSeconds/user",
    "collectors/cost/peakMemoryBytes",
    "collectors/cost/wallSeconds",
    "byproducts/checkpoints",  # when each was seen
    "collectors/program/step/random.state",
    "collectors/program/step/numpy.random.state",
}
"""Where two people's claims of one run may differ: signer, times, cost, and what has no seed."""


def test_the_checklist_is_true_of_real_trainings(recorded: Callable[..., Recorded]) -> None:
    found = {}
    for name in (*NAMES, *(BY_HAND if os.environ.get("PROVENANCE_JAX") else ())):
        made = recorded(name)
        found[name] = places(made.predicate)
        assert SCHEMA.is_valid(json.loads(made.payload))
        shown = run_program("show", made.model)
        assert shown.status == 0, shown.err
        for heading in HEADINGS:
            assert f"\n  {heading}\n" in shown.out
        assert "--json has all" in shown.out
    if os.environ.get("PROVENANCE_WRITE"):
        DOCUMENT.write_text(document(found), "utf-8")
    text = DOCUMENT.read_text("utf-8")
    written = columns(text)
    assert text.startswith(INTRODUCTION)
    assert [*written][2:] == [*NAMES, *BY_HAND]
    for name, marks in columns(document(found)).items():
        assert written[name] == marks


def test_two_recordings_of_one_run_differ_in_times_cost_and_what_has_no_seed(
    recorded: Callable[..., Recorded],
) -> None:
    name = "torch under bash -c"
    first, second = (_values(recorded(name, who).predicate) for who in ("alice", "bob"))
    differ = {place for place in first | second if first.get(place) != second.get(place)}
    assert differ <= DIFFER
    assert "run/metadata/invocationId" in differ


def _values(predicate: dict[str, Any]) -> dict[str, Any]:
    """Return the values of *predicate* by their place."""
    return {place: _at(predicate, place) for place in places(predicate)}


def _at(predicate: dict[str, Any], place: str) -> Any:  # noqa: ANN401 - a JSON value
    build, run = predicate["buildDefinition"], predicate["runDetails"]
    section, *names = place.split("/")
    if section in ("dependencies", "byproducts"):
        listed = build["resolvedDependencies"] if section == "dependencies" else run["byproducts"]
        return next(item for item in listed if item["name"] == "/".join(names))
    value: Any = {"recipe": build["externalParameters"], "run": run}.get(section)
    if section == "collectors":
        collectors = build["internalParameters"]["collectors"]
        value = {name: found.get("values", {}) for name, found in collectors.items()}
    while names:
        name = names.pop(0)
        while isinstance(value, dict) and name not in value:  # names of files have slashes
            name = f"{name}/{names.pop(0)}"
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value
