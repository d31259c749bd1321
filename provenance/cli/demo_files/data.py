"""Write scikit-learn's handwritten digits, split for training and testing, to the file DATA.

python data.py DATA
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def main():
    path = Path(sys.argv[1])
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(123).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x_train=x[:1437], y_train=y[:1437], x_test=x[1437:], y_test=y[1437:])
    print(f"{len(x)} images of 8 x 8 pixels: 1437 to train on, {len(x) - 1437} to test on")


if __name__ == "__main__":
    main()
