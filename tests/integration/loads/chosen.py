"""Asks a library which weights of a folder it takes, for test_loaders.py: chosen.py NAME FOLDER

Each file holds another number. It prints a line of JSON for what the library takes of all, of what
remains without that, and so on until nothing is taken: the names that are there, and the number of
the file that was loaded, or null.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

DECOYS = (
    "tf_model.safetensors", "flax_model.safetensors", "model.fp16.safetensors", "consolidated.pth",
)  # fmt: skip
FILES = {
    "transformers": (
        "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
        "pytorch_model.bin.index.json", "adapter_model.safetensors", *DECOYS,
    ),
    "accelerate": ("model.safetensors", "pytorch_model.bin", "any.safetensors.index.json", *DECOYS),
    "diffusers": (
        "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.fp16.safetensors", "model.safetensors", *DECOYS,
    ),
    "diffusers (LoRA)": (
        "pytorch_lora_weights.safetensors", "x.safetensors", "pytorch_lora_weights.bin", "y.bin",
    ),
    "PEFT": ("adapter_model.safetensors", "adapter_model.bin", "model.safetensors", *DECOYS),
    "timm": (
        "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
        "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth", "b.safetensors",
        "a.safetensors", "b.pth", "c.pth.tar", "d.bin", "e.pt", *DECOYS,
    ),
    "sentence-transformers": ("model.safetensors", "pytorch_model.bin", *DECOYS),
}  # fmt: skip
"""By loader: files that lie in the folder, those of an index with one shard."""


def state_of(name, number):
    """Return the weights that say *number*."""
    import torch

    if name != "transformers":
        return {"w": torch.full((1,), float(number))}
    from loads import gpt2

    state = dict(gpt2().state_dict())
    state.pop("lm_head.weight")
    return {**state, "transformer.ln_f.bias": torch.full((8,), float(number))}


def write(folder, file, state):
    import torch
    from safetensors.torch import save_file

    if file.endswith(".index.json"):
        stem, _, suffix = file.removesuffix(".index.json").rpartition(".")
        shard = f"{stem}-00001-of-00001.{suffix}"
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(state, shard)}
        (folder / file).write_text(json.dumps(index))
        file = shard
    if file.endswith(".safetensors"):
        save_file(state, folder / file, metadata={"format": "pt"})
    else:
        torch.save(state, folder / file)


def load(name, folder):
    """Return the number of what the library *name* loads."""
    if name == "transformers":
        import transformers

        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
        return model.transformer.ln_f.bias[0].item()
    if name == "accelerate":
        model = holder()
        import accelerate

        accelerate.load_checkpoint_in_model(model, folder)
        return model.w.item()
    if name == "diffusers":
        return diffusers_model().from_pretrained(folder).w.item()
    if name == "diffusers (LoRA)":
        from diffusers.loaders.lora_base import _fetch_state_dict

        names = "local_files_only cache_dir force_download proxies token revision subfolder"
        others = {**dict.fromkeys([*names.split(), "user_agent"]), "allow_pickle": True}
        state = _fetch_state_dict(str(folder), None, use_safetensors=True, **others)[0]
    elif name == "PEFT":
        from peft.utils import load_peft_weights

        state = load_peft_weights(str(folder), device="cpu")
    elif name == "timm":
        from timm.models._hub import load_state_dict_from_path

        state = load_state_dict_from_path(folder)
    else:
        from sentence_transformers.base.modules import Module

        state = Module.load_torch_weights(str(folder), local_files_only=True)
    return state["w"].item()


def holder():
    import torch

    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.zeros(1))
    return model


def diffusers_model():
    import diffusers
    import torch
    from diffusers.configuration_utils import register_to_config

    class Tiny(diffusers.ModelMixin, diffusers.ConfigMixin):
        @register_to_config
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

    return Tiny


def main(name, folder):
    folder.mkdir()
    for number, file in enumerate(FILES[name], 1):
        write(folder, file, state_of(name, number))
    if name == "transformers":
        from loads import gpt2

        gpt2().config.save_pretrained(folder)
    if name == "diffusers":
        (folder / "config.json").write_text('{"_class_name": "Tiny"}')
    taken = name
    while taken is not None:
        there = sorted(file.name for file in folder.iterdir())
        try:
            taken = FILES[name][round(load(name, folder)) - 1]
        except Exception as error:
            sys.stderr.write(f"{error!r}\n")
            taken = None
        sys.stdout.write(json.dumps([there, taken]) + "\n")
        if taken is not None:
            shard = taken.removesuffix(".index.json").replace(".", "-00001-of-00001.")
            for file in {taken, shard} if taken.endswith(".index.json") else {taken}:
                (folder / file).unlink()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
