"""The SVM head: standardised features, an RBF or linear support vector classifier, one against one.

One matrix of products (BLAS) serves every C and gamma of the search. The chosen point is solved from kernel values,
too, and kept as a plain scikit-learn pipeline: the same support vectors and predictions, readable by anyone. Above
`EXACT_ROWS` rows the kernel is approximated (`pipeline.heads.svm.nystroem`), as kernel values grow with the square.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows, as_columns, refuse_other_version, subsample
from pipeline.heads.parallel import side_by_side
from pipeline.heads.search_result import Search
from pipeline.heads.skops_io import stable_bytes
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.kernels import check_memory, decision_values, kernel_values, runs, square_lengths, votes
from pipeline.storage import atomic, records
from pipeline.storage.zip_guard import refuse_packed

EXACT_ROWS = 20_000
"""Rows that an exact SVM is fitted on at most, if nothing else is asked for: their kernel values take 3.2 GB."""

SEARCH_ROWS = 4000
"""Training rows used by the search at most: the kernel values of each gamma take 128 MB."""

C_RBF = (0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_PER_FEATURE = (0.1, 0.3, 1.0, 3.0)
"""gamma is this over D: standardised rows lie about sqrt(2 D) apart, so 1/D is scikit-learn's gamma="scale"."""

C_LINEAR = (1e-4, 1e-3, 1e-2, 1e-1)
"""Small, because 2048 standardised features make long vectors."""

SCORED_ROWS = 1024
"""Rows that are scored at once: their kernel values with all support vectors are held in memory."""

CHECKED_ROWS = 16
"""Rows of which scikit-learn's own decisions must be those of the solution they were made from."""

TRUSTED: tuple[str, ...] = ()
"""Types beyond skops' own list that a head file may hold: none. Never taken from the file itself (P3)."""


class Svm:
    """A fitted SVM head."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def scores(self, rows: Rows) -> np.ndarray:
        """Return one-against-rest decision values (N, K): votes of the pairwise classifiers, ties by their sums.

        The values of the pipeline's own `decision_function`, by BLAS in place of libsvm's loops. Of an approximated
        kernel, the logits of its logistic regression.
        """
        last = self.pipeline[-1]
        own = np.empty((len(rows.features), len(last.classes_)) if len(last.classes_) > 2 else len(rows.features))
        for start in range(0, len(own), SCORED_ROWS):
            block = slice(start, start + SCORED_ROWS)
            x = rows.features[block]
            for _, step in self.pipeline.steps[:-1]:
                x = step.transform(x)
            own[block] = decision_values(last, x) if isinstance(last, SVC) else last.decision_function(x)
        return as_columns(own, last.classes_, rows.logits.shape[1])

    def notes(self, n_rows: int) -> list[str]:
        """Return what a reader of heads.json should know of a head that was fitted on n rows."""
        last = self.pipeline[-1]
        if isinstance(last, SVC):
            told = [f"{int(last.n_support_.sum())} support vectors of {n_rows} rows"]
            converged = last.fit_status_ == 0
        else:
            n = last.coef_.shape[1]
            told = [f"no exact SVM of so many rows ({n_rows}): Nystroem, {n} landmarks, and a logistic regression"]
            converged = last.n_iter_.max() < nystroem.MOST_STEPS
        if n_rows > SEARCH_ROWS:
            told.append(f"searched on a stratified sample of {SEARCH_ROWS} rows")
        return told + ([] if converged else ["did not converge"])

    def save(self, path: Path) -> None:
        """Write the scikit-learn pipeline as a skops file."""
        atomic.write_bytes(path, stable_bytes(self.pipeline))

    @classmethod
    def load(cls, path: Path) -> "Svm":
        """Read a skops file whose record vouches for its bytes and whose types are on skops' list or ours.

        Raises:
            BadArtifact: no record, other bytes than were saved, another type in it, or not a pipeline that this head
                makes.
            StaleInput: scikit-learn has another minor version now.
        """
        refuse_other_version(path, records.check_artifact(path, schema=SCHEMA), "scikit-learn")
        refuse_packed(path)
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            pipeline = skops.io.loads(path.read_bytes(), trusted=list(TRUSTED))
        except UntrustedTypesFoundException as error:
            raise BadArtifact(f"{path}: holds types that are not trusted ({' '.join(str(error).split())})") from None
        except Exception as error:  # noqa: BLE001  (zip, json and constructor errors all mean the same here)
            raise BadArtifact(f"{path}: not a readable skops file ({' '.join(str(error).split())[:120]})") from None
        if not _is_head(pipeline):
            raise BadArtifact(f"{path}: holds no fitted pipeline as fit_heads makes it: run fit_heads --restart")
        return cls(pipeline)


def _is_head(pipeline: object) -> bool:
    """Tell whether an object is one of the two pipelines that are saved here, each step fitted.

    skops trusts all of scikit-learn, of which some types read files or follow the numbers in their arrays unseen.
    """
    steps = getattr(pipeline, "steps", None)
    if type(pipeline) is not Pipeline or not isinstance(steps, list):
        return False
    kinds = [type(step[-1]) for step in steps if isinstance(step, tuple)]
    if kinds[:1] == [StandardScaler]:
        kinds = kinds[1:]
    if kinds not in ([SVC], [Nystroem, LogisticRegression]):
        return False
    try:
        for _, step in steps:
            check_is_fitted(step)
    except NotFittedError:
        return False
    return True


def standard_points(n_features: int) -> list[dict[str, Any]]:
    """Return the points of the search for standardised features: arguments of scikit-learn's SVC."""
    kernels: list[tuple[dict[str, Any], tuple[float, ...]]] = [({"kernel": "linear"}, C_LINEAR)]
    kernels += [({"kernel": "rbf", "gamma": factor / n_features}, C_RBF) for factor in GAMMA_PER_FEATURE]
    return [{**kernel, "C": c} for kernel, strengths in kernels for c in strengths]


def affordable(points: Sequence[dict[str, Any]], n_rows: int, *, most: int) -> list[dict[str, Any]]:
    """Return the points as they are for up to `most` rows to fit on, else those of an approximated kernel.

    Raises:
        BadInput: kernel values of so many rows do not fit into this machine's memory.
    """
    if n_rows > most:
        return nystroem.landmark_points(points)
    check_memory(n_rows)
    return list(points)


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
        seed: of the sample and of landmarks.
        jobs: kernels at work at once; the kernel values of each are held in memory.
        points: kernel, gamma (of rbf), C and, of an approximated kernel, landmarks. None: `standard_points`.
        standardise: whether the features are standardised first.
        on_point: called after each point.
    """
    rows = subsample(train.y, SEARCH_ROWS, seed=seed)
    rows = rows[np.argsort(train.y[rows], kind="stable")]  # libsvm reads the values of two classes side by side
    y = train.y[rows]
    a, b = train.features[rows], val.features
    if standardise:
        scaler = StandardScaler().fit(a)
        a, b = scaler.transform(a).astype(np.float32), scaler.transform(b).astype(np.float32)
    chosen = standard_points(a.shape[1]) if points is None else list(points)
    solver = _Solver(a, b, y) if any("landmarks" not in point for point in chosen) else None

    def judge(numbers: list[int]) -> list[tuple[int, np.ndarray, float]]:
        """Fit the points of one kernel, weakest first."""
        numbers = sorted(numbers, key=lambda i: chosen[i]["C"])
        own = [chosen[i] for i in numbers]
        if solver is None or "landmarks" in own[0]:
            each = nystroem.solutions(a, b, y, own, seed=seed)
        else:
            each = solver.solutions(own)
        return [(i, *solution) for i, solution in zip(numbers, each, strict=True)]

    eval_network: dict[int, tuple[np.ndarray, float]] = {}
    for group in side_by_side(judge, by_kernel(chosen), jobs=jobs):
        for i, decision, seconds in group:
            eval_network[i] = as_columns(decision, np.unique(y), train.logits.shape[1]), seconds
            on_point()
    search = Search()
    for i, point in enumerate(chosen):
        search.add(dict(point), eval_network[i][0], val.y, seconds=eval_network[i][1])
    return search


def by_kernel(points: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return the numbers of the points of each kernel, which share their kernel values."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, point in enumerate(points):
        key = point["kernel"], point.get("gamma"), point.get("landmarks")
        groups.setdefault(key, []).append(i)
    return list(groups.values())


class _Solver:
    """Products of the rows to fit on and to judge by, from which every kernel's values follow."""

    def __init__(self, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> None:
        """Multiply.

        Args:
            a: (N, D) float32 to fit on, one class after the other.
            b: (M, D) float32 to judge by.
            y: (N,) rising.
        """
        self.y, self.of_class = y, runs(np.unique(y, return_counts=True)[1])
        self.squares, self.squares_b = square_lengths(a), square_lengths(b)
        self.products, self.products_b = a @ a.T, b @ a.T

    def solutions(self, points: Sequence[dict[str, Any]]) -> Iterator[tuple[np.ndarray, float]]:
        """Yield decision values (M,) or (M, K) and the seconds of each point of one kernel, C rising.

        A solution of which no coefficient has reached C is the solution for every larger C, too.
        """
        start = time.perf_counter()
        gamma, shape = points[0].get("gamma"), self.products.shape
        gram = kernel_values(self.products, (self.squares, self.squares), gamma=gamma, out=np.empty(shape))
        solved: list[tuple[np.ndarray, np.ndarray]] = []
        which, seconds, is_free = [], [], False
        for point in points:
            if not is_free:
                svc = SVC(C=point["C"], kernel="precomputed").fit(gram, self.y)
                coefficients = np.zeros((len(svc.dual_coef_), len(self.y)))
                coefficients[:, svc.support_] = svc.dual_coef_
                solved.append((coefficients, svc.intercept_))
                is_free = bool(np.abs(svc.dual_coef_).max() < point["C"])
            which.append(len(solved) - 1)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
        del gram
        blocks: list[list[np.ndarray]] = [[] for _ in solved]
        for first in range(0, len(self.products_b), SCORED_ROWS):
            rows = slice(first, first + SCORED_ROWS)
            products, squares = self.products_b[rows], (self.squares_b[rows], self.squares)
            gram_b = kernel_values(products, squares, gamma=gamma, out=np.empty(products.shape))
            for own, (coefficients, intercept) in zip(blocks, solved, strict=True):
                own.append(votes(gram_b, coefficients, intercept, self.of_class))
        decisions = [np.concatenate(own) for own in blocks]
        share = (time.perf_counter() - start) / len(points)
        yield from ((decisions[i], own + share) for i, own in zip(which, seconds, strict=True))


def fit_svm(train: Rows, params: dict[str, Any], *, seed: int = 0, standardise: bool = True) -> Svm:
    """Fit the chosen point on all training rows as a plain scikit-learn pipeline.

    Args:
        train: rows to fit on.
        params: a point of the search.
        seed: of landmarks.
        standardise: whether the features are standardised first.

    Raises:
        BadInput: the kernel values do not fit into this machine's memory.
    """
    scaler = [StandardScaler().fit(train.features)] if standardise else []
    x = scaler[0].transform(train.features) if standardise else train.features
    if "landmarks" in params:
        return Svm(make_pipeline(*scaler, *nystroem.fit_landmarks(x, train.y, params, seed=seed)))
    return Svm(make_pipeline(*scaler, fit_svc(x, train.y, params)))


def fit_svc(x: np.ndarray, y: np.ndarray, params: dict[str, Any]) -> SVC:
    """Return `SVC(**params, break_ties=True).fit(x, y)`, solved from kernel values that BLAS has computed.

    libsvm's own loops over 2048 features take far longer than its solving. What it finds with a precomputed kernel is
    given its support vectors, and then must decide from features as it did from kernel values; if it does not (a
    scikit-learn that keeps its state otherwise), it is fitted the plain way. Coefficients are those of the plain way
    to rounding, or, where rounding leads libsvm another way, to the tolerance at which it stops.

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
    svc = SVC(kernel="precomputed", C=params["C"], break_ties=True).fit(gram, y[order])
    checked = np.linspace(0, len(rows) - 1, CHECKED_ROWS).astype(int)
    expected = svc.decision_function(gram[checked])
    del gram
    _give_features(svc, rows, params)
    if not np.allclose(svc.decision_function(rows[checked]), expected, rtol=1e-6, atol=1e-6):
        return SVC(**params, break_ties=True).fit(x, y)
    svc.support_ = order[svc.support_].astype(svc.support_.dtype)
    return svc


def _give_features(svc: SVC, rows: np.ndarray, params: dict[str, Any]) -> None:
    """Turn a classifier that was fitted on the kernel values of rows (N, D) float64 into one fitted on the rows."""
    svc.set_params(**params)
    svc.support_vectors_ = rows[svc.support_]
    svc.shape_fit_, svc.n_features_in_ = rows.shape, rows.shape[1]
    svc._gamma = params.get("gamma", 0.0)  # the number that "scale" would have become; a linear kernel takes none
