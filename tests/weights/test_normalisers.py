from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from provenance.weights.normalisers import NORMALISERS, Normalised, effects
from provenance.weights.opening import open_tensors
from tests.weights import gguf_writing, hdf5_writing, onnx_writing, torch_writing, writing

if TYPE_CHECKING:
    from provenance.weights.view import TensorFile


SAMPLES = {
    name: data
    for module in (writing, torch_writing, gguf_writing, onnx_writing, hdf5_writing)
    for name, data in module.samples().items()
}
"""The valid files by which each reader is tested."""

OF_PAIRS = {
    "container-format", "npz-compressed-bytes", "safetensors-format-key", "sharding",
    "weight-file-name",
}  # fmt: skip
"""Normalisers that no single file shows."""


def test_every_fact_of_every_reader_has_a_normaliser(tmp_path: Path) -> None:
    facts: set[str] = set()
    for name, data in SAMPLES.items():
        (tmp_path / name).write_bytes(data)
        with open_tensors(tmp_path / name) as file:
            facts |= file.container.keys()
    assert facts == NORMALISERS.keys() - OF_PAIRS


def test_the_specification_lists_every_normaliser() -> None:
    page = (Path(__file__).parents[2] / "docs/spec/equality.md").read_text()
    for normaliser in NORMALISERS.values():
        assert f"| `{normaliser.name}` | {normaliser.version} |" in page, normaliser.name


class Facts:
    """A weight file of which nothing but its container is known."""

    def __init__(self, container: dict[str, str], format: str = "safetensors") -> None:  # noqa: A002
        self.container = container
        self.format = format
        self.aliases: tuple[tuple[str, ...], ...] = ()
        self.metadata: dict[str, str] = {}


def between(
    left: Facts, right: Facts, *, content_equal: bool = True
) -> tuple[Normalised, ...] | None:
    one, two = cast("TensorFile", left), cast("TensorFile", right)
    return effects("m", one, two, content_equal=content_equal)


def test_what_no_normaliser_explains_is_not_normalised() -> None:
    assert between(Facts({"unknown": "1"}), Facts({"unknown": "2"})) is None
    assert between(Facts({"a": "1"}), Facts({"b": "1"})) is None
    assert between(Facts({"a": "1"}), Facts({"a": "1"})) is None
    assert between(Facts({"a": "1"}), Facts({"a": "1"}), content_equal=False) == ()


def test_an_effect_carries_its_reason() -> None:
    left, right = Facts({"npz-member-order": "1"}, "npz"), Facts({"npz-member-order": "2"}, "npz")
    (effect,) = between(left, right) or ()
    assert (effect.file, effect.name, effect.version) == ("m", "npz-member-order", 1)
    assert effect.reason == NORMALISERS["npz-member-order"].reason


def test_deflate_streams_of_one_length() -> None:
    facts = Facts({"npz-compression": "same"}, "npz")
    (effect,) = between(facts, facts) or ()
    assert effect.name == "npz-compressed-bytes"


def test_between_two_formats_one_normaliser_drops_every_fact() -> None:
    left, right = Facts({"unknown": "1"}), Facts({"npz-member-order": "2"}, "npz")
    assert [effect.name for effect in between(left, right) or ()] == ["container-format"]
    right.aliases = (("a", "b"),)
    left.metadata = {"format": "pt"}
    names = [effect.name for effect in between(left, right) or ()]
    assert names == ["container-format", "tied-weights", "safetensors-format-key"]
