"""The order in which squares are added, against the same additions one by one."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from provenance.measure import norms
from provenance.measure.norms import LANES, scaled, square_rows
from provenance.measure.pieces import BLOCK


def sum_in_order(values: list[float]) -> float:
    """Add the squares of one block as the module says."""
    lanes = [0.0] * LANES
    for index, value in enumerate(values):
        lanes[index % LANES] += value * value
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [low + high for low, high in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]


@pytest.mark.parametrize("size", [1, 7, 255, 256, 257, 1024, 1025, 2048, 2 * 2048 + 300])
@pytest.mark.parametrize("block", [1024, 2048])
def test_squares_are_added_in_the_stated_order(
    size: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(norms, "BLOCK", block)
    rows = np.random.default_rng(size).standard_normal((3, size))
    blocks = [[row[start : start + block] for start in range(0, size, block)] for row in rows]
    expected = [[sum_in_order(values.tolist()) for values in row] for row in blocks]
    one_by_one = [[part.total for part in scaled(row.copy())] for row in rows]
    together = square_rows(rows, vanish=True)
    assert together is not None
    assert [[part.total for part in row] for row in together] == expected == one_by_one


def test_the_sum_of_a_whole_block_is_within_its_bound() -> None:
    rows = np.random.default_rng(1).standard_normal((1, BLOCK))
    exact = sum((Fraction(value) ** 2 for value in rows[0].tolist()), Fraction(0))
    (part,) = scaled(rows[0].copy())
    assert abs(Fraction(part.total) - exact) <= exact * (3 + 2**8 + 8) / 2**53
