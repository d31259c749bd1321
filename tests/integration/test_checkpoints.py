"""Checkpoints as real trainers write and delete them: each is hashed, or stated as missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.capture import chain
from tests.integration.recording import Recorded, record
from tests.world import run_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.capture.chain import Checkpoint
    from tests.world import Person

pytestmark = pytest.mark.integration


def follow(made: Recorded) -> list[Checkpoint]:
    data = made.byproduct(chain.BYPRODUCT)
    return [each for _, each in chain.follow(data, "chain")]


def verify(made: Recorded, *names: str) -> None:
    options = [word for name in names for word in ("--checkpoint", made.model / name)]
    ran = run_program("verify", made.model, "--key", made.person.public, *options)
    assert (ran.status, ran.out.count("is ${model}/")) == (0, len(names)), ran


def states(found: list[Checkpoint], name: str) -> tuple[int, bool]:
    """Return how many states of *name* were hashed, and whether any was missed."""
    about = [each for each in found if each.name == f"${{model}}/{name}"]
    return sum(bool(each.manifest) for each in about), any(each.missed for each in about)


def test_transformers_keep_one_checkpoint(recorded: Callable[..., Recorded]) -> None:
    made = recorded("HF Trainer")
    found = follow(made)
    there = [path.name for path in made.model.glob("checkpoint-*")]
    for step in (2, 4):
        hashed, missed = states(found, f"checkpoint-{step}")
        assert hashed or missed
        assert hashed or f"checkpoint-{step}" not in there
    steps = {each.step for each in found if each.manifest and "checkpoint-" in each.name}
    assert steps <= {2, 4}, found
    verify(made, *there)


def test_lightning_keeps_the_best_and_the_last(recorded: Callable[..., Recorded]) -> None:
    made = recorded("Lightning")
    found = follow(made)
    there = [f"checkpoints/{each.name}" for each in made.model.glob("checkpoints/epoch=*.ckpt")]
    for name in {*there, "checkpoints/epoch=0-step=4.ckpt"}:
        hashed, missed = states(found, name)
        assert hashed or (missed and name not in there), found
    verify(made, *there)


def test_a_file_that_is_written_again_and_again(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> None:
    made = record(clone("here"), alice, environ, "python", "last_pt.py", "model")
    hashed, missed = states(follow(made), "last.pt")
    assert 1 <= hashed <= 20
    assert hashed == 20 or missed
    verify(made, "last.pt")
