"""Files of two models, opened side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.equality.findings import Finding
from provenance.equality.model import Model, pairs
from provenance.equality.pairing import absent, matched, opened
from provenance.errors import MalformedError, UnreadableError
from tests.equality.models import write

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.equality.model import Pair

ARRAYS = {"a": np.zeros(2, "<f4"), "b": np.zeros((2, 3), "<f8")}
FILE = "m.safetensors"


@pytest.fixture
def models(tmp_path: Path) -> tuple[Model, Model]:
    left = write(tmp_path / "left", {FILE: ARRAYS, "notes.txt": b"x"})
    right = write(tmp_path / "right", {FILE: {"b": np.zeros((3, 2), "<f8"), "c": ARRAYS["a"]}})
    return left, right


def pair_of(models: tuple[Model, Model], name: str) -> Pair:
    (pair,) = (pair for pair in pairs(*models) if pair.name == name)
    return pair


def test_arrays_alike_and_what_is_against_the_others(models: tuple[Model, Model]) -> None:
    units = pair_of(models, FILE).both
    assert units is not None
    with opened(FILE, units, models) as (left, right):
        alike, against = matched(FILE, ["*"], left, right)
        assert alike == []
        assert {(f.tensor, f.measure, f.left, f.right, f.held) for f in against} == {
            ("a", "presence", "F32[2]", None, False),
            ("b", "type-and-shape", "F64[2, 3]", "F64[3, 2]", False),
            ("c", "presence", None, "F32[2]", False),
        }
        assert matched(FILE, ["*", "!b", "!c"], left, left) == (["a"], [])
        assert matched(FILE, ["z"], left, right) == ([], [])


def test_what_one_model_alone_has_is_told_with_its_digest(models: tuple[Model, Model]) -> None:
    digest = models[0].files["notes.txt"].sha256
    said = {"file": "notes.txt", "measure": "presence", "held": False}
    pair = pair_of(models, "notes.txt")
    assert absent(pair, models) == Finding(**said, left=digest)  # type: ignore[arg-type]
    turned = (models[1], models[0])
    pair = pair_of(turned, "notes.txt")
    assert absent(pair, turned) == Finding(**said, right=digest)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_cannot_be_read_is_named(models: tuple[Model, Model], side: int) -> None:
    broken = list(models)
    broken[side] = write(models[side].root, {FILE: b"junk"})
    pair = pair_of((broken[0], broken[1]), FILE)
    assert pair.both is not None
    word = ("left", "right")[side]
    with (
        pytest.raises(MalformedError, match=rf"{FILE} \({word}\)"),
        opened(FILE, pair.both, (broken[0], broken[1])),
    ):
        pass


@pytest.mark.parametrize("side", [0, 1])
def test_a_file_that_is_written_to_meanwhile_is_noticed(
    models: tuple[Model, Model], side: int
) -> None:
    units = pair_of(models, FILE).both
    assert units is not None
    path = models[side].root / FILE
    with pytest.raises(UnreadableError, match="changed"), opened(FILE, units, models):
        path.write_bytes(path.read_bytes() + b"more")
