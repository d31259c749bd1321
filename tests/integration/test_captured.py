"""What the claims of seven real trainings have of the checklist, and what two claims differ in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tests.integration.captured import INTRODUCTION, columns, document, places
from tests.integration.recording import record
from tests.world import Person, payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

DOCUMENT = Path(__file__).parents[2] / "docs" / "captured.md"

TRAININGS = {
    "torch": "python torch_cpu.py data/rows.csv model",
    "HF Trainer": "make train",
    "Lightning": "bash run.sh lightning_fit.py data/rows.csv model",
    "scikit-learn": "python sklearn_fit.py data/rows.csv model",
    "notebook": "jupyter execute notebook.ipynb",
    "plain script": "python plain.py data/rows.csv model",
    "torchrun": "torchrun --nproc-per-node 2 ddp.py data/rows.csv model",
    "Keras": "python keras_fit.py data/rows.csv model",
    "HF, callback": "python hf_callback.py model none",
    "Lightning, callback": "python lightning_callback.py model none line",
}
BY_HAND = {
    "JAX": "python jax_fit.py data/rows.csv model",
    "TensorFlow": "python tensorflow_fit.py data/rows.csv model",
}
"""Too large to install for every check: they run with the Python that PROVENANCE_JAX names."""

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((DOCUMENT.parents[1] / "schemas/training-statement.schema.json").read_text("utf-8"))
)
OPTIONS = ("--seed", "0", "--tensors")
HEADINGS = (
    "Code", "Command and arguments", "Data", "Numerics and threads", "Hardware", "Software",
    "What came out", "Not captured",
)  # fmt: skip

DIFFER = {
    "run/metadata/invocationId",
    "run/metadata/startedOn",
    "run/metadata/finishedOn",
    "collectors/cost/cpuSeconds/system",
    "collectors/cost/cpuSeconds/user",
    "collectors/cost/peakMemoryBytes",
    "collectors/cost/wallSeconds",
    "byproducts/checkpoints",  # when each was seen
    "collectors/program/step/random.state",
    "collectors/program/step/numpy.random.state",
}
"""Where two claims of one run may differ: times, cost, and generators that nobody seeded."""


def test_the_checklist_is_true_of_real_trainings(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    found = {}
    by_hand = os.environ.get("PROVENANCE_JAX")
    for name, words in {**TRAININGS, **(BY_HAND if by_hand else {})}.items():
        folder = clone(name.replace(" ", "-"))
        surroundings = dict(environ)
        if name in BY_HAND and by_hand:
            surroundings["PATH"] = f"{Path(by_hand).parent}{os.pathsep}{environ['PATH']}"
        if "callback" in name:
            surroundings["PYTHONPATH"] = str(DOCUMENT.parents[1])
        predicate = record(folder, alice, surroundings, *words.split(), options=OPTIONS)
        found[name] = places(predicate)
        payload = payload_of((folder / "model" / "claims.jsonl").read_bytes().splitlines()[0])
        assert SCHEMA.is_valid(json.loads(payload))
        shown = run_program("show", "model", cwd=folder)
        assert shown.status == 0, shown.err
        for heading in HEADINGS:
            assert f"\n  {heading}\n" in shown.out
        assert "--json has all" in shown.out
    if os.environ.get("PROVENANCE_WRITE"):
        DOCUMENT.write_text(document(found), "utf-8")
    text = DOCUMENT.read_text("utf-8")
    written = columns(text)
    assert text.startswith(INTRODUCTION)
    assert [*written][2:] == [*TRAININGS, *BY_HAND]
    for name, marks in columns(document(found)).items():
        assert written[name] == marks


def test_two_recordings_of_one_run_differ_in_times_cost_and_what_has_no_seed(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    first, second = (
        _values(record(clone(place), alice, environ, *TRAININGS["torch"].split()))
        for place in ("here", "elsewhere")
    )
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
