"""Checkpoints as real trainers write and delete them: each is hashed, or stated as missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.capture import chain
from provenance.capture.chain import Checkpoint
from provenance.folder.claims import read_byproduct
from provenance.statement import intoto, training
from tests.integration.recording import record
from tests.world import payload_of, run_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.world import Person

pytestmark = pytest.mark.integration


@pytest.fixture
def recorded(
    clone: Callable[[str], Path], alice: Person, environ: dict[str, str]
) -> Callable[..., list[Checkpoint]]:
    """Record a training in ``here``; return the chain."""

    def run(*words: str) -> list[Checkpoint]:
        folder = clone("here")
        folder.joinpath("model/checkpoints").mkdir(parents=True)
        record(folder, alice, environ, "python", *words)
        model = folder / "model"
        [line] = (model / "claims.jsonl").read_bytes().splitlines()
        claim = training.from_statement(intoto.parse(payload_of(line)))
        data = read_byproduct(model, claim, chain.BYPRODUCT)
        assert data is not None
        return [each for _, each in chain.follow(data, "chain")]

    return run


def verify(folder: Path, person: Person, *paths: str) -> None:
    options = [word for path in paths for word in ("--checkpoint", path)]
    ran = run_program("verify", "model", "--key", person.public, *options, cwd=folder)
    assert (ran.status, ran.out.count("is ${model}/")) == (0, len(paths)), ran


def states(found: list[Checkpoint], name: str) -> tuple[int, bool]:
    """Return how many states of *name* were hashed, and whether any was missed."""
    about = [each for each in found if each.name == f"${{model}}/{name}"]
    return sum(bool(each.manifest) for each in about), any(each.missed for each in about)


def test_transformers_keep_one_checkpoint(
    recorded: Callable[..., list[Checkpoint]], tmp_path: Path, alice: Person
) -> None:
    found = recorded("hf_trainer.py", "data/rows.csv", "model")
    there = [path.name for path in (tmp_path / "here/model").glob("checkpoint-*")]
    for step in (2, 4):
        hashed, missed = states(found, f"checkpoint-{step}")
        assert hashed or missed
        assert hashed or f"checkpoint-{step}" not in there
    steps = {each.step for each in found if each.manifest and "checkpoint-" in each.name}
    assert steps <= {2, 4}, found
    verify(tmp_path / "here", alice, *(f"model/{name}" for name in there))


def test_lightning_keeps_the_best_and_the_last(
    recorded: Callable[..., list[Checkpoint]], tmp_path: Path, alice: Person
) -> None:
    found = recorded("lightning_fit.py", "data/rows.csv", "model", "model/checkpoints")
    there = [path.name for path in (tmp_path / "here/model/checkpoints").glob("epoch=*.ckpt")]
    for name in {*there, "epoch=0-step=4.ckpt"}:
        hashed, missed = states(found, f"checkpoints/{name}")
        assert hashed or (missed and name not in there), found
    verify(tmp_path / "here", alice, *(f"model/checkpoints/{name}" for name in there))


def test_a_file_that_is_written_again_and_again(
    recorded: Callable[..., list[Checkpoint]], tmp_path: Path, alice: Person
) -> None:
    found = recorded("last_pt.py", "model")
    hashed, missed = states(found, "last.pt")
    assert 1 <= hashed <= 20
    assert hashed == 20 or missed
    verify(tmp_path / "here", alice, "model/last.pt")
