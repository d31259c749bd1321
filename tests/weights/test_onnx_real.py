"""Models of other projects: silero-vad 6.2.3 and magika 1.0.3, as their wheels hold them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from provenance.weights.opening import open_tensors
from tests.weights.onnx_writing import run

pytestmark = pytest.mark.integration

SILERO = {
    "silero_vad.onnx": 345,
    "silero_vad_16k_op15.onnx": 177,
    "silero_vad_16k_sequence.onnx": 44,
    "silero_vad_half.onnx": 172,
    "silero_vad_op18_ifless.onnx": 45,
    "silero_vad_openvino_16k.onnx": 99,
}
"""Tensors in each file, those of inner graphs and constants too."""


@pytest.fixture(scope="module")
def models() -> Path:
    """Return the folder that the wheels were unpacked into."""
    folder = os.environ.get("PROVENANCE_MODELS")
    if not folder or not (Path(folder) / "silero_vad").is_dir():
        pytest.skip("PROVENANCE_MODELS names no folder with silero-vad and magika")
    return Path(folder)


def check_initialisers(path: Path, tensors: int) -> int:
    """Check every initialiser of the model at *path* against the library; return how many."""
    initialisers = onnx.load(path).graph.initializer
    with open_tensors(path) as file:
        assert len(file.tensors) == tensors
        assert file.container["spelling"] == "plain"
        for given in initialisers:
            found = b"".join(map(bytes, file.chunks(given.name, 65536)))
            assert found == numpy_helper.to_array(given).tobytes()
    return len(initialisers)


@pytest.mark.parametrize("name", SILERO)
def test_silero_is_read(models: Path, name: str) -> None:
    check_initialisers(models / "silero_vad" / "data" / name, SILERO[name])


def test_magika_is_read(models: Path) -> None:
    path = models / "magika" / "models" / "standard_v3_3" / "model.onnx"
    assert check_initialisers(path, 36) == 36


def test_two_exports_of_silero_behave_alike_and_a_rounded_one_does_not(models: Path) -> None:
    folder = models / "silero_vad" / "data"
    noise = np.random.default_rng(0).standard_normal((50, 1, 512)).astype("<f4")
    probes = {"input": 0.1 * noise, "state": np.zeros((50, 2, 1, 128), "<f4")}
    rate = {"sr": np.full(50, 16_000)}
    first = run(folder / "silero_vad.onnx", probes | rate)
    second = run(folder / "silero_vad_16k_op15.onnx", probes | rate)
    half = run(folder / "silero_vad_half.onnx", probes)
    assert first["output"].shape == (50, 1, 1)
    for name in ("output", "stateN"):
        assert np.abs(first[name] - second[name]).max() == 0
    assert 1e-3 < float(np.abs(first["output"] - half["output"]).max()) < 0.5
