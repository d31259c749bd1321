"""Scores of two models on the same examples."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from provenance.equality.rules import Metrics
from provenance.errors import MalformedError, UsageError
from provenance.measure import samples
from provenance.measure.samples import Metric, measure_metric
from provenance.measure.statistics import disagreement_bound
from tests.measure.in_memory import COMPONENTS, of_array

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Kind = Literal["tost", "bootstrap"]
KINDS: tuple[Kind, ...] = ("tost", "bootstrap")
DTYPES = ["<f4", "<f8", "<f2", COMPONENTS["BF16"], "|b1", "|i1", "<u2", "<i8"]


def measured(left: Array, right: Array, margin: float = 0.01, kind: Kind = "tost") -> Metric:
    rule = Metrics(("*",), margin, "because", test=kind, resamples=100)
    return measure_metric("t", of_array(left), of_array(right), rule)


def scores(*, special: bool = False) -> st.SearchStrategy[tuple[Array, Array]]:
    plain = st.floats(-10, 10, width=32)
    extreme = st.sampled_from([math.nan, math.inf, -math.inf, 3e38])
    elements = st.one_of(plain, extreme) if special else plain
    return st.integers(0, 30).flatmap(
        lambda size: st.tuples(*[hnp.arrays("<f4", size, elements=elements)] * 2)
    )


@given(scores())
def test_means_against_exact_arithmetic(two: tuple[Array, Array]) -> None:
    left, right = two
    found = measured(left, right)
    exact = [sum((Fraction(float(value)) for value in side), Fraction(0)) for side in two]
    if not left.size:
        assert (found.left_mean, found.right_mean) == (None, None)
        return
    assert found.left_mean == float(exact[0]) / left.size
    assert found.right_mean == float(exact[1]) / left.size


@pytest.mark.parametrize("kind", KINDS)
@given(two=scores(special=True), margin=st.floats(0.01, 10))
def test_exchanged_sides_give_the_same_judgement(
    kind: Kind, two: tuple[Array, Array], margin: float
) -> None:
    one, other = measured(*two, margin, kind), measured(two[1], two[0], margin, kind)
    assert one.test.p == other.test.p
    assert (one.left_mean, one.right_mean) == (other.right_mean, other.left_mean)
    assert (one.examples, one.changed, one.churn_bound) == (
        other.examples,
        other.changed,
        other.churn_bound,
    )


@pytest.mark.parametrize("kind", KINDS)
@given(two=scores(special=True))
def test_a_score_that_is_not_finite_never_passes(kind: Kind, two: tuple[Array, Array]) -> None:
    left, right = two
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        for one, other in ((left, right), (left, left), (right, right)):
            found = measured(one, other, 1e30, kind)
            finite = np.isfinite(one).all() and np.isfinite(other).all()
            assert finite or found.test.p == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_equals_itself(kind: Kind, dtype: str) -> None:
    scores = np.array([0, 1, 1, 0, 1, 1, 0, 0], dtype)
    found = measured(scores, scores.copy(), kind=kind)
    assert found.test.p == (0 if kind == "tost" else pytest.approx(1 / 101))
    assert found.left_mean == found.right_mean == 0.5
    assert (found.changed, found.churn_bound) == (0, disagreement_bound(0, 8, 0.95))


@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_of_0_and_1_are_counted(dtype: str) -> None:
    left = np.array([0, 1, 1, 0, 1, 1], dtype)
    right = np.array([1, 1, 0, 1, 1, 0], dtype)
    found = measured(left, right)
    assert (found.changed, found.examples) == (4, 6)


def test_scores_that_are_no_answers_have_no_churn() -> None:
    found = measured(np.array([0.0, 1.0, 0.5]), np.array([0.0, 1.0, 1.0]))
    assert (found.changed, found.churn_bound) == (None, None)
    assert measured(np.array([0, 1, 1]), np.array([0, 2, 1])).churn_bound is None


def test_one_score_that_is_no_answer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "BLOCK", 256)
    left = np.zeros(1000)
    left[5] = 0.5
    assert measured(left, np.zeros(1000)).churn_bound is None


def test_equal_accuracy_while_39_percent_of_the_answers_change() -> None:
    # The measured pair of rebuilds: the mean sees nothing.
    left = np.arange(10_000) < 4305
    right = (np.arange(10_000) >= 1985) & (np.arange(10_000) < 1985 + 4305)
    found = measured(left, right, margin=0.02)
    assert found.left_mean == found.right_mean == 0.4305
    assert found.test.p <= 0.05
    assert found.changed == 3970
    assert found.churn_bound is not None
    assert 0.397 < found.churn_bound < 0.41


@pytest.mark.parametrize("kind", KINDS)
def test_not_rejecting_a_difference_is_not_equivalence(kind: Kind) -> None:
    generator = np.random.default_rng(8)
    left, right = generator.random(12), generator.random(12)
    assert scipy.stats.ttest_rel(left, right).pvalue > 0.05
    assert measured(left, right, 0.01, kind).test.p > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_enough_examples_show_equivalence(kind: Kind) -> None:
    generator = np.random.default_rng(9)
    left = generator.random(4000)
    right = left + generator.standard_normal(4000) * 0.05
    found = measured(left, right, 0.01, kind)
    assert found.test.p <= 0.05
    assert measured(left, right + 0.02, 0.01, kind).test.p > 0.99


def test_the_seed_is_of_the_scores_and_not_of_their_sides() -> None:
    generator = np.random.default_rng(10)
    left, right = generator.random(40), generator.random(40)
    one = measured(left, right, 0.05, "bootstrap").test
    assert one == measured(left, right, 0.05, "bootstrap").test
    assert measured(right, left, 0.05, "bootstrap").test.p == one.p
    assert measured(left + 1, right + 1, 0.05, "bootstrap").test != one


def test_the_result_does_not_depend_on_the_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(11)
    left, right = (generator.integers(0, 2, 5000) for _ in range(2))
    for kind in KINDS:
        monkeypatch.setattr(samples, "BLOCK", 2**16)
        found = measured(left, right, 0.05, kind)
        monkeypatch.setattr(samples, "BLOCK", 256)
        assert measured(left, right, 0.05, kind) == found


def test_sums_beyond_float64_give_no_mean() -> None:
    huge = np.full(3, 1.7e308)
    found = measured(huge, huge, 1.0)
    assert (found.left_mean, found.test.p) == (None, 0)
    assert measured(huge, -huge, 1.0).test.p == 1


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**63 - 1, -(2**63)])
def test_integers_that_float64_leaves_out_never_pass(value: int) -> None:
    left = np.array([0, 1, value, 2])
    found = measured(left, left, 1e30)
    assert (found.test.p, found.test.note, found.left_mean) == (1, "not-finite", None)


@pytest.mark.parametrize(
    "other", [np.zeros(1, "<f4"), np.zeros(0, "<f4"), np.zeros(4), np.zeros((1, 4), "<f4")]
)
def test_nothing_is_broadcast_or_promoted(other: Array) -> None:
    for one, two in ((np.zeros(4, "<f4"), other), (other, np.zeros(4, "<f4"))):
        with pytest.raises(UsageError, match="not paired"):
            measured(one, two)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1])
def test_too_few_examples_never_pass(kind: Kind, size: int) -> None:
    found = measured(np.ones(size, "<f4"), np.ones(size, "<f4"), 1.0, kind)
    assert (found.test.p, found.test.note) == (1, "too-few")
    assert (found.churn_bound is None) == (size == 0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 2), "<f4"), "one axis"),
        (np.zeros((), "<f4"), "one axis"),
        (np.zeros(4, "<c8"), "C64"),
    ],
)
def test_arrays_that_are_no_scores_are_refused(array: Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measured(array, array)


def test_too_many_examples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_EXAMPLES", 3)
    with pytest.raises(UsageError, match="more than 3"):
        measured(np.zeros(4), np.zeros(4))


def test_a_boolean_of_another_value_is_refused() -> None:
    wrong = np.array([0, 1, 2], "|u1").view("|b1")
    with pytest.raises(MalformedError, match="boolean"):
        measured(wrong, wrong)
