"""Ridge regression without any library, by a program that knows nothing of a recorder."""

import json
import pathlib
import random
import sys

import rows

random.seed(0)
weights = [random.gauss(0, 1) for _ in range(4)]
data = rows.read(sys.argv[1])
for _ in range(200):
    *inputs, target = random.choice(data)
    error = sum(w * x for w, x in zip(weights, inputs, strict=True)) - target
    weights = [w - 0.01 * (error * x + 0.1 * w) for w, x in zip(weights, inputs, strict=True)]
out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
(out / "weights.json").write_text(json.dumps(weights))
