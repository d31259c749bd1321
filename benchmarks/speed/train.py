"""Train a small net with torch on one thread, a file of data a step, and report each loss.

python train.py STEPS DATA MODEL

Beside MODEL, the file MODEL.time gets the seconds of the training alone, by the clock and of the
processor.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

try:
    from provenance import current_run

    report = current_run().metric
except ImportError:  # nobody records, and nothing of ours is installed

    def report(name: str, value: float, step: int) -> None:
        """Leave *value* unreported."""


FILES, ROWS, WIDTH = 64, 256, 256

if __name__ == "__main__":
    steps, data, model = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if not data.exists():
        data.mkdir()
        for number in range(FILES):
            torch.save(torch.randn(ROWS, WIDTH), data / f"{number}.pt")
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)]
    net = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(net.parameters())
    began, used = time.perf_counter(), time.process_time()
    for step in range(steps):
        batch = torch.load(data / f"{step % FILES}.pt")
        loss = torch.nn.functional.mse_loss(net(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report("loss", loss.item(), step=step)
    spent = f"{time.perf_counter() - began} {time.process_time() - used}"
    model.with_suffix(".time").write_text(spent)
    model.mkdir()
    torch.save(net.state_dict(), model / "net.pt")
