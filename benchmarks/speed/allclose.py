"""Compare two files of safetensors as a user would, with numpy; status 1: they differ.

python allclose.py LEFT RIGHT
"""

from __future__ import annotations

import sys

import ml_dtypes  # noqa: F401 - gives numpy bfloat16
import numpy as np
from safetensors import safe_open

if __name__ == "__main__":
    same = True
    left, right = (safe_open(name, framework="numpy") for name in sys.argv[1:])
    with left as one, right as two:
        for key in one.keys():  # noqa: SIM118 - no mapping
            values = (file.get_tensor(key).astype(np.float32) for file in (one, two))
            same &= np.allclose(*values)
    sys.exit(not same)
