"""The heads' fitting against what scikit-learn and XGBoost do by themselves, on synthetic embeddings, same cores."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import xgboost
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.benchmark.config import BenchConfig, seconds_of
from pipeline.benchmark.measurement import OURS, PLAIN, Measurement
from pipeline.benchmark.synthetic_data import synthetic_features, synthetic_logits
from pipeline.evaluation.metrics import row_nll
from pipeline.heads.base import Rows
from pipeline.heads.search_result import Search, cross_search
from pipeline.heads.svm.classifier import search_svm
from pipeline.heads.xgb.booster import POINTS, search_boosting

N_CLASSES, FOLDS, SEEDS = 8, 3, 3

C = (0.1, 1.0, 10.0, 100.0, 1000.0)
GAMMA_PER_FEATURE = (0.03, 0.1, 0.3, 1.0, 3.0)


def synthetic_rows(n: int, n_features: int, *, seed: int) -> Rows:
    """Return n rows of `N_CLASSES` classes, as many of each."""
    y = np.random.default_rng(seed).permutation(np.arange(n) % N_CLASSES)
    features = synthetic_features(y, n_features, seed=seed)
    return Rows(features, synthetic_logits(features, y, N_CLASSES), y.astype(np.int64))


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a search of C and gamma found."""

    accuracy: dict[tuple[float, float], float]
    """(C, gamma) -> accuracy over the rows, each scored by what was fitted without its fold."""

    @property
    def best(self) -> tuple[float, float]:
        """The point of the highest accuracy; of equals the one with the least C, then gamma."""
        return max(sorted(self.accuracy), key=lambda point: self.accuracy[point])

    @property
    def line(self) -> str:
        """The choice in words."""
        return f"C {self.best[0]:g}, gamma {self.best[1]:.3g}: accuracy {self.accuracy[self.best]:.4f}"


def our_search(rows: Rows, folds: np.ndarray, *, setting: BenchConfig) -> Choice:
    """Search by `heads.svm`."""
    gammas = [factor / rows.features.shape[1] for factor in GAMMA_PER_FEATURE]
    points = [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in gammas for c in C]

    def search(fit: Rows, held: Rows) -> Search:
        return search_svm(fit, held, seed=setting.seed, jobs=setting.threads, points=points)

    found = cross_search(rows, folds, search).points
    return Choice({(point["params"]["C"], point["params"]["gamma"]): point["val_accuracy"] for point in found})


def grid_search(rows: Rows, folds: np.ndarray, *, setting: BenchConfig) -> Choice:
    """Search the same points on the same folds by scikit-learn's GridSearchCV, which standardises in each fold too."""
    gammas = [factor / rows.features.shape[1] for factor in GAMMA_PER_FEATURE]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC(break_ties=True)),  # ties of votes as our scores break them
        {"svc__C": list(C), "svc__gamma": gammas},
        cv=PredefinedSplit(folds),
        n_jobs=setting.threads,
        refit=False,
    ).fit(rows.features, rows.y)
    found = search.cv_results_
    sizes = np.bincount(folds)  # accuracy over all rows, not the mean of the folds': these may differ by a row
    by_fold = np.stack([found[f"split{fold}_test_score"] for fold in range(len(sizes))])
    values = (by_fold * sizes[:, None]).sum(axis=0) / sizes.sum()
    keys = [(float(point["svc__C"]), float(point["svc__gamma"])) for point in found["params"]]
    return Choice(dict(zip(keys, values.tolist(), strict=True)))


def measure_svm(setting: BenchConfig) -> Iterator[Measurement]:
    """Yield the times of both searches, and whether they choose the same.

    scikit-learn's search takes minutes: it is timed once, ours in the rounds around it.
    """
    n, width = setting.sized(4000, 240), setting.sized(2048, 64)
    rows = synthetic_rows(n, width, seed=setting.seed)
    folds = np.arange(n) % FOLDS
    what = f"{n} x {width}, {len(C)} x {len(GAMMA_PER_FEATURE)} points, {FOLDS} folds"
    choices: list[Choice] = []

    def timed(name: str, search: Any) -> float:
        seconds = seconds_of(lambda: choices.append(search(rows, folds, setting=setting)))
        setting.tell(f"svm: {name}: {seconds:.1f} s")
        return seconds

    our_search(rows.take(np.arange(120)), folds[:120], setting=setting)  # threads and pages
    before = max(1, setting.rounds // 2)
    ours = [timed(OURS, our_search) for _ in range(before)]
    theirs = timed("GridSearchCV", grid_search)
    grid = choices[-1]
    ours += [timed(OURS, our_search) for _ in range(setting.rounds - before)]
    found = choices[0]
    middle = float(np.median(ours))
    yield Measurement("svm", PLAIN, "s", (theirs,), note=f"GridSearchCV(SVC), once, {what}; {grid.line}")
    yield Measurement("svm", OURS, "s", tuple(ours), ratio=theirs / middle, note=f"{what}; {found.line}")
    apart = max(abs(found.accuracy[point] - grid.accuracy[point]) for point in grid.accuracy)
    note = f"1: yes; over all points the accuracies differ by {100 * apart:.2f} points at most"
    yield Measurement("svm", "same choice", "yes", (float(found.best == grid.best),), note=note)


def log_loss(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the mean negative log-likelihood of margins (N, K), uncalibrated."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return float(row_nll(y, p).mean())


def measure_xgboost(setting: BenchConfig) -> Iterator[Measurement]:
    """Yield the times of our boosting and of XGBoost's defaults, and the log-loss of both on validation rows.

    The defaults sample nothing, so that no seed changes them: they are fitted once, in the midst of our seeds.
    """
    n, width = setting.sized(4000, 240), setting.sized(2048, 64)
    both = synthetic_rows(n + n // 4, width, seed=setting.seed + 1)
    train, val = both.take(np.arange(n)), both.take(np.arange(n, len(both.y)))
    device = "cuda" if setting.device.type == "cuda" else "cpu"
    seconds: dict[str, list[float]] = {OURS: [], PLAIN: []}
    losses: dict[str, list[float]] = {OURS: [], PLAIN: []}

    def ours(seed: int) -> float:
        search, _, _ = search_boosting(train, val, seed=seed, jobs=setting.threads, device=device, points=POINTS[:1])
        return log_loss(search.scores[0], val.y)

    def plain(seed: int) -> float:
        model = xgboost.XGBClassifier(n_jobs=setting.threads, device=device, random_state=seed)
        model.fit(train.features, train.y)
        return log_loss(model.predict(val.features, output_margin=True), val.y)

    order = [(OURS, seed) for seed in range(SEEDS)]
    order.insert(1, (PLAIN, 0))
    for name, seed in order:
        fit = ours if name == OURS else plain
        seconds[name].append(seconds_of(lambda f=fit, s=seed, n=name: losses[n].append(f(s))))  # type: ignore[misc]
        setting.tell(f"xgboost: {name}, seed {seed}: {seconds[name][-1]:.1f} s, log-loss {losses[name][-1]:.4f}")
    what = f"{n} x {width}, {N_CLASSES} classes"
    notes = {
        PLAIN: f"XGBClassifier's defaults (100 rounds), once (no seed changes them), {what}",
        OURS: f"one point, {what}",
    }
    ratio = float(np.median(seconds[PLAIN]) / np.median(seconds[OURS]))
    for name in (PLAIN, OURS):
        yield Measurement(
            "xgboost", name, "s", tuple(seconds[name]), ratio=ratio if name == OURS else None, note=notes[name]
        )
    for name in (PLAIN, OURS):
        yield Measurement("xgboost", name, "log-loss", tuple(losses[name]), note=f"{len(val.y)} validation rows")


def measure_heads(setting: BenchConfig) -> Iterator[Measurement]:
    """Yield what was measured of SVM and XGBoost."""
    return itertools.chain(measure_svm(setting), measure_xgboost(setting))
