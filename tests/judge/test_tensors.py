"""Findings, whole: what was compared, the value, the limit, the place, and both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.measure.findings import Divergence, Finding
from provenance.measure.squares import RELATIVE_ERROR
from tests.judge.models import compare_models, write
from tests.weights.writing import simple

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.measure.findings import Outcome

    Arrays = dict[str, np.ndarray[Any, Any]]

FILE = "m.safetensors"
ROUNDED = "equality = 'rounded'\nto = 'F32'\nreason = 'shipped in float32'\n"
CLOSE = (
    "equality = 'close'\nrelative_to = 'weights'\nrelative_l2 = 0.5\nrelative_linf = 0.25\n"
    "reason = 'a test'\n"
)


def judged(folder: Path, rule: str, left: Arrays | bytes, right: Arrays | bytes) -> Outcome:
    text = f"format = 1\nversion = 1\nname = 'x'\n[[any]]\n[[any.all]]\n{rule}"
    one, other = write(folder / "l", {FILE: left}), write(folder / "r", {FILE: right})
    return compare_models(one, other, parse(text.encode()))


def findings(outcome: Outcome) -> tuple[Finding, ...]:
    return outcome.alternatives[0].findings


def wide(*values: float) -> Arrays:
    return {"w": np.array(values, "<f8")}


def test_bits(tmp_path: Path) -> None:
    left = {"w": np.arange(6, dtype="<i8").reshape(2, 3)}
    right = {"w": left["w"].copy()}
    right["w"][1, 1:] += 1
    outcome = judged(tmp_path, "equality = 'tensors'", left, right)
    assert findings(outcome) == (
        Finding(
            file=FILE, tensor="w", measure="differing-elements", held=False,
            value=2.0, limit=0.0, place=(1, 1),
        ),
    )  # fmt: skip
    assert outcome.first == Divergence(file=FILE, tensor="w", index=(1, 1))


def test_types_and_shapes(tmp_path: Path) -> None:
    left = {"w": np.zeros((2, 3), "<f4"), "v": np.zeros(2, "<f4")}
    right = {"w": np.zeros((3, 2), "<f4"), "u": np.zeros(2, "<f8")}
    outcome = judged(tmp_path, "equality = 'tensors'", left, right)
    assert findings(outcome) == (
        Finding(
            file=FILE, tensor="w", measure="type-and-shape", held=False,
            left="F32[2, 3]", right="F32[3, 2]",
        ),
        Finding(file=FILE, tensor="v", measure="presence", held=False, left="F32[2]"),
        Finding(file=FILE, tensor="u", measure="presence", held=False, right="F64[2]"),
    )  # fmt: skip
    assert outcome.first == Divergence(file=FILE, tensor="w")


def test_metadata(tmp_path: Path) -> None:
    arrays = wide(1)
    outcome = judged(
        tmp_path, "equality = 'tensors'", simple(arrays, prompt="a"), simple(arrays, prompt="b")
    )
    assert findings(outcome) == (
        Finding(file=FILE, measure="metadata: prompt", held=False, left="a", right="b"),
    )


def test_closeness_that_holds_and_that_does_not(tmp_path: Path) -> None:
    outcome = judged(tmp_path, CLOSE, wide(4, 0, 3, 0), wide(4, 0, 3, 1.5))
    l2, linf = findings(outcome)
    enlarged = 1 + RELATIVE_ERROR
    assert l2 == Finding(
        file=FILE, tensor="w", measure="relative-l2-of-weights", held=True,
        value=1.5 / 5 * enlarged, limit=0.5, place=(3,),
    )  # fmt: skip
    assert linf == Finding(
        file=FILE, tensor="w", measure="relative-linf-of-weights", held=False,
        value=1.5 / 4 * enlarged, limit=0.25, place=(3,),
    )  # fmt: skip
    assert outcome.conclusion == "mismatch"


def test_units_in_the_last_place(tmp_path: Path) -> None:
    left, right = wide(1.0, 2.0), wide(1.0, np.nextafter(2.0, 3))
    for limit, held in ((1, True), (2, True)):
        outcome = judged(tmp_path / str(limit), f"{CLOSE}max_ulp = {limit}\n", left, right)
        assert findings(outcome)[2] == Finding(
            file=FILE, tensor="w", measure="max-ulp", held=held, value=1.0, limit=float(limit)
        )
    far = judged(tmp_path / "far", f"{CLOSE}max_ulp = 1\n", left, wide(1.0, 2.0 + 2**-50))
    assert findings(far)[2].held is False
    beyond = judged(tmp_path / "beyond", f"{CLOSE}max_ulp = 9\n", wide(1e300, 5), wide(-1e300, 5))
    assert findings(beyond)[2] == Finding(
        file=FILE, tensor="w", measure="max-ulp", held=False, limit=9.0, note="ulp-too-large"
    )


@pytest.mark.parametrize(
    ("left", "right", "note"),
    [
        ({"w": np.array([1], "<i8")}, {"w": np.array([2], "<i8")}, "exact-type"),
        (wide(np.inf, 1), wide(2, 1), "not-finite"),
        (wide(np.nan, 1), wide(np.nan, 1.001), "not-a-number"),
    ],
    ids=["integers", "infinity", "NaN"],
)
def test_what_no_distance_speaks_for(
    left: Arrays, right: Arrays, note: str, tmp_path: Path
) -> None:
    (finding,) = findings(judged(tmp_path, CLOSE, left, right))
    assert finding == Finding(
        file=FILE, tensor="w", measure="differing-elements", held=False,
        value=1.0, limit=0.0, place=finding.place, note=note,
    )  # fmt: skip
    assert finding.place in ((0,), (1,))


STEP = 2.0**-40
"""Far below half a step of float32 at 1."""


def test_rounded_to_the_same_bits(tmp_path: Path) -> None:
    outcome = judged(tmp_path, ROUNDED, wide(1, 2), wide(1 + STEP, 2))
    assert (outcome.conclusion, outcome.strongest) == ("consistent", "rounded")
    outcome = judged(tmp_path / "far", ROUNDED, wide(1, 1), wide(1, 1 + 2**-20))
    assert findings(outcome) == (
        Finding(
            file=FILE, tensor="w", measure="differing-elements-as-F32", held=False,
            value=1.0, limit=0.0, place=(1,),
        ),
    )  # fmt: skip


def test_rounded_at_a_boundary_goes_two_ways(tmp_path: Path) -> None:
    half = 1 + 2.0**-24  # between two float32, ties to even: 1
    outcome = judged(tmp_path, ROUNDED, wide(half), wide(np.nextafter(half, 2)))
    assert outcome.conclusion == "mismatch"


def test_nothing_wider_to_round(tmp_path: Path) -> None:
    left, right = ({"w": np.array([value], "<f4")} for value in (1, 2))
    (finding,) = findings(judged(tmp_path, ROUNDED, left, right))
    assert (finding.held, finding.note) == (False, "not-wider")
    integers = {"w": np.array([1], "<i8")}, {"w": np.array([2], "<i8")}
    (finding,) = findings(judged(tmp_path / "i", ROUNDED, *integers))
    assert (finding.held, finding.note) == (False, "not-wider")


def test_a_value_beyond_the_narrower_type(tmp_path: Path) -> None:
    (finding,) = findings(judged(tmp_path, ROUNDED, wide(1e300, 1), wide(1e300, 1 + STEP)))
    assert (finding.held, finding.note) == (False, "beyond-the-narrower-type")


def test_nan_is_rounded_only_where_declared(tmp_path: Path) -> None:
    left, right = wide(np.nan, 1), wide(np.nan, 1 + STEP)
    (finding,) = findings(judged(tmp_path, ROUNDED, left, right))
    assert (finding.held, finding.note) == (False, "not-a-number")
    declared = judged(tmp_path / "declared", ROUNDED + "nan = 'same-bits'\n", left, right)
    assert (declared.conclusion, declared.strongest) == ("consistent", "rounded")
    other = np.array([0x7FF8000000000001], "<u8").view("<f8")[0]
    payload = judged(tmp_path / "p", ROUNDED + "nan = 'same-bits'\n", left, wide(other, 1))
    assert payload.conclusion == "mismatch"


def test_signs_of_zero_that_rounding_leaves(tmp_path: Path) -> None:
    left, right = wide(1, 1e-320), wide(1, -1e-320)
    distinct = judged(tmp_path, ROUNDED, left, right)
    assert [(f.held, f.value, f.place) for f in findings(distinct)] == [(False, 1.0, (1,))]
    equal = judged(tmp_path / "equal", ROUNDED + "signed_zero = 'equal'\n", left, right)
    assert (equal.conclusion, equal.strongest) == ("consistent", "rounded")


def test_several_rules_for_one_tensor_must_all_hold(tmp_path: Path) -> None:
    text = CLOSE + "[[any.all]]\nequality = 'tensors'\n"
    outcome = judged(tmp_path, text, wide(1, 2), wide(1, 2.001))
    assert [f.measure for f in findings(outcome) if not f.held] == ["differing-elements"]
    assert len(findings(outcome)) == 3
