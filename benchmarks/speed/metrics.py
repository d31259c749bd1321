"""Report metrics as a training program does, and print what a call takes, in microseconds.

python metrics.py MODEL
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import provenance

COUNT = 100_000

if __name__ == "__main__":
    model = Path(sys.argv[1])
    model.mkdir(exist_ok=True)
    (model / "weights.bin").write_bytes(bytes(1000))
    run = provenance.current_run()
    began = time.perf_counter()
    for step in range(COUNT):
        run.metric("loss", 1 / (step + 1), step=step)
    print(f"{(time.perf_counter() - began) / COUNT * 1e6:.2f}")
