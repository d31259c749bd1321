"""Attacks on what a distance is a part of: elements that reach no answer, rare rows, and names.

Each test accepts the honest pair first: the same parameters after a drift as between two threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import builtin, parse
from tests.judge.judging import declaration, model
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.measure.findings import Outcome

    Array = np.ndarray[Any, Any]
    Idle = Callable[[Array], None]

BUILT_IN = builtin("close-float32")
DRIFT = 1e-3


def outcome(folder: Path, left: dict[str, Array], right: dict[str, Array], rule: Declaration,
            **files: dict[str, Array]) -> Outcome:  # fmt: skip
    """Judge two models of the tensors *left* and *right*, with the same other *files*."""
    more = {f"{name}.safetensors": model(tensors) for name, tensors in files.items()}
    one, two = (
        write(folder / side, {"model.safetensors": model(tensors)} | more)
        for side, tensors in (("left", left), ("right", right))
    )
    return compare_models(one, two, rule)


def network(seed: int, rows: int = 64) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes = {"a.weight": (rows, 65), "a.bias": (rows,), "b.weight": (10, rows)}
    return {name: random.normal(size=shape).astype("<f4") for name, shape in shapes.items()}


def drifted(tensors: dict[str, Array]) -> dict[str, Array]:
    """Return *tensors* after an honest drift, a part of each value."""
    random = np.random.default_rng(9)
    return {
        name: np.array(array * (1 + DRIFT * random.normal(size=array.shape)), "<f4")
        for name, array in tensors.items()
    }


def one(array: Array) -> None:
    array.flat[0] = 1e5


def several(array: Array) -> None:
    array.flat[:3] = 1e5, -1e2, 30


def column(array: Array) -> None:
    array[..., -1] = 1e5


def row(array: Array) -> None:
    array[0] = -1e5


def rows(array: Array) -> None:
    array[len(array) // 3 : len(array) * 2 // 3 + 1] = 1e5


def scattered(share: float) -> Idle:
    def scattered(array: Array) -> None:
        places = np.random.default_rng(3).permutation(array.size)[: int(share * array.size) + 1]
        array.flat[places] = 10.0 ** np.random.default_rng(4).uniform(1, 6, places.size)

    return scattered


IDLE: dict[str, tuple[Idle, int]] = {
    "one element": (one, 64),
    "three of several sizes": (several, 64),
    "a column": (column, 64),
    "a column of many blocks": (column, 4000),
    "a row": (row, 64),
    "a third of the rows": (rows, 64),
    "a third of the rows, as whole blocks": (rows, 4000),
    "a hundredth": (scattered(0.01), 64),
    "a twentieth of many blocks": (scattered(0.05), 4000),
    "a fifth": (scattered(0.2), 64),
}


@pytest.mark.parametrize("kind", IDLE)
def test_elements_that_reach_no_answer_do_not_lift_the_base(tmp_path: Path, kind: str) -> None:
    idle, size = IDLE[kind]
    first, other = network(1, size), network(2, size)
    drift = drifted(first)
    for tensors in (first, other, drift):
        for array in tensors.values():
            idle(array)
    honest = outcome(tmp_path / "honest", first, drift, BUILT_IN)
    assert honest.conclusion == "consistent"
    forged = outcome(tmp_path / "forged", first, other, BUILT_IN)
    assert forged.conclusion == "mismatch"
    against = {f.tensor for f in forged.alternatives[-1].findings if not f.held}
    assert against == set(first)
    assert all((each.outlying_share or 0) > 0.9 for each in forged.distances)


UPDATE = """equality = "close"
files = ["model.safetensors"]
initial = "start.safetensors"
relative_l2 = 5e-2
relative_linf = 0.2
reason = "a test"
"""


@pytest.mark.parametrize("kind", IDLE)
def test_nor_do_they_lift_the_update(tmp_path: Path, kind: str) -> None:
    idle, size = IDLE[kind]
    start = {name: 10 * array for name, array in network(0, size).items()}
    first, other = ({name: start[name] + array for name, array in network(seed, size).items()}
                    for seed in (1, 2))  # fmt: skip
    drift = {name: start[name] + moved for name, moved in drifted(network(1, size)).items()}
    for array in start.values():
        lifted = array.copy()
        idle(lifted)
        array[lifted != array] = 0
    for tensors in (first, other, drift):
        for array in tensors.values():
            idle(array)
    rule = parse(declaration(UPDATE))
    assert outcome(tmp_path / "honest", first, drift, rule, start=start).conclusion == "consistent"
    assert outcome(tmp_path / "forged", first, other, rule, start=start).conclusion == "mismatch"


def test_half_of_the_elements_lift_nothing(tmp_path: Path) -> None:
    first, other, drift = network(1), network(2), drifted(network(1))
    for tensors in (first, other, drift):
        for array in tensors.values():
            array.flat[: array.size // 2] = 1e5
    assert outcome(tmp_path / "honest", first, drift, BUILT_IN).conclusion == "consistent"
    assert outcome(tmp_path / "forged", first, other, BUILT_IN).conclusion == "mismatch"


def table() -> dict[str, Array]:
    return {"embedding.weight": np.random.default_rng(1).normal(size=(20_000, 64)).astype("<f4")}


ROWS = """equality = "close"
relative_to = "weights"
relative_l2 = 2e-2
relative_linf = 2.0
reason = "a test"
"""


def test_the_row_of_a_rare_token_is_not_replaced(tmp_path: Path) -> None:
    first, limited = table(), parse(declaration(ROWS + "relative_l2_rows = 0.1"))
    replaced = drifted(first)
    assert outcome(tmp_path / "honest", first, replaced, limited).conclusion == "consistent"
    replaced["embedding.weight"][12_345] = np.random.default_rng(2).normal(size=64)
    alone = outcome(tmp_path / "alone", first, replaced, parse(declaration(ROWS)))
    assert alone.conclusion == "consistent"
    forged = outcome(tmp_path / "forged", first, replaced, limited)
    assert forged.conclusion == "mismatch"
    (against,) = (f for f in forged.alternatives[0].findings if not f.held)
    assert against.measure == "relative-l2-rows-of-weights"
    assert against.value == pytest.approx(2**0.5, rel=0.2)


def test_nor_is_it_moved_within_the_other_limits(tmp_path: Path) -> None:
    first = table()
    moved = drifted(first)
    assert outcome(tmp_path / "honest", first, moved, BUILT_IN).conclusion == "consistent"
    moved["embedding.weight"][12_345] += np.float32(0.15)
    forged = outcome(tmp_path / "forged", first, moved, BUILT_IN)
    assert forged.conclusion == "mismatch"
    (against,) = (f for f in forged.alternatives[-1].findings if not f.held)
    assert against.measure == "relative-l2-rows-of-weights"


def scaled(tensors: dict[str, Array], by: float) -> dict[str, Array]:
    """Return *tensors*, those called a bias changed by a part of their size."""
    return {
        name: np.array(array * by if name.endswith("bias") else array, "<f4")
        for name, array in tensors.items()
    }


EVIL: dict[str, dict[str, Array]] = {
    "of two dimensions": {"evil_bias": np.ones((64, 64), "<f4")},
    "of many": {f"x{number}_bias": np.ones(16, "<f4") for number in range(2000)},
    "of no dimension": {f"x{number}_bias": np.ones((), "<f4") for number in range(3000)},
    "of one that is large": {"x_bias": np.ones(100_000, "<f4")},
}


@pytest.mark.parametrize("kind", EVIL)
def test_a_name_buys_no_wide_limit(tmp_path: Path, kind: str) -> None:
    sound = network(1) | {"c.weight": np.random.default_rng(5).normal(size=(99, 99)).astype("<f4")}
    by = 1.04
    assert (
        outcome(tmp_path / "honest", sound, scaled(sound, by), BUILT_IN).conclusion == "consistent"
    )
    evil = sound | EVIL[kind]
    assert outcome(tmp_path / "equal", evil, evil, BUILT_IN).conclusion == "match"
    assert outcome(tmp_path / "forged", evil, scaled(evil, by), BUILT_IN).conclusion == "mismatch"
