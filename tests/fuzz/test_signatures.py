"""Mutated signatures and what verifies them: refused by our errors, or still what was signed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.signatures import TARGETS, read


@pytest.mark.parametrize("name", TARGETS)
def test_mutation_begins_with_what_is_taken(name: str) -> None:
    assert any(read(name, seed) for seed in TARGETS[name].seeds())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=100)
@example(seed=3942317)  # a time-stamp authority whose chain is its own certificate alone
@given(seed=st.integers(0, 2**32))
def test_no_foreign_exception_leaves(name: str, seed: int) -> None:
    random, target = Random(seed), TARGETS[name]
    document = random.choice(target.seeds())
    for _ in range(3):
        changed = target.mutate(document, random)
        assert read(name, changed) in {True, False}
