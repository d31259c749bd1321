"""Fit estimators of scikit-learn, and print a digest of the arrays that each learned, as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings

import numpy as np
from sklearn import cluster, decomposition, ensemble, linear_model, neural_network, svm
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

JOBS = {"n_jobs": int(os.environ.get("JOBS", "1"))}
SEED = {"random_state": 0}
SOLVERS = ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")
ESTIMATORS = {
    load_digits: [
        ensemble.RandomForestClassifier(50, **SEED, **JOBS),
        linear_model.SGDClassifier(**SEED, **JOBS),
        svm.SVC(),
        cluster.KMeans(10, n_init=2, **SEED),
        decomposition.PCA(16),
        neural_network.MLPClassifier(32, max_iter=20, **SEED),
    ],
    load_diabetes: [
        ensemble.RandomForestRegressor(50, **SEED, **JOBS),
        ensemble.HistGradientBoostingRegressor(**SEED),
        linear_model.LinearRegression(),
        linear_model.Ridge(),
        linear_model.Lasso(0.1),
    ],
    load_breast_cancer: [
        ensemble.GradientBoostingClassifier(**SEED),
        ensemble.HistGradientBoostingClassifier(**SEED),
        *(linear_model.LogisticRegression(solver=it, max_iter=300, **SEED) for it in SOLVERS),
    ],
}


def learned(value, update):
    """Add the numbers in *value*, and in all that it holds, to a digest."""
    if isinstance(value, np.ndarray) and value.dtype.names:
        value = {name: value[name] for name in value.dtype.names}
    if isinstance(value, np.ndarray) and value.dtype != object:
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, float | np.floating):
        update(np.float64(value).tobytes())
    elif isinstance(value, list | tuple | np.ndarray):
        for each in value:
            learned(each, update)
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            learned(value[name], update)
    elif type(value).__module__.startswith("sklearn"):
        learned(value.__getstate__(), update)


def main():
    """Fit each estimator."""
    warnings.simplefilter("ignore")
    found = {}
    for load, estimator in ((load, it) for load, each in ESTIMATORS.items() for it in each):
        estimator.fit(*load(return_X_y=True))
        digest = hashlib.sha256()
        learned(estimator, digest.update)
        solver = getattr(estimator, "solver", "auto")
        name = type(estimator).__name__ + (f", {solver}" if solver in SOLVERS else "")
        found[name] = digest.hexdigest()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
