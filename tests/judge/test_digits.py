"""Real rebuilds of one network (vectors/README.md) under a declaration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provenance.equality.declaration import parse
from tests.judge.models import compare_models, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from provenance.weights.model import Model

VECTORS = Path(__file__).parent / "vectors"

TEXT = b"""
format = 1
version = 1
name = "digits-cnn"
axes = ["thread-count", "instruction-set"]

[[any]]
[[any.all]]
equality = "bytes"

[[any]]
[[any.all]]
equality = "close"
tensors = ["*", "!1.bias", "!2.running_mean"]
relative_to = "weights"
relative_l2 = 5e-4
relative_linf = 5e-3
reason = "float32 sums in another order; 8 rebuilds measured at most 1.4e-4 and 1.5e-3"

[[any.all]]
equality = "close"
tensors = ["1.bias", "2.running_mean"]
relative_to = "weights"
relative_l2 = 5e-2
relative_linf = 1e-1
reason = "zero gradient: Adam amplifies rounding noise; at most 2.6e-2 and 4.0e-2"
"""

DECLARATION = parse(TEXT)


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Model]:
    """Return the rebuild of a name as a model, whose file has the same name in every rebuild."""

    def model(name: str) -> Model:
        data = (VECTORS / f"{name}.safetensors").read_bytes()
        return write(tmp_path / name, {"model.safetensors": data})

    return model


@pytest.mark.parametrize(
    ("rebuild", "conclusion", "strongest"),
    [
        ("base_t1", "match", "bytes"),
        ("t2", "consistent", "close"),
        ("aten_avx2", "consistent", "close"),
        ("seed1", "mismatch", None),
    ],
)
def test_rebuilds(
    model: Callable[[str], Model], rebuild: str, conclusion: str, strongest: str | None
) -> None:
    outcome = compare_models(model("base_t1"), model(rebuild), DECLARATION)
    assert (outcome.conclusion, outcome.strongest) == (conclusion, strongest)


def test_without_a_rule_for_the_noisy_bias_an_honest_rebuild_fails(
    model: Callable[[str], Model],
) -> None:
    head, general, _ = TEXT.rsplit(b"[[any.all]]", 2)
    strict = head + b"[[any.all]]" + general.replace(b', "!1.bias", "!2.running_mean"', b"")
    outcome = compare_models(model("base_t1"), model("t2"), parse(strict))
    assert outcome.conclusion == "mismatch"
    failing = {f.tensor for f in outcome.alternatives[1].findings if not f.held}
    assert failing == {"1.bias", "2.running_mean"}
