"""Findings of rules about what models do, whole; and outcomes of equal models."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import builtin, parse
from provenance.equality.rules import Metrics
from provenance.errors import MalformedError, UsageError
from provenance.measure.curves import Curve, CurveDistance, measure_curves, relative_difference
from provenance.measure.findings import REPORTED, AlternativeOutcome, Finding
from provenance.measure.outputs import Outputs, measure_outputs
from provenance.measure.samples import measure_metric
from provenance.measure.squares import enlarged
from provenance.measure.statistics import disagreement_bound, holm, tost
from provenance.weights.view import ArraysFile
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.judge.models import Content

    Array = np.ndarray[Any, Any]


def judged(
    folder: Path, rule: str, left: Content, right: Content, name: str
) -> tuple[Finding, ...]:
    text = f"format = 1\nversion = 1\nname = 'x'\n[[any]]\n[[any.all]]\n{rule}\nreason = 'x'\n"
    one, other = write(folder / "l", {name: left}), write(folder / "r", {name: right})
    outcome = compare_models(one, other, parse(text.encode()))
    # That nothing else speaks for these models is tested where evidence is judged.
    return tuple(it for it in outcome.alternatives[0].findings if it.note != REPORTED)


def file_of(**arrays: Array) -> ArraysFile:
    return ArraysFile(arrays, where="arrays")


def test_equal_models_satisfy_every_alternative(tmp_path: Path) -> None:
    model = write(tmp_path, {"m.safetensors": {"w": np.ones(2, "<f4")}})
    outcome = compare_models(model, model, builtin("close-float32"))
    assert outcome.alternatives == (
        AlternativeOutcome(strength="tensors", held=True, findings=()),
        AlternativeOutcome(strength="close", held=True, findings=()),
    )


def test_metrics(tmp_path: Path) -> None:
    left = np.arange(400, dtype="|u1") % 2
    right = left.copy()
    right[:6] = 1 - right[:6]
    rule = "equality = 'metrics'\nsamples = ['s.safetensors']\nmargin = 0.1\n"
    sides: tuple[Content, Content] = ({"a": left}, {"a": right})
    p = tost(left.astype(float) - right, 0.1).p
    bound = disagreement_bound(6, 400, 0.95)
    found = partial(Finding, file="s.safetensors", tensor="a")
    for churn, held in ((None, True), (0.05, True), (0.02, False)):
        limit = "" if churn is None else f"max_churn = {churn}\n"
        assert judged(tmp_path / str(churn), rule + limit, *sides, "s.safetensors") == (
            found(measure="not-equivalent-p-tost", held=True, value=p, limit=0.05),
            found(measure="difference-of-means", held=True, value=0.0),
            found(measure="churn-bound", held=held, value=bound, limit=churn),
        )
    scores: tuple[Content, Content] = ({"a": np.full(3, 0.5)}, {"a": np.full(3, 0.25)})
    churn_of_scores = judged(tmp_path / "s", rule + "max_churn = 0.1\n", *scores, "s.safetensors")[
        -1
    ]
    assert churn_of_scores == found(
        measure="churn-bound", held=False, limit=0.1, note="answers-not-0-or-1"
    )


CURVES = (
    "equality = 'curves'\nsources = ['c.jsonl']\ncurves = ['*']\npointwise = 0.01\npoints = 2\n"
    "terminal = 0.5\nwindow = 2\n"
)


def lines(**curves: list[float]) -> bytes:
    rows = [
        {"name": name, "step": step, "value": value}
        for name, values in curves.items()
        for step, value in enumerate(values)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_curves(tmp_path: Path) -> None:
    left, right = lines(a=[4, 2, 1], b=[1, 1, 1]), lines(a=[4, 2, 1.25], b=[2, 1, 1])
    found = judged(tmp_path, CURVES, left, right, "c.jsonl")
    a, b = (partial(Finding, file="c.jsonl", tensor=name) for name in "ab")
    assert found == (
        a(measure="points-missing", held=True, value=0.0, limit=0.0, place=(2,)),
        a(measure="terminal-difference", held=True,
            value=enlarged(0.25 / 2 / 1.625), limit=0.5,
        ),
        a(measure="largest-relative-difference", held=True, value=enlarged(0.2), place=(2,),
        ),
        b(measure="points-missing", held=False, value=2.0, limit=0.0, place=(0,)),
        b(measure="terminal-difference", held=True, value=0.0, limit=0.5),
        b(measure="largest-relative-difference", held=True, value=enlarged(0.5), place=(0,),
        ),
    )  # fmt: skip


def test_a_curve_on_one_side_only_does_not_end_the_judgement(tmp_path: Path) -> None:
    left, right = lines(a=[1, 1], z=[1, 1]), lines(z=[1, 1])
    found = judged(tmp_path, CURVES, left, right, "c.jsonl")
    assert [(f.tensor, f.measure) for f in found if not f.held] == [("a", "presence")]
    assert {f.tensor for f in found} == {"a", "z"}


def test_curves_that_restart_have_no_distance() -> None:
    back = Curve("c", (0, 1, 1), (1.0, 1.0, 1.0))
    plain = Curve("c", (0, 1, 2), (1.0, 1.0, 1.0))
    nothing = CurveDistance(notes=("steps-not-increasing",))
    assert measure_curves(back, plain, 0.1, 2) == nothing
    assert measure_curves(plain, back, 0.1, 2) == nothing


def test_infinity_on_one_side_is_no_relative_difference() -> None:
    assert np.isnan(relative_difference(np.inf, 1.0))
    assert np.isnan(relative_difference(1.0, np.nan))
    one, other = (Curve("c", (0, 1), (1.0, value)) for value in (np.inf, 1.0))
    distance = measure_curves(one, other, 0.1, 2)
    assert (distance.largest, distance.largest_step, distance.terminal) == (None, None, None)


def test_integers_that_are_outputs() -> None:
    left = np.arange(200_000, dtype="<i4")
    right = left.copy()
    right[[3, 150_000]] += 1  # in two blocks
    found = measure_outputs("y", file_of(y=left), file_of(y=right), "values")
    assert found == Outputs("y", "values", 200_000, 2, 0, disagreements=2, notes=("exact-type",))
    same = measure_outputs("y", file_of(y=left), file_of(y=left), "values")
    assert same == Outputs("y", "values", 200_000, 0, 0, 0.0, None, 0.0, disagreements=0)


def test_probabilities_are_divided_by_their_sum() -> None:
    left = np.array([[0.5, 0.5], [0.25, 0.75]])
    scaled = left * (1 + 2.0**-12)  # within what rounding may do
    found = measure_outputs("p", file_of(p=left), file_of(p=scaled), "probabilities")
    assert found.kl_mean == pytest.approx(0.0, abs=1e-15)
    assert found.notes == ()
    beyond = left * (1 + 2.0**-9)
    found = measure_outputs("p", file_of(p=left), file_of(p=beyond), "probabilities")
    assert "not-a-distribution" in found.notes


def test_a_level_that_so_few_resamples_cannot_reach_is_refused() -> None:
    text = (
        "format = 1\nversion = 1\nname = 'x'\n[[any]]\n[[any.all]]\nequality = 'metrics'\n"
        "samples = ['s.npz']\nmargin = 0.1\nreason = 'x'\nresamples = 1000\n"
    )
    for test, alpha, refused in (
        ("bootstrap", 1 / 1002, True),
        ("bootstrap", 1 / 1001, False),
        ("tost", 1e-6, False),
    ):
        data = f"{text}test = '{test}'\nalpha = {alpha!r}\n".encode()
        if refused:
            with pytest.raises(MalformedError, match="can never show equivalence"):
                parse(data)
        else:
            parse(data)


def test_adjusted_p_values_are_probabilities() -> None:
    assert holm([]) == ()
    assert holm([0.5, 0.6, 0.9]) == (1.0, 1.0, 1.0)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    with pytest.raises(UsageError, match="not between 0 and 1"):
        holm([1.5])


def test_the_resamples_of_a_rule_are_those_that_are_drawn() -> None:
    rng = np.random.default_rng(4)
    left, right = file_of(a=rng.normal(0, 1, 50)), file_of(a=rng.normal(0, 1, 50))
    few, many = (
        measure_metric(
            "a", left, right, Metrics(("*",), 0.5, "because", test="bootstrap", resamples=number)
        ).test
        for number in (1000, 5000)
    )
    assert few.p != many.p
