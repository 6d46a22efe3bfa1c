"""The SVM head: standardised features, an RBF or linear support vector classifier, one against one.

One matrix of squared distances (a BLAS product) serves every C and gamma of the search; the chosen point is fitted
again as a plain scikit-learn pipeline, which is what is saved: the same predictions, readable by anyone.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows, Search, as_columns
from pipeline.storage import artifacts, records

SEARCH_ROWS = 4000
"""Training rows used by the search at most: its Gram matrix has the square of it in float64 (128 MB)."""

C_RBF = (0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_PER_FEATURE = (0.1, 0.3, 1.0, 3.0)
"""gamma is this over D: standardised rows lie about sqrt(2 D) apart, so 1/D is scikit-learn's gamma="scale"."""

C_LINEAR = (1e-4, 1e-3, 1e-2, 1e-1)
"""Small, because 2048 standardised features make long vectors."""

CACHE_MB = 1000

BLOCK_ROWS = 1024
"""Rows that are scored at once: their kernel values with all support vectors are held in memory."""

TRUSTED: tuple[str, ...] = ()
"""Types beyond skops' own list that a head file may hold: none. Never taken from the file itself (P3)."""


class Svm:
    """A fitted SVM head."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def scores(self, rows: Rows) -> np.ndarray:
        """Return one-against-rest decision values (N, K): votes of the pairwise classifiers, ties by their sums.

        The values of the pipeline's own `decision_function`, by BLAS in place of libsvm's loops.
        """
        svc = self.pipeline[-1]
        own = np.empty((len(rows.features), len(svc.classes_)) if len(svc.classes_) > 2 else len(rows.features))
        for start in range(0, len(own), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            x = rows.features[block]
            for _, step in self.pipeline.steps[:-1]:
                x = step.transform(x)
            own[block] = decision_values(svc, x)
        return as_columns(own, svc.classes_, rows.logits.shape[1])

    def save(self, path: Path) -> None:
        """Write the scikit-learn pipeline as a skops file."""
        import skops.io

        with artifacts.atomic(path) as temporary:
            temporary.write_bytes(skops.io.dumps(self.pipeline))

    @classmethod
    def load(cls, path: Path) -> "Svm":
        """Read a skops file whose record vouches for its bytes and whose types are on skops' list or ours.

        Raises:
            BadArtifact: no record, other bytes than were saved, another type in it, or no pipeline.
        """
        records.check_artifact(path, schema=SCHEMA)
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            pipeline = skops.io.loads(path.read_bytes(), trusted=list(TRUSTED))
        except UntrustedTypesFoundException as error:
            raise BadArtifact(f"{path}: holds types that are not trusted ({' '.join(str(error).split())})") from None
        except Exception as error:  # noqa: BLE001  (zip, json and constructor errors all mean the same here)
            raise BadArtifact(f"{path}: not a readable skops file ({' '.join(str(error).split())[:120]})") from None
        if not isinstance(pipeline, Pipeline):
            raise BadArtifact(f"{path}: holds a {type(pipeline).__name__}, a scikit-learn Pipeline is needed")
        return cls(pipeline)


def subsample(y: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Return about n row numbers, each class in proportion (rounded, at least two of each), sorted."""
    if len(y) <= n:
        return np.arange(len(y))
    rng = np.random.default_rng(seed)
    chosen = []
    for code in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == code))
        chosen.append(rows[: max(2, round(n * len(rows) / len(y)))])
    return np.sort(np.concatenate(chosen))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared Euclidean distances (N, M) float64 of rows (N, D) and (M, D): |a|^2 + |b|^2 - 2 a.b."""
    distances = -2.0 * (a @ b.T).astype(np.float64)
    distances += np.einsum("ij,ij->i", a, a, dtype=np.float64)[:, None]
    distances += np.einsum("ij,ij->i", b, b, dtype=np.float64)[None, :]
    return np.maximum(distances, 0.0, out=distances)


def decision_values(svc: SVC, x: np.ndarray) -> np.ndarray:
    """Return what `svc.decision_function(x)` returns, (N,) for two classes, else (N, K), float64.

    From the dual coefficients (scikit-learn's user guide, "SVM: mathematical formulation" and "multi-class
    classification"): the pair (i, j) weighs the support vectors of class i by row j - 1 of `dual_coef_` and those of
    class j by row i; then each pair votes, and the sums of its values, squeezed into a third, break ties.

    Args:
        svc: fitted, kernel linear or rbf, gamma a number, decision_function_shape "ovr".
        x: (N, D) as the classifier was fitted on.
    """
    vectors = np.asarray(svc.support_vectors_, dtype=np.float64)
    x = np.asarray(x, dtype=np.float64)
    kernel = x @ vectors.T if svc.kernel == "linear" else np.exp(-svc.gamma * squared_distances(x, vectors))
    n_classes = len(svc.classes_)
    if n_classes == 2:
        return kernel @ svc.dual_coef_[0] + svc.intercept_[0]
    ends = np.cumsum(svc.n_support_)
    of_class = [slice(end - n, end) for end, n in zip(ends, svc.n_support_, strict=True)]
    votes, sums = np.zeros((len(x), n_classes)), np.zeros((len(x), n_classes))
    for number, (i, j) in enumerate(itertools.combinations(range(n_classes), 2)):
        value = svc.intercept_[number] + sum(
            kernel[:, of_class[own]] @ svc.dual_coef_[row, of_class[own]] for own, row in ((i, j - 1), (j, i))
        )
        votes[:, i] += value > 0
        votes[:, j] += value <= 0
        sums[:, i] += value
        sums[:, j] -= value
    return votes + sums / (3 * (np.abs(sums) + 1))


N_POINTS = len(C_LINEAR) + len(C_RBF) * len(GAMMA_PER_FEATURE)
"""Points of the standard search."""


def standard_points(n_features: int) -> list[dict[str, Any]]:
    """Return the points of the search for standardised features: arguments of scikit-learn's SVC."""
    kernels: list[tuple[dict[str, Any], tuple[float, ...]]] = [({"kernel": "linear"}, C_LINEAR)]
    kernels += [({"kernel": "rbf", "gamma": factor / n_features}, C_RBF) for factor in GAMMA_PER_FEATURE]
    return [{**kernel, "C": c} for kernel, strengths in kernels for c in strengths]


def search_svm(
    train: Rows,
    val: Rows,
    *,
    seed: int,
    jobs: int,
    points: Sequence[dict[str, Any]] | None = None,
    standardise: bool = True,
    on_point: Callable[[], object] = lambda: None,
) -> Search:
    """Judge every kernel, C and gamma by validation rows.

    Args:
        train: rows to fit on; a stratified sample of `SEARCH_ROWS` if there are more.
        val: rows to judge by; the network and the SVM were not fitted on them.
        seed: of the sample.
        jobs: points fitted at once.
        points: kernel, gamma (of rbf) and C of each point; those of one kernel and gamma stand together. None:
            `standard_points`.
        standardise: whether the features are standardised first.
        on_point: called after each point.
    """
    rows = subsample(train.y, SEARCH_ROWS, seed=seed)
    y = train.y[rows]
    a, b = train.features[rows], val.features
    if standardise:
        scaler = StandardScaler().fit(a)
        a, b = scaler.transform(a).astype(np.float32), scaler.transform(b).astype(np.float32)
    products, products_val = (a @ a.T).astype(np.float64), (b @ a.T).astype(np.float64)
    distances, distances_val = squared_distances(a, a), squared_distances(b, a)

    def grams(kernel: str, gamma: float) -> tuple[np.ndarray, np.ndarray]:
        if kernel == "linear":
            return products, products_val
        return np.exp(-gamma * distances), np.exp(-gamma * distances_val)

    def judge(
        params: dict[str, Any], gram: np.ndarray, gram_val: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray, float]:
        start = time.perf_counter()
        svc = SVC(C=params["C"], kernel="precomputed", break_ties=True, cache_size=CACHE_MB).fit(gram, y)
        columns = as_columns(svc.decision_function(gram_val), svc.classes_, train.logits.shape[1])
        return params, columns, time.perf_counter() - start

    chosen = standard_points(a.shape[1]) if points is None else points
    search = Search()
    with Parallel(n_jobs=jobs, prefer="threads") as parallel:  # libsvm works outside the interpreter's lock
        for kernel, group in itertools.groupby(chosen, key=lambda point: (point["kernel"], point.get("gamma", 0.0))):
            pair = grams(*kernel)
            for params, scores, seconds in parallel(delayed(judge)(dict(point), *pair) for point in group):
                search.add(params, scores, val.y, seconds=seconds)
                on_point()
    return search


def fit_svm(train: Rows, params: dict[str, Any], *, standardise: bool = True) -> Svm:
    """Fit the chosen point on all training rows as a plain scikit-learn pipeline."""
    scaler = [StandardScaler()] if standardise else []
    svc = SVC(**params, break_ties=True, cache_size=CACHE_MB)
    return Svm(make_pipeline(*scaler, svc).fit(train.features, train.y))
