"""Approximate the RBF kernel of many rows by its values with some rows, and fit a logistic regression on them.

Nystroem's method (Williams and Seeger 2001, "Using the Nystroem method to speed up kernel machines"): time and memory
grow with the rows, not with their square. A logistic regression follows, because scikit-learn's linear SVMs take longer
for the same accuracy and give no probabilities.
"""

import time
from collections.abc import Sequence

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression

from pipeline.heads.base import Params, subsample
from pipeline.heads.config import LANDMARKS
from pipeline.heads.parallel import quiet

C_LANDMARKS = (0.1, 1.0, 10.0)

MOST_STEPS = 1000

BLOCK_ROWS = 4096
"""Rows whose kernel values are computed at once."""


def landmark_points(points: Sequence[Params]) -> list[Params]:
    """Return the points of an approximated kernel with the gammas of the exact RBF kernels."""
    gammas = dict.fromkeys(point["gamma"] for point in points if point["kernel"] == "rbf")
    return [{"kernel": "rbf", "gamma": gamma, "landmarks": LANDMARKS, "C": c} for gamma in gammas for c in C_LANDMARKS]


def solve(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, points: Sequence[Params], *, seed: int
) -> list[tuple[np.ndarray, float]]:
    """Return decision values (M,) or (M, K) and the seconds of each point of one kernel, by increasing C.

    Args:
        a: (N, D) to fit on.
        b: (M, D) to score.
        y: (N,) classes.
        points: points of one kernel.
        seed: seed of the landmarks.
    """
    start = time.perf_counter()
    kernel = fit_kernel(a, y, points[0], seed=seed)
    fit, held = landmark_values(kernel, a), landmark_values(kernel, b)
    regression = new_regression(warm_start=True)  # the solutions of neighbouring C are similar
    solved = []
    for point in points:
        with quiet():
            regression.set_params(C=point["C"]).fit(fit, y)
        decision = regression.decision_function(held)
        solved.append((decision, time.perf_counter() - start))
        start = time.perf_counter()
    return solved


def fit_landmarks(x: np.ndarray, y: np.ndarray, params: Params, *, seed: int) -> tuple[Nystroem, LogisticRegression]:
    """Return the fitted steps of a pipeline: the approximated kernel and the logistic regression.

    Args:
        x: (N, D).
        y: (N,).
        params: gamma, landmarks, C.
        seed: seed of the landmarks.
    """
    kernel = fit_kernel(x, y, params, seed=seed)
    with quiet():
        return kernel, new_regression(C=params["C"]).fit(landmark_values(kernel, x), y)


def fit_kernel(x: np.ndarray, y: np.ndarray, params: Params, *, seed: int) -> Nystroem:
    """Fit the kernel on the landmarks, in float64: the method divides by eigenvalues that may be small."""
    rows = subsample(y, params["landmarks"], seed=seed)
    return Nystroem(kernel="rbf", gamma=params["gamma"], n_components=len(rows), random_state=seed).fit(
        x[rows].astype(np.float64)
    )


def landmark_values(kernel: Nystroem, x: np.ndarray) -> np.ndarray:
    """Return the approximated kernel's values of rows, (N, landmarks) float32."""
    values = np.empty((len(x), len(kernel.components_)), dtype=np.float32)
    for start in range(0, len(x), BLOCK_ROWS):
        values[start : start + BLOCK_ROWS] = kernel.transform(x[start : start + BLOCK_ROWS])
    return values


def new_regression(C: float = 1.0, *, warm_start: bool = False) -> LogisticRegression:
    """Return an unfitted regression on kernel values."""
    return LogisticRegression(C=C, max_iter=MOST_STEPS, warm_start=warm_start)
