"""The XGBoost head: histogram trees with few bins and sampled columns, stopped early on validation rows.

2048 features x K classes make histograms the cost: `colsample_bynode` and `max_bin` save most of it at no loss.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows, Search
from pipeline.storage import artifacts, records

MOST_ROUNDS = 400
PATIENCE = 15
"""Rounds without a better validation log-loss after which boosting stops."""

FIXED: dict[str, Any] = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "max_bin": 64,
    "subsample": 0.8,
}

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
        with artifacts.atomic(path) as temporary:
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


def _matrices(train: Rows, val: Rows) -> tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix]:
    """Bin the features once for all points; validation rows by the bins of the training rows."""
    matrix = xgboost.QuantileDMatrix(train.features, train.y, max_bin=FIXED["max_bin"])
    return matrix, xgboost.QuantileDMatrix(val.features, val.y, max_bin=FIXED["max_bin"], ref=matrix)


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
) -> tuple[Search, Boosting, float]:
    """Boost every point with early stopping on validation rows; return the search, the best head and its seconds.

    Args:
        train: rows to fit on.
        val: rows to stop and judge by.
        seed: of row and column sampling.
        jobs: threads.
        device: "cpu" or "cuda".
        rounds: boosting rounds at most.
        points: XGBoost's parameters that differ between the points; others are `FIXED`.
        on_point: called after each point.
    """
    matrix, held = _matrices(train, val)
    search, heads = Search(), []
    for point in points:
        start = time.perf_counter()
        params = FIXED | point | {"num_class": train.logits.shape[1], "seed": seed, "nthread": jobs, "device": device}
        booster = xgboost.train(
            params,
            matrix,
            rounds,
            evals=[(held, "val")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        n_rounds = booster.best_iteration + 1
        head = Boosting(booster[:n_rounds])
        seconds = time.perf_counter() - start
        search.add(point | {"rounds": n_rounds}, head.scores(val), val.y, seconds=seconds)
        heads.append((head, seconds))
        on_point()
    return search, *heads[search.best_index]


def fit_boosting(train: Rows, params: dict[str, Any], *, seed: int, jobs: int, device: str = "cpu") -> Boosting:
    """Boost a chosen point for its number of rounds on all given rows."""
    point = {name: value for name, value in params.items() if name != "rounds"}
    given = FIXED | point | {"num_class": train.logits.shape[1], "seed": seed, "nthread": jobs, "device": device}
    matrix = xgboost.QuantileDMatrix(train.features, train.y, max_bin=FIXED["max_bin"])
    return Boosting(xgboost.train(given, matrix, params["rounds"]))
