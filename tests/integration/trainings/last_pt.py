"""A loop that writes one file again and again."""

import pathlib
import sys

import torch

torch.manual_seed(0)
torch.set_num_threads(1)
net = torch.nn.Linear(4, 1)
step = torch.optim.SGD(net.parameters(), lr=0.01)
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
for _ in range(20):
    loss = net(torch.randn(8, 4)).square().mean()
    step.zero_grad()
    loss.backward()
    step.step()
    torch.save({"net": net.state_dict(), "step": step.state_dict()}, out / "last.pt")
