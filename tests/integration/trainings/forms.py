"""Ship a small model in the forms in which models are shipped, each made by its own library."""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import save_file

torch.manual_seed(0)
out = Path(sys.argv[1])
out.mkdir(exist_ok=True)
layers = [torch.nn.Embedding(64, 32), torch.nn.Linear(32, 256), torch.nn.LayerNorm(256)]
model = torch.nn.Sequential(*layers, torch.nn.Linear(256, 64, bias=False))
state = model.state_dict()
state["3.weight"][0, :3] = torch.tensor([1e-41, -0.0, 1 + 2**-8 + 2**-20])
state["1.bias"][0] = 3.0e38

save_file(state, out / "wide.safetensors")
save_file({name: it.to(torch.bfloat16) for name, it in state.items()}, out / "m.safetensors")
torch.save({name: it.to(torch.bfloat16) for name, it in state.items()}, out / "bf16.pt")
torch.save({name: it.half() for name, it in state.items()}, out / "f16.pt")

NAMES = {
    "0.weight": "token_embd.weight",
    "1.weight": "blk.0.ffn_up.weight",
    "1.bias": "blk.0.ffn_up.bias",
    "2.weight": "output_norm.weight",
    "2.bias": "output_norm.bias",
    "3.weight": "output.weight",
}
for kind in (Kind.BF16, Kind.Q8_0, Kind.Q4_0):
    writer = gguf.GGUFWriter(out / f"{kind.name}.gguf", "llama")
    writer.add_file_type(int(getattr(gguf.LlamaFileType, f"MOSTLY_{kind.name}")))
    for name, tensor in state.items():
        array = tensor.numpy()
        if array.ndim == 1:
            writer.add_tensor(NAMES[name], array)
        else:
            codes = gguf.quants.quantize(array, kind)
            writer.add_tensor(NAMES[name], codes.view(np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
