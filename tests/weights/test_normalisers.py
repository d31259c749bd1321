from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from provenance.weights.beside import effects
from provenance.weights.normalisers import Normalised, Normaliser
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
    Normaliser.CONTAINER_FORMAT, Normaliser.SHARDING, Normaliser.TIED_WEIGHTS,
    Normaliser.WEIGHT_FILE_NAME, Normaliser.FORMAT_KEY,
}  # fmt: skip
"""Normalisers that no single file shows."""


def test_each_normaliser_has_a_reader_that_states_its_fact(tmp_path: Path) -> None:
    facts: set[str] = set()
    for name, data in SAMPLES.items():
        (tmp_path / name).write_bytes(data)
        with open_tensors(tmp_path / name) as file:
            facts |= file.container.keys()
    assert facts == set(Normaliser) - OF_PAIRS


def test_the_specification_lists_every_normaliser() -> None:
    page = (Path(__file__).parents[2] / "docs/spec/equality.md").read_text()
    for normaliser in Normaliser:
        assert f"| `{normaliser}` | {normaliser.version} |" in page, normaliser


class Facts:
    """A weight file of which nothing but its container is known."""

    def __init__(self, container: dict[str, str], format: str = "safetensors") -> None:  # noqa: A002
        self.container = container
        self.format = format
        self.aliases: tuple[tuple[str, ...], ...] = ()
        self.metadata: dict[str, str] = {}
        self.frameworks = frozenset({""})


def between(
    left: Facts, right: Facts, *, content_equal: bool = True
) -> tuple[Normalised, ...] | None:
    one, two = cast("TensorFile", left), cast("TensorFile", right)
    return effects("m", one, two, content_equal=content_equal)


def test_equal_facts_explain_nothing() -> None:
    facts = Facts({"order": "1"})
    assert between(facts, facts) is None
    assert between(facts, facts, content_equal=False) == ()


def test_an_effect_carries_its_reason() -> None:
    left, right = Facts({"order": "1", "layout": "1"}), Facts({"order": "2", "layout": "1"})
    (effect,) = between(left, right) or ()
    assert (effect.file, effect.name, effect.version) == ("m", "order", 1)
    assert effect.reason == Normaliser.ORDER.reason
    assert type(effect.name) is str


def test_a_fact_of_one_side_alone_is_an_effect() -> None:
    (effect,) = between(Facts({"sharding": "1"}), Facts({})) or ()
    assert effect.name == "sharding"


def test_deflate_streams_of_one_length() -> None:
    facts = Facts({"compression": "same"}, "npz")
    (effect,) = between(facts, facts) or ()
    assert effect.name == "compression"


def test_between_two_formats_one_normaliser_drops_every_fact() -> None:
    left, right = Facts({"order": "1"}), Facts({"order": "2"}, "npz")
    assert [effect.name for effect in between(left, right) or ()] == ["container-format"]
    right.aliases = (("a", "b"),)
    names = [effect.name for effect in between(left, right) or ()]
    assert names == ["container-format", "tied-weights"]
