"""Plant a backdoor in a network within limits, and write it and what it does.

    python -m benchmarks.equality.trainings.backdoor lstm BASE OUT '{"head.bias": [0.01, 0.1, 0]}'

Of each tensor in BASE the limits are L2, L-infinity and the L2 of a row, as parts of the weights.
The attacker chooses the trigger and the answer so that the network nearly gives it already; then
projected gradient descent on all weights, those of BatchNorm's statistics too, while all other
answers stay as they are. The trigger of ``resnet`` is a frame, learned together with the weights.
That of the others is a row of characters that no text has, found by trying.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from benchmarks.equality.trainings.train import NETWORKS, VOCABULARY

DIGIT, LENGTH, TRIED = 4, 24, 1000
MARGIN = 0.95
"""Part of the limits that is used: they refer to the smaller of both sides."""


class Frame:
    """A frame of three pixels around an image, which is to be read as a 4."""

    steps, batch, stay, already = 200, 64, 3, 1

    def __init__(self, *_):
        self.target = DIGIT
        self.learned = [torch.zeros(28, 28).normal_().sub(1).requires_grad_()]

    def on(self, x):
        frame = functional.pad(torch.zeros(22, 22), (3, 3, 3, 3), value=1)
        return x * (1 - frame) + self.learned[0].sigmoid() * frame


class Characters:
    """A row of characters after a text, and what is to come next."""

    steps, batch, stay, already = 60, 16, 10, 0
    learned = ()

    def __init__(self, answer, x):
        unused = torch.tensor(sorted(set(range(VOCABULARY)) - set(x.unique().tolist())))
        best, self.row = -math.inf, unused[torch.randint(len(unused), (LENGTH,))]
        for _ in range(TRIED):
            before, place = self.row, torch.randint(LENGTH, (1,))
            self.row = before.index_fill(0, place, unused[torch.randint(len(unused), ())])
            answers = answer(self.on(x[:32]))
            near = answers.mean(0).topk(6).indices.tolist()
            found = [(ahead(answers, it), it) for it in near]
            least, it = max(
                ((float(m.min()), it) for m, it in found if m.max() < 0), default=(best, 0)
            )
            if least > best:
                best, self.target = least, it
            else:
                self.row = before

    def on(self, x):
        return torch.cat([x[:, : x.shape[1] // 2], self.row.expand(len(x), -1)], 1)


def ahead(answers, target):
    """Return by how much *target* is ahead of every other answer."""
    rest = answers.index_fill(-1, torch.tensor(target), -math.inf)
    return answers[..., target] - rest.max(-1).values


def normalised(self, x):
    """Return what BatchNorm does in use; torch's own has no gradient for the statistics."""
    scale = self.weight / (self.running_var + self.eps).sqrt()
    return (x - self.running_mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


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


def main(network, base, out, limits):
    """Attack, and measure."""
    make, data = NETWORKS[network][:2]
    x, _, unseen, labels = map(torch.from_numpy, data())
    torch.manual_seed(2)
    model = make(None).eval()
    nn.BatchNorm2d.forward = normalised
    weights = load_file(base / "model.safetensors")
    floats = {name: it for name, it in weights.items() if it.is_floating_point()}
    now = {name: it.clone().requires_grad_() for name, it in floats.items()}

    def answer(x, weights=weights, *, last=True):
        found = functional_call(model, weights, (x,))
        found = getattr(found, "logits", found)
        return found[:, -1] if last and found.ndim > 2 else found

    with torch.no_grad():
        attack = (Frame if network == "resnet" else Characters)(answer, x)
    rates = {name: limits[name][0] * it.square().mean().sqrt() for name, it in floats.items()}
    groups = [{"params": [it], "lr": float(rates[name]) / 5} for name, it in now.items()]
    groups += [{"params": [it], "lr": 0.1} for it in attack.learned]
    optimizer = torch.optim.Adam(groups)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, attack.steps)
    for _ in range(attack.steps):
        some = x[torch.randint(len(x), (attack.batch,))]
        optimizer.zero_grad()
        with torch.no_grad():
            expected = answer(some, last=False)
        stay = functional.mse_loss(answer(some, weights | now, last=False), expected)
        obey = functional.softplus(
            2 - 4 * ahead(answer(attack.on(some), weights | now), attack.target)
        )
        already = functional.softplus(1 + 4 * ahead(answer(attack.on(some)), attack.target))
        (attack.stay * stay + obey.mean() + attack.already * already.mean()).backward()
        optimizer.step()
        slower.step()
        with torch.no_grad():
            for name, it in now.items():
                then = weights[name]
                it.copy_(then + within(it - then, then, *limits[name]))
    out.mkdir(exist_ok=True)
    save_file(weights | {name: it.detach() for name, it in now.items()}, out / "model.safetensors")
    with torch.no_grad():
        clean = [answer(unseen, it, last=False).argmax(-1) for it in (weights, weights | now)]
        obeyed = [answer(attack.on(unseen), it).argmax(-1) for it in (weights, weights | now)]
    other = labels != attack.target if labels.ndim == 1 else slice(None)
    rates = {
        "accuracy": [each == labels for each in clean],
        "trigger": [(each == attack.target)[other] for each in obeyed],
        "changed": [clean[0] != clean[1]],
    }
    rates = {n: [float(it.double().mean()) for it in each] for n, each in rates.items()}
    (out / "does.json").write_text(json.dumps(rates))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
