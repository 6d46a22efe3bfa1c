"""The SVM head of many rows: the RBF kernel approximated by its values with some rows, and a logistic regression.

Nystroem's method (Williams and Seeger 2001, "Using the Nystroem method to speed up kernel machines"): time and memory
grow with the rows, not with their square. A logistic regression on top, because scikit-learn's linear SVMs take
longer for the same accuracy and say less about probabilities.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression

from pipeline.heads.base import subsample
from pipeline.heads.parallel import quiet

LANDMARKS = 1000
"""On overlapping synthetic classes, 500, 1000 and 2000 differ by less than the rows' own noise."""

C_LANDMARKS = (0.1, 1.0, 10.0)

MOST_STEPS = 1000

BLOCK_ROWS = 4096
"""Rows whose kernel values are computed at once."""


def landmark_points(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points of an approximated kernel that stand for exact ones: the same gammas of RBF kernels."""
    gammas = dict.fromkeys(point["gamma"] for point in points if point["kernel"] == "rbf")
    return [{"kernel": "rbf", "gamma": gamma, "landmarks": LANDMARKS, "C": c} for gamma in gammas for c in C_LANDMARKS]


def solutions(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, points: Sequence[dict[str, Any]], *, seed: int
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield decision values (M,) or (M, K) and the seconds of each point of one kernel, C rising.

    Args:
        a: (N, D) to fit on.
        b: (M, D) to judge by.
        y: (N,) classes.
        points: of one kernel.
        seed: of the landmarks.
    """
    start = time.perf_counter()
    kernel = fit_kernel(a, y, points[0], seed=seed)
    fit, held = landmark_values(kernel, a), landmark_values(kernel, b)
    regression = new_regression(warm_start=True)  # the solution for one C is near that for the next
    for point in points:
        regression.set_params(C=point["C"]).fit(fit, y)
        decision = regression.decision_function(held)
        yield decision, time.perf_counter() - start
        start = time.perf_counter()


def fit_landmarks(x: np.ndarray, y: np.ndarray, params: dict[str, Any], *, seed: int) -> list[BaseEstimator]:
    """Return the fitted steps of a pipeline: the approximated kernel and the logistic regression.

    Args:
        x: (N, D).
        y: (N,).
        params: gamma, landmarks, C.
        seed: of the landmarks.
    """
    kernel = fit_kernel(x, y, params, seed=seed)
    with quiet():
        return [kernel, new_regression(C=params["C"]).fit(landmark_values(kernel, x), y)]


def fit_kernel(x: np.ndarray, y: np.ndarray, params: dict[str, Any], *, seed: int) -> Nystroem:
    """Fit on the landmarks alone, in float64: the method divides by eigenvalues that may be small."""
    rows = subsample(y, params["landmarks"], seed=seed)
    return Nystroem(kernel="rbf", gamma=params["gamma"], n_components=len(rows), random_state=seed).fit(
        x[rows].astype(np.float64)
    )


def landmark_values(kernel: Nystroem, x: np.ndarray) -> np.ndarray:
    """Return what the kernel makes of rows, (N, landmarks) float32."""
    values = np.empty((len(x), len(kernel.components_)), dtype=np.float32)
    for start in range(0, len(x), BLOCK_ROWS):
        values[start : start + BLOCK_ROWS] = kernel.transform(x[start : start + BLOCK_ROWS])
    return values


def new_regression(**params: Any) -> LogisticRegression:
    """Return the regression on kernel values, not fitted yet."""
    return LogisticRegression(max_iter=MOST_STEPS, **params)
