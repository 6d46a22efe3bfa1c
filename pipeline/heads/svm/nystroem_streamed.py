"""Fit the SVM head of streamed rows: standardise, compute kernel values with landmarks, and regress block by block.

The pipeline is that of `pipeline.heads.svm.nystroem`, fitted by passes over the file: mean and deviation, kernel values
with the landmarks (written to disk), and L-BFGS, which sums the loss over all blocks in each step. It stops by
scikit-learn's rule, so that the weights equal those of a fit in memory to its tolerance.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.heads.base import Params, Step, nothing, subsample
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.classifier import Svm
from pipeline.storage import atomic

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Function that starts a pass over (B, L) kernel values and (B,) classes."""


def fit_streamed(rows: StreamedRows, params: Params, *, seed: int, on_pass: Step = nothing) -> Svm:
    """Fit a point of an approximated kernel on all rows.

    Args:
        rows: rows to fit on.
        params: gamma, landmarks, C.
        seed: seed of the landmarks.
        on_pass: called after each pass.

    Raises:
        DiskFull: no room for the kernel values, 4 bytes each.
    """
    scaler = StandardScaler()
    for _, block in rows.blocks():
        scaler.partial_fit(block.features)
    on_pass()
    chosen = subsample(rows.y, params["landmarks"], seed=seed)
    x = scaler.transform(rows.take(chosen).read().features)
    kernel = nystroem.fit_kernel(x, rows.y[chosen], params | {"landmarks": len(chosen)}, seed=seed)
    path = rows.cache / "kernel-values"
    try:
        _write_values(path, rows, scaler, kernel)
        on_pass()
        regression = fit_regression(
            lambda: _read_values(path, rows, len(chosen)), rows.y, n_weights=len(chosen), C=params["C"], on_pass=on_pass
        )
    finally:
        path.unlink(missing_ok=True)
    return Svm(make_pipeline(scaler, kernel, regression))


def _write_values(path: Path, rows: StreamedRows, scaler: StandardScaler, kernel: Nystroem) -> None:
    """Write the kernel values of all rows with the landmarks, (N, L) float32."""
    atomic.check_room_by_trying(path, 4 * len(rows.y) * len(kernel.components_))
    with atomic.disk_errors(path), path.open("wb") as file:
        for _, block in rows.blocks():
            file.write(nystroem.landmark_values(kernel, scaler.transform(block.features)).data)


def _read_values(path: Path, rows: StreamedRows, n_weights: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with path.open("rb") as file:
        for start in range(0, len(rows.y), rows.block_rows):
            y = rows.y[start : start + rows.block_rows]
            yield np.fromfile(file, np.float32, len(y) * n_weights).reshape(len(y), n_weights), y


def fit_regression(
    blocks: Blocks, y: np.ndarray, *, n_weights: int, C: float, on_pass: Step = nothing
) -> LogisticRegression:
    """Return the solution of `LogisticRegression(C=C).fit`, with the loss summed block by block.

    It minimises the function of scikit-learn's lbfgs: the mean loss plus |w|^2 / (2 C N), over weights and intercepts.
    Two classes have one score, more classes one score each.

    Args:
        blocks: starts a pass over all rows.
        y: (N,) their classes.
        n_weights: L.
        C: inverse regularisation strength.
        on_pass: called after each pass.
    """
    classes = np.unique(y)
    shape = (1 if len(classes) == 2 else len(classes)), n_weights + 1
    strength = 1 / (C * len(y))

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        loss, slope = 0.0, np.zeros(shape)
        for values, own in blocks():
            x = values.astype(np.float64)
            raw = x @ w[:, :-1].T + w[:, -1]
            code = np.searchsorted(classes, own)
            if len(classes) == 2:
                loss -= float(log_expit(np.where(code[:, None] == 1, raw, -raw)).sum())
                error = expit(raw) - code[:, None]
            else:
                log_p = log_softmax(raw, axis=1)
                loss -= float(log_p[np.arange(len(code)), code].sum())
                error = np.exp(log_p)
                error[np.arange(len(code)), code] -= 1
            slope[:, :-1] += error.T @ x
            slope[:, -1] += error.sum(axis=0)
        slope /= len(y)
        slope[:, :-1] += strength * w[:, :-1]
        on_pass()
        return loss / len(y) + strength / 2 * float((w[:, :-1] ** 2).sum()), slope.ravel()

    regression = nystroem.new_regression(C=C)
    given = {"maxiter": regression.max_iter, "maxls": 50, "gtol": regression.tol, "ftol": 64 * np.finfo(float).eps}
    found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=given)
    w = found.x.reshape(shape)
    regression.classes_, regression.n_features_in_ = classes, n_weights
    regression.coef_, regression.intercept_ = w[:, :-1].copy(), w[:, -1].copy()
    regression.n_iter_ = np.array([found.nit], dtype=np.int32)
    return regression
