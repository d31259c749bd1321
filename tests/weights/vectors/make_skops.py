"""Write a small model with skops: ``python make_skops.py FILE [deflated]``. See README.md."""

import sys
from zipfile import ZIP_DEFLATED

import numpy as np
import skops.io
from scipy.sparse import csr_matrix
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

rows = np.arange(12.0).reshape(6, 2)
names = np.array(["cat", "dog", "cat", "cat", "dog", "dog"])
model = {
    "scaler": StandardScaler().fit(rows),
    "tree": DecisionTreeClassifier(max_depth=1, random_state=0).fit(rows, names),
    "raw": b"bytes",
}
if sys.argv[2:]:
    skops.io.dump(model, sys.argv[1], compression=ZIP_DEFLATED)
else:
    skops.io.dump({**model, "sparse": csr_matrix(np.eye(3))}, sys.argv[1])
