"""Outputs on probes under a declaration: what holds, what is against it, what is undecided."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from provenance.errors import ContentError, MalformedError, PolicyError, UnreadableError
from provenance.measure.outputs import KL_ERROR
from provenance.measure.statistics import disagreement_bound
from tests.judge.evidence import THROUGH, WEIGHTS, Judge, declare
from tests.judge.models import compare_models, write
from tests.weights.onnx_writing import WEIGHT, external, model, tensor, written
from tests.weights.writing import archive, npy, simple

if TYPE_CHECKING:
    from pathlib import Path

    from tests.judge.models import Content

Array = np.ndarray[Any, Any]

OUTPUTS = "logits.safetensors"
LOGITS: Array = np.random.default_rng(1).standard_normal((400, 5)).astype("<f4")


def rule(kind: str, *limits: str, where: str = f"outputs = ['{OUTPUTS}']") -> str:
    """Return a rule through which alone the weights are judged."""
    return (
        "\n".join(("equality = 'behaviour'", f"kind = '{kind}'", where, *limits)) + "\n" + THROUGH
    )


def outputs(array: Array, name: str = "y") -> dict[str, Content]:
    return {OUTPUTS: {name: array}}


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


# --- Each limit -----------------------------------------------------------------------------------


def test_outputs_within_every_limit_are_plausible_and_never_a_match(judge: Judge) -> None:
    moved = LOGITS.copy()
    moved[7, 2] += np.float32(0.25)
    limits = ("max_difference = 0.3", "mean_difference = 0.01", "kl_divergence = 1e-3")
    answer = judge(outputs(LOGITS), outputs(moved), rule("logits", *limits, "disagreement = 0.01"))
    assert (answer.conclusion, answer.outcome.strongest) == ("plausible", "behaviour")
    largest = answer.found("max-difference")
    apart = abs(float(moved[7, 2]) - float(LOGITS[7, 2]))
    assert (largest.file, largest.tensor, largest.place) == (OUTPUTS, "y", (7, 2))
    assert largest.value == pytest.approx(apart, rel=1e-9)
    assert answer.value("max-difference") > apart  # the bound of the error is added
    assert answer.found("mean-difference").value == pytest.approx(apart / 2000, rel=1e-9)
    assert answer.found("disagreement-bound").value == disagreement_bound(0, 400, 0.95)


@pytest.mark.parametrize(
    ("limit", "measure"),
    [
        ("max_difference = 0.2", "max-difference"),
        ("mean_difference = 1e-6", "mean-difference"),
        ("kl_divergence = 1e-6", "kl-divergence"),
    ],
)
def test_each_limit_is_against_what_exceeds_it(judge: Judge, limit: str, measure: str) -> None:
    moved = LOGITS.copy()
    moved[7, 2] += np.float32(0.25)
    answer = judge(outputs(LOGITS), outputs(moved), rule("logits", limit))
    assert (answer.conclusion, answer.outcome.strongest) == ("mismatch", None)
    assert answer.against == {f"y {measure}"}
    found = answer.found(measure)
    assert found.limit is not None
    assert answer.value(measure) > found.limit


def test_a_measure_without_a_limit_is_told_and_decides_nothing(judge: Judge) -> None:
    answer = judge(outputs(LOGITS), outputs(-LOGITS), rule("logits", "max_difference = 100.0"))
    assert answer.conclusion == "plausible"
    free = answer.found("disagreement-bound")
    assert (free.held, free.limit) == (True, None)
    assert answer.value("disagreement-bound") > 0.9


def test_the_limit_itself_is_met_only_with_room_for_the_error(judge: Judge) -> None:
    zero, one = np.zeros((3, 2), "<f8"), np.ones((3, 2), "<f8")
    assert judge(outputs(zero), outputs(one), rule("values", "max_difference = 1.0")).against
    near = rule("values", "max_difference = 1.0000000001")
    assert judge(outputs(zero), outputs(one), near).conclusion == "plausible"


def test_a_divergence_has_its_error_added_only_where_outputs_differ(judge: Judge) -> None:
    same = judge(outputs(LOGITS), outputs(LOGITS), rule("logits", "kl_divergence = 1e-30"))
    assert same.found("kl-divergence").value == 0
    other = judge(outputs(LOGITS), outputs(LOGITS + 1), rule("logits", "kl_divergence = 1e-6"))
    assert KL_ERROR <= other.value("kl-divergence") < 1e-9  # a shift changes no probability


# --- Top answers ----------------------------------------------------------------------------------


def test_few_probes_show_little(judge: Judge) -> None:
    """That none of 100 answers differs shows a rate of 3 %, and not of 1 %."""
    few = outputs(LOGITS[:100])
    assert judge(few, few, rule("logits", "disagreement = 0.03")).conclusion == "plausible"
    answer = judge(few, few, rule("logits", "disagreement = 0.01"))
    assert answer.conclusion == "inconclusive"
    assert answer.missing == (
        "logits.safetensors: y: 0 of 100 answers differ,"
        " and so few probes cannot show a rate of at most 0.01"
    )
    assert answer.found("disagreement-bound").value == pytest.approx(0.0295, abs=1e-4)
    bold = rule("logits", "disagreement = 0.01", "confidence = 0.5")
    assert judge(few, few, bold).conclusion == "plausible"


def test_a_tie_at_the_top_is_another_answer_than_its_first(judge: Judge) -> None:
    clear = np.tile(np.array([1, 0, 0], "<f4"), (50, 1))
    tied = clear.copy()
    tied[:, 1] = 1
    answer = judge(outputs(clear), outputs(tied), rule("logits", "disagreement = 0.5"))
    assert answer.found("disagreement-bound").value == 1
    same = judge(outputs(tied), outputs(tied), rule("logits", "disagreement = 0.1"))
    assert same.conclusion == "plausible"


def test_labels_agree_or_they_do_not(judge: Judge) -> None:
    left = np.arange(200, dtype="<i8") % 10
    right = left.copy()
    right[:4] = 9 - left[:4]
    answer = judge(outputs(left), outputs(right), rule("labels", "disagreement = 0.05"))
    assert answer.conclusion == "plausible"
    assert answer.measures == {"disagreement-bound"}
    assert answer.found("disagreement-bound").value == disagreement_bound(4, 200, 0.95)
    undecided = judge(outputs(left), outputs(right), rule("labels", "disagreement = 0.02"))
    assert undecided.conclusion == "inconclusive"
    assert undecided.against == set()
    tight = judge(outputs(left), outputs(right), rule("labels", "disagreement = 0.0199"))
    assert tight.conclusion == "mismatch"
    assert tight.against == {"y disagreement-bound"}


# --- What leaves no number ------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_difference = 1e30", "mean_difference = 1e30"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_meet_no_limit(judge: Judge, limit: str, value: float) -> None:
    broken = LOGITS.copy()
    broken[3, 1] = value
    answer = judge(outputs(LOGITS), outputs(broken), rule("logits", limit))
    (against,) = answer.against
    assert against.endswith("-difference not-finite")


def test_nan_in_the_same_place_is_the_same_output(judge: Judge) -> None:
    broken = LOGITS.copy()
    broken[3, 1] = np.nan
    moved = broken.copy()
    moved[5, 0] += np.float32(0.01)
    within = rule("logits", "max_difference = 0.1", "disagreement = 0.01")
    assert judge(outputs(broken), outputs(moved), within).conclusion == "plausible"


NOT_DISTRIBUTIONS = {
    "not of sum 1": [0.5, 0.4],
    "negative": [1.5, -0.5],
    "not a number": [np.nan, 1.0],
}


@pytest.mark.parametrize("case", NOT_DISTRIBUTIONS)
def test_what_is_no_distribution_is_against_the_rule_on_either_side(
    judge: Judge, case: str
) -> None:
    proper = np.full((3, 2), 0.5, "<f4")
    broken = np.array([[0.5, 0.5], NOT_DISTRIBUTIONS[case], [0.5, 0.5]], "<f4")
    within = rule("probabilities", "max_difference = 1e30")
    for left, right in ((proper, broken), (broken, broken)):
        answer = judge(outputs(left), outputs(right), within)
        assert "y distribution not-a-distribution" in answer.against
    limited = judge(outputs(broken), outputs(proper), rule("probabilities", "disagreement = 0.9"))
    assert "y disagreement-bound" in {text.rpartition(" ")[0] for text in limited.against}


def test_a_class_of_probability_zero_on_one_side_diverges_without_end(judge: Judge) -> None:
    left, right = np.array([[0.5, 0.5]], "<f4"), np.array([[1, 0]], "<f4")
    answer = judge(outputs(left), outputs(right), rule("probabilities", "kl_divergence = 1e30"))
    assert answer.against == {"y kl-divergence infinite-divergence"}


def test_a_difference_beyond_float64_is_absent(judge: Judge) -> None:
    """Both without the bound of its error, and with it."""
    largest = np.finfo("<f8").max
    zero, far = np.zeros((1, 1), "<f8"), np.full((1, 1), largest)
    for left, right in ((zero, far), (-far, far)):
        limits = ("max_difference = 1e30", "mean_difference = 1e30")
        answer = judge(outputs(left), outputs(right), rule("values", *limits))
        assert answer.against == {"y max-difference overflow", "y mean-difference overflow"}


def test_integers_have_no_distance(judge: Judge) -> None:
    left, right = np.arange(6, dtype="<i8"), np.arange(1, 7, dtype="<i8")
    far = rule("values", "max_difference = 100.0")
    assert judge(outputs(left), outputs(right), far).against == {"y max-difference exact-type"}
    assert judge(outputs(left), outputs(left), far).conclusion == "plausible"


def test_no_outputs_show_nothing(judge: Judge) -> None:
    none = outputs(np.zeros((0, 3), "<f4"))
    within = rule("logits", "max_difference = 1.0", "kl_divergence = 1.0", "disagreement = 0.5")
    assert judge(none, none, within).against == {
        "y max-difference empty",
        "y kl-divergence empty",
        "y disagreement-bound empty",
    }


# --- What is on one side, or of no use ------------------------------------------------------------

ANY = rule("values", "max_difference = 1e30")


def test_an_array_on_one_side_only_is_against_the_rule(judge: Judge) -> None:
    both: dict[str, Content] = {OUTPUTS: {"y": LOGITS, "z": LOGITS}}
    answer = judge(outputs(LOGITS), both, ANY)
    assert answer.against == {"z presence"}
    found = answer.found("presence")
    assert (found.left, found.right) == (None, "F32[400, 5]")
    assert answer.found("max-difference", "y").held


def test_texts_beside_outputs_must_be_equal(judge: Judge) -> None:
    def labelled(*labels: str) -> dict[str, Content]:
        return {"y.npz": archive({"y.npy": npy(LOGITS), "classes.npy": npy(np.array(labels))})}

    within = rule("values", "max_difference = 1", where="outputs = ['y.npz']")
    one, two = labelled("cat", "dog"), labelled("dog", "cat")
    assert judge(one, one, within).conclusion == "plausible"
    assert judge(one, two, within).against == {"y.npz metadata: classes"}


def test_another_type_or_shape_is_against_the_rule(judge: Judge) -> None:
    for other, said in (
        (LOGITS.astype("<f8"), "F64[400, 5]"),
        (LOGITS[:-1], "F32[399, 5]"),
        (LOGITS.reshape(5, 400), "F32[5, 400]"),
    ):
        answer = judge(outputs(LOGITS), outputs(other), ANY)
        assert answer.against == {"y type-and-shape"}
        found = answer.found("type-and-shape")
        assert (found.left, found.right) == ("F32[400, 5]", said)


def test_an_array_that_the_rule_does_not_select_needs_another_rule(judge: Judge) -> None:
    left: dict[str, Content] = {"y.npz": _arrays(y=LOGITS, noise=LOGITS)}
    right: dict[str, Content] = {"y.npz": _arrays(y=LOGITS, noise=LOGITS + 1)}
    only = rule("values", "max_difference = 1e30", "tensors = ['y']", where="outputs = ['y.npz']")
    for files in (left, right):
        with pytest.raises(PolicyError, match="no rule covers 1 tensor: noise"):
            judge(left, files, only)
    exact = "equality = 'tensors'\nfiles = ['y.npz']\ntensors = ['noise']"
    assert judge(left, left, only, exact).conclusion == "plausible"
    assert judge(left, right, only, exact).against == {"noise differing-elements"}


def _arrays(**arrays: Array) -> bytes:
    return archive({f"{name}.npy": npy(array) for name, array in arrays.items()})


def test_a_file_of_outputs_on_one_side_only_is_against_the_rule(judge: Judge) -> None:
    two: dict[str, Content] = {"a.npz": archive({"y.npy": npy(LOGITS)}), **outputs(LOGITS)}
    where = "outputs = ['*.npz', 'logits.*']"
    answer = judge(two, outputs(LOGITS), rule("logits", "max_difference = 1.0", where=where))
    assert answer.conclusion == "mismatch"
    assert answer.against == {"a.npz presence"}
    found = answer.found("presence")
    assert (found.left is None, found.right) == (False, None)


USELESS = {
    "logits without classes": (LOGITS[:, 0], "logits", "two classes or more"),
    "logits of one class": (LOGITS[:, :1], "logits", "two classes or more"),
    "logits of integers": (np.zeros((3, 2), "<i8"), "logits", "logits are floats, not I64"),
    "labels of floats": (LOGITS, "labels", "labels are integers, not F32"),
    "no probes": (np.zeros((), "<f4"), "values", "has a first axis, the probes"),
    "complex numbers": (np.zeros(3, "<c8"), "values", "of the type C64 cannot be measured"),
}


@pytest.mark.parametrize("case", USELESS)
def test_an_array_without_such_outputs_leaves_the_rule_undecided(judge: Judge, case: str) -> None:
    array, kind, words = USELESS[case]
    limit = "disagreement = 0.5" if kind == "labels" else "max_difference = 1.0"
    answer = judge(outputs(array), outputs(array), rule(kind, limit))
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith(f"{OUTPUTS}: y: ")
    assert words in answer.missing


def test_what_is_against_the_rule_counts_beside_what_cannot_be_measured(judge: Judge) -> None:
    left: dict[str, Content] = {OUTPUTS: {"a": np.zeros((), "<f4"), "y": LOGITS}}
    right: dict[str, Content] = {OUTPUTS: {"a": np.zeros((), "<f4"), "y": LOGITS + 9}}
    answer = judge(left, right, rule("values", "max_difference = 1.0"))
    assert answer.conclusion == "mismatch"
    assert answer.against == {"y max-difference"}
    assert "has a first axis" in answer.missing


def test_a_malformed_file_of_outputs_leaves_the_rule_undecided(judge: Judge) -> None:
    answer = judge(outputs(LOGITS), {OUTPUTS: b"not a weight file"}, ANY)
    assert answer.conclusion == "inconclusive"
    assert answer.missing.startswith(f"{OUTPUTS} (right): ")


def test_a_file_that_changed_since_it_was_hashed_is_refused(tmp_path: Path) -> None:
    one, other = (
        write(tmp_path / str(number), {WEIGHTS: {"w": LOGITS[number]}, **outputs(LOGITS)})
        for number in range(2)
    )
    assert compare_models(one, other, declare(ANY)).conclusion == "plausible"
    (tmp_path / "1" / OUTPUTS).write_bytes(simple({"y": LOGITS + 1}))
    with pytest.raises(ContentError, match=OUTPUTS):
        compare_models(one, other, declare(ANY))


# --- With other rules -----------------------------------------------------------------------------


def test_weights_that_no_rule_judges_through_outputs_must_be_equal(judge: Judge) -> None:
    alone = ANY.removesuffix(THROUGH)
    strict = "equality = 'tensors'\nfiles = ['model.*']"
    answer = judge(outputs(LOGITS), outputs(LOGITS), alone, strict)
    assert answer.conclusion == "mismatch"
    assert answer.against == {"w differing-elements"}
    assert judge(outputs(LOGITS), outputs(LOGITS), ANY).conclusion == "plausible"


def test_weights_that_no_rule_covers_are_refused(judge: Judge) -> None:
    with pytest.raises(PolicyError, match=f"{WEIGHTS}: no rule covers 1 tensor: w"):
        judge(outputs(LOGITS), outputs(LOGITS), ANY.removesuffix(THROUGH))


def test_bytes_beside_outputs_decide_alone(judge: Judge) -> None:
    strict = f"equality = 'bytes'\nfiles = ['{WEIGHTS}']"
    answer = judge(outputs(LOGITS), outputs(LOGITS), ANY, strict)
    assert answer.against == {f"{WEIGHTS} bytes"}


def test_close_weights_with_close_outputs_conclude_as_the_weaker(judge: Judge) -> None:
    close = (
        "equality = 'close'\nrelative_to = 'weights'\nrelative_l2 = 10.0\nrelative_linf = 10.0\n"
        f"files = ['{WEIGHTS}']"
    )
    answer = judge(outputs(LOGITS), outputs(LOGITS), close, ANY.removesuffix(THROUGH))
    assert (answer.conclusion, answer.outcome.strongest) == ("consistent", "behaviour")
    assert answer.outcome.distances[0].tensor == "w"


# --- Models that are run --------------------------------------------------------------------------

RUN = "run = 'm.onnx'"
PROBES: Array = np.random.default_rng(2).standard_normal((40, 1, 3)).astype("<f4")


def onnx_model(row: Array, probes: Array | None = PROBES) -> dict[str, Content]:
    """Return a model that adds *row* to its input, with *probes*."""
    onnx = written(model([tensor("w", row.astype("<f4"))]))
    files: dict[str, Content] = {"m.onnx": onnx, WEIGHTS: {"w": np.zeros(4, "<f4")}}
    return files if probes is None else files | {"probes.safetensors": simple({"x": probes})}


def run_rule(*limits: str, probes: str = "probes = 'probes.safetensors'") -> str:
    return rule("values", *limits, probes, where=RUN)


def test_both_models_are_run_on_the_same_probes(judge: Judge) -> None:
    left, right = onnx_model(WEIGHT[0]), onnx_model(WEIGHT[0] + np.array([0, 0, 0.5]))
    answer = judge(left, right, run_rule("max_difference = 0.51"))
    assert (answer.conclusion, answer.outcome.strongest) == ("consistent", "behaviour")
    largest = answer.found("max-difference")
    assert (largest.file, largest.tensor) == ("m.onnx", "y")
    assert largest.value == pytest.approx(0.5, abs=1e-6)
    assert answer.found("mean-difference").value == pytest.approx(0.5 / 3, abs=1e-6)
    digest = hashlib.sha256(simple({"x": PROBES})).hexdigest()
    said = answer.found("probes")
    assert (said.file, said.left, said.right, said.held) == (
        "probes.safetensors",
        digest,
        digest,
        True,
    )
    assert judge(left, right, run_rule("max_difference = 0.49")).against == {"y max-difference"}


def test_probes_from_outside_take_the_place_of_those_of_the_models(
    judge: Judge, tmp_path: Path
) -> None:
    """Here the models differ on one input alone, of which only the probes from outside know."""
    left = onnx_model(WEIGHT[0], np.zeros((40, 1, 3), "<f4"))
    right = dict(left) | {"m.onnx": _backdoor(WEIGHT[0])}
    named = judge(left, right, run_rule("max_difference = 1e-3"))
    assert named.conclusion == "consistent"
    (tmp_path / "drawn.safetensors").write_bytes(simple({"x": PROBES + 100}))
    drawn = judge(
        left, right, run_rule("max_difference = 1e-3"), probes=tmp_path / "drawn.safetensors"
    )
    assert drawn.against == {"y max-difference"}
    digest = hashlib.sha256((tmp_path / "drawn.safetensors").read_bytes()).hexdigest()
    said = drawn.found("probes-from-outside")
    assert (said.file, said.left, said.right) == ("drawn.safetensors", digest, digest)
    assert not any(finding.measure == "probes" for finding in drawn.findings)
    for files in (left, right):
        del files["probes.safetensors"]
    unnamed = judge(
        left,
        right,
        run_rule("max_difference = 1e-3", probes=""),
        probes=tmp_path / "drawn.safetensors",
    )
    assert unnamed.against == drawn.against


def _backdoor(row: Array) -> bytes:
    """Return a model that adds *row*, and cuts off what is above 50."""
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Min", ["sum", "most"], ["y"]),
    ]
    return written(model([tensor("w", row), tensor("most", np.array(50, "<f4"))], nodes))


def test_a_probe_that_is_repeated_is_one_probe(judge: Judge) -> None:
    near = WEIGHT[0] + np.array([0, 0, 1e-3])
    limit = run_rule("disagreement = 0.1").replace("'values'", "'logits'")
    many = judge(onnx_model(WEIGHT[0]), onnx_model(near), limit)
    assert many.conclusion == "consistent"
    assert many.found("disagreement-bound").value == pytest.approx(0.0721575, rel=1e-5)
    one = np.repeat(PROBES[:1], 40, axis=0)
    repeated = judge(onnx_model(WEIGHT[0], one), onnx_model(near, one), limit)
    assert repeated.conclusion == "inconclusive"
    assert "0 of 1 answers differ" in repeated.outcome.missing[0]
    assert repeated.found("disagreement-bound").value == pytest.approx(0.95, rel=1e-5)


def test_without_probes_nothing_can_be_said(judge: Judge) -> None:
    left, right = (onnx_model(row, None) for row in WEIGHT)
    answer = judge(left, right, run_rule("max_difference = 9.0", probes=""))
    assert answer.conclusion == "inconclusive"
    assert "no probes: the rule names none that both models have" in answer.missing
    assert "--probes" in answer.missing


def test_probes_that_differ_are_against_every_rule(judge: Judge) -> None:
    left, right = onnx_model(WEIGHT[0]), onnx_model(WEIGHT[0], PROBES + 1)
    answer = judge(left, right, run_rule("max_difference = 9.0"))
    assert answer.conclusion == "mismatch"
    assert answer.against == {"probes.safetensors bytes"}
    assert "not the same probes in both models" in answer.missing


def test_files_beside_a_model_that_is_run_are_used(judge: Judge) -> None:
    proto = written(model([external("w", [3], location="m.data")]))
    left, right = ({**onnx_model(row), "m.onnx": proto, "m.data": row.tobytes()} for row in WEIGHT)
    answer = judge(left, right, run_rule("max_difference = 4.0"))
    assert answer.conclusion == "consistent"
    assert answer.found("max-difference").value == pytest.approx(3, abs=1e-5)


CANNOT_RUN: dict[str, tuple[dict[str, Content], str]] = {
    "another input": ({"probes.safetensors": simple({"z": PROBES})}, "its inputs are"),
    "no probe": ({"probes.safetensors": simple({"x": PROBES[:0]})}, "numbers of probes, or none"),
    "malformed probes": ({"probes.safetensors": b"no archive"}, "probes.safetensors: "),
    "malformed model": ({"m.onnx": b"\x08\x08"}, "m.onnx"),
}


@pytest.mark.parametrize("case", CANNOT_RUN)
def test_what_cannot_be_run_leaves_the_rule_undecided(judge: Judge, case: str) -> None:
    files, words = CANNOT_RUN[case]
    left, right = (onnx_model(row) | files for row in WEIGHT)
    del left[WEIGHTS], right[WEIGHTS]
    answer = judge(left, right, run_rule("max_difference = 9.0"))
    assert answer.conclusion == "inconclusive"
    assert words in answer.missing


def test_only_onnx_is_run(judge: Judge) -> None:
    files = onnx_model(WEIGHT[0]) | {"other.safetensors": simple({"w": WEIGHT})}
    del files[WEIGHTS]
    where = "run = 'other.safetensors'"
    exact = "equality = 'tensors'\nfiles = ['m.onnx']"
    probes = "probes = 'probes.safetensors'"
    answer = judge(files, files, rule("values", "max_difference = 9.0", probes, where=where), exact)
    assert answer.conclusion == "inconclusive"
    assert "other.safetensors (left): is safetensors, not ONNX: it cannot be run" in answer.missing


def test_a_model_to_be_run_on_one_side_only_is_against_the_rule(judge: Judge) -> None:
    left = onnx_model(WEIGHT[0])
    right = {name: data for name, data in left.items() if name != "m.onnx"}
    answer = judge(left, right, run_rule("max_difference = 9.0"))
    assert answer.against == {"m.onnx presence"}


def test_probes_from_outside_that_cannot_be_read_are_no_judgement(
    judge: Judge, tmp_path: Path
) -> None:
    left, right = (onnx_model(row) for row in WEIGHT)
    with pytest.raises(UnreadableError, match="none"):
        judge(left, right, run_rule("max_difference = 9.0"), probes=tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no archive")
    with pytest.raises(MalformedError, match=r"bad\.safetensors"):
        judge(left, right, run_rule("max_difference = 9.0"), probes=tmp_path / "bad.safetensors")
