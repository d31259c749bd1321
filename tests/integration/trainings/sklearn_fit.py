import pathlib
import pickle
import sys

import rows
from sklearn.linear_model import LogisticRegression

from provenance import current_run

data = rows.read(sys.argv[1])
inputs, labels = [row[:4] for row in data], [row[4] > 0 for row in data]
fitted = LogisticRegression(random_state=0).fit(inputs, labels)
current_run().metric("accuracy", fitted.score(inputs, labels))
out = pathlib.Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
(out / "fitted.pickle").write_bytes(pickle.dumps(fitted))
