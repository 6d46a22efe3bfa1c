"""The XGBoost head: histogram trees with few bins and sampled columns, stopped early on validation rows.

2048 features x K classes make histograms the cost: few bins and shallow trees save most of it at no loss. Points of
the search that lie behind after some rounds are given up.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import StoredRows, scores_of
from pipeline.heads.xgb.external_memory import external_matrix
from pipeline.storage import atomic, records

MOST_ROUNDS = 400
PATIENCE = 15
"""Rounds without a better validation log-loss after which boosting stops."""

LOOK = 30
"""Rounds after which the search goes on with the better half of its points."""

FIXED: dict[str, Any] = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "max_bin": 32,
    "subsample": 0.8,
    "seed_per_iteration": True,
}
"""32 bins: the histograms of 2048 features fit into a core's cache. A round's random numbers depend on its own number,
so that boosters may take turns."""

POINTS: tuple[dict[str, Any], ...] = (
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 1.0},
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 5.0},
    {"max_depth": 5, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 1.0},
    {"max_depth": 5, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 5.0},
)
"""The search: depth and leaf weight decide on embeddings; columns and step size only set the pace."""


class Boosting:
    """A fitted XGBoost head."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self.booster = booster

    def scores(self, rows: Rows) -> np.ndarray:
        """Return margins (N, K): sums of leaf values."""
        return self.booster.inplace_predict(rows.features, predict_type="margin")

    def save(self, path: Path) -> None:
        """Write XGBoost's own binary JSON."""
        with atomic.atomic(path) as temporary:
            temporary.write_bytes(bytes(self.booster.save_raw(raw_format="ubj")))

    @classmethod
    def load(cls, path: Path) -> "Boosting":
        """Read a .ubj file whose record vouches for its bytes.

        XGBoost's parser ends the whole process at some malformed files, so that no other file may reach it.

        Raises:
            BadArtifact: no record, other bytes than were saved, or not an XGBoost model.
        """
        records.check_artifact(path, schema=SCHEMA)
        booster = xgboost.Booster()
        try:
            booster.load_model(bytearray(path.read_bytes()))
        except xgboost.core.XGBoostError as error:
            first = str(error).strip().splitlines()[0][:120]
            raise BadArtifact(f"{path}: not a readable XGBoost model ({first})") from None
        return cls(booster)

    @classmethod
    def of_bytes(cls, raw: bytes) -> "Boosting":
        """Return a head from what another process of this command has made."""
        booster = xgboost.Booster()
        booster.load_model(bytearray(raw))
        return _on_cpu(booster)


class Course:
    """One point under way: `xgboost.train` with early stopping, but it can wait and go on."""

    def __init__(self, params: dict[str, Any], matrix: xgboost.DMatrix, held: xgboost.DMatrix) -> None:
        self.booster = xgboost.Booster(params, [matrix, held])
        self.matrix, self.held = matrix, held
        self.losses: list[float] = []
        self.seconds = 0.0

    @property
    def rounds(self) -> int:
        """The rounds with the lowest validation log-loss so far, from 1."""
        return int(np.argmin(self.losses)) + 1

    def train_until(self, most: int, *, on_round: Callable[[], object] = lambda: None) -> None:
        """Boost until there are `most` rounds, or `PATIENCE` rounds brought nothing."""
        start = time.perf_counter()
        while len(self.losses) < most and (not self.losses or len(self.losses) - self.rounds < PATIENCE):
            number = len(self.losses)
            self.booster.update(self.matrix, number)
            told = self.booster.eval_set([(self.held, "val")], number)
            self.losses.append(float(told.rsplit(":", 1)[1]))
            on_round()
        self.seconds += time.perf_counter() - start

    def head(self) -> Boosting:
        """Return the head of the best rounds."""
        return _on_cpu(self.booster[: self.rounds])


def _on_cpu(booster: xgboost.Booster) -> Boosting:
    """Return a head that predicts where its features lie, wherever it was fitted."""
    booster.set_param({"device": "cpu"})
    return Boosting(booster)


def search_boosting(
    train: Rows,
    val: Rows,
    *,
    seed: int,
    jobs: int,
    device: str = "cpu",
    rounds: int = MOST_ROUNDS,
    points: Sequence[dict[str, Any]] = POINTS,
    on_point: Callable[[], object] = lambda: None,
    on_round: Callable[[], object] = lambda: None,
) -> tuple[Search, Boosting, float]:
    """Boost the points with early stopping on validation rows; return the search, the best head and its seconds.

    After `LOOK` rounds the half with the higher validation log-loss is given up; it is judged by its rounds so far.

    Args:
        train: rows to fit on.
        val: rows to stop and judge by.
        seed: of row and column sampling.
        jobs: threads.
        device: "cpu" or "cuda".
        rounds: boosting rounds at most.
        points: XGBoost's parameters that differ between the points; others are `FIXED`.
        on_point: called after each point.
        on_round: called after each round of each point.
    """
    matrix = binned(train, jobs=jobs, seed=seed)
    held = binned(val, jobs=jobs, seed=seed, like=matrix)  # the features are binned once for all points
    courses = [Course(params_of(train, point, seed=seed, jobs=jobs, device=device), matrix, held) for point in points]
    for course in courses:
        course.train_until(min(rounds, LOOK), on_round=on_round)
    ahead = better_half([course.losses for course in courses])
    search, heads = Search(), []
    for number, (point, course) in enumerate(zip(points, courses, strict=True)):
        if number in ahead:
            course.train_until(rounds, on_round=on_round)
        head = course.head()
        search.add(point | {"rounds": course.rounds}, scores_of(head, val), val.y, seconds=course.seconds)
        heads.append((head, course.seconds))
        on_point()
    return search, *heads[search.best_index]


def better_half(losses: Sequence[Sequence[float]]) -> list[int]:
    """Return which courses go on after the first look, by their validation log-losses so far."""
    order = np.argsort([min(own) for own in losses], kind="stable")
    return [int(i) for i in order[: (len(losses) + 1) // 2]]


def fit_boosting(train: Rows, params: dict[str, Any], *, seed: int, jobs: int, device: str = "cpu") -> Boosting:
    """Boost a chosen point for its number of rounds on all given rows."""
    point = {name: value for name, value in params.items() if name != "rounds"}
    given = params_of(train, point, seed=seed, jobs=jobs, device=device)
    return _on_cpu(xgboost.train(given, binned(train, jobs=jobs, seed=seed), params["rounds"]))


def params_of(train: Rows, point: dict[str, Any], *, seed: int, jobs: int, device: str) -> dict[str, Any]:
    """Return XGBoost's parameters of a point."""
    return FIXED | point | {"num_class": train.logits.shape[1], "seed": seed, "nthread": jobs, "device": device}


def binned(rows: Rows, *, jobs: int, seed: int, like: xgboost.DMatrix | None = None) -> xgboost.DMatrix:
    """Bin the features, if another matrix is given by its bins; on disk if they do not fit into memory."""
    if isinstance(rows, StoredRows):
        return external_matrix(rows, max_bin=FIXED["max_bin"], jobs=jobs, seed=seed, like=like)
    return xgboost.QuantileDMatrix(rows.features, rows.y, max_bin=FIXED["max_bin"], ref=like, nthread=jobs)
