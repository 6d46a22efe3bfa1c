"""Fit the SVM head: standardised features, an RBF or linear support vector classifier, one against one.

The classifier is solved from kernel values that BLAS computes and is kept as a plain scikit-learn pipeline: the support
vectors and predictions of `SVC.fit`, readable by anyone.
"""

from pathlib import Path

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.heads.base import Params, Rows, as_columns
from pipeline.heads.memory_budget import check_memory
from pipeline.heads.skops_io import load_pipeline, stable_bytes
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.blocks import scaler_of
from pipeline.heads.svm.kernels import decision_values, kernel_values, square_lengths
from pipeline.storage import atomic

SCORED_ROWS = 1024
"""Rows that are scored at once: their kernel values with all support vectors are in memory."""

CHECKED_ROWS = 16
"""Rows for which scikit-learn's decisions from features must equal those from kernel values."""


class Svm:
    """A fitted SVM head."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def scores(self, rows: Rows) -> np.ndarray:
        """Return one-against-rest decision values (N, K): votes of the pairwise classifiers, ties by their sums.

        The values equal the pipeline's `decision_function`, but BLAS computes them instead of libsvm. With an
        approximated kernel, they are the logits of its logistic regression.
        """
        last = self.pipeline[-1]
        own = np.empty((len(rows.features), len(last.classes_)) if len(last.classes_) > 2 else len(rows.features))
        for start in range(0, len(own), SCORED_ROWS):
            block = slice(start, start + SCORED_ROWS)
            x = rows.features[block]
            for _, step in self.pipeline.steps[:-1]:
                x = step.transform(x)
            own[block] = decision_values(last, x) if isinstance(last, SVC) else last.decision_function(x)
        return as_columns(own, last.classes_, rows.n_classes)

    def notes(self, n_rows: int) -> list[str]:
        """Return notes for heads.json about a head that was fitted on n rows."""
        last = self.pipeline[-1]
        if isinstance(last, SVC):
            noted = [f"{int(last.n_support_.sum())} support vectors of {n_rows} rows"]
            converged = last.fit_status_ == 0
        else:
            n = last.coef_.shape[1]
            noted = [f"too many rows for an exact SVM ({n_rows}): Nystroem, {n} landmarks, and a logistic regression"]
            converged = last.n_iter_.max() < nystroem.MOST_STEPS
        return noted + ([] if converged else ["did not converge"])

    def save(self, path: Path) -> None:
        """Write the scikit-learn pipeline as a skops file."""
        atomic.write_bytes(path, stable_bytes(self.pipeline))

    @classmethod
    def load(cls, path: Path) -> "Svm":
        """Read a skops file after checking its bytes against the record and its types against skops' list.

        Raises:
            BadArtifact: no record, changed bytes, a type that is not allowed, or another pipeline than this head's.
            StaleInput: another minor version of scikit-learn is installed.
        """
        steps = ([SVC], [Nystroem, LogisticRegression])
        return cls(load_pipeline(path, (*steps, *([StandardScaler, *each] for each in steps))))


def fit_svm(train: Rows, params: Params, *, seed: int = 0, standardise: bool = True) -> Svm:
    """Fit the chosen point on all training rows as a plain scikit-learn pipeline.

    Args:
        train: rows to fit on.
        params: a point of the search.
        seed: seed of landmarks.
        standardise: whether the features are standardised first.

    Raises:
        BadInput: the kernel values do not fit into this machine's memory.
    """
    scaler = [scaler_of(train)] if standardise else []
    x = scaler[0].transform(train.features) if standardise else train.features
    if "landmarks" in params:
        return Svm(make_pipeline(*scaler, *nystroem.fit_landmarks(x, train.y, params, seed=seed)))
    return Svm(make_pipeline(*scaler, fit_svc(x, train.y, params)))


def fit_svc(x: np.ndarray, y: np.ndarray, params: Params) -> SVC:
    """Return `SVC(**params, break_ties=True).fit(x, y)`, solved from kernel values that BLAS has computed.

    libsvm's own loops over 2048 features take ten times as long. The support vectors are added to the solution for a
    precomputed kernel. Its decisions from features must then equal those from kernel values; else (another internal
    state in scikit-learn) `SVC.fit` itself is called. Coefficients equal those of `SVC.fit` to rounding, or to the
    tolerance of libsvm.

    Args:
        x: (N, D).
        y: (N,).
        params: kernel, gamma (of rbf), C.

    Raises:
        BadInput: the kernel values do not fit into this machine's memory.
    """
    check_memory(len(x))
    order = np.argsort(y, kind="stable")
    rows = x[order].astype(np.float64)
    gram = rows @ rows.T
    squares = square_lengths(rows)
    kernel_values(gram, (squares, squares), gamma=params.get("gamma"), out=gram)
    svc = SVC(**params | {"kernel": "precomputed"}, break_ties=True).fit(gram, y[order])
    checked = np.linspace(0, len(rows) - 1, CHECKED_ROWS).astype(int)
    expected = svc.decision_function(gram[checked])
    del gram
    svc.set_params(kernel=params["kernel"])
    svc.support_vectors_, svc.shape_fit_, svc.n_features_in_ = rows[svc.support_], rows.shape, rows.shape[1]
    if not np.allclose(svc.decision_function(rows[checked]), expected, rtol=1e-6, atol=1e-6):
        return SVC(**params, break_ties=True).fit(x, y)
    svc.support_ = order[svc.support_].astype(svc.support_.dtype)
    return svc
