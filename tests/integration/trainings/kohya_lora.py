"""A LoRA for Stable Diffusion as sd-scripts saves it, which is in no package registry.

The names and values beside the tensors are those of its `train_network.py`, `library/train_util.py`
and `library/sai_model_spec.py` at commit 0010c81a; the training is a small one of our own.
"""

import hashlib
import json
import pathlib
import random
import sys
import time

import rows
import safetensors.torch
import torch

data, folder, name = sys.argv[1:]
started = time.time()
torch.manual_seed(0)
torch.set_num_threads(1)
table = torch.tensor(rows.read(data))
down = torch.nn.Linear(4, 2, bias=False)
up = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.zeros_(up.weight)
optimizer = torch.optim.AdamW([*down.parameters(), *up.parameters()], lr=0.01)
for batch in table.split(16):
    torch.nn.functional.mse_loss(up(down(batch[:, :4])), batch[:, 4:]).backward()
    optimizer.step()
    optimizer.zero_grad()
module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
tensors = {
    f"{module}.alpha": torch.tensor(1.0),
    f"{module}.lora_down.weight": down.weight.detach().half(),
    f"{module}.lora_up.weight": up.weight.detach().half(),
}
trained = {
    "ss_session_id": random.SystemRandom().randint(0, 2**32),
    "ss_training_started_at": started,
    "ss_output_name": name,
    "ss_learning_rate": 0.01,
    "ss_num_epochs": 1,
    "ss_max_train_steps": 4,
    "ss_network_module": "networks.lora",
    "ss_network_dim": 2,
    "ss_network_alpha": 1.0,
    "ss_base_model_version": "sd_v1",
    "ss_seed": 0,
    "ss_sd_model_name": "base.safetensors",
    "ss_training_finished_at": time.time(),
    "ss_dataset_dirs": json.dumps({"1_rows": {"n_repeats": 1, "img_count": len(table)}}),
    "ss_steps": 4,
    "ss_epoch": 1,
}
described = {
    "modelspec.sai_model_spec": "1.0.1",
    "modelspec.architecture": "stable-diffusion-v1/lora",
    "modelspec.implementation": "diffusers",
    "modelspec.title": name,
    "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S"),
    "modelspec.resolution": "512x512",
    "modelspec.prediction_type": "epsilon",
}
metadata = {key: str(value) for key, value in trained.items()}
hashed = safetensors.torch.save(tensors, metadata)
start = 8 + int.from_bytes(hashed[:8], "little")
metadata |= described
metadata["sshs_model_hash"] = hashlib.sha256(hashed[start:]).hexdigest()
metadata["sshs_legacy_hash"] = hashlib.sha256(hashed[0x100000:][:0x10000]).hexdigest()[:8]
out = pathlib.Path(folder)
out.mkdir(parents=True, exist_ok=True)
safetensors.torch.save_file(tensors, out / f"{name}.safetensors", metadata)
