"""Measure the fitting of heads next to scikit-learn's grid search and XGBoost's defaults."""

import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import xgboost
from scipy.special import softmax
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.benchmark.config import BenchConfig, seconds_of
from pipeline.benchmark.measurement import OURS, PLAIN, Measurement
from pipeline.benchmark.synthetic_data import synthetic_features, synthetic_logits
from pipeline.evaluation.metrics import row_nll
from pipeline.heads.base import Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.search_result import Search, cross_search
from pipeline.heads.svm.search import search_svm
from pipeline.heads.xgb.booster import POINTS, search_boosting

N_ROWS, N_FEATURES = 1000, 2048
"""Size of the embeddings. GridSearchCV takes half a minute on two cores; its time grows with the square of the rows."""

N_CLASSES, FOLDS = 8, 3

C = (0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_PER_FEATURE = (0.03, 0.1, 0.3, 1.0, 3.0)

Accuracies = dict[tuple[float, float], float]
"""(C, gamma) -> accuracy over the rows, each predicted by a model that was fitted without its fold."""


def synthetic_rows(n: int, n_features: int, *, seed: int) -> Rows:
    """Return n rows of `N_CLASSES` classes, equally many of each."""
    y = np.random.default_rng(seed).permutation(np.arange(n) % N_CLASSES)
    features = synthetic_features(y, n_features, seed=seed)
    return Rows(features, synthetic_logits(features, y, N_CLASSES), y.astype(np.int64))


def best_point(found: Accuracies) -> tuple[float, float]:
    """Return the (C, gamma) of the highest accuracy; of equal points the one with the lowest C, then gamma."""
    return max(sorted(found), key=lambda point: found[point])


def our_search(rows: Rows, folds: np.ndarray, *, config: BenchConfig) -> Accuracies:
    """Search by `heads.svm`; `folds` (N,) numbers each row's fold."""
    gammas = [factor / rows.features.shape[1] for factor in GAMMA_PER_FEATURE]
    points = [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in gammas for c in C]

    def search(fit: Rows, held_out: Rows) -> Search:
        return search_svm(fit, held_out, FitConfig(seed=config.seed, jobs=config.threads), points=points)

    found = cross_search(rows, folds, search).facts
    return {(point["params"]["C"], point["params"]["gamma"]): point["val_accuracy"] for point in found}


def grid_search(rows: Rows, folds: np.ndarray, *, config: BenchConfig) -> Accuracies:
    """Search the same points on the same folds by GridSearchCV, which standardises the features in each fold, too."""
    gammas = [factor / rows.features.shape[1] for factor in GAMMA_PER_FEATURE]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC(break_ties=True)),  # ties of votes as our scores break them
        {"svc__C": list(C), "svc__gamma": gammas},
        cv=PredefinedSplit(folds),
        n_jobs=config.threads,
        refit=False,
    ).fit(rows.features, rows.y)
    found = search.cv_results_
    sizes = np.bincount(folds)  # accuracy over all rows, not the mean of the folds, whose sizes may differ by a row
    by_fold = np.stack([found[f"split{fold}_test_score"] for fold in range(len(sizes))])
    values = (by_fold * sizes[:, None]).sum(axis=0) / sizes.sum()
    keys = [(float(point["svc__C"]), float(point["svc__gamma"])) for point in found["params"]]
    return dict(zip(keys, values.tolist(), strict=True))


def time_around(
    plain: Callable[[], object], ours: Callable[[], object], *, rounds: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of the plain way, which takes long and is timed once, and of ours in the rounds around it."""
    before = max(1, rounds // 2)
    seconds = [seconds_of(ours) for _ in range(before)]
    once = [seconds_of(plain)]
    return once, seconds + [seconds_of(ours) for _ in range(rounds - before)]


def measure_svm(config: BenchConfig) -> Iterator[Measurement]:
    """Yield the times of both searches, and whether they choose the same point."""
    n, width = config.size(N_ROWS, 240), config.size(N_FEATURES, 64)
    rows, folds = synthetic_rows(n, width, seed=config.seed), np.arange(n) % FOLDS
    found: dict[str, Accuracies] = {}

    def plain() -> None:
        found[PLAIN] = grid_search(rows, folds, config=config)

    def ours() -> None:
        found[OURS] = our_search(rows, folds, config=config)

    our_search(
        rows.take(np.arange(120)), folds[:120], config=config
    )  # the first call starts threads and allocates pages
    plain_seconds, seconds = time_around(plain, ours, rounds=config.rounds)
    best = {name: best_point(each) for name, each in found.items()}
    chosen = {
        name: f"C {c:g}, gamma {gamma:.3g}: accuracy {found[name][c, gamma]:.4f}" for name, (c, gamma) in best.items()
    }
    task = f"{n} x {width}, {len(C)} x {len(GAMMA_PER_FEATURE)} points, {FOLDS} folds"
    note = f"GridSearchCV(SVC), once, {task}; {chosen[PLAIN]}"
    yield Measurement("svm", PLAIN, "s", tuple(plain_seconds), note=note)
    ratio = plain_seconds[0] / float(np.median(seconds))
    yield Measurement("svm", OURS, "s", tuple(seconds), ratio=ratio, note=f"{task}; {chosen[OURS]}")
    apart = max(abs(found[OURS][point] - value) for point, value in found[PLAIN].items())
    note = f"1: yes; over all points the accuracies differ by {100 * apart:.2f} points at most"
    yield Measurement("svm", "same choice", "yes", (float(best[OURS] == best[PLAIN]),), note=note)


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the mean negative log-likelihood of margins (N, K), uncalibrated."""
    return float(row_nll(y, softmax(scores, axis=1)).mean())


def measure_xgboost(config: BenchConfig) -> Iterator[Measurement]:
    """Yield the times of our boosting and of XGBoost's defaults, and the log-loss of both on validation rows.

    Each round of ours has another seed. The defaults sample nothing, so that no seed changes them.
    """
    n, width = config.size(N_ROWS, 240), config.size(N_FEATURES, 64)
    both = synthetic_rows(n + n // 4, width, seed=config.seed + 1)
    train, val = both.take(np.arange(n)), both.take(np.arange(n, len(both.y)))
    device: Literal["cpu", "cuda"] = "cuda" if config.device.type == "cuda" else "cpu"
    losses: dict[str, list[float]] = {PLAIN: [], OURS: []}

    def plain() -> None:
        model = xgboost.XGBClassifier(n_jobs=config.threads, device=device).fit(train.features, train.y)
        losses[PLAIN].append(log_loss(model.predict(val.features, output_margin=True), val.y))

    def ours() -> None:
        seed = config.seed + len(losses[OURS])
        fit_config = FitConfig(seed=seed, jobs=config.threads, device=device)
        found = search_boosting(train, val, fit_config, points=POINTS[:1])
        losses[OURS].append(log_loss(found.best.scores, val.y))

    plain_seconds, seconds = time_around(plain, ours, rounds=config.rounds)
    task = f"{n} x {width}, {N_CLASSES} classes"
    ratio = plain_seconds[0] / float(np.median(seconds))
    note = f"XGBClassifier's defaults (100 rounds), once, {task}"
    yield Measurement("xgboost", PLAIN, "s", tuple(plain_seconds), note=note)
    yield Measurement("xgboost", OURS, "s", tuple(seconds), ratio=ratio, note=f"one point, {task}")
    for name in (PLAIN, OURS):
        yield Measurement("xgboost", name, "log-loss", tuple(losses[name]), note=f"{len(val.y)} validation rows")


def measure_heads(config: BenchConfig) -> Iterator[Measurement]:
    """Yield the measurements of SVM and XGBoost."""
    return itertools.chain(measure_svm(config), measure_xgboost(config))
