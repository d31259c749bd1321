"""The holes of published verifiers and loaders, one test each: shown, then closed.

A verifier that is no dependency is re-enacted in the lines that matter.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load

from benchmarks.equality.published import merkle_text
from provenance.equality.declaration import parse
from tests.judge.judging import TENSORS, Judge, close, declaration, model, one
from tests.judge.models import compare_models, write
from tests.weights.torch_writing import checkpoint, floats, ordered, storage, tensor
from tests.weights.writing import archive, entry, npy, safetensors

if TYPE_CHECKING:
    from pathlib import Path

    Array = np.ndarray[Any, Any]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


# --- Verifiers -----------------------------------------------------------------


def test_cosine_divided_by_one_norm_twice(judge: Judge) -> None:
    """Proof-of-Learning, utils.py: 1 - w1.w2 / (|w1| |w1|)."""
    weights = np.zeros(100, np.float32)
    weights[0] = 1
    planted = weights.copy()
    planted[1:] = 1  # orthogonal to the weights, and ten times as long
    assert 1 - weights @ planted / np.linalg.norm(weights) ** 2 == 0
    answer = judge({"w": weights}, {"w": planted}, close(2))
    assert answer.reasons == {"w relative-l2-of-weights"}
    assert answer.value == pytest.approx(99**0.5)


def test_a_verifier_that_counts_distances_above_the_threshold_accepts_nan(judge: Judge) -> None:
    """Proof-of-Learning, verify.py: valid where np.sum(distance > threshold) is 0."""
    weights = np.linspace(-1, 1, 1000, dtype=np.float32)
    poisoned = weights.copy()
    poisoned[500] = np.nan
    distances = [np.linalg.norm(weights - poisoned, order) for order in (1, 2, np.inf)]
    assert np.sum(np.array(distances) > (1000, 10, 0.1)) == 0
    answer = judge({"w": weights}, {"w": poisoned}, close(1))
    assert answer.reasons == {"w differing-elements not-finite"}
    assert answer.value == 1


def test_a_hash_of_the_shortened_text_of_an_array(judge: Judge) -> None:
    """Proof-of-Learning, verify.py: the hash of str(image), of which numpy leaves out a part."""
    image = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    painted = image.copy()
    painted[8:24, 8:24] ^= 255
    hashes = {hashlib.sha256(str(each).encode()).hexdigest() for each in (image, painted)}
    assert len(hashes) == 1
    answer = judge.files(npy(image), npy(painted), TENSORS, "images.npy")
    assert answer.reasons == {"array differing-elements"}
    assert answer.value == 16 * 16 * 3
    assert answer.outcome.first is not None
    assert answer.outcome.first.index == (8, 8, 0)


@pytest.mark.parametrize("buffer", ["2.running_mean", "2.running_var", "2.num_batches_tracked"])
def test_buffers_are_no_parameters(judge: Judge, buffer: str) -> None:
    """Proof-of-Learning, utils.py: net.parameters(), in which no buffer is."""
    network: dict[str, Array] = {
        "1.weight": np.ones(8, np.float32),
        "2.running_mean": np.ones(4, np.float32),
        "2.running_var": np.ones(4, np.float32),
        "2.num_batches_tracked": np.array(138, np.int64),
    }
    parameters = [name for name in network if "running" not in name and "num_b" not in name]
    changed = dict(network)
    changed[buffer] = network[buffer] * 3
    assert all(np.array_equal(network[name], changed[name]) for name in parameters)
    answer = judge(network, changed, close())
    assert {reason.split()[0] for reason in answer.reasons} == {buffer}
    assert judge(network, network, close()).conclusion == "consistent"


@pytest.mark.parametrize("name", ["h.0.attn.bias", "h.0.attn.masked_bias", "masked_experts.weight"])
def test_a_tree_that_leaves_out_names(judge: Judge, name: str) -> None:
    honest: dict[str, Array] = {name: np.ones(4, np.float32), "w": np.ones(4, np.float32)}
    planted = honest | {name: np.full(4, -9, np.float32)}
    assert merkle_text(honest) == merkle_text(planted)
    assert judge(honest, planted, TENSORS).reasons == {f"{name} differing-elements"}


def test_a_tree_that_leaves_out_shapes_and_types(judge: Judge) -> None:
    honest: dict[str, Array] = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for other in (honest["w"].reshape(3, 2), honest["w"].astype(np.float64)):
        assert merkle_text(honest) == merkle_text({"w": other})
        assert judge(honest, {"w": other}, TENSORS).reasons == {"w type-and-shape"}


def test_a_sign_that_is_never_compared(judge: Judge) -> None:
    """TOPLOC: exponents and mantissas are compared, the sign is not."""
    weights = np.linspace(0.5, 2, 64).astype(ml_dtypes.bfloat16)
    negated = -weights
    assert np.array_equal(weights.view(np.uint16) & 0x7FFF, negated.view(np.uint16) & 0x7FFF)
    answer = judge({"w": weights}, {"w": negated}, close(1))
    assert answer.reasons == {"w relative-l2-of-weights", "w relative-linf-of-weights"}
    assert answer.value == pytest.approx(2)


def test_top_values_stand_for_the_rest(judge: Judge) -> None:
    """TOPLOC: the largest values are compared, each at its index modulo a number near 2^16."""
    modulus, top = 65_497, 128
    weights = np.random.default_rng(3).standard_normal(2 * modulus).astype(np.float32)
    weights[[10, 10 + modulus]] = 8, 9
    largest = np.argsort(np.abs(weights))[-top:]
    replaced = -weights
    replaced[largest] = weights[largest]
    swapped = weights.copy()
    swapped[[10, 10 + modulus]] = weights[[10 + modulus, 10]]

    def kept(values: Array) -> set[tuple[int, float]]:
        chosen = np.argsort(np.abs(values))[-top:]
        return {(int(place) % modulus, float(values[place])) for place in chosen}

    assert kept(weights) == kept(replaced) == kept(swapped)
    answer = judge({"w": weights}, {"w": replaced}, close(1))
    assert answer.reasons == {"w relative-l2-of-weights"}
    answer = judge({"w": weights}, {"w": swapped}, TENSORS)
    assert answer.value == 2
    assert answer.outcome.first is not None
    assert answer.outcome.first.index == (10,)


# --- Files ----------------------------------------------------------------------------------------


def test_a_name_that_stands_twice(judge: Judge) -> None:
    """The reference library takes the last of both; another reader may take the first."""
    first, second = (np.full(1, value, np.float32).tobytes() for value in (1, 2))
    text = (
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    twice = safetensors(text, second)
    assert load(twice)["w"] == 2
    plain = model({"w": np.frombuffer(first, np.float32)})
    answer = judge.files(plain, twice, TENSORS)
    assert (answer.conclusion, answer.reasons) == ("inconclusive", frozenset())
    assert any("is duplicated" in what for what in answer.outcome.missing)
    assert judge.files(plain, plain, TENSORS).conclusion == "match"


def test_two_places_overlap(judge: Judge) -> None:
    """In safetensors a tensor has one place of its own, and so has each name of tied weights."""
    data = np.ones(2, np.float32).tobytes()
    places = {"embed": entry("F32", [2], 0, 8), "head": entry("F32", [2], 0, 8)}
    copied = model({"embed": np.ones(2, np.float32), "head": np.ones(2, np.float32)})
    answer = judge.files(copied, safetensors(places, data), TENSORS)
    assert answer.conclusion == "inconclusive"
    assert any("overlaps" in what for what in answer.outcome.missing)


def test_tied_weights_are_compared_under_each_name(tmp_path: Path) -> None:
    """A checkpoint of torch stores tied weights once; another format repeats them."""
    stored = storage("0", 2)
    state = ordered({"embed": tensor(stored, (2,)), "head": tensor(stored, (2,))})
    tied = write(tmp_path / "tied", {"pytorch_model.bin": checkpoint(state, {"0": floats(1, 2)})})
    declared = parse(declaration(TENSORS))
    for head, conclusion in (((1, 2), "match"), ((1, 3), "mismatch")):
        tensors = {"embed": np.array([1, 2], np.float32), "head": np.array(head, np.float32)}
        other = write(tmp_path / conclusion, {"model.safetensors": tensors})
        outcome = compare_models(tied, other, declared)
        assert outcome.conclusion == conclusion
        against = {f.tensor for f in outcome.alternatives[0].findings if not f.held}
        assert against == ({"head"} if conclusion == "mismatch" else set())
        assert "tied-weights" in {each.name for each in outcome.normalisers}


def test_bytes_between_the_tensors(judge: Judge) -> None:
    """A gap carries what no tensor shows."""
    gap = safetensors({"w": entry("F32", [1], 4, 8)}, b"evil" + np.ones(1, np.float32).tobytes())
    answer = judge.files(model(one([1])), gap, TENSORS)
    assert answer.conclusion == "inconclusive"
    assert any("gap" in what for what in answer.outcome.missing)


def test_texts_beside_weights_must_be_equal_under_every_rule(judge: Judge) -> None:
    def labelled(*labels: str, weight: float = 1.0) -> bytes:
        arrays = {"w": np.full(3, weight), "classes": np.array(labels)}
        return archive({f"{name}.npy": npy(array) for name, array in arrays.items()})

    honest = labelled("cat", "dog")
    for rule in (close(), TENSORS):
        swapped = labelled("dog", "cat")
        assert judge.files(honest, swapped, rule, "m.npz").reasons == {"metadata: classes"}
    near = labelled("cat", "dog", weight=1 + 1e-9)
    assert judge.files(honest, near, close(), "m.npz").conclusion == "consistent"
    wider = judge.files(honest, labelled("cat ", "dog"), close(), "m.npz")
    assert wider.reasons == {"metadata: classes"}


def test_opaque_elements_are_never_close(judge: Judge) -> None:
    one, two = (npy(np.array([x], ml_dtypes.bfloat16)) for x in (1, 1.0078125))
    assert judge.files(one, one, close(), "m.npy").conclusion == "match"
    answer = judge.files(one, two, close(), "m.npy")
    assert answer.reasons == {"array differing-elements exact-type"}


def test_metadata_are_content(judge: Judge) -> None:
    tensor = {"w": entry("F32", [1], 0, 4)}
    data = np.ones(1, np.float32).tobytes()
    honest, other = (
        safetensors({"__metadata__": {"template": text}} | tensor, data) for text in ("a", "b")
    )
    assert np.array_equal(load(honest)["w"], load(other)["w"])
    assert judge.files(honest, other, close()).reasons == {"metadata: template"}
    spaced = safetensors({"__metadata__": {"template": "a"}} | tensor, data, padding=8)
    assert judge.files(honest, spaced, TENSORS).conclusion == "match"
