"""Rules that select by the number of dimensions, and by how much of a file they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.errors import MalformedError, PolicyError
from tests.judge.judging import declaration, model
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.measure.findings import Outcome

RULE = """equality = "close"
relative_to = "weights"
relative_l2 = 0.5
relative_linf = 0.5
reason = "a test"
"""
ARRAYS: dict[str, Any] = {
    "a": np.ones((9, 10), "<f4"),
    "b": np.ones(9, "<f4"),
    "c": np.ones((), "<f4"),
}
BY_RANK = {"a": "min_rank = 2", "b": "min_rank = 1\nmax_rank = 1", "c": "max_rank = 0"}


def judged(folder: Path, arrays: dict[str, Any], *rules: str) -> Outcome:
    """Judge a model beside the same with every value a quarter larger."""
    moved = {name: np.array(array * 1.25, "<f4") for name, array in arrays.items()}
    left, right = (
        write(folder / side, {"model.safetensors": model(tensors)})
        for side, tensors in (("left", arrays), ("right", moved))
    )
    return compare_models(left, right, parse(declaration(*(RULE + rule for rule in rules))))


def test_a_rule_selects_by_rank(tmp_path: Path) -> None:
    outcome = judged(tmp_path, ARRAYS, *BY_RANK.values())
    assert outcome.conclusion == "consistent"
    assert [finding.tensor for finding in outcome.alternatives[0].findings] == [*"aabbcc"]


@pytest.mark.parametrize("bare", BY_RANK)
def test_a_tensor_whose_rank_no_rule_selects_is_refused(tmp_path: Path, bare: str) -> None:
    rules = (rule for name, rule in BY_RANK.items() if name != bare)
    with pytest.raises(PolicyError, match=f"no rule covers 1 tensor: {bare}"):
        judged(tmp_path, ARRAYS, *rules)


def test_a_rule_that_its_rank_leaves_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"rule 2 \(close\) selects no tensors"):
        judged(tmp_path, ARRAYS, "", "min_rank = 3")
    with pytest.raises(MalformedError, match="'max_rank' is below 'min_rank'"):
        judged(tmp_path, ARRAYS, "min_rank = 2\nmax_rank = 1")


@pytest.mark.parametrize(("share", "held"), [(0.1, True), (0.0999, False)])
def test_what_a_rule_selects_is_at_most_a_share(
    tmp_path: Path, share: float, *, held: bool
) -> None:
    outcome = judged(tmp_path, ARRAYS, "min_rank = 2", f"max_rank = 1\nmax_share = {share}")
    assert outcome.conclusion == ("consistent" if held else "mismatch")
    (found,) = (f for f in outcome.alternatives[0].findings if f.tensor is None)
    assert (found.measure, found.value, found.limit) == ("share-of-parameters", 0.1, share)
    assert found.held is held


def test_tensors_that_are_equal_may_have_any_share(tmp_path: Path) -> None:
    arrays = {"a": ARRAYS["a"], "b": np.zeros(90, "<f4")}
    outcome = judged(tmp_path, arrays, "min_rank = 2", "max_rank = 1\nmax_share = 0.01")
    assert outcome.conclusion == "consistent"
