"""One set of tensors in every container that can hold it: equal by their tensors everywhere."""

from __future__ import annotations

import io
import json
from itertools import combinations
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save

from provenance.equality.declaration import builtin
from provenance.judge.side_by_side import MetadataDifference
from provenance.weights.model import model_of_file
from tests.judge.models import compare_models, side_by_side, write
from tests.weights.torch_writing import saved
from tests.weights.writing import archive, npy

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "conv.weight": np.linspace(-1, 1, 24, dtype="<f4").reshape(2, 3, 4),
    "conv.bias": np.array([0.0, -0.0, 5e-324, 1e-40], "<f4"),
}
"""-0 and a subnormal among them."""


def _hdf5(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return buffer.getvalue()


FORMATS = {
    "model.safetensors": lambda arrays: save(arrays, metadata={"format": "pt"}),
    "model.npz": lambda arrays: archive({f"{n}.npy": npy(a) for n, a in arrays.items()}),
    "fortran.npz": lambda arrays: archive(
        {f"{n}.npy": npy(np.asfortranarray(a.astype(">f4"))) for n, a in arrays.items()}, 8
    ),
    "pytorch_model.bin": lambda arrays: saved(arrays, conv=1),
    "model.h5": _hdf5,
}


@pytest.mark.parametrize(("one", "other"), [*combinations(FORMATS, 2)], ids=str)
def test_the_same_model_in_two_formats(one: str, other: str, tmp_path: Path) -> None:
    for name in (one, other):
        (tmp_path / name).write_bytes(FORMATS[name](ARRAYS))
    (compared,) = side_by_side(tmp_path / one, tmp_path / other)
    assert compared.same_tensors, compared
    outcome = compare_models(tmp_path / one, tmp_path / other, builtin("tensors"))
    assert (outcome.conclusion, outcome.strongest) == ("match", "tensors")
    named = {effect.name for effect in outcome.normalisers}
    assert "weight-file-name" in named
    same_format = one.endswith(".npz") and other.endswith(".npz")
    assert ("container-format" in named) == (not same_format)


@pytest.mark.parametrize("name", FORMATS)
def test_one_bit_is_seen_across_formats(name: str, tmp_path: Path) -> None:
    flipped = {key: array.copy() for key, array in ARRAYS.items()}
    flipped["conv.bias"].view("<u4")[0] ^= 1 << 31  # +0 becomes -0
    (tmp_path / "reference.safetensors").write_bytes(FORMATS["model.safetensors"](ARRAYS))
    (tmp_path / name).write_bytes(FORMATS[name](flipped))
    (compared,) = side_by_side(tmp_path / "reference.safetensors", tmp_path / name)
    assert compared.first is not None
    assert (compared.first.tensor, compared.first.index) == ("conv.bias", (0,))
    outcome = compare_models(
        tmp_path / "reference.safetensors", tmp_path / name, builtin("tensors")
    )
    assert outcome.conclusion == "mismatch"
    (finding,) = (f for f in outcome.alternatives[0].findings if not f.held)
    assert (finding.tensor, finding.value, finding.place) == ("conv.bias", 1.0, (0,))


def _shards(arrays: dict[str, Any]) -> dict[str, bytes]:
    files = [f"model-{n:05}-of-{len(arrays):05}.safetensors" for n in range(1, len(arrays) + 1)]
    placed = dict(zip(arrays, files, strict=True))
    total = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    return {
        "model.safetensors.index.json": json.dumps(index).encode(),
        **{placed[name]: save({name: array}) for name, array in arrays.items()},
    }


def test_shards_are_the_model_that_they_make_up(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", {"model.safetensors": save(ARRAYS), "config.json": b"{}"})
    sharded = write(tmp_path / "sharded", {**_shards(ARRAYS), "config.json": b"{}"})
    outcome = compare_models(whole, sharded, builtin("tensors"))
    assert (outcome.conclusion, outcome.strongest) == ("match", "tensors")
    assert "sharding" in {effect.name for effect in outcome.normalisers}
    assert compare_models(whole, sharded, builtin("bytes")).conclusion == "mismatch"
    config, weights = side_by_side(whole, sharded)
    assert (config.state, weights.name, weights.same_tensors) == (
        "equal",
        "model.safetensors",
        True,
    )


def test_a_change_in_a_shard_is_seen_although_the_index_is_the_same(tmp_path: Path) -> None:
    changed = {**ARRAYS, "conv.bias": ARRAYS["conv.bias"] + np.float32(1)}
    for name, arrays in (("a", ARRAYS), ("b", changed)):
        write(tmp_path / name, _shards(arrays))
    indexes = [tmp_path / name / "model.safetensors.index.json" for name in "ab"]
    assert indexes[0].read_bytes() == indexes[1].read_bytes()
    (compared,) = side_by_side(*indexes)
    assert compared.first is not None
    assert compared.first.tensor == "conv.bias"
    models = [model_of_file(index) for index in indexes]
    assert compare_models(models[0], models[1], builtin("tensors")).conclusion == "mismatch"


def test_two_sets_that_are_left_over_are_not_guessed_at(tmp_path: Path) -> None:
    left = write(tmp_path / "l", {"a.safetensors": save(ARRAYS), "b.safetensors": save(ARRAYS)})
    right = write(tmp_path / "r", {"a.npz": FORMATS["model.npz"](ARRAYS)})
    outcome = compare_models(left, right, builtin("tensors"))
    assert outcome.conclusion == "mismatch"
    assert {f.measure for f in outcome.alternatives[0].findings} == {"presence"}


def test_metadata_that_mean_something_are_compared_across_formats(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(save(ARRAYS, metadata={"prompt": "obey"}))
    (tmp_path / "b.bin").write_bytes(saved(ARRAYS))
    (compared,) = side_by_side(tmp_path / "a.safetensors", tmp_path / "b.bin")
    assert not compared.same_tensors
    assert compared.metadata == (
        MetadataDifference("format", "metadata without it", None),
        MetadataDifference("prompt", "obey", None),
    )
