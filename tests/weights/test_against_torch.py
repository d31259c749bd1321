"""Files that torch itself saves, and ours that it loads.

PROVENANCE_TORCH names a Python that can import torch; it runs programs of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from provenance.weights.opening import open_tensors
from tests.weights.torch_writing import samples

if TYPE_CHECKING:
    from pathlib import Path

    from provenance.weights.view import TensorFile

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_TORCH"), reason="PROVENANCE_TORCH names no Python with torch"
    ),
]

SEEN = '''
import hashlib, json, os, sys, warnings
import numpy, torch
warnings.simplefilter("ignore")

def seen(value, path=None):
    """Every tensor by its path: its type, shape, and the digest of its bytes in C order."""
    if isinstance(value, torch.Tensor) and value.layout == torch.sparse_coo:
        value = {"indices": value._indices(), "values": value._values()}
    elif isinstance(value, torch.Tensor) and value.is_quantized:
        value = {"int_repr": value.int_repr()}
    if isinstance(value, numpy.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().reshape(-1).view(torch.uint8).tolist()
        said = [str(value.dtype).removeprefix("torch."), list(value.shape)]
        return {path or "value": [*said, hashlib.sha256(bytes(raw)).hexdigest()]}
    entries = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        entries = enumerate(value)
    found = {}
    for key, entry in entries:
        found.update(seen(entry, str(key) if path is None else f"{path}/{key}"))
    return found
'''

SAVE = """
torch.manual_seed(0)
os.chdir(sys.argv[1])
base = torch.randn(6, 8)
layer = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 4))
layer[2].weight = torch.nn.Parameter(layer[0].weight.T.detach())
optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
for _ in range(2):
    layer(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    scheduler.step()
names = '''bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64
complex32 complex64 complex128 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz
float8_e8m0fnu float4_e2m1fn_x2'''.split()
raw = torch.arange(32, dtype=torch.uint8)
turn = [n for n in names if not n.startswith(("float8", "float4"))]
bits = {n: (raw % 2 if n == "bool" else raw.clone()).view(getattr(torch, n)) for n in names}
values = {
    "state": layer.state_dict(),
    "tied": {"a": base, "b": base, "c": base[:]},
    "strides": {
        "turned": base.T, "every": base[::2, ::3], "column": base[:, 1], "row": base[2],
        "repeated": base[:1].expand(5, 8), "empty": base[:0], "scalar": base[1, 1],
        "permuted": torch.randn(2, 3, 4, 5).permute(3, 1, 0, 2), "none": torch.zeros(0, 3),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    },
    "types": {**bits, **{f"{n} turned": bits[n].reshape(2, -1).T for n in turn}},
    "training": {
        "model": layer.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7,
        "scheduler": scheduler.state_dict(), "random": torch.get_rng_state(), "best": float("inf"),
        "parameters": list(layer.parameters()), "size": base.shape, "device": base.device,
    },
    "alone": torch.tensor(1.5),
    "parts": {
        "sparse": base.relu().to_sparse(), "array": numpy.arange(6.0).reshape(2, 3).T,
        "quantised": torch.quantize_per_tensor(base, 0.1, 3, torch.qint32),
    },
}
for name, value in values.items():
    torch.save(value, f"{name}.pt")
torch.save(values["state"], "protocol_5.pth", pickle_protocol=5)
print(json.dumps({**{f"{n}.pt": seen(v) for n, v in values.items()},
                  "protocol_5.pth": seen(values["state"])}))
"""

LOAD = """
os.chdir(sys.argv[1])
print(json.dumps({n: seen(torch.load(n, weights_only=False, map_location="cpu"))
                  for n in sys.argv[2:]}))
"""


def torch_says(program: str, *arguments: str) -> Any:  # noqa: ANN401 - JSON
    ran = subprocess.run(
        [os.environ["PROVENANCE_TORCH"], "-c", SEEN + program, *arguments],
        capture_output=True,
        check=False,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return json.loads(ran.stdout)


OURS = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "C32": "complex32", "C64": "complex64",
    "C128": "complex128", "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}  # fmt: skip


def seen(file: TensorFile) -> dict[str, list[Any]]:
    found = {}
    for name, info in file.tensors.items():
        shape = list(info.shape)
        if info.dtype.name == "F4":
            shape[-1] //= 2
        digest = hashlib.sha256()
        for chunk in file.chunks(name, 256):
            digest.update(chunk)
        found[name] = [OURS[info.dtype.name], shape, digest.hexdigest()]
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("torch")
    return folder, torch_says(SAVE, str(folder))


def test_what_torch_saves_is_read_bit_for_bit(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, said = saved
    assert len(said) == 8
    for name, tensors in said.items():
        with open_tensors(folder / name) as file:
            assert seen(file) == tensors, name


def test_tied_weights_and_metadata_of_torch(saved: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = saved
    with open_tensors(folder / "tied.pt") as file:
        assert file.aliases == (("a", "b", "c"),)
    with open_tensors(folder / "strides.pt") as file:
        assert file.container["unreached-bytes"] == "none"
    with open_tensors(folder / "state.pt") as file:
        assert dict(file.metadata) == {}
    with open_tensors(folder / "training.pt") as file:
        assert ("model/0.weight", "parameters/0") in file.aliases
        metadata = dict(file.metadata)
    assert metadata["epoch"] == "7"
    assert metadata["best"] == '{"float":"inf"}'
    assert metadata["device"] == '{"torch.device":"cpu"}'
    assert metadata["scheduler/milestones/3"] == "1"
    assert metadata["optimizer/param_groups/0/betas/1"] == "0.999"


def test_torch_loads_what_our_writer_writes(tmp_path: Path) -> None:
    for name, data in samples().items():
        (tmp_path / name).write_bytes(data)
    said = torch_says(LOAD, str(tmp_path), *samples())
    for name, tensors in said.items():
        with open_tensors(tmp_path / name) as file:
            assert seen(file) == tensors, name
