"""The baselines: what a head must beat to be worth its cost, fitted and tuned on the same rows as the heads.

Each baseline omits one part: `majority` the tile, `histogram_svm` the texture, `handcrafted_xgboost` the network,
`untrained_svm` the training, `knn` and `linear` the tuned classifier on the trained embeddings.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.heads.base import Head, Rows, as_columns
from pipeline.heads.parallel import quiet, side_by_side
from pipeline.heads.search import FitConfig, FitResult, held_scores, heldout_folds, judge, times
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import sampled
from pipeline.heads.svm import classifier
from pipeline.heads.xgb import booster
from pipeline.names import BASELINES

EMBEDDINGS = "embeddings"

SOURCES = {
    "majority": EMBEDDINGS,
    "histogram_svm": "colour_histogram",
    "handcrafted_xgboost": "handcrafted",
    "untrained_svm": "untrained",
    "knn": EMBEDDINGS,
    "linear": EMBEDDINGS,
}
"""Baseline -> whose features its rows must hold: the embeddings, or a feature set of baselines.h5."""

NEIGHBOURS = 20
"""As is usual for embeddings (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers")."""

BLOCK_ROWS = 256
"""Rows compared with all fitted rows at once."""

C_PROBE = (1e-3, 1e-2, 1e-1, 1.0)
"""Small, because 2048 standardised features separate a few thousand rows entirely."""

MOST_STEPS = 1000

COLOUR_POINTS = tuple(
    {"kernel": "rbf", "gamma": gamma, "C": c} for gamma in (0.25, 1.0, 4.0) for c in (10.0, 100.0, 1000.0)
)
"""Histograms have length 1, so that their squared distances lie in 0..2; standardising would give a colour that one
tile shows as much weight as all others (it costs 3 points on five colorectal classes)."""

GAMMA_PER_FEATURE, C_UNTRAINED = (0.3, 1.0, 3.0), (1.0, 10.0, 100.0)

HANDCRAFTED_POINTS = (
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.3, "min_child_weight": 1.0},
    {"max_depth": 6, "eta": 0.2, "colsample_bynode": 0.3, "min_child_weight": 1.0},
)


class Majority:
    """The share of each class among the fitted rows, whatever the tile: add-one smoothed log shares."""

    def __init__(self, fit: Rows) -> None:
        counts = np.bincount(fit.y, minlength=fit.logits.shape[1])
        self.log_prior = np.log((counts + 1) / (counts + 1).sum())

    def scores(self, rows: Rows) -> np.ndarray:
        """Return the same scores (N, K) for every row."""
        return np.tile(self.log_prior, (len(rows.y), 1))


class Neighbours:
    """The classes of the 20 fitted rows (or all, if there are fewer) with the highest cosine, each counted alike."""

    def __init__(self, fit: Rows) -> None:
        self.features, self.y = _unit_length(fit.features), fit.y

    def scores(self, rows: Rows) -> np.ndarray:
        """Return log shares (N, K) of the classes, smoothed by one neighbour spread over all classes."""
        k, n_classes = min(NEIGHBOURS, len(self.y)), rows.logits.shape[1]
        scores = np.empty((len(rows.y), n_classes))
        for start in range(0, len(scores), BLOCK_ROWS):
            asked = _unit_length(rows.features[start : start + BLOCK_ROWS])
            nearest = np.argpartition(-(asked @ self.features.T), k - 1, axis=1)[:, :k]
            counts = (self.y[nearest][:, :, None] == np.arange(n_classes)).sum(axis=1)
            scores[start : start + BLOCK_ROWS] = np.log((counts + 1 / n_classes) / (k + 1))
        return scores


class LinearProbe:
    """Standardised features and a multinomial logistic regression."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def scores(self, rows: Rows) -> np.ndarray:
        """Return logits (N, K)."""
        decision = self.pipeline.decision_function(rows.features)
        return as_columns(decision, self.pipeline.classes_, rows.logits.shape[1])


def fit_probe(fit: Rows, params: Mapping[str, Any]) -> LinearProbe:
    """Fit the linear probe with strength C of the data against the weights' squared length."""
    regression = LogisticRegression(C=params["C"], max_iter=MOST_STEPS)
    return LinearProbe(make_pipeline(StandardScaler(), regression).fit(fit.features, fit.y))


@dataclasses.dataclass(frozen=True)
class Kind:
    """How one baseline is searched and fitted."""

    search: Callable[[Rows, Rows, FitConfig], Search]
    fit: Callable[[Rows, dict[str, Any], FitConfig], Head]


def _each(fit: Callable[[Rows, dict[str, Any]], Head], points: list[dict[str, Any]]) -> Kind:
    """Return the plain way: fit every point and judge it."""

    def search(fit_rows: Rows, held: Rows, setting: FitConfig) -> Search:
        def judge(point: dict[str, Any]) -> tuple[np.ndarray, float]:
            start = time.perf_counter()
            return fit(fit_rows, point).scores(held), time.perf_counter() - start

        found = Search()
        for point, (scores, seconds) in zip(points, side_by_side(judge, points, jobs=setting.jobs), strict=True):
            found.add(point, scores, held.y, seconds=seconds)
        return found

    def last_fit(rows: Rows, params: dict[str, Any], setting: FitConfig) -> Head:
        with quiet():
            return fit(rows, params)

    return Kind(search, last_fit)


def _svm(points_of: Callable[[int], Sequence[dict[str, Any]]], *, standardise: bool) -> Kind:
    """Return how an SVM is searched over the points for D features."""

    def search(fit: Rows, held: Rows, setting: FitConfig) -> Search:
        n_rows = len(fit.y) + (0 if setting.fit_on == "train" else len(held.y))  # of the last fit
        points = classifier.affordable(points_of(fit.features.shape[1]), n_rows, most=setting.svm_rows)
        how: dict[str, Any] = {"seed": setting.seed, "jobs": setting.jobs, "points": points}
        return classifier.search_svm(fit, held, **how, standardise=standardise)

    def fit(rows: Rows, params: dict[str, Any], setting: FitConfig) -> Head:
        return classifier.fit_svm(rows, params, seed=setting.seed, standardise=standardise)

    return Kind(search, fit)


def _untrained_points(n_features: int) -> list[dict[str, Any]]:
    gammas = [factor / n_features for factor in GAMMA_PER_FEATURE]
    return [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in gammas for c in C_UNTRAINED]


def _handcrafted() -> Kind:
    def how(setting: FitConfig) -> dict[str, Any]:
        return {"seed": setting.seed, "jobs": setting.jobs, "device": setting.device}

    def search(fit: Rows, held: Rows, setting: FitConfig) -> Search:
        given = how(setting) | {"rounds": setting.rounds, "points": HANDCRAFTED_POINTS}
        return booster.search_boosting(fit, held, **given)[0]

    return Kind(search, lambda rows, params, setting: booster.fit_boosting(rows, params, **how(setting)))


KINDS: dict[str, Kind] = {
    "majority": _each(lambda rows, _: Majority(rows), [{}]),
    "histogram_svm": _svm(lambda _: COLOUR_POINTS, standardise=False),
    "handcrafted_xgboost": _handcrafted(),
    "untrained_svm": _svm(_untrained_points, standardise=True),
    "knn": _each(lambda rows, _: Neighbours(rows), [{"neighbours": NEIGHBOURS}]),
    "linear": _each(fit_probe, [{"C": c} for c in C_PROBE]),
}


def fit_baseline(name: str, rows: dict[str, Rows], setting: FitConfig) -> FitResult:
    """Search and fit one baseline on the rows that the heads are fitted and tuned on.

    Args:
        name: one of `BASELINES`.
        rows: "train" and "val" rows, whose features are those of `SOURCES[name]`; of those that do not fit into memory
            a stratified sample is taken.
        setting: as for the heads.
    """
    kind = KINDS[name]
    start = time.perf_counter()
    every, rows = rows, sampled(rows, seed=setting.seed)
    folds = heldout_folds(rows["val"], setting)
    found = judge(rows, folds, lambda fit, held: kind.search(fit, held, setting), setting)
    searched = time.perf_counter()
    fit_rows = rows[setting.fit_split]
    head = kind.fit(fit_rows, found.best, setting)
    seconds = times(searched - start, time.perf_counter() - searched)
    notes = _notes(head, fit_rows)
    if (n_rows := len(every[setting.fit_split].y)) > len(fit_rows.y):
        notes.append(
            f"fitted on a stratified sample of {len(fit_rows.y)} of {n_rows} rows, which do not fit into memory"
        )
    facts = {"search": found.points, "chosen": found.best, "notes": notes, "features": SOURCES[name]}
    held, val = held_scores(head, found, rows, setting), rows["val"]
    return FitResult(head, held, val.y, val.groups, facts | seconds)


def _notes(head: Head, fit_rows: Rows) -> list[str]:
    """Return what a reader of heads.json should know."""
    notes = head.notes(len(fit_rows.y)) if isinstance(head, classifier.Svm) else []
    missing = fit_rows.logits.shape[1] - len(np.unique(fit_rows.y))
    if missing:
        notes.append(f"{missing} class(es) without a fitted row, which it can never name")
    if isinstance(head, LinearProbe) and head.pipeline[-1].n_iter_.max() >= MOST_STEPS:
        notes.append("did not converge")
    if isinstance(head, Neighbours) and len(fit_rows.y) < NEIGHBOURS:
        notes.append(f"only {len(fit_rows.y)} neighbours: there are no more rows")
    return notes


def fit_baselines(
    sources: Mapping[str, dict[str, Rows]],
    setting: FitConfig,
    *,
    on_baseline: Callable[[], object] = lambda: None,
) -> dict[str, FitResult]:
    """Fit every baseline whose features are given, in the order of `BASELINES`.

    Args:
        sources: "embeddings", and the feature sets of baselines.h5 if there is one -> "train" and "val" rows. Labels,
            logits and groups are the same in all; only the features differ.
        setting: as for the heads.
        on_baseline: called after each baseline.

    Returns:
        Baseline -> what was fitted. Its scores are asked for with rows of `SOURCES[baseline]`.
    """
    fitted = {}
    for name in BASELINES:
        if SOURCES[name] in sources:
            fitted[name] = fit_baseline(name, sources[SOURCES[name]], setting)
            on_baseline()
    return fitted


def _unit_length(features: np.ndarray) -> np.ndarray:
    """Return rows (N, D) float32 divided by their lengths; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float32)
