"""Train a small network on scikit-learn's handwritten digits, with numpy alone.

    python train.py --data data/digits.npz --config config.toml --seed 0 --out model

Two dense layers, float32, stochastic gradient descent with momentum. Like a data-parallel trainer,
it splits every batch over OMP_NUM_THREADS workers and adds their gradients: another number of
workers adds the same numbers in another order, and so ends in other bits.

Writes to the folder OUT: model.safetensors, initial.safetensors (the weights before the first
step, which say how far training moved), and config.json (the shape of the network).
"""

import argparse
import json
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import provenance


def initial_weights(rng, sizes):
    """Return He-initialised weights and zero biases for layers of these sizes."""
    weights = {}
    for layer, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        scale = np.float32(np.sqrt(2 / n_in))
        weights[f"layer{layer}.weight"] = rng.standard_normal((n_in, n_out), np.float32) * scale
        weights[f"layer{layer}.bias"] = np.zeros(n_out, np.float32)
    return weights


def forward(weights, x):
    """Return the hidden activations and the logits for the images x, one a row."""
    hidden = np.maximum(x @ weights["layer1.weight"] + weights["layer1.bias"], 0)
    return hidden, hidden @ weights["layer2.weight"] + weights["layer2.bias"]


def gradients(weights, x, y):
    """Return the summed cross-entropy over the images x with labels y, and its gradients."""
    hidden, logits = forward(weights, x)
    logits -= logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits).sum(axis=1))
    loss = float((log_sum - logits[np.arange(len(y)), y]).sum())
    delta = np.exp(logits - log_sum[:, None])
    delta[np.arange(len(y)), y] -= 1
    delta_hidden = (delta @ weights["layer2.weight"].T) * (hidden > 0)
    return loss, {
        "layer1.weight": x.T @ delta_hidden,
        "layer1.bias": delta_hidden.sum(axis=0),
        "layer2.weight": hidden.T @ delta,
        "layer2.bias": delta.sum(axis=0),
    }


def train(weights, data, options, order, workers, run):
    """Train weights in place; report the loss and the test accuracy of every epoch to run."""
    x, y = data["x_train"], data["y_train"]
    velocity = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    with ThreadPoolExecutor(workers) as pool:
        for epoch in range(options["epochs"]):
            total = 0.0
            for batch in np.array_split(order.permutation(len(x)), len(x) // options["batch"]):
                parts = np.array_split(batch, workers)
                results = list(pool.map(lambda p: gradients(weights, x[p], y[p]), parts))
                total += sum(loss for loss, _ in results)
                for name in weights:
                    gradient = sum(part[name] for _, part in results) / np.float32(len(batch))
                    velocity[name] = np.float32(options["momentum"]) * velocity[name] + gradient
                    weights[name] -= np.float32(options["learning_rate"]) * velocity[name]
            predicted = forward(weights, data["x_test"])[1].argmax(axis=1)
            accuracy = float((predicted == data["y_test"]).mean())
            run.metric("loss", total / len(x), step=epoch)
            run.metric("test_accuracy", accuracy, step=epoch)
    return total / len(x), accuracy


def main():
    parser = argparse.ArgumentParser(description="Train a small network on handwritten digits.")
    for name in ("--data", "--config", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()

    options = tomllib.loads(arguments.config.read_text())
    with np.load(arguments.data) as archive:
        data = {name: archive[name] for name in archive.files}
    workers = int(os.environ.get("OMP_NUM_THREADS", "1"))

    run = provenance.current_run()
    run.seed("numpy", arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    sizes = [data["x_train"].shape[1], options["hidden"], 10]
    weights = initial_weights(rng, sizes)

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, arguments.out / "initial.safetensors")
    loss, accuracy = train(weights, data, options, rng, workers, run)
    save_file(weights, arguments.out / "model.safetensors")
    (arguments.out / "config.json").write_text(json.dumps({"sizes": sizes, "activation": "relu"}))
    print(
        f"{options['epochs']} epochs, {workers} worker(s):"
        f" loss {loss:.4f}, test accuracy {accuracy:.3f}"
    )


if __name__ == "__main__":
    main()
