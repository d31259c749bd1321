"""What ranks do: end, be killed while another has ended, or fail once and go on from step 2."""

import os
import pathlib
import signal
import sys
import time

import torch

from provenance import current_run

how, model = sys.argv[1], pathlib.Path(sys.argv[2])
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
current_run().seed("torch", 7 + rank)
torch.manual_seed(7 + rank)
for step in range(2 if attempt else 0, 6):
    current_run().metric("loss", 6 - step + 10 * attempt, step=step)
    if how == "fails" and rank == attempt == 0 and step == 3:
        sys.exit(3)
pid = pathlib.Path("__pycache__/pid")
if rank == 0:
    model.mkdir(exist_ok=True)
    torch.save(torch.nn.Linear(4, 1).state_dict(), model / "net.pt")
    pid.parent.mkdir(exist_ok=True)
    pid.with_suffix(".new").write_text(str(os.getpid()))
    pid.with_suffix(".new").rename(pid)
elif how == "killed":
    while not pid.exists() or pathlib.Path("/proc", pid.read_text()).exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
