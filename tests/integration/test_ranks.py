"""Real ranks under torchrun: whole, with one that is killed, and started again.

Marked ``integration``: `make test-integrations` sets up torch and runs them.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from provenance.measure.curves import Curve, measure_curves, parse_curves
from tests.integration.recording import Recorded, record
from tests.world import Person, payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif("PROVENANCE_TORCH" not in os.environ, reason="make test-integrations"),
]

TORCHRUN = "torchrun --nproc-per-node 2"


def distribution(run: Recorded) -> dict[str, Any]:
    assert run.collectors["distribution"]["status"] == "ok"
    values: dict[str, Any] = run.collectors["distribution"]["values"]
    return values


def curves(run: Recorded) -> dict[str, Curve]:
    return parse_curves("metrics", run.byproduct("metrics"), ".jsonl")


def test_the_curves_of_two_runs_are_compared_by_rank(recorded: Callable[..., Recorded]) -> None:
    runs = recorded("torchrun"), recorded("torchrun", "bob")
    for run in runs:
        found = distribution(run)
        assert (found["launcher"], found["backend"], found["worldSize"]) == ("torchrun", "gloo", 2)
        assert (found["ranks"], found["restarts"]) == ("0-1", 0)
        assert not {"missing", "withoutEnd", "repeated"} & found.keys()
    first, second = map(curves, runs)
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
    predicate = json.loads(payload_of(line))["predicate"]
    found = distribution(Recorded(folder / "model", alice, predicate, ran))
    assert (found["ranks"], found["withoutEnd"]) == ("0-1", "1")
    assert found["seeds"] == {"torch": {"0": "7", "1": "8"}}


def test_after_an_elastic_restart_a_curve_goes_on(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    folder = clone("one")
    words = (*TORCHRUN.split(), "--max-restarts", "1", "ranks.py", "fails", "model")
    made = record(folder, alice, environ, *words)
    found = distribution(made)
    assert (found["restarts"], found["ranks"]) == (1, "0-1")
    assert not {"missing", "withoutEnd", "repeated"} & found.keys()
    assert curves(made)["loss"] == Curve(
        "loss", (0, 1, 2, 3, 4, 5), (6.0, 5.0, 14.0, 13.0, 12.0, 11.0)
    )
