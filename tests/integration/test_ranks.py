"""Real ranks under torchrun: whole, with one that is killed, and started again.

Marked ``integration``: `make test-integrations` sets up torch and runs them.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from provenance.encoding import strict_base64
from provenance.measure.curves import Curve, measure_curves, parse_curves
from tests.integration.recording import record
from tests.world import Person, payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("PROVENANCE_TORCH" not in os.environ, reason="make test-integrations"),
]

TORCHRUN = "torchrun --nproc-per-node 2"


def distribution(predicate: Mapping[str, Any]) -> dict[str, Any]:
    collectors = predicate["buildDefinition"]["internalParameters"]["collectors"]
    assert collectors["distribution"]["status"] == "ok"
    values: dict[str, Any] = collectors["distribution"]["values"]
    return values


def curves(folder: Path, predicate: Mapping[str, Any]) -> dict[str, Curve]:
    byproducts = predicate["runDetails"]["byproducts"]
    [told] = (item for item in byproducts if item["name"] == "metrics")
    beside = folder / "model" / "provenance" / told["digest"]["sha256"]
    data = strict_base64.parse(told["content"]) if "content" in told else beside.read_bytes()
    return parse_curves("metrics", data, ".jsonl")


def test_the_curves_of_two_runs_are_compared_by_rank(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    words = (*TORCHRUN.split(), "ddp.py", "data/rows.csv", "model")
    folders = clone("one"), clone("two")
    predicates = [record(folder, alice, environ, *words) for folder in folders]
    for predicate in predicates:
        found = distribution(predicate)
        assert (found["launcher"], found["backend"], found["worldSize"]) == ("torchrun", "gloo", 2)
        assert (found["ranks"], found["restarts"]) == ("0-1", 0)
        assert not {"missing", "withoutEnd", "repeated"} & found.keys()
    first, second = map(curves, folders, predicates)
    assert first.keys() == second.keys() == {"loss", "loss (rank 1)"}
    assert first["loss"].values != first["loss (rank 1)"].values
    for name, curve in first.items():
        distance = measure_curves(curve, second[name], 1e-6, 1)
        assert (distance.agreed, distance.divergence) == (5, None)


def test_a_rank_that_is_killed_is_named(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("one")
    words = (*TORCHRUN.split(), "ranks.py", "killed", "model")
    options = ("--model", "model", "--key", alice.private)
    ran = run_program("record", *options, "--", *words, cwd=folder, environ=environ)
    assert ran.status == 1
    assert "ranks that did not say that they ended: 1 of a world of 2" in ran.err
    [line] = (folder / "model" / "claims.jsonl").read_bytes().splitlines()
    found = distribution(json.loads(payload_of(line))["predicate"])
    assert (found["ranks"], found["withoutEnd"]) == ("0-1", "1")
    assert found["seeds"] == {"torch": {"0": "7", "1": "8"}}


def test_after_an_elastic_restart_a_curve_goes_on(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("one")
    words = (*TORCHRUN.split(), "--max-restarts", "1", "ranks.py", "fails", "model")
    predicate = record(folder, alice, environ, *words)
    found = distribution(predicate)
    assert (found["restarts"], found["ranks"]) == (1, "0-1")
    assert not {"missing", "withoutEnd", "repeated"} & found.keys()
    assert curves(folder, predicate)["loss"] == Curve(
        "loss", (0, 1, 2, 3, 4, 5), (6.0, 5.0, 14.0, 13.0, 12.0, 11.0)
    )
