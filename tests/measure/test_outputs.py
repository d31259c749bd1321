"""Outputs on probes: measures against exact arithmetic, and answers that look alike and are not."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.errors import UsageError
from provenance.measure import outputs
from provenance.measure.outputs import KL_ERROR, Kind, Outputs, measure_outputs
from provenance.measure.statistics import disagreement_bound
from tests.measure.in_memory import COMPONENTS, of_array

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

KINDS: tuple[Kind, ...] = ("logits", "probabilities", "values")


def measured(left: Array, right: Array, kind: Kind = "logits") -> Outputs:
    return measure_outputs("t", of_array(left), of_array(right), kind)


def pairs(dtype: str, *, special: bool = False) -> st.SearchStrategy[tuple[Array, Array]]:
    """Return two arrays of logits of one shape, of two or three axes."""
    plain = {
        "<f2": st.floats(-50, 50, width=16),
        "<f4": st.floats(-50, 50, width=32),
        "<f8": st.floats(-50, 50),
    }[dtype]
    extreme = st.sampled_from([1e38, -1e38, math.inf, -math.inf, math.nan, 0.0, -0.0])
    elements = st.one_of(plain, extreme) if special else plain
    shapes = hnp.array_shapes(min_dims=2, max_dims=3, max_side=4).map(lambda s: (*s, 3))
    arrays = shapes.flatmap(
        lambda shape: st.tuples(*[hnp.arrays(dtype, shape, elements=elements)] * 2)
    )
    # Rows that are equal in part: what differs is chosen element by element.
    return arrays.flatmap(
        lambda two: hnp.arrays(np.bool_, two[0].shape).map(
            lambda same: (two[0], np.where(same, two[0], two[1]))
        )
    )


def divergence(p: list[Decimal], q: list[Decimal]) -> Decimal:
    return max(
        sum((a * (a.ln() - b.ln()) for a, b in zip(one, other, strict=True)), Decimal(0))
        for one, other in ((p, q), (q, p))
    )


def softmax(row: Array) -> list[Decimal]:
    parts = [Decimal(float(value)).exp() for value in row]
    return [part / sum(parts) for part in parts]


# --- Measures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@settings(max_examples=40)
@given(data=st.data())
def test_measures_against_exact_arithmetic(dtype: str, data: st.DataObject) -> None:
    left, right = data.draw(pairs(dtype))
    found = measured(left, right)
    apart = [
        abs(Fraction(float(a)) - Fraction(float(b)))
        for a, b in zip(left.ravel(), right.ravel(), strict=True)
    ]
    largest = max(apart)
    assert found.max_difference == pytest.approx(float(largest), rel=2.0**-50)
    assert found.mean_difference == pytest.approx(float(sum(apart) / len(apart)), rel=2.0**-45)
    if largest:
        assert found.max_place is not None
        place = np.ravel_multi_index(found.max_place, left.shape)
        assert float(apart[int(place)]) == found.max_difference
        assert all(float(gap) < found.max_difference for gap in apart[: int(place)])
    else:
        assert found.max_place is None
    rows = list(zip(left.reshape(-1, 3), right.reshape(-1, 3), strict=True))
    with localcontext() as context:
        context.prec = 40
        exact = [float(divergence(softmax(a), softmax(b))) for a, b in rows]
    assert found.kl_mean == pytest.approx(math.fsum(exact) / len(exact), rel=KL_ERROR, abs=KL_ERROR)
    tops = [[set(np.flatnonzero(side == side.max())) for side in (a, b)] for a, b in rows]
    per_probe = len(rows) // len(left)
    wrong = {index // per_probe for index, (a, b) in enumerate(tops) if a != b}
    assert found.disagreements == len(wrong)
    assert found.notes == ()


@pytest.mark.parametrize("kind", ["logits", "values"])
@given(two=pairs("<f4", special=True))
def test_exchanged_sides_give_the_same(kind: Kind, two: tuple[Array, Array]) -> None:
    assert measured(*two, kind) == measured(two[1], two[0], kind)


@given(pairs("<f4", special=True))
def test_no_number_is_left_where_one_is_not_finite(two: tuple[Array, Array]) -> None:
    left, right = two
    found = measured(left, right)
    bits = left.view("<u4") != right.view("<u4")
    endless = bits & ~(np.isfinite(left) & np.isfinite(right))
    assert found.differing == np.count_nonzero(bits)
    assert found.not_finite == np.count_nonzero(endless)
    numbers = (found.max_difference, found.mean_difference, found.kl_mean)
    if endless.any():
        assert numbers == (None,) * 3
        assert found.disagreements is None
        assert "not-finite" in found.notes
    assert all(number is None or math.isfinite(number) for number in numbers)
    assert all(number is not None for number in numbers) or found.notes


@pytest.mark.parametrize("kind", ["logits", "values"])
@given(two=pairs("<f4", special=True))
def test_a_model_equals_itself(kind: Kind, two: tuple[Array, Array]) -> None:
    found = measured(two[0], two[0].copy(), kind)
    assert (found.differing, found.not_finite, found.notes) == (0, 0, ())
    assert (found.max_difference, found.mean_difference) == (0, 0)
    if kind == "logits":
        assert (found.kl_mean, found.disagreements) == (0, 0)


@pytest.mark.parametrize("classes", [2, 3, 257, 1001])
def test_the_result_does_not_depend_on_the_reads(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(4)
    left = generator.standard_normal((613, classes)).astype("<f4")
    right = left + (generator.random(left.shape) < 0.01).astype("<f4")
    found = measured(left, right)
    for read in (256, 1024, 2**20):
        monkeypatch.setattr(outputs, "_READ", read)
        assert measured(left, right) == found
    monkeypatch.setattr(outputs, "BLOCK", 5)
    monkeypatch.setattr(outputs, "_FOLD", 3)
    other = measured(left, right)
    assert other.max_place == found.max_place
    assert other.disagreements == found.disagreements
    assert other.mean_difference == pytest.approx(found.mean_difference, rel=1e-14)
    assert other.kl_mean == pytest.approx(found.kl_mean, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_widened(kind: Kind) -> None:
    left = np.array([[0.5, 0.5], [0.25, 0.75]], COMPONENTS["BF16"])
    right = np.array([[0.5, 0.5], [0.375, 0.625]], COMPONENTS["BF16"])
    found = measured(left, right, kind)
    assert (found.max_difference, found.max_place) == (0.125, (1, 0))
    assert found.notes == ()


def test_values_of_one_axis_are_measured() -> None:
    left = np.arange(100_000, dtype="<f4")
    right = left.copy()
    right[77_777] += 2
    found = measured(left, right, "values")
    assert (found.max_difference, found.max_place) == (2, (77_777,))
    assert found.mean_difference == 2 / 100_000
    assert (found.kl_mean, found.disagreements) == (None, None)


def test_the_place_names_the_position_within_the_probe() -> None:
    left = np.zeros((3, 4, 5), "<f4")
    right = left.copy()
    right[2, 1, 3] = 1
    right[2, 3, 0] = 1
    found = measured(left, right)
    assert found.max_place == (2, 1, 3)
    assert found.disagreements == 1  # two positions, one probe


# --- Distributions --------------------------------------------------------------------------------


def test_divergence_of_a_worked_example() -> None:
    # Cover and Thomas, Elements of Information Theory, example 2.3.1, in nats.
    p, q = np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])
    one = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    other = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    found = measured(p, q, "probabilities")
    assert found.kl_mean == pytest.approx(max(one, other), rel=1e-14)
    assert measured(np.log(p), np.log(q)).kl_mean == pytest.approx(max(one, other), rel=1e-14)


def test_logits_of_any_size_have_a_softmax() -> None:
    left = np.array([[1e38, -1e38, 0], [1e38, 1e38, 0], [-1e38, -1e38, -1e38]], "<f4")
    right = left.copy()
    right[0, 2] = 5
    right[2, 0] = -2e38
    found = measured(left, right)
    assert found.notes == ()
    # Two classes of three are left: ln 3 - ln 2 one way, and the weight of the third the other.
    assert found.kl_mean == pytest.approx(1e38 / 9, rel=1e-6)


def test_a_masked_class_has_no_part() -> None:
    left = np.array([[-math.inf, 1.0, 2.0]], "<f4")
    right = np.array([[-math.inf, 1.0, 2.5]], "<f4")
    plain = measured(left[:, 1:].copy(), right[:, 1:].copy())
    found = measured(left, right)
    assert found.notes == ()
    assert found.kl_mean == plain.kl_mean
    assert found.max_difference == 0.5


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_row_that_differs_beside_what_is_not_finite_has_no_softmax(value: float) -> None:
    left = np.array([[value, 1.0, 2.0]], "<f4")
    right = np.array([[value, 1.0, 2.5]], "<f4")
    found = measured(left, right)
    assert found.notes == ("not-finite",)
    assert (found.kl_mean, found.disagreements) == (None, None)
    assert found.max_difference == 0.5


def test_a_row_of_nothing_but_masks_has_no_softmax() -> None:
    left = np.array([[-math.inf, -math.inf], [0.0, 1.0]])
    right = np.array([[-math.inf, -math.inf], [0.0, 2.0]])
    assert measured(left, right).notes == ()  # its bits are equal
    right[0, 1] = 0
    assert measured(left, right).notes == ("not-finite",)


def test_differences_beyond_float64_are_no_number() -> None:
    left = np.array([[1.7e308, -1.7e308]])
    found = measured(left, -left)
    assert (found.max_difference, found.mean_difference) == (None, None)
    assert "overflow" in found.notes
    assert "infinite-divergence" in found.notes
    assert found.kl_mean is None


def test_a_sum_beyond_float64_is_no_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "BLOCK", 1)
    found = measured(np.full(3, 1.7e308), np.zeros(3), "values")
    assert (found.max_difference, found.mean_difference) == (1.7e308, None)
    assert found.notes == ("overflow",)


@pytest.mark.parametrize(
    "row",
    [[0.5, 0.4], [0.7, 0.7], [1.5, -0.5], [math.nan, 1.0], [math.inf, 0.0], [0.0, 0.0],
     [0.9, 0.0951]],
)  # fmt: skip
@pytest.mark.parametrize("same", [False, True])
def test_what_is_no_distribution_is_a_finding(row: list[float], same: bool) -> None:
    sound = np.array([[0.5, 0.5], [0.25, 0.75]])
    wrong = np.array([[0.5, 0.5], row])
    for left, right in ((sound, wrong), (wrong, sound)):
        found = measured(wrong if same else left, wrong if same else right, "probabilities")
        assert "not-a-distribution" in found.notes
        assert (found.kl_mean, found.disagreements) == (None, None)


def test_rounded_probabilities_are_a_distribution() -> None:
    generator = np.random.default_rng(6)
    for dtype in ("<f2", COMPONENTS["BF16"], "<f4"):
        logits = generator.standard_normal((20, 3000))
        parts = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        rounded = parts.astype(dtype)
        found = measured(rounded, np.roll(rounded, 1, axis=0), "probabilities")
        assert found.notes == ()


def test_a_class_that_one_side_excludes_diverges_without_end() -> None:
    found = measured(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), "probabilities")
    assert found.kl_mean is None
    assert found.notes == ("infinite-divergence",)
    both = measured(np.array([[1.0, 0.0, 0]]), np.array([[0.9999, 1e-4, 0]]), "probabilities")
    assert both.notes == ("infinite-divergence",)


# --- Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "disagreements"),
    [
        ([[1, 0, 0]], [[2, 0, 1]], 0),
        ([[1, 0, 0]], [[0, 1, 0]], 1),
        ([[1, 1, 0]], [[1, 0, 0]], 1),
        ([[1, 1, 0]], [[1, 0, 1]], 1),
        ([[1, 1, 0]], [[2, 2, 1]], 0),
        ([[1, 1, 1]], [[2, 2, 2]], 0),
        ([[1, 1, 1]], [[1, 1, 1.5]], 1),
        ([[0.0, -1, -1]], [[-0.0, -1, -1]], 0),
        ([[0.0, -0.0, -1]], [[-0.0, 0.0, -1]], 0),
    ],
)
def test_ties_agree_only_with_the_same_tie(
    left: list[list[float]], right: list[list[float]], disagreements: int
) -> None:
    found = measured(np.array(left, "<f4"), np.array(right, "<f4"))
    assert found.disagreements == disagreements


def test_probabilities_swapped_between_two_classes() -> None:
    # Sorted, summed or averaged over the classes, both sides are the same.
    left = np.tile(np.array([[0.7, 0.2, 0.1]]), (50, 1))
    right = left[:, [1, 0, 2]]
    found = measured(left, right, "probabilities")
    assert found.disagreements == 50
    assert found.kl_mean == pytest.approx(0.5 * math.log(3.5))
    assert found.max_difference == pytest.approx(0.5)


def test_equal_accuracy_with_other_predictions() -> None:
    # The measured pair of rebuilds: accuracy 0.4305 on both sides, 39.7 % of the answers differ.
    truth = np.zeros(2000, dtype="<i8")
    left = np.where(np.arange(2000) < 861, 0, 1)
    right = np.where(np.arange(2000) < 861 - 397, 0, 2)
    right[861 : 861 + 397] = 0
    right[861 + 397 :] = 1
    assert np.mean(left == truth) == np.mean(right == truth) == 0.4305
    found = measured(left.astype("<i8"), right.astype("<i8"), "values")
    assert found.disagreements == 2 * 397
    assert disagreement_bound(found.disagreements, found.probes, 0.95) > 0.397


@pytest.mark.parametrize("dtype", ["<i8", "<u8", "|u1", "<i4", "|b1"])
def test_integers_are_counted_and_have_no_distance(dtype: str) -> None:
    left = np.array([[0, 1], [1, 1], [0, 0]], dtype)
    right = np.array([[1, 0], [1, 1], [0, 1]], dtype)
    found = measured(left, right, "values")
    assert (found.differing, found.disagreements, found.probes) == (3, 2, 3)
    assert (found.max_difference, found.mean_difference) == (None, None)
    assert found.notes == ("exact-type",)
    same = measured(left, left, "values")
    assert (same.differing, same.disagreements, same.max_difference) == (0, 0, 0)
    assert same.notes == ()


def test_a_probe_across_two_blocks_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "BLOCK", 8)
    left = np.zeros((2, 20), "<i4")
    right = left + 1
    assert measured(left, right, "values").disagreements == 2
    logits = np.zeros((2, 10, 4), "<f4")
    other = logits.copy()
    other[..., 1] = 1
    assert measured(logits, other).disagreements == 2


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(4, "<f4"), np.zeros(1, "<f4")),
        (np.zeros((4, 2), "<f4"), np.zeros((1, 2), "<f4")),
        (np.zeros((2, 2), "<f4"), np.zeros((4, 1), "<f4")),
        (np.zeros((2, 2), "<f4"), np.zeros((2, 2), "<f8")),
        (np.zeros(0, "<f4"), np.zeros(3, "<f4")),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_broadcast_or_promoted(left: Array, right: Array, kind: Kind) -> None:
    for one, other in ((left, right), (right, left)):
        with pytest.raises(UsageError, match="two types or shapes"):
            measured(one, other, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_outputs_show_nothing(kind: Kind, shape: tuple[int, int]) -> None:
    empty = np.zeros(shape, "<f4")
    found = measured(empty, empty, kind)
    assert found.notes == ("empty",)
    numbers = (found.max_difference, found.mean_difference, found.kl_mean)
    assert numbers == (None,) * 3
    assert found.disagreements is None


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.zeros((), "<f4"), "values", "first axis"),
        (np.zeros(5, "<f4"), "logits", "two classes"),
        (np.zeros((5, 1), "<f4"), "probabilities", "two classes"),
        (np.zeros((5, 2), "<i4"), "logits", "are floats"),
        (np.zeros((5, 2), "<c8"), "values", "C64"),
        (np.zeros((1, outputs.MAX_CLASSES + 1), "<f2"), "logits", "classes"),
    ],
)
def test_arrays_that_are_no_outputs_are_refused(array: Array, kind: Kind, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measured(array, array, kind)
