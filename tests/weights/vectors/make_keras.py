"""Train a small model and save it: ``python make_keras.py FOLDER NAME``. See README.md."""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers

folder = Path(sys.argv[1])
keras.utils.set_random_seed(1)
penalty = keras.regularizers.L2(0.01)  # an object that two layers share
model = keras.Sequential(
    [
        layers.Input((3, 2)),
        layers.Dense(2, kernel_regularizer=penalty),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(1, kernel_regularizer=penalty),
    ]
)
model.compile("sgd", "mse")
model.fit(np.ones((4, 3, 2)), np.ones((4, 1)), verbose=0)
model.save(folder / f"{sys.argv[2]}.keras")
model.save(folder / f"{sys.argv[2]}.h5")
