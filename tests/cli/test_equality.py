"""``provenance equality``: list, show, check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from provenance.equality.declaration import BUILT_IN, builtin, builtin_text, parse
from tests.rebuilding.builds import CLOSE, files
from tests.weights.writing import simple
from tests.world import refused, write_files

if TYPE_CHECKING:
    from tests.world import Shell


def test_every_built_in_is_listed_with_version_and_digest(provenance: Shell) -> None:
    listed = provenance("equality", "list").out
    for name in BUILT_IN:
        assert f"{name} " in listed
        assert builtin(name).digest in listed
    document = provenance("equality", "list", "--json").document
    assert [each["name"] for each in document["declarations"]] == list(BUILT_IN)
    assert all(each["version"] >= 1 for each in document["declarations"])


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_shown_can_be_used(name: str, provenance: Shell, tmp_path: Path) -> None:
    shown = provenance("equality", "show", name).out
    assert parse(shown.encode()).digest == builtin(name).digest
    (tmp_path / "mine.toml").write_text(shown)
    assert provenance("equality", "check", tmp_path / "mine.toml").status == 0
    document = provenance("equality", "show", name, "--json").document
    assert document["toml"].encode() == builtin_text(name)
    assert document["declaration"]["sha256"] == builtin(name).digest


def test_no_such_built_in(provenance: Shell) -> None:
    ran = provenance("equality", "show", "similar")
    refused(ran, 2, "no equality 'similar' is built in (use bytes")


def test_check_says_what_is_demanded_guaranteed_and_admitted(
    provenance: Shell, tmp_path: Path
) -> None:
    (tmp_path / "close.toml").write_bytes(CLOSE)
    text = provenance("equality", "check", tmp_path / "close.toml").out
    for words in (
        "same if      bytes: equal byte for byte: every file",
        "or if        close: L2 ≤ 0.001 and L∞ ≤ 0.01 of the update from the initial weights",
        "because ",
        "then: consistent",
        "close guarantees: every tensor is within the limits of its counterpart",
        "close admits:     a backdoor",
        "not transitive",
        "must be equal byte for byte",
    ):
        assert words in text


EVERY_RULE = b"""
format = 1
name = "every-rule"
version = 3

[[any]]
[[any.all]]
equality = "rounded"
to = "BF16"
signed_zero = "equal"
nan = "same-bits"
reason = "shipped in bfloat16"

[[any.all]]
equality = "behaviour"
kind = "logits"
outputs = ["logits.npy"]
disagreement = 0.01
kl_divergence = 1e-3
reason = "answers on the held-out digits"

[[any]]
[[any.all]]
equality = "behaviour"
kind = "values"
run = "model.onnx"
mean_difference = 1e-3
files = ["model.onnx"]
reason = "what counts is what it answers"

[[any.all]]
equality = "metrics"
samples = ["eval.npz"]
margin = 0.01
test = "bootstrap"
max_churn = 0.02
reason = "a hundredth is below what a user notices"

[[any.all]]
equality = "close"
relative_to = "weights"
relative_l2 = 1.5
relative_linf = 1
reason = "a bias without gradient"

[[any]]
[[any.all]]
equality = "curves"
curves = ["loss*"]
pointwise = 0.01
points = 100
terminal = 0.05
files = ["*.safetensors"]
reason = "what Debian calls numerically reproducible"
"""


def test_check_explains_every_kind_of_rule(provenance: Shell, tmp_path: Path) -> None:
    (tmp_path / "all.toml").write_bytes(EVERY_RULE)
    text = provenance("equality", "check", tmp_path / "all.toml").out
    for words in (
        "equal bit for bit once rounded to BF16, -0 as +0, NaN equal to the same bits: every",
        "right only if the weights are shipped in it, in another file",
        "mean KL divergence in nats ≤ 0.001, top answers differ at a rate ≤ 0.01 (upper bound",
        ": the outputs in 'logits.npy', as logits",
        "needs 299 probes or more",
        "numbers in files are what a builder reports: they can be put beside any weights",
        "mean difference ≤ 0.001: what 'model.onnx' answers to the probes given at comparison",
        "the weights in 'model.onnx' are judged by this rule alone",
        "means within ±0.01 (paired bootstrap of 10,000, level 0.05), changed answers ≤ 0.02:",
        ": every metric in 'eval.npz'",
        "a limit of 1 or more admits any tensor of the same size",
        "large elements that reach no answer hide the others where they are more than half",
        "the first 100 points within 0.01, means of the last 10 within 0.05: 'loss*' in the",
        "then: plausible",
    ):
        assert words in text, words
    assert text.count("in the files of evidence, all else is judged as weights are") == 2
    document = provenance("equality", "check", tmp_path / "all.toml", "--json").document
    assert document["declaration"]["version"] == 3
    assert document["selections"] == []
    assert any("backdoor" in line for line in document["consequences"])


def test_check_against_a_model(provenance: Shell, tmp_path: Path) -> None:
    model = write_files(tmp_path / "model", files())
    (tmp_path / "close.toml").write_bytes(CLOSE)
    text = provenance("equality", "check", tmp_path / "close.toml", model).out
    assert f"fits {model}" in text
    assert "here: 1 tensor of model.safetensors" in text
    document = provenance("equality", "check", "tensors", model, "--json").document
    assert document["selections"][0]["rules"] == [
        {"units": ["initial.safetensors", "model.safetensors"], "tensors": 2}
    ]


def test_check_says_what_only_reported_numbers_speak_for(provenance: Shell, tmp_path: Path) -> None:
    model = write_files(tmp_path / "model", files())
    text = (
        b"format = 1\nname = 'x'\nversion = 1\n[[any]]\n[[any.all]]\nequality = 'behaviour'\n"
        b"kind = 'values'\nmax_difference = 1.0\nreason = 'a test'\n"
        b"outputs = ['model.safetensors']\n[[any.all]]\nequality = 'tensors'\noptional = true\n"
    )
    every, other = tmp_path / "every.toml", tmp_path / "other.toml"
    every.write_bytes(text)
    other.write_bytes(text + b"files = ['initial.safetensors']\n")
    said = provenance("equality", "check", every, model).out
    assert "here: what is reported in model.safetensors" in said
    assert "here: 2 tensors of initial.safetensors, model.safetensors" in said
    assert "here: nothing" not in said
    assert "but plausible" not in said
    said = provenance("equality", "check", other, model).out
    assert "but plausible if 'model.safetensors' differ: nothing but what a builder" in said
    assert "but plausible if any weights differ" in provenance("equality", "check", other).out


def test_compare_says_why_it_concludes_less(provenance: Shell, tmp_path: Path) -> None:
    folders = [tmp_path / side for side in "ab"]
    for by, folder in enumerate(folders):
        write_files(folder, {"m.safetensors": simple({"w": np.full(4, 1 + by * 1e-9)})})
    head = "format = 1\nname = 'x'\nversion = 1\n[[any]]\n[[any.all]]\nreason = 'a test'\n"
    for rule, words in (
        (
            "equality = 'rounded'\nto = 'F16'\n",
            "consistent: nothing shows that the narrower type is shipped",
        ),
        (
            "equality = 'behaviour'\nkind = 'values'\nmax_difference = 1.0\noutputs = ['m.*']\n",
            "plausible: only numbers that a builder reports speak for m.safetensors",
        ),
    ):
        (tmp_path / "x.toml").write_text(head + rule)
        said = provenance("compare", *folders, "--equality", tmp_path / "x.toml").out
        assert words in said
        assert f"{words.partition(':')[0]} by " in said


def test_check_says_beforehand_which_files_no_rule_can_read(
    provenance: Shell, tmp_path: Path
) -> None:
    model = write_files(tmp_path / "model", files() | {"model.joblib": b"?"})
    for declared in ("tensors", "bytes"):
        text = provenance("equality", "check", declared, model).out
        assert "not read: model.joblib: its tensors cannot be read" in text
        assert "equal bytes satisfy every rule" in text
        document = provenance("equality", "check", declared, model, "--json").document
        assert [why.partition(":")[0] for why in document["unread"]] == ["model.joblib"]
    (model / "model.joblib").unlink()
    assert "equal bytes" not in provenance("equality", "check", "tensors", model).out


def test_a_declaration_that_does_not_fit_is_refused(provenance: Shell, tmp_path: Path) -> None:
    model = write_files(tmp_path / "model", files())
    text = CLOSE.replace(b'equality = "close"', b'equality = "close"\ntensors = ["nothing*"]')
    (tmp_path / "close.toml").write_bytes(text)
    ran = provenance("equality", "check", tmp_path / "close.toml", model)
    refused(ran, 1, "alternative 2, rule 1 (close) selects no tensors")


def test_what_is_no_declaration(provenance: Shell, tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text("format = 1\n")
    ran = provenance("equality", "check", tmp_path / "none.toml")
    refused(ran, 3, "not an equality declaration")


def test_a_pattern_cannot_pass_for_a_limit(provenance: Shell, tmp_path: Path) -> None:
    posing = "!zz: L2 ≤ 1e-09 and L∞ ≤ 1e-09 of the weights"
    patterns = ["*", posing, *(f"padding-{number:03}-{'x' * 60}" for number in range(40))]
    text = (
        "format = 1\nname = 'posing'\nversion = 1\n[[any]]\n[[any.all]]\nequality = 'close'\n"
        f"tensors = {json.dumps(patterns, ensure_ascii=False)}\nrelative_to = 'weights'\n"
        "relative_l2 = 0.99\nrelative_linf = 0.99\nreason = 'x'\n"
    )
    (tmp_path / "posing.toml").write_text(text)
    shown = provenance("equality", "check", tmp_path / "posing.toml").out
    (row,) = (line for line in shown.splitlines() if "same if" in line)
    assert "close: L2 ≤ 0.99 and L∞ ≤ 0.99 of the weights: tensors '*', '!zz" in row
    assert row.endswith("and 36 more (--json has all) of every weight file")


@pytest.mark.parametrize("name", BUILT_IN)
def test_nothing_else_may_be_called_as_what_is_built_in(
    name: str, provenance: Shell, tmp_path: Path
) -> None:
    text = builtin_text(name).replace(b"\nversion = ", b"\nversion = 1")
    (tmp_path / "posing.toml").write_bytes(text)
    ran = provenance("equality", "check", tmp_path / "posing.toml")
    refused(ran, 3, "is taken by a built-in declaration with other content")


def test_so_many_patterns_are_refused(provenance: Shell, tmp_path: Path) -> None:
    rule = "[[any.all]]\nequality = 'bytes'\nfiles = [" + "'a'," * 64 + "]\n"
    head = "format = 1\nname = 'x'\nversion = 1\n[[any]]\n"
    (tmp_path / "many.toml").write_text(head + rule * 17)
    refused(provenance("equality", "check", tmp_path / "many.toml"), 3, "more than 1024 patterns")


def test_check_says_what_exceptions_are_about_in_a_model(provenance: Shell, tmp_path: Path) -> None:
    state = b'{"log_history": [{"train_runtime": 1}, {"train_runtime": 2}]}'
    model = write_files(tmp_path / "model", {**files(), "trainer_state.json": state})
    declared = CLOSE + (
        b'[[except]]\nfile = "trainer_state.json"\nkeys = ["log_history[].train_runtime"]\n'
        b'reason = "wall time"\n[[unsafe_except]]\nfile = "no.json"\nreason = "unused"\n'
    )
    (tmp_path / "mine.toml").write_bytes(declared)
    text = provenance("equality", "check", tmp_path / "mine.toml", model).out
    for words in (
        "apart from   'trainer_state.json': 'log_history[].train_runtime'",
        "because wall time",
        "here: 2 values of trainer_state.json",
        "apart from   'no.json': the whole file (UNSAFE: loaders may go by it)",
        "here: nothing",
        "a program may read what is excepted",
    ):
        assert words in text
    document = provenance("equality", "check", tmp_path / "mine.toml", model, "--json").document
    assert document["excepted"] == [
        {"units": ["trainer_state.json"], "values": 2},
        {"units": [], "values": None},
    ]


def test_suggest_proposes_what_differs(provenance: Shell, tmp_path: Path) -> None:
    left, right = (
        write_files(tmp_path / side, {**files(), "events.out.tfevents.1": side.encode()})
        for side in ("left", "right")
    )
    printed = provenance("equality", "suggest", left, right).out
    assert '[[except]]\nfile = "events.out.tfevents.1"\nreason = ""\n' in printed
    made = tmp_path / "mine.toml"
    assert provenance("equality", "suggest", left, right, "--output", made).out == ""
    assert made.read_text() == printed
    refused(provenance("equality", "check", made), 3, "say why this may differ")
    document = provenance("equality", "suggest", left, right, "--json").document
    assert document["toml"] == printed
    weights = right / "model.safetensors"
    renamed = weights.rename(right / "other.safetensors")
    assert provenance("equality", "suggest", left / weights.name, renamed).status == 0
    write_files(right, files(0.1))
    refused(provenance("equality", "suggest", left, right), 1, "do not have equal weights")


def test_calibrate_prints_a_declaration_or_why_there_is_none(
    provenance: Shell, tmp_path: Path
) -> None:
    vectors = Path(__file__).parents[1] / "judge" / "vectors"
    first, second, third, other = (
        vectors / f"{run}.safetensors" for run in ("base_t1", "aten_avx2", "t2", "amp_bf16")
    )
    made, arguments = tmp_path / "mine.toml", ("equality", "calibrate", first, second, third)
    ran = provenance(*arguments, "--other", other, "--output", made, "--name", "digits")
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    assert made.read_text() == provenance(*arguments, "--other", other, "--name", "digits").out
    checked = provenance("equality", "check", made, first)
    assert checked.status == 0
    assert "same if      tensors" in checked.out
    assert provenance("compare", third, second, "--equality", made).status == 0
    assert provenance("compare", first, other, "--equality", made).status == 1
    document = provenance(*arguments, "--json").document
    assert len(document["rebuilds"]) == 3
    ran = provenance(*arguments[:3], other, "--other", third, "--output", tmp_path / "none.toml")
    assert ran.status == 1
    assert "no limits: another recipe" in ran.err
    assert "[[any]]" not in ran.out
    assert not (tmp_path / "none.toml").exists()
