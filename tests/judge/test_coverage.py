"""Whether a declaration fits: what selects nothing, and what nobody covers, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from provenance.equality.declaration import parse
from provenance.errors import PolicyError
from provenance.judge.coverage import check_coverage, unread_files
from provenance.judge.measured import MeasuredWeights
from provenance.weights.pairs import SideBySide
from tests.judge.models import compare_models, write
from tests.weights.writing import npy

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.equality.declaration import Declaration
    from provenance.judge.coverage import Selection
    from provenance.weights.model import Model
    from tests.judge.models import Content

    Array = np.ndarray[Any, Any]

WEIGHTS: dict[str, Array] = {"conv.weight": np.ones((2, 3), "<f4"), "conv.bias": np.zeros(2, "<f4")}
LOGITS = {"logits": np.zeros((4, 3), "<f4")}
CLOSE = "equality = 'close'\nrelative_to = 'weights'\nrelative_l2 = 1e-3\nrelative_linf = 1e-2\n"


def declare(*rules: str) -> Declaration:
    text = "format = 1\nversion = 1\nname = 'x'\n[[any]]\n"
    text += "".join(f"[[any.all]]\nreason = 'a test'\n{rule}\n" for rule in rules)
    return parse(text.encode())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    files: dict[str, Content] = {
        "model.safetensors": WEIGHTS,
        "eval/logits.safetensors": LOGITS,
        "config.json": b"{}",
    }
    return write(tmp_path / "model", files)


EVERYTHING = "equality = 'tensors'"
BEHAVIOUR = (
    "equality = 'behaviour'\nkind = 'logits'\nmax_difference = 0.1\n"
    "outputs = ['logits.safetensors']\n"
)

FITS = {
    "bytes of everything": ("equality = 'bytes'",),
    "tensors of everything": (EVERYTHING,),
    "one rule for each tensor": (
        CLOSE + "files = ['model.*']\ntensors = ['*.weight']",
        CLOSE + "files = ['model.*']\ntensors = ['*.bias']",
        "equality = 'tensors'\nfiles = ['logits.*']",
    ),
    "outputs cover their own file": (
        "equality = 'tensors'\nfiles = ['model.safetensors']",
        BEHAVIOUR,
    ),
    "weights judged through outputs": (BEHAVIOUR + "files = ['model.safetensors']",),
    "recorded curves are in no file": (
        EVERYTHING,
        "equality = 'curves'\ncurves = ['loss']\npointwise = 0.1\npoints = 3\nterminal = 0.1",
    ),
}


def check(declared: Declaration, left: Model, right: Model) -> tuple[Selection, ...]:
    return check_coverage(declared, MeasuredWeights(SideBySide(left, right), declared))


@pytest.mark.parametrize("name", FITS)
def test_a_declaration_that_fits(name: str, model: Model) -> None:
    (selection,) = check(declare(*FITS[name]), model, model)
    assert selection.unread == ()
    assert len(selection.rules) == len(FITS[name])


def test_what_each_rule_selects_is_counted(model: Model) -> None:
    rules = declare(*FITS["one rule for each tensor"])
    (selection,) = check(rules, model, model)
    assert [rule.tensors for rule in selection.rules] == [1, 1, 1]
    assert [rule.units for rule in selection.rules] == [
        ("model.safetensors",),
        ("model.safetensors",),
        ("eval/logits.safetensors",),
    ]


def test_an_optional_rule_may_select_nothing(model: Model) -> None:
    rule = CLOSE + "optional = true\ntensors = ['*running_mean']"
    (selection,) = check(declare(EVERYTHING, rule), model, model)
    assert [rule.tensors for rule in selection.rules] == [3, 0]


MISFITS = {
    "a rule for files that are not there": (
        (EVERYTHING, "equality = 'bytes'\nfiles = ['modle.safetensors']"),
        r"rule 2 \(bytes\) selects no files",
    ),
    "a rule for tensors that are not there": (
        (EVERYTHING, CLOSE + "tensors = ['conv1.*']"),
        r"rule 2 \(close\) selects no tensors",
    ),
    "a rule that takes away what it selects": (
        (EVERYTHING, CLOSE + "tensors = ['*', '!*']"),
        "selects no tensors",
    ),
    "tensors of a file without tensors": (
        ("equality = 'tensors'\nfiles = ['config.json']",),
        "selects no files",
    ),
    "outputs that are not there": (
        (EVERYTHING, BEHAVIOUR.replace("logits.s", "answers.s")),
        r"\(behaviour\) selects no files",
    ),
    "a tensor that no rule covers": (
        (
            CLOSE + "files = ['model.*']\ntensors = ['*.weight']",
            "equality = 'tensors'\nfiles = ['logits.*']",
        ),
        r"no rule covers 1 tensor: conv\.bias",
    ),
    "a tensor that a rule takes away": (
        (CLOSE + "tensors = ['*', '!conv.bias']",),
        r"no rule covers 1 tensor: conv\.bias",
    ),
    "a weight file that no rule selects": (
        ("equality = 'tensors'\nfiles = ['model.safetensors']",),
        "no rule covers 1 tensor: logits",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_declaration_that_does_not_fit_is_refused(name: str, model: Model) -> None:
    rules, expected = MISFITS[name]
    with pytest.raises(PolicyError, match=expected):
        check(declare(*rules), model, model)
    with pytest.raises(PolicyError, match=expected):  # even where all files are equal
        compare_models(model, model, declare(*rules))


def test_what_a_rebuild_lacks_or_adds_is_a_difference_and_no_misfit(
    model: Model, tmp_path: Path
) -> None:
    lacking = {"conv.weight": WEIGHTS["conv.weight"]}
    adding = {**WEIGHTS, "extra": np.ones(3, "<f4")}
    rules = declare(CLOSE + "files = ['model.*']\ntensors = ['conv.*']", BEHAVIOUR)
    for name, weights, missing in (("a", lacking, "conv.bias"), ("b", adding, "extra")):
        files: dict[str, Content] = {
            "model.safetensors": weights,
            "eval/logits.safetensors": LOGITS,
        }
        other = write(tmp_path / name, {**files, "config.json": b"{}"})
        outcome = compare_models(model, other, rules)
        assert outcome.conclusion == "mismatch"
        (finding,) = (f for f in outcome.alternatives[0].findings if not f.held)
        assert (finding.tensor, finding.measure) == (missing, "presence")


def test_a_rule_for_what_one_side_alone_has_selects_it(model: Model, tmp_path: Path) -> None:
    rules = declare(EVERYTHING, "equality = 'bytes'\nfiles = ['notes.txt']")
    files: dict[str, Content] = {"model.safetensors": WEIGHTS, "eval/logits.safetensors": LOGITS}
    other = write(tmp_path / "other", {**files, "config.json": b"{}", "notes.txt": b"hm"})
    outcome = compare_models(model, other, rules)
    assert outcome.conclusion == "mismatch"


def test_initial_weights_need_no_rule_and_no_rule_reaches_them(tmp_path: Path) -> None:
    files = {"model.safetensors": WEIGHTS, "initial.safetensors": WEIGHTS}
    model = write(tmp_path / "model", files)
    rule = CLOSE.replace("relative_to = 'weights'", "initial = 'initial.safetensors'")
    (selection,) = check(declare(rule), model, model)
    assert [rule.units for rule in selection.rules] == [("model.safetensors",)]


def test_weights_without_reader_are_covered_by_a_rule_for_all_tensors(tmp_path: Path) -> None:
    model = write(tmp_path / "model", {"model.msgpack": b"?", "config.json": b"{}"})
    assert check(declare(EVERYTHING), model, model)[0].unread == ()
    parts = declare(CLOSE + "tensors = ['a*']", CLOSE + "tensors = ['b*']")
    assert check(parts, model, model)[0].unread == ()
    other = write(tmp_path / "other", {"model.msgpack": b"!", "config.json": b"{}"})
    (selection,) = check(parts, model, other)
    assert "cannot be read by this version" in selection.unread[0]


def test_weights_that_no_rule_selects_and_nobody_can_read_are_listed(tmp_path: Path) -> None:
    files: dict[str, Content] = {"m.safetensors": {"w": np.ones(1)}}
    one, two = (write(tmp_path / it, files | {"x.safetensors": it.encode()}) for it in "lr")
    rule = declare("equality = 'tensors'\nfiles = ['m.safetensors']")
    ((why,),) = (each.unread for each in check(rule, one, two))
    assert why.startswith("x.safetensors")


def test_files_that_no_rule_can_read_are_listed(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "model.joblib": b"?", "m.safetensors": b"?", "optimizer.pt": b"?", "config.json": b"{}",
        "w.npy": npy(np.ones(1)),
    }  # fmt: skip
    model = write(tmp_path / "model", files)
    unread = unread_files(SideBySide(model, model))
    assert [why.partition(":")[0] for why in unread] == ["m.safetensors", "model.joblib"]
