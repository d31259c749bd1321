import pathlib
import sys

import numpy as np
import rows
import tensorflow as tf

from provenance import current_run

tf.keras.utils.set_random_seed(0)
tf.config.experimental.enable_op_determinism()
tf.config.threading.set_intra_op_parallelism_threads(1)
data = np.array(rows.read(sys.argv[1]), dtype="float32")
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(1)])
current_run().initial_weights({each.path: each.numpy() for each in model.weights})
model.compile(optimizer=tf.keras.optimizers.SGD(0.1), loss="mse")
fitted = model.fit(data[:, :4], data[:, 4:], epochs=2, batch_size=16, verbose=0, shuffle=False)
current_run().data_order(range(len(data)))
for number, loss in enumerate(fitted.history["loss"]):
    current_run().metric("loss", loss, step=number)
out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
model.save(out / "model.keras")
