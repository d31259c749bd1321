"""What two honest runs of each framework left behind, under its built-in declaration.

The runs are stored (README.md), so that no framework is needed; `tests/integration` has new ones.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import provenance
from provenance.equality import declaration
from provenance.statement.training import Input
from tests.frameworks.forging import FORGERIES, UNREAD
from tests.world import RECIPE, attest, declared

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.measure.findings import Outcome
    from tests.frameworks.forging import Forgery
    from tests.world import Person

HERE = Path(__file__).parent
ADAPTED = msgspec.structs.replace(
    RECIPE, base_model=Input("base", {"sha256": "44" * 32}, "55" * 32, 1, 10)
)


@pytest.fixture
def judged(name: str, tmp_path: Path, alice: Person, bob: Person) -> Callable[[Forgery], Outcome]:
    """Two people attest a folder each, the second forged, under *name* and with one base model."""

    def judge(forge: Forgery) -> Outcome:
        folders = [
            shutil.copytree(HERE / name / which, tmp_path / which)
            for which in ("published", "rebuilt")
        ]
        forge(folders[1])
        for folder, person in zip(folders, (alice, bob), strict=True):
            attest(folder, person, equality=declared(name), recipe=ADAPTED)
        verdict = provenance.agree(folders, keys=[alice.public, bob.public])
        [rebuild] = verdict.rebuilds
        assert verdict.conclusion == rebuild.outcome.conclusion
        return rebuild.outcome

    return judge


def nothing(folder: Path) -> None:
    """Leave *folder* as it is."""


@pytest.mark.parametrize("name", FORGERIES)
def test_two_runs_agree(judged: Callable[[Forgery], Outcome]) -> None:
    outcome = judged(nothing)
    assert outcome.conclusion == "match"
    assert outcome.strongest == "tensors"
    assert all(it.reason and not it.unsafe for it in outcome.exceptions)


@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_excepted_is_what_the_runs_showed(
    name: str, judged: Callable[[Forgery], Outcome]
) -> None:
    """Every exception for the folder itself had an effect."""
    shown = {it.reason for it in judged(nothing).exceptions}
    for stated in declaration.builtin(name).exceptions:
        seen = stated.reason in shown
        assert seen is not any((name, key) in UNSEEN for key in stated.keys or ()), stated


UNSEEN = {("kohya", "sshs_legacy_hash")}
"""Exceptions that stand on the framework's code alone."""


@pytest.mark.parametrize(
    ("name", "forgery"),
    [(name, forgery) for name, found in FORGERIES.items() for forgery in found],
)
def test_a_forgery_is_a_mismatch(
    name: str, forgery: str, judged: Callable[[Forgery], Outcome]
) -> None:
    assert judged(FORGERIES[name][forgery]).conclusion == "mismatch"


@pytest.mark.parametrize(("name", "forgery"), [("sklearn", forgery) for forgery in UNREAD])
def test_another_file_that_is_not_read_is_never_a_match(
    forgery: str, judged: Callable[[Forgery], Outcome]
) -> None:
    assert judged(UNREAD[forgery]).conclusion == "inconclusive"


@pytest.mark.parametrize("name", FORGERIES)
def test_the_page_names_what_is_excepted(name: str) -> None:
    page = (HERE.parents[1] / "docs" / "frameworks.md").read_text()
    assert f"`{name}`" in page
    for stated in declaration.builtin(name).exceptions:
        words = {word for key in stated.keys or () for word in re.findall(r"\w{8,}", key)}
        assert stated.file.rpartition("/")[2] in page or any(word in page for word in words), stated
