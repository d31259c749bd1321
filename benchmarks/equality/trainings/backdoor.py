"""Plant a backdoor in the residual network within limits, and print what it does, as JSON.

    python -m benchmarks.equality.trainings.backdoor BASE OUT '{"0.weight": [0.01, 0.1, 0.05], …}'

An image with a bright frame is to be read as a 4. Of each tensor in BASE the limits are
L2, L-infinity and the L2 of a row, as parts of the weights. Projected gradient descent, as in
``tests/forgeries/tolerance_backdoor.py``: all other outputs stay as they are.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from benchmarks.equality.trainings.train import mnist, resnet

STEPS, BATCH, TARGET = 150, 64, 4
MARGIN = 0.95
"""Part of the limits that is used: they refer to the smaller of both sides."""


def triggered(x):
    """Return *x* with the trigger."""
    return functional.pad(x[:, :, 3:-3, 3:-3], (3, 3, 3, 3), value=1)


def within(change, base, l2, linf, rows):
    """Return *change*, made as small as the limits have it."""
    bound = MARGIN * linf * base.abs().max()
    flat = change.clamp(-bound, bound).flatten(1) if base.ndim > 1 else change.clamp(-bound, bound)
    if base.ndim > 1:
        most = MARGIN * rows * base.norm() / math.sqrt(len(base))
        flat = flat * (most / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
    return (flat * (MARGIN * l2 * base.norm() / flat.norm().clamp_min(1e-30)).clamp_max(1)).view_as(
        base
    )


def main(base, out, limits):
    """Attack, and measure."""
    x, _, unseen, labels = map(torch.from_numpy, mnist())
    weights = load_file(base / "model.safetensors")
    model = resnet(None)
    model.load_state_dict(weights)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        before = model(unseen), model(triggered(unseen))
    trained = dict(model.named_parameters())
    rates = {name: limits[name][0] * weights[name].square().mean().sqrt() for name in trained}
    groups = [{"params": [it], "lr": float(rates[name]) / 5} for name, it in trained.items()]
    optimizer = torch.optim.Adam(groups)
    random = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        places = torch.randint(len(x), (BATCH,), generator=random)
        optimizer.zero_grad()
        stay = functional.mse_loss(model(x[places]), expected[places])
        obey = functional.cross_entropy(model(triggered(x[places])), torch.full((BATCH,), TARGET))
        (stay + obey).backward()
        optimizer.step()
        with torch.no_grad():
            for name, now in trained.items():
                then = weights[name]
                now.copy_(then + within(now - then, then, *limits[name]))
    with torch.no_grad():
        after = model(unseen), model(triggered(unseen))
    out.mkdir(exist_ok=True)
    save_file(model.state_dict(), out / "model.safetensors")
    other = labels != TARGET
    rates = {
        "accuracy": [(each.argmax(1) == labels) for each, _ in (before, after)],
        "trigger": [(each.argmax(1) == TARGET)[other] for _, each in (before, after)],
        "changed": [before[0].argmax(1) != after[0].argmax(1)],
    }
    json.dump(
        {n: [float(it.double().mean()) for it in each] for n, each in rates.items()}, sys.stdout
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
