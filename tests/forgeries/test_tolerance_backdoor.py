"""What closeness admits: a backdoor, planted within a tolerance that honest rebuilds need.

Not a defect but what ``close`` means, and why it never concludes more than *consistent*.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.equality import declaration
from provenance.rebuilding.agreement import agree
from provenance.rebuilding.verdict import Verifier, to_statement
from provenance.report.agreement import verdict_lines
from provenance.statement import intoto
from provenance.trust.verification import Verified, verify_model
from tests.world import attest, declared

if TYPE_CHECKING:
    from tests.world import Person

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn, which the demo has"
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder that the example wrote, and what it measured."""
    out = tmp_path_factory.mktemp("backdoor")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("tolerance_backdoor.py"), out],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    return out, json.loads(done.stdout)


@pytest.fixture(scope="module")
def models(
    planted: tuple[Path, dict[str, float]], people: dict[str, Person]
) -> tuple[Verified, Verified]:
    """Mallory publishes the backdoored model; Alice rebuilds it honestly. One recipe, says each."""
    out, _ = planted
    tolerance = (out / "tolerance.toml").read_bytes()
    published = attest(out / "backdoored", people["mallory"], equality=declared(tolerance))
    rebuilt = attest(out / "honest", people["alice"], equality=declared(tolerance))
    keys = tuple(person.key.public for person in people.values())
    return verify_model(published, keys), verify_model(rebuilt, keys)


def test_the_backdoor_works_and_does_not_show(planted: tuple[Path, dict[str, float]]) -> None:
    _, measured = planted
    assert measured["triggerSuccessHonest"] < 0.05
    assert measured["triggerSuccess"] > 0.9
    assert measured["predictionsDiffering"] < 0.03
    assert measured["accuracyBackdoored"] > measured["accuracy"] - 0.02


def test_the_tolerance_admits_it_and_says_so(models: tuple[Verified, Verified]) -> None:
    verdict = agree(models)
    assert (verdict.conclusion, verdict.strongest) == ("consistent", "close")
    text = "\n".join(verdict_lines(verdict, ["published", "rebuilt"]))
    assert "not proof of honesty: a change that small can hide a backdoor" in text
    signed = intoto.format(to_statement(verdict, Verifier("key", "0", "2026-01-01T00:00:00Z")))
    assert b"REPRODUCED" not in signed
    assert b'"conclusion":"match"' not in signed


@pytest.mark.parametrize("exact", ["bytes", "tensors"])
def test_exact_equalities_refuse_it(exact: str, models: tuple[Verified, Verified]) -> None:
    verdict = agree(models, unsafe_equality=declaration.builtin(exact))
    assert verdict.conclusion == "mismatch"


def test_a_tolerance_of_the_same_machine_refuses_it(
    planted: tuple[Path, dict[str, float]], models: tuple[Verified, Verified]
) -> None:
    text = (planted[0] / "tolerance.toml").read_bytes()
    tight = text.replace(b"= 0.2", b"= 1e-4").replace(b"= 0.5", b"= 1e-3")
    verdict = agree(models, unsafe_equality=declaration.parse(tight))
    assert verdict.conclusion == "mismatch"
