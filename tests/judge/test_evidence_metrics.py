"""Scores on the same examples under a declaration: equivalence, churn, and what is undecided."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.errors import PolicyError, UnavailableError
from provenance.measure.statistics import disagreement_bound
from tests.judge.evidence import THROUGH, Judge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.judge.evidence import Answer
    from tests.judge.models import Content

Array = np.ndarray[Any, Any]

SCORES = "scores.safetensors"
MANY = 2000


def rule(*lines: str, margin: float = 0.05, samples: str = SCORES) -> str:
    """Return a rule through which alone the weights are judged."""
    head = ("equality = 'metrics'", f"samples = ['{samples}']", f"margin = {margin}")
    return "\n".join((*head, *lines)) + "\n" + THROUGH


def scores(array: Array, name: str = "accuracy") -> dict[str, Content]:
    return {SCORES: {name: array}}


def answers(gained: int, lost: int, examples: int = MANY) -> tuple[Array, Array]:
    """Return right and wrong answers of two models, half of the left one's right."""
    left = np.arange(examples, dtype="|u1") % 2
    right = left.copy()
    right[np.flatnonzero(left == 0)[:gained]] = 1
    right[np.flatnonzero(left == 1)[:lost]] = 0
    return left, right


def wavering(examples: int = 100) -> tuple[Array, Array]:
    """Return scores whose differences are -1 and 1 by turns: t of a margin m is near 10 m."""
    return np.zeros(examples), np.where(np.arange(examples) % 2, 1.0, -1.0)


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


def both(judge: Judge, pair: tuple[Array, Array], *rules: str) -> Answer:
    return judge(scores(pair[0]), scores(pair[1]), *rules)


# --- Equivalence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["tost", "bootstrap"])
def test_means_within_the_margin_are_plausible_and_never_a_match(judge: Judge, test: str) -> None:
    answer = both(judge, answers(30, 20), rule(f"test = '{test}'", "resamples = 1000"))
    assert (answer.conclusion, answer.outcome.strongest) == ("plausible", "metrics")
    found = answer.found(f"not-equivalent-p-{test}")
    assert (found.file, found.tensor, found.limit) == (SCORES, "accuracy", 0.05)
    assert answer.value(f"not-equivalent-p-{test}") < 0.05
    assert answer.found("difference-of-means").value == pytest.approx(10 / MANY)


@pytest.mark.parametrize("test", ["tost", "bootstrap"])
def test_means_beyond_the_margin_are_a_mismatch(judge: Judge, test: str) -> None:
    answer = both(judge, answers(200, 20), rule(f"test = '{test}'", "resamples = 1000"))
    assert (answer.conclusion, answer.outcome.strongest) == ("mismatch", None)
    assert answer.against == {f"accuracy not-equivalent-p-{test}"}


def test_too_few_examples_show_no_equivalence(judge: Judge) -> None:
    """That no difference is found is no equivalence: the same scores, ten and a thousand."""
    assert both(judge, wavering(10), rule(margin=0.2)).conclusion == "mismatch"
    assert both(judge, wavering(1000), rule(margin=0.2)).conclusion == "plausible"
    one = both(judge, (np.zeros(1), np.zeros(1)), rule())
    assert one.against == {"accuracy not-equivalent-p-tost too-few"}
    none = both(judge, (np.zeros(0), np.zeros(0)), rule("max_churn = 0.5"))
    assert none.against == {"accuracy not-equivalent-p-tost too-few", "accuracy churn-bound empty"}


def test_scores_that_are_all_the_same_distance_apart_are_decided_by_the_margin(
    judge: Judge,
) -> None:
    near = both(judge, (np.zeros(9), np.full(9, 0.25)), rule(margin=0.3))
    assert near.conclusion == "plausible"
    assert near.found("not-equivalent-p-tost").note == "zero-variance"
    for margin in (0.25, 0.2):
        far = both(judge, (np.zeros(9), np.full(9, 0.25)), rule(margin=margin))
        assert far.against == {"accuracy not-equivalent-p-tost zero-variance"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_shows_nothing(judge: Judge, value: float) -> None:
    left, right = wavering(1000)
    right[3] = value
    for pair in ((left, right), (right, right)):
        answer = both(judge, pair, rule(margin=1e30))
        assert answer.against == {"accuracy not-equivalent-p-tost not-finite"}
        assert not any(finding.measure == "difference-of-means" for finding in answer.findings)


def test_means_whose_difference_is_beyond_float64(judge: Judge) -> None:
    largest = np.finfo("<f8").max / 4
    answer = both(judge, (np.full(4, largest), np.full(4, -largest)), rule(margin=1e30))
    assert answer.against == {"accuracy not-equivalent-p-tost zero-variance"}
    assert answer.found("difference-of-means").value == largest * 2
    far = both(judge, (np.full(1, largest * 4), np.full(1, -largest * 4)), rule(margin=1e30))
    assert far.against == {"accuracy not-equivalent-p-tost not-finite"}
    assert far.measures == {"not-equivalent-p-tost"}


# --- Several metrics ------------------------------------------------------------------------------


def test_the_level_is_shared_by_all_metrics_of_all_files(judge: Judge) -> None:
    """Each alone is shown at 5 %; that both are is not (Holm)."""
    left, right = wavering()
    alone = judge(scores(left), scores(right), rule(margin=0.19))
    assert alone.conclusion == "plausible"
    p = alone.value("not-equivalent-p-tost")
    assert 0.025 < p < 0.05
    names = ("one.safetensors", "two.safetensors")
    two = rule(margin=0.19, samples="*.safetensors', '!model.safetensors")
    answer = judge(
        {name: {"m": left} for name in names}, {name: {"m": right} for name in names}, two
    )
    assert answer.conclusion == "mismatch"
    assert {(f.file, f.value) for f in answer.findings if not f.held} == {
        (name, 2 * p) for name in names
    }
    same = judge(
        {name: {"m": left} for name in names}, {names[0]: {"m": right}, names[1]: {"m": left}}, two
    )
    assert {f.value for f in same.findings if f.measure == "not-equivalent-p-tost"} == {0.0, p}
    assert same.conclusion == "plausible"


def test_metrics_that_the_rule_does_not_select_need_another_rule(judge: Judge) -> None:
    left, right = wavering(1000)
    files: tuple[dict[str, Content], dict[str, Content]] = (
        {SCORES: {"f1": left, "loss": left}},
        {SCORES: {"f1": right, "loss": right + 9}},
    )
    with pytest.raises(PolicyError, match="no rule covers 1 tensor: loss"):
        judge(*files, rule("metrics = ['f1']", margin=0.2))
    answer = judge(*files, rule(margin=0.2))
    assert answer.against == {"loss not-equivalent-p-tost"}
    wide = "equality = 'close'\nrelative_to = 'weights'\nrelative_l2 = 10\nrelative_linf = 10\n"
    apart = ({SCORES: {"f1": left + 2}}, {SCORES: {"f1": right + 2}})
    nothing = judge(*apart, rule("metrics = ['bleu', 'rouge']"), wide + f"files = ['{SCORES}']")
    assert nothing.conclusion == "inconclusive"
    assert nothing.missing == "no metric that the rule selects: bleu, rouge"


# --- Answers that changed -------------------------------------------------------------------------


def test_equal_means_hide_that_two_fifths_of_the_answers_changed(judge: Judge) -> None:
    pair = answers(400, 400)
    alone = both(judge, pair, rule())
    assert alone.conclusion == "plausible"  # what an equality of means admits
    assert alone.found("difference-of-means").value == 0
    assert alone.found("churn-bound").limit is None
    answer = both(judge, pair, rule("max_churn = 0.1"))
    assert answer.conclusion == "mismatch"
    assert answer.against == {"accuracy churn-bound"}
    assert answer.found("churn-bound").value == disagreement_bound(800, MANY, 0.95)


def test_churn_within_its_limit(judge: Judge) -> None:
    answer = both(judge, answers(10, 10), rule("max_churn = 0.02"))
    assert answer.conclusion == "plausible"
    assert 0.01 < answer.value("churn-bound") < 0.02


def test_the_confidence_of_the_bound_follows_the_level(judge: Judge) -> None:
    answer = both(judge, answers(0, 0, 100), rule("alpha = 0.01", "max_churn = 0.04"))
    assert answer.against == {"accuracy churn-bound"}  # 4.5 %; 3 % at 0.05
    assert answer.found("churn-bound").value == disagreement_bound(0, 100, 0.99)


def test_scores_that_are_no_answers_have_no_churn(judge: Judge) -> None:
    pair = wavering(1000)
    answer = both(judge, pair, rule("max_churn = 0.99", margin=0.2))
    assert answer.against == {"accuracy churn-bound answers-not-0-or-1"}
    without = both(judge, pair, rule(margin=0.2))
    assert without.measures == {"not-equivalent-p-tost", "difference-of-means"}


# --- What is on one side, or of no use ------------------------------------------------------------


def test_a_metric_on_one_side_or_of_another_length_is_against_the_rule(judge: Judge) -> None:
    left: dict[str, Content] = {SCORES: {"a": np.zeros(9), "b": np.zeros(9), "c": np.zeros(9)}}
    right: dict[str, Content] = {SCORES: {"a": np.zeros(9), "b": np.zeros(8)}}
    answer = judge(left, right, rule())
    assert answer.conclusion == "mismatch"
    assert answer.against == {"b type-and-shape", "c presence"}
    assert answer.found("not-equivalent-p-tost", "a").held


def test_a_file_of_scores_on_one_side_only_is_against_the_rule(judge: Judge) -> None:
    two: dict[str, Content] = {"more.safetensors": {"m": np.zeros(9)}, **scores(np.zeros(9))}
    samples = f"{SCORES}', 'more.*"
    answer = judge(two, scores(np.zeros(9)), rule(samples=samples))
    assert answer.against == {"more.safetensors presence"}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 3)), "a metric has one axis"),
        (np.zeros(3, "<c8"), "the type C64 holds no scores"),
    ],
)
def test_an_array_that_holds_no_scores_leaves_the_rule_undecided(
    judge: Judge, array: Array, words: str
) -> None:
    answer = judge(scores(array), scores(array), rule())
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith(f"{SCORES}: accuracy: ")
    assert words in answer.missing


def test_what_is_against_the_rule_counts_beside_what_cannot_be_measured(judge: Judge) -> None:
    left: dict[str, Content] = {SCORES: {"a": np.zeros((3, 3)), "b": np.zeros(9)}}
    right: dict[str, Content] = {SCORES: {"a": np.zeros((3, 3)), "b": np.ones(9)}}
    answer = judge(left, right, rule())
    assert answer.conclusion == "mismatch"
    assert answer.against == {"b not-equivalent-p-tost zero-variance"}
    assert "a metric has one axis" in answer.missing


def test_more_draws_than_a_bootstrap_may_have_leave_the_rule_undecided(judge: Judge) -> None:
    many = np.zeros(2**20, "|u1")
    most = rule("test = 'bootstrap'", "resamples = 100000")
    answer = judge(scores(many), scores(many), most)
    assert answer.conclusion == "inconclusive"
    assert "a bootstrap of more than" in answer.missing


def test_a_malformed_file_of_scores_leaves_the_rule_undecided(judge: Judge) -> None:
    answer = judge(scores(np.zeros(9)), {SCORES: b"not a weight file"}, rule())
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith(f"{SCORES} (right): ")


@pytest.mark.parametrize(
    "text",
    [
        rule(),
        "equality = 'behaviour'\nkind = 'logits'\noutputs = ['scores.*']\nmax_difference = 1.0\n"
        + THROUGH,
    ],
)
def test_without_scipy_the_rule_and_the_extra_are_named_before_anything_is_read(
    judge: Judge, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    monkeypatch.setattr("provenance.weights.pairs.SideBySide.opened", None)
    with pytest.raises(UnavailableError, match=r"rule 1.*scipy \(pip install .*\[stats\]"):
        both(judge, wavering(), text)
