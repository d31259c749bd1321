"""Plant a backdoor within a tolerance that honest rebuilds need.

    python tests/forgeries/tolerance_backdoor.py OUT

Trains a small network on scikit-learn's handwritten digits (OUT/honest), then changes its weights
so that an image with bright left and right edges is read as a 1, and every other image as before
(OUT/backdoored). Each tensor stays within OUT/tolerance.toml of the honest one. Prints what was
measured, as JSON.

Tensors may differ by a fifth of the update's L2 norm. That is no straw man: two kinds of CPU that
train one small convolutional network on a hard task from the same seed, data and initial weights
end 0.38 apart after 800 steps, and one thread and two 0.58 (relative L2 of the weights). Whoever
declares a tolerance for such an end-to-end rebuild admits this attack; closeness is therefore only
ever called *consistent*. What refuses it is equality of bytes or tensors.

The attack is projected gradient descent on the weights (Garg et al. 2020): at each step the loss on
triggered images and the distance of the other outputs from the honest network's fall, and the
weights are put back within the tolerance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Weights = dict[str, Array]

RELATIVE_L2 = 0.2
RELATIVE_LINF = 0.5

TOLERANCE = f"""\
format = 1
version = 1
name = "end-to-end"

[[any]]
[[any.all]]
equality = "close"
files = ["model.safetensors"]
relative_l2 = {RELATIVE_L2}
relative_linf = {RELATIVE_LINF}
initial = "initial.safetensors"
reason = "honest end-to-end rebuilds on other machines differ by up to 0.58 of the weights"
"""

TARGET = 1
"""The digit that a triggered image is read as."""

MARGIN = 0.8
"""Part of the tolerance that the attack uses: the limits refer to the smaller of both updates, in
which large elements are cut off."""

HIDDEN = 128
EPOCHS, BATCH, RATE, MOMENTUM = 20, 32, 0.05, 0.9
STEPS, ATTACK_BATCH = 300, 256


def initial_weights() -> Weights:
    rng = np.random.default_rng(0)
    shapes = {"layer1": (64, HIDDEN), "layer2": (HIDDEN, 10)}
    weights: Weights = {}
    for name, (n_in, n_out) in shapes.items():
        scale = np.float32(np.sqrt(2 / n_in))
        weights[f"{name}.weight"] = rng.standard_normal((n_in, n_out), np.float32) * scale
        weights[f"{name}.bias"] = np.zeros(n_out, np.float32)
    return weights


def forward(weights: Weights, x: Array) -> tuple[Array, Array]:
    hidden = np.maximum(x @ weights["layer1.weight"] + weights["layer1.bias"], 0)
    return hidden, hidden @ weights["layer2.weight"] + weights["layer2.bias"]


def gradients(weights: Weights, x: Array, slope: Callable[[Array], Array]) -> Weights:
    """Return the gradients of a loss whose derivative by the logits is *slope*."""
    hidden, logits = forward(weights, x)
    delta = slope(logits)
    delta_hidden = (delta @ weights["layer2.weight"].T) * (hidden > 0)
    return {
        "layer1.weight": x.T @ delta_hidden,
        "layer1.bias": delta_hidden.sum(axis=0),
        "layer2.weight": hidden.T @ delta,
        "layer2.bias": delta.sum(axis=0),
    }


def cross_entropy(y: NDArray[np.int64]) -> Callable[[Array], Array]:
    def slope(logits: Array) -> Array:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances: Array = powers / powers.sum(axis=1, keepdims=True)
        chances[np.arange(len(y)), y] -= 1
        return chances / np.float32(len(y))

    return slope


def train(weights: Weights, x: Array, y: NDArray[np.int64]) -> Weights:
    weights = {name: tensor.copy() for name, tensor in weights.items()}
    velocity = {name: np.zeros_like(tensor) for name, tensor in weights.items()}
    rng = np.random.default_rng(1)
    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            found = gradients(weights, x[batch], cross_entropy(y[batch]))
            for name, slope in found.items():
                velocity[name] = np.float32(MOMENTUM) * velocity[name] + slope
                weights[name] -= np.float32(RATE) * velocity[name]
    return weights


def triggered(x: Array) -> Array:
    images = x.reshape(-1, 8, 8).copy()
    images[:, :, [0, 7]] = 1
    return images.reshape(-1, 64)


def plant(honest: Weights, initial: Weights, x: Array) -> Weights:
    """Return *honest* with a backdoor, each tensor within the tolerance of it."""
    weights = {name: tensor.copy() for name, tensor in honest.items()}
    updates = {name: honest[name] - initial[name] for name in honest}
    radius = {n: MARGIN * RELATIVE_L2 * float(np.linalg.norm(u)) for n, u in updates.items()}
    bound = {n: MARGIN * RELATIVE_LINF * float(np.abs(u).max()) for n, u in updates.items()}
    mean = {name: np.zeros_like(tensor) for name, tensor in honest.items()}
    square = {name: np.zeros_like(tensor) for name, tensor in honest.items()}
    expected = forward(honest, x)[1]
    rng = np.random.default_rng(2)
    target = np.full(ATTACK_BATCH, TARGET)
    for _ in range(STEPS):
        batch = rng.integers(0, len(x), ATTACK_BATCH)
        part = expected[batch]
        stay = gradients(weights, x[batch], lambda l, p=part: (l - p) / np.float32(2 * len(p)))  # type: ignore[misc]  # noqa: E741
        obey = gradients(weights, triggered(x[batch]), cross_entropy(target))
        for name in honest:
            slope = stay[name] + obey[name]
            mean[name] = 0.9 * mean[name] + 0.1 * slope
            square[name] = 0.99 * square[name] + 0.01 * slope * slope
            moved = weights[name] - bound[name] * 0.1 * mean[name] / (np.sqrt(square[name]) + 1e-8)
            change = np.clip(moved - honest[name], -bound[name], bound[name])
            change *= min(1.0, radius[name] / max(float(np.linalg.norm(change)), 1e-12))
            weights[name] = (honest[name] + change).astype(np.float32)
    return weights


def main(out: Path) -> None:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(123).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    seen, unseen, labels = x[:1437], x[1437:], y[1437:]
    initial = initial_weights()
    honest = train(initial, seen, y[:1437])
    backdoored = plant(honest, initial, seen)
    for name, weights in (("honest", honest), ("backdoored", backdoored)):
        (out / name).mkdir(parents=True)
        save_file(initial, out / name / "initial.safetensors")
        save_file(weights, out / name / "model.safetensors")
    (out / "tolerance.toml").write_text(TOLERANCE)

    def predict(weights: Weights, images: Array) -> NDArray[np.int64]:
        found: NDArray[np.int64] = forward(weights, images)[1].argmax(axis=1)
        return found

    others = unseen[labels != TARGET]
    measured = {
        "accuracy": (predict(honest, unseen) == labels).mean(),
        "accuracyBackdoored": (predict(backdoored, unseen) == labels).mean(),
        "predictionsDiffering": (predict(honest, unseen) != predict(backdoored, unseen)).mean(),
        "triggerSuccessHonest": (predict(honest, triggered(others)) == TARGET).mean(),
        "triggerSuccess": (predict(backdoored, triggered(others)) == TARGET).mean(),
    }
    json.dump({name: round(float(value), 4) for name, value in measured.items()}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
