"""What two honest runs of each framework left behind, under its built-in declaration.

The runs are stored (README.md), so that no framework is needed; `tests/integration` has new ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import provenance
from provenance.equality import declaration
from tests.frameworks.forging import FORGERIES, UNREAD
from tests.world import attest, declared

if TYPE_CHECKING:
    from provenance.rebuilding.verdict import Verdict
    from tests.world import Person

HERE = Path(__file__).parent
PENDING = pytest.mark.xfail(
    strict=False, reason="what the runs differ in is not read, or not admitted, yet"
)
NAMES = tuple(
    pytest.param(name, marks=() if name in ("keras", "kohya", "sklearn") else PENDING)
    for name in FORGERIES
)


@pytest.fixture
def rebuilt(name: str, tmp_path: Path) -> Path:
    """A copy of the rebuilt folder."""
    return shutil.copytree(HERE / name / "rebuilt", tmp_path / "rebuilt")


def judge(published: Path, rebuilt: Path, name: str, people: tuple[Person, Person]) -> Verdict:
    """Have each of *people* attest one of the models under *name*, and return the verdict."""
    for folder, person in zip((published, rebuilt), people, strict=True):
        attest(folder, person, equality=declared(name))
    return provenance.agree([published, rebuilt], keys=[person.public for person in people])


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_agree(
    name: str, rebuilt: Path, tmp_path: Path, alice: Person, bob: Person
) -> None:
    published = shutil.copytree(HERE / name / "published", tmp_path / "published")
    verdict = judge(published, rebuilt, name, (alice, bob))
    [rebuild] = verdict.rebuilds
    assert verdict.conclusion == "match"
    assert rebuild.outcome.strongest == "tensors"
    assert all(it.reason and not it.unsafe for it in rebuild.outcome.exceptions)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_excepted_is_what_the_runs_showed(name: str) -> None:
    """Every exception for the folder itself had an effect."""
    compared = provenance.compare(HERE / name / "published", HERE / name / "rebuilt", equality=name)
    assert compared.outcome is not None
    shown = {it.reason for it in compared.outcome.exceptions}
    for stated, _ in declaration.builtin(name).exceptions:
        seen = stated.reason in shown
        assert seen is not any((name, key) in UNSEEN for key in stated.keys or ()), stated


UNSEEN = {("kohya", "sshs_legacy_hash")}
"""Exceptions that stand on the framework's code alone."""


@pytest.mark.parametrize(
    ("name", "forgery"),
    [(name, forgery) for name, found in FORGERIES.items() for forgery in found],
)
def test_a_forgery_is_a_mismatch(name: str, forgery: str, rebuilt: Path) -> None:
    FORGERIES[name][forgery](rebuilt)
    compared = provenance.compare(HERE / name / "published", rebuilt, equality=name)
    assert compared.outcome is not None
    assert compared.outcome.conclusion == "mismatch"


@pytest.mark.parametrize(("name", "forgery"), [("sklearn", forgery) for forgery in UNREAD])
def test_another_file_that_is_not_read_is_never_a_match(
    name: str, forgery: str, rebuilt: Path
) -> None:
    UNREAD[forgery](rebuilt)
    compared = provenance.compare(HERE / name / "published", rebuilt, equality=name)
    assert compared.outcome is not None
    assert compared.outcome.conclusion == "inconclusive"
