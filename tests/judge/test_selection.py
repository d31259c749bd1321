"""Files of two models, opened side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.errors import MalformedError, UnreadableError
from provenance.judge.selection import each_in_both, matched
from provenance.measure.findings import Finding, Judged
from provenance.weights.pairs import SideBySide
from tests.judge.models import write

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.weights.pairs import Pair

ARRAYS = {"a": np.zeros(2, "<f4"), "b": np.zeros((2, 3), "<f8")}
FILE = "m.safetensors"


@pytest.fixture
def sides(tmp_path: Path) -> SideBySide:
    left = write(tmp_path / "left", {FILE: ARRAYS, "notes.txt": b"x"})
    right = write(tmp_path / "right", {FILE: {"b": np.zeros((3, 2), "<f8"), "c": ARRAYS["a"]}})
    return SideBySide(left, right)


def pair_of(sides: SideBySide, name: str) -> Pair:
    (pair,) = (pair for pair in sides.pairs if pair.name == name)
    return pair


def turned(sides: SideBySide) -> SideBySide:
    return SideBySide(sides.right, sides.left)


def test_arrays_alike_and_what_is_against_the_others(sides: SideBySide) -> None:
    with sides.opened(pair_of(sides, FILE)) as (left, right):
        alike, against = matched(FILE, ["*"], left, right)
        assert alike == []
        assert {(f.tensor, f.measure, f.left, f.right, f.held) for f in against} == {
            ("a", "presence", "F32[2]", None, False),
            ("b", "type-and-shape", "F64[2, 3]", "F64[3, 2]", False),
            ("c", "presence", None, "F32[2]", False),
        }
        assert matched(FILE, ["*", "!b", "!c"], left, left) == (["a"], [])
        _, against = matched(FILE, ["z"], left, right)
        assert {f.tensor for f in against} == {"a", "c"}  # what one side alone has is told
        assert matched(FILE, ["z"], left, left) == ([], [])


def test_what_one_model_alone_has_is_told_with_its_digest(sides: SideBySide) -> None:
    digest = sides.left.digest("notes.txt")
    both: list[str] = []

    def judge(pair: Pair) -> Judged:
        both.append(pair.name)
        return Judged(())

    judged = each_in_both(sides, lambda _: True, judge)
    assert both == [FILE]
    assert judged.findings == (
        Finding(file="notes.txt", measure="presence", held=False, left=digest),
    )
    judged = each_in_both(turned(sides), lambda _: True, judge)
    assert judged.findings == (
        Finding(file="notes.txt", measure="presence", held=False, right=digest),
    )


def test_what_one_model_alone_has_cannot_be_opened(sides: SideBySide) -> None:
    with (
        pytest.raises(UnreadableError, match="only one model"),
        sides.opened(pair_of(sides, "notes.txt")),
    ):
        pass


@pytest.mark.parametrize("word", ["left", "right"])
def test_a_side_that_cannot_be_read_is_named(sides: SideBySide, word: str) -> None:
    models = {"left": sides.left, "right": sides.right}
    models[word] = write(models[word].root, {FILE: b"junk"})
    broken = SideBySide(models["left"], models["right"])
    with (
        pytest.raises(MalformedError, match=rf"{FILE} \({word}\)"),
        broken.opened(pair_of(broken, FILE)),
    ):
        pass


@pytest.mark.parametrize("word", ["left", "right"])
def test_a_file_that_is_written_to_meanwhile_is_noticed(sides: SideBySide, word: str) -> None:
    path = getattr(sides, word).root / FILE
    with (
        pytest.raises(UnreadableError, match="changed"),
        sides.opened(pair_of(sides, FILE)),
    ):
        path.write_bytes(path.read_bytes() + b"more")
