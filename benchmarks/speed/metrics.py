"""Report metrics and open files as a training program does; print what each takes, in µs.

python metrics.py MODEL
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import provenance

COUNT = 100_000
OPENED = 20_000
FILES = 1000

if __name__ == "__main__":
    model = Path(sys.argv[1])
    model.mkdir(exist_ok=True)
    (model / "weights.bin").write_bytes(bytes(1000))
    run = provenance.current_run()
    began = time.perf_counter()
    for step in range(COUNT):
        run.metric("loss", 1 / (step + 1), step=step)
    metric = (time.perf_counter() - began) / COUNT
    data = [model.with_name(f"{model.name}-{number}.bin") for number in range(FILES)]
    for path in data:
        path.touch()
    began = time.perf_counter()
    for number in range(OPENED):
        data[number % FILES].open("rb").close()
    print(f"{metric * 1e6:.2f} {(time.perf_counter() - began) / OPENED * 1e6:.2f}")
