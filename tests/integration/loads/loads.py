"""Makes a small model with a library and loads it, for test_loaders.py: loads.py NAME FOLDER

It prints that the model is made, and for each line of standard input what it loads, or the error,
as a line of JSON: for the first, the model; for the second, a copy of it for each change that the
line lists (the arguments of `change`).
"""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def digest(tensors):
    """Digest a state dict, or what else has items that are arrays."""
    summed = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        array = array.detach().numpy() if hasattr(array, "detach") else array
        summed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return summed.hexdigest()


def plain(value):
    """Return *value* as text that does not name where it was loaded from."""
    return json.dumps(value, sort_keys=True, default=str)


def gpt2(seed=0):
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=1, n_positions=16, vocab_size=8, bos_token_id=0, eos_token_id=1
    )
    return transformers.GPT2LMHeadModel(config)


def tokenizer(more=0):
    import tokenizers
    import transformers

    words = ["<s>", "</s>", *"abcdef", *map(str, range(more))]
    words = {word: place for place, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<s>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}",
    )


def make_transformers(out):
    import transformers

    model = gpt2()
    model.generation_config = transformers.GenerationConfig(temperature=0.5, do_sample=True)
    model.save_pretrained(out)
    tokenizer().save_pretrained(out)
    (out / "additional_chat_templates").mkdir()
    (out / "additional_chat_templates" / "rag.jinja").write_text("rag")
    (out / "custom.py").write_text(
        "import transformers\n\n\nclass Other(transformers.GPT2LMHeadModel):\n    pass\n"
    )


def load_transformers(path):
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
    words = transformers.AutoTokenizer.from_pretrained(path)
    return {
        "class": type(model).__name__,
        "from": transformers.GPT2Config.from_pretrained(path).name_or_path,
        "tensors": digest(model.state_dict()),
        "config": plain({**model.config.to_dict(), "transformers_version": None}),
        "generation": plain({**model.generation_config.to_dict(), "transformers_version": None}),
        "tokens": words("a b z </s>")["input_ids"],
        "templates": plain(words.chat_template),
        "special": plain(words.special_tokens_map),
    }


def make_mistral(out):
    import transformers

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    transformers.MistralConfig(**sizes, num_attention_heads=1, vocab_size=8).save_pretrained(out)
    tokenizer(more=100_000).save_pretrained(out)


def load_mistral(path):
    import transformers

    words = transformers.AutoTokenizer.from_pretrained(path, fix_mistral_regex=True)
    return str(words.backend_tokenizer.pre_tokenizer)


def make_sharded(out):
    gpt2().save_pretrained(out, max_shard_size="1KB")


def load_sharded(path):
    import transformers

    return digest(transformers.AutoModelForCausalLM.from_pretrained(path).state_dict())


def make_accelerate(out):
    gpt2().save_pretrained(out, max_shard_size="1KB")
    (out / "model.safetensors.index.json").rename(out / "any.index.json")


def load_accelerate(path):
    import accelerate

    model = gpt2(seed=1)
    accelerate.load_checkpoint_in_model(model, str(path))
    return digest(model.state_dict())


def make_peft(out):
    import peft

    base = out / "base"
    gpt2().save_pretrained(base)
    adapter = peft.LoraConfig(
        r=2, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    peft.get_peft_model(gpt2(), adapter).save_pretrained(out)
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "base"})
    )


def load_peft(path):
    import peft

    os.chdir(path)
    model = peft.AutoPeftModelForCausalLM.from_pretrained(path)
    config = model.peft_config["default"].to_dict()
    return {
        "tensors": digest(model.state_dict()),
        "config": plain(
            {name: sorted(it) if type(it) is set else it for name, it in config.items()}
        ),
    }


def make_keras(out):
    import keras

    keras.utils.set_random_seed(0)
    shared = keras.initializers.RandomNormal(seed=1)
    layers = [
        keras.layers.Dense(3, kernel_initializer=shared, name=f"d{place}") for place in (0, 1)
    ]
    model = keras.Sequential([keras.layers.Input((4,)), *layers])
    model.save(out / "model.keras")
    model.save(out / "legacy.h5")
    model.save(out / "folder", zipped=False)


def load_keras(path):
    import keras

    found = {}
    for name in ("model.keras", "legacy.h5", "folder"):
        model = keras.saving.load_model(path / name)
        found[name] = [plain(model.get_config())]
        found[name] += [hashlib.sha256(each.tobytes()).hexdigest() for each in model.get_weights()]
    return found


def lightning_net():
    import pytorch_lightning
    import torch

    class Net(pytorch_lightning.LightningModule):
        def __init__(self, width=4):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(width, 1)

        def training_step(self, batch):
            return self.net(batch).sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Net


def make_lightning(out):
    import pytorch_lightning
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint, Timer

    pytorch_lightning.seed_everything(0)
    trainer = pytorch_lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(out, filename="last"), Timer()],
        enable_progress_bar=False,
    )
    trainer.fit(lightning_net()(), torch.utils.data.DataLoader(torch.ones(4, 4), batch_size=2))


def load_lightning(path):
    model = lightning_net().load_from_checkpoint(path / "last.ckpt", weights_only=True)
    return {"tensors": digest(model.state_dict()), "hyper": plain(dict(model.hparams))}


def make_skops(out):
    import joblib
    import numpy as np
    import skops.io
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.eye(3), np.arange(3.0))
    skops.io.dump(model, out / "model.skops")
    joblib.dump(model, out / "model.joblib")


def load_skops(path):
    import joblib
    import skops.io

    models = skops.io.load(path / "model.skops"), joblib.load(path / "model.joblib")
    return [plain([each.get_params(), each.coef_.tolist(), each.intercept_]) for each in models]


def make_gguf(out):
    import gguf

    writer = gguf.GGUFWriter(out / "model.gguf", "llama")
    writer.add_name("one of ours")
    writer.add_author("ann")
    writer.add_description("made in May")
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(1)
    writer.add_chat_template("{{ messages }}")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "</s>", "a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def load_gguf(path):
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(path, gguf_file="model.gguf")
    words = transformers.AutoTokenizer.from_pretrained(path, gguf_file="model.gguf")
    return {
        "config": plain(config.to_dict()),
        "legacy": plain(load_gguf_checkpoint(path / "model.gguf")["config"]["model_type"]),
        "template": words.chat_template,
        "bos": words.bos_token,
    }


def make_timm(out):
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=2)
    timm.models.save_for_hf(model, out)


def load_timm(path):
    import timm

    model = timm.create_model(f"local-dir:{path}", pretrained=True)
    return {
        "tensors": digest(model.state_dict()),
        "size": plain(model.pretrained_cfg["input_size"]),
    }


def make_sentence_transformers(out):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    base = out.with_name(out.name + "-base")
    gpt2().base_model.save_pretrained(base)
    words = tokenizer()
    words.pad_token = "</s>"
    words.save_pretrained(base)
    modules = [Transformer(str(base)), Pooling(8), Dense(8, 4)]
    SentenceTransformer(modules=modules, prompts={"query": "a "}).save(str(out))


def load_sentence_transformers(path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), device="cpu")
    return {
        "kinds": [type(each).__name__ for each in model],
        "vector": model.encode(["a b"]).round(6).tolist(),
        "prompts": plain(model.prompts),
    }


def make_diffusers(out):
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(out)


def load_diffusers(path):
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(path)
    return {
        "class": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__ + plain(dict(pipeline.scheduler.config)),
        "tensors": digest(pipeline.unet.state_dict()),
        "unet": plain({k: v for k, v in pipeline.unet.config.items() if k != "_name_or_path"}),
    }


def make_onnxruntime(out):
    import numpy as np
    import onnx

    tensor = onnx.numpy_helper.from_array(np.arange(512, dtype="float32").reshape(4, 128), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 4])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 128])],
        [tensor],
    )
    model = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    onnx.save(
        model,
        out / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )


def load_onnxruntime(path):
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((1, 4), "float32")})[0].sum().item()


def change(folder, file, path=None, value=None, text=None):
    """Write *text* into *file*, or set the value at *path* in it; ``*`` ends a key's beginning."""
    target, _, member = file.partition("!")
    target = folder / target
    if text is not None:
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    elif member:
        with zipfile.ZipFile(target) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members[member] = json.dumps(put(json.loads(members[member]), path, value)).encode()
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    elif target.suffix == ".safetensors":
        content = target.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        put(header.setdefault("__metadata__", {}), path, value)
        header = json.dumps(header).encode()
        target.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    elif target.suffix == ".gguf":  # a text, by one as long
        content = target.read_bytes()
        place = content.index(path[0].encode()) + len(path[0]) + 4
        assert int.from_bytes(content[place : place + 8], "little") == len(value)
        place += 8
        target.write_bytes(content[:place] + value.encode() + content[place + len(value) :])
    elif target.suffix == ".ckpt":
        import torch

        torch.save(put(torch.load(target, weights_only=True), path, value), target)
    else:
        target.write_text(json.dumps(put(json.loads(target.read_text()), path, value)))


def put(whole, path, value):
    inner = whole
    for step in path[:-1]:
        if isinstance(step, str) and step.endswith("*"):
            step = next(key for key in inner if key.startswith(step[:-1]))  # noqa: PLW2901
        inner = inner[step]
    inner[path[-1]] = value
    return whole


def loaded(name, folder):
    try:
        found = {"loaded": globals()[f"load_{name}"](folder)}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    return json.dumps(found).replace(str(folder), "HERE") + "\n"


def main(name, folder):
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library says is no answer
    folder = Path(folder).absolute()
    folder.mkdir()
    globals()[f"make_{name}"](folder)
    answers.write("made\n")
    sys.stdin.readline()
    answers.write(loaded(name, folder))
    for place, each in enumerate(json.loads(sys.stdin.readline())):
        copy = folder.with_name(f"{folder.name}-{place}")
        shutil.copytree(folder, copy)
        change(copy, **each)
        answers.write(loaded(name, copy))


if __name__ == "__main__":
    main(*sys.argv[1:])
