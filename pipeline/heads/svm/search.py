"""Search the SVM head's kernel, C and gamma: one matrix of products serves every point."""

import functools
import time
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.svm import SVC

from pipeline.heads.base import Params, Rows, Step, as_columns, nothing, subsample
from pipeline.heads.config import FitConfig
from pipeline.heads.memory_budget import check_memory
from pipeline.heads.parallel import side_by_side
from pipeline.heads.search_result import Point, Search
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.blocks import scaler_of
from pipeline.heads.svm.classifier import SCORED_ROWS
from pipeline.heads.svm.kernels import kernel_values, square_lengths

SEARCH_ROWS = 4000
"""Most training rows of the search: the kernel values of each gamma take 128 MB."""

C_RBF = (0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_PER_FEATURE = (0.1, 0.3, 1.0, 3.0)
"""Factors of 1 / D for gamma: standardised rows are about sqrt(2 D) apart, so 1/D is scikit-learn's gamma="scale"."""

C_LINEAR = (1e-4, 1e-3, 1e-2, 1e-1)
"""Values of C are small, because 2048 standardised features make long vectors."""

FUSED_GAMMAS = (0.03, 0.1, 0.3, 1.0)
"""Three blocks of variance 1 have squared distances of about 6, whatever their widths."""

Scored = list[tuple[np.ndarray, float]]
"""Decision values (M,) or (M, K) of the held-out rows, and seconds, for each point of one kernel."""

Solve = Callable[[Sequence[Params]], Scored]
"""Function that fits the points of one kernel, by increasing C."""


def standard_points(n_features: int) -> list[Params]:
    """Return the points of the search for standardised features: arguments of scikit-learn's SVC."""
    linear: list[Params] = [{"kernel": "linear", "C": c} for c in C_LINEAR]
    gammas = [factor / n_features for factor in GAMMA_PER_FEATURE]
    return linear + [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in gammas for c in C_RBF]


def fused_points(n_features: int) -> list[Params]:
    """Return the points of the search for three blocks of equal weight, of `n_features` in all."""
    return [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in FUSED_GAMMAS for c in C_RBF]


def affordable(points: Sequence[Params], n_rows: int, *, most: int) -> list[Params]:
    """Return the points for up to `most` rows to fit on, else those of an approximated kernel.

    Raises:
        BadInput: the kernel values do not fit into this machine's memory.
    """
    if n_rows > most:
        return nystroem.landmark_points(points)
    check_memory(n_rows)
    return list(points)


def search_svm(
    train: Rows,
    val: Rows,
    config: FitConfig,
    *,
    points: Sequence[Params] | None = None,
    standardise: bool = True,
    on_point: Step = nothing,
) -> Search:
    """Score every kernel, C and gamma on validation rows.

    Args:
        train: rows to fit on; a stratified sample of `SEARCH_ROWS` if there are more.
        val: rows to score; the network and the SVM were not fitted on them.
        config: seed of the sample and of landmarks; `jobs` kernels at once, each with its kernel values in memory;
            workers that compute a kernel each.
        points: kernel, gamma (of rbf), C and, for an approximated kernel, landmarks. None: `standard_points`.
        standardise: whether the features are standardised first.
        on_point: called after each point.
    """
    rows = subsample(train.y, SEARCH_ROWS, seed=config.seed)
    rows = rows[np.argsort(train.y[rows], kind="stable")]  # libsvm reads the values of two classes next to each other
    y = train.y[rows]
    a, b = train.features[rows], val.features
    if standardise:
        scaler = scaler_of(train.take(rows))
        a, b = scaler.transform(a).astype(np.float32), scaler.transform(b).astype(np.float32)
    chosen = standard_points(a.shape[1]) if points is None else list(points)
    kernels = _by_kernel(chosen)
    if "landmarks" in chosen[0]:
        solve: Solve = functools.partial(nystroem.solve, a, b, y, seed=config.seed)
    else:
        solve = functools.partial(_solve, y, (a @ a.T, square_lengths(a)), (b @ a.T, square_lengths(b)))
    own = [[chosen[i] for i in numbers] for numbers in kernels]
    scored = side_by_side(solve, own, jobs=config.jobs) if config.pool is None else config.pool.map(solve, own)
    found: dict[int, Point] = {}
    for numbers, results in zip(kernels, scored, strict=True):
        for i, (decision, seconds) in zip(numbers, results, strict=True):
            scores = as_columns(decision, np.unique(y), train.n_classes)
            found[i] = Point(dict(chosen[i]), scores, val.y, seconds)
            on_point()
    return Search([found[i] for i in range(len(chosen))])


def _by_kernel(points: Sequence[Params]) -> list[list[int]]:
    """Return the numbers of the points of each kernel, which share their kernel values, by increasing C."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i in sorted(range(len(points)), key=lambda i: float(points[i]["C"])):
        groups.setdefault((points[i]["kernel"], points[i].get("gamma")), []).append(i)
    return list(groups.values())


def _solve(
    y: np.ndarray,
    fit: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    points: Sequence[Params],
) -> Scored:
    """Fit the points of one kernel, by increasing C.

    A solution without a coefficient at C is also the solution for every larger C.

    Args:
        y: (N,) classes of the rows to fit on, increasing.
        fit: (N, N) float32 products of these rows with one another, and (N,) float64 their squared lengths.
        held: (M, N) float32 products of the rows to score with them, and (M,) float64 squared lengths.
        points: kernel, gamma (of rbf), C.
    """
    start, gamma = time.perf_counter(), points[0].get("gamma")
    (products, squares), (products_b, squares_b) = fit, held
    gram = kernel_values(products, (squares, squares), gamma=gamma, out=np.empty(products.shape))
    solved: list[SVC] = []
    seconds = []
    for point in points:
        if solved and np.abs(solved[-1].dual_coef_).max() < solved[-1].C:
            solved.append(solved[-1])
        else:
            solved.append(SVC(C=point["C"], kernel="precomputed").fit(gram, y))
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    del gram
    distinct = {id(svc): svc for svc in solved}
    blocks = []
    for first in range(0, len(products_b), SCORED_ROWS):
        rows = slice(first, first + SCORED_ROWS)
        own = products_b[rows]
        values = kernel_values(own, (squares_b[rows], squares), gamma=gamma, out=np.empty(own.shape))
        blocks.append({key: svc.decision_function(values) for key, svc in distinct.items()})
    decisions = [np.concatenate([block[id(svc)] for block in blocks]) for svc in solved]
    share = (time.perf_counter() - start) / len(points)
    return [(decision, spent + share) for decision, spent in zip(decisions, seconds, strict=True)]
