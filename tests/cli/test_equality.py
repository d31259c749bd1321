"""``provenance equality``: list, show, check."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from provenance.equality.declaration import BUILT_IN, builtin, builtin_text, parse
from tests.rebuild.builds import CLOSE, files
from tests.world import refused, write_files

if TYPE_CHECKING:
    from pathlib import Path

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
        "same if      bytes: every file, equal byte for byte",
        "or if        close: ",
        "because ",
        "then: consistent",
        "close guarantees: every tensor is within both limits of its counterpart",
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
        "every tensor equal bit for bit once rounded to BF16, -0 as +0, NaN equal to the same bits",
        "the outputs in logits.npy, as logits: mean KL divergence in nats ≤ 0.001, top answers",
        "differ at a rate ≤ 0.01 (upper bound at 0.95)",
        "needs 299 probes or more",
        "what model.onnx answers to the probes given at comparison, as values: mean difference",
        "the weights in model.onnx may be anything that passes this rule",
        "every metric in eval.npz: means within ±0.01 (paired bootstrap of 10,000, level 0.05)",
        "changed answers ≤ 0.02",
        "a limit of 1 or more admits any tensor of the same size",
        "loss* in the recorded metrics: the first 100 points within 0.01, means of the last 10",
        "within 0.05",
        "then: plausible",
    ):
        assert words in text, words
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
