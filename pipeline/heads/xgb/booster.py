"""Fit the XGBoost head: histogram trees with few bins and sampled columns, stopped early on validation rows.

2048 features x K classes make histograms the cost: few bins and shallow trees save most of it without loss. The half of
the points that is behind after some rounds is not boosted further.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xgboost

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Params, Rows, Step, nothing
from pipeline.heads.cluster.client import Pool
from pipeline.heads.config import FitConfig
from pipeline.heads.search_result import Point, Search
from pipeline.heads.streamed_rows import StreamedRows, scores_of
from pipeline.heads.xgb.external_memory import external_matrix
from pipeline.storage import atomic, records

PATIENCE = 15
"""Rounds without a better validation log-loss after which boosting stops."""

LOOK = 30
"""Rounds after which the search continues with the better half of its points."""

FIXED: Params = {
    "objective": "multi:softprob",
    "eval_metric": "mlogloss",
    "tree_method": "hist",
    "max_bin": 32,
    "subsample": 0.8,
    "seed_per_iteration": True,
}
"""32 bins: the histograms of 2048 features fit into a core's cache. A round's random numbers depend on its own number,
so that boosting can pause and continue."""

POINTS: tuple[Params, ...] = (
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 1.0},
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 5.0},
    {"max_depth": 5, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 1.0},
    {"max_depth": 5, "eta": 0.2, "colsample_bynode": 0.1, "min_child_weight": 5.0},
)
"""The search: depth and leaf weight decide on embeddings; columns and step size only change the number of rounds."""


class Boosting:
    """A fitted XGBoost head."""

    def __init__(self, booster: xgboost.Booster) -> None:
        """Predict on the CPU, wherever the booster was fitted."""
        self.booster = booster
        booster.set_param({"device": "cpu"})

    def scores(self, rows: Rows) -> np.ndarray:
        """Return margins (N, K): sums of leaf values."""
        margins: np.ndarray = self.booster.inplace_predict(rows.features, predict_type="margin")
        return margins

    def raw(self) -> bytes:
        """Return XGBoost's own binary JSON."""
        return bytes(self.booster.save_raw(raw_format="ubj"))

    def save(self, path: Path) -> None:
        """Write XGBoost's own binary JSON."""
        atomic.write_bytes(path, self.raw())

    @classmethod
    def load(cls, path: Path) -> "Boosting":
        """Read a .ubj file whose bytes are those of its record.

        XGBoost's parser ends the whole process at some malformed files, so that no other file may reach it.

        Raises:
            BadArtifact: no record, other bytes than were saved, or not an XGBoost model.
        """
        records.check_artifact(path, schema=SCHEMA)
        try:
            return cls.of_bytes(path.read_bytes())
        except xgboost.core.XGBoostError as error:
            first = str(error).strip().splitlines()[0][:120]
            raise BadArtifact(f"{path}: not a readable XGBoost model ({first})") from None

    @classmethod
    def of_bytes(cls, raw: bytes) -> "Boosting":
        """Return a head from XGBoost's binary JSON, of a file or another process of this command."""
        booster = xgboost.Booster()
        booster.load_model(bytearray(raw))
        return cls(booster)


class Course:
    """One point under way: `xgboost.train` with early stopping that can pause and continue.

    `xgboost.train(xgb_model=...)` counts its rounds from 0 again and so repeats their random numbers.
    """

    def __init__(self, params: Params, matrix: xgboost.DMatrix, held: xgboost.DMatrix) -> None:
        self.booster = xgboost.Booster(params, [matrix, held])
        self.matrix, self.held = matrix, held
        self.losses: list[float] = []
        self.seconds = 0.0

    def train_until(self, most: int, *, on_round: Step = nothing) -> None:
        """Boost until there are `most` rounds, or `PATIENCE` rounds without gain."""
        start = time.perf_counter()
        while len(self.losses) < most and len(self.losses) - best_rounds(self.losses) < PATIENCE:
            number = len(self.losses)
            self.booster.update(self.matrix, number)
            evaluated = self.booster.eval_set([(self.held, "val")], number)
            self.losses.append(float(evaluated.rsplit(":", 1)[1]))
            on_round()
        self.seconds += time.perf_counter() - start

    def boosted(self) -> "Boosted":
        """Return the head of the best rounds, with its losses and seconds."""
        head = Boosting(self.booster[: best_rounds(self.losses)])
        return Boosted(head.raw(), self.losses, self.seconds)


class Boosted(NamedTuple):
    """A point after some rounds."""

    model: bytes
    """The head of the best rounds (`Boosting.raw`)."""

    losses: list[float]
    """Validation log-loss after each round."""

    seconds: float


def best_rounds(losses: Sequence[float]) -> int:
    """Return the number of rounds with the lowest validation log-loss; 0 before the first."""
    return int(np.argmin(losses)) + 1 if losses else 0


def search_boosting(
    train: Rows,
    val: Rows,
    config: FitConfig,
    *,
    points: Sequence[Params] = POINTS,
    on_point: Step = nothing,
    on_round: Step = nothing,
) -> Search:
    """Boost the points with early stopping on validation rows; every point keeps its head.

    After `LOOK` rounds the half with the higher validation log-loss stops; it is scored after its rounds so far.

    Args:
        train: rows to fit on, in memory or streamed.
        val: rows to stop by and to score.
        config: seed of row and column sampling, threads, device, most rounds; workers that boost a point each.
        points: XGBoost's parameters that differ between the points; others are `FIXED`.
        on_point: called after each point.
        on_round: called after each round of each point, except on workers.
    """
    pool = config.pool
    boost = (
        _boost_here(train, val, config, points, on_round)
        if pool is None
        else _boost_on(pool, train, val, config, points)
    )
    boosted = dict(enumerate(boost(list(range(len(points))), min(config.rounds, LOOK))))
    ahead = better_half([boosted[i].losses for i in range(len(points))])
    for _ in range(len(points) - len(ahead)):
        on_point()
    for i, one in zip(ahead, boost(ahead, config.rounds), strict=True):
        boosted[i] = one
        on_point()
    found = []
    for i, point in enumerate(points):
        head, losses = Boosting.of_bytes(boosted[i].model), boosted[i].losses
        params = point | {"rounds": best_rounds(losses)}
        found.append(Point(params, scores_of(head, val), val.y, boosted[i].seconds, head))
    return Search(found)


Boost = Callable[[list[int], int], Iterator[Boosted]]
"""Function that boosts some points to a number of rounds, and yields them in order."""


def _boost_here(train: Rows, val: Rows, config: FitConfig, points: Sequence[Params], on_round: Step) -> Boost:
    matrix, held = _binned_pair(train, val, config)  # the features are binned once for all points
    courses = [Course(params_of(train, point, config), matrix, held) for point in points]

    def boost(numbers: list[int], rounds: int) -> Iterator[Boosted]:
        for i in numbers:
            courses[i].train_until(rounds, on_round=on_round)
            yield courses[i].boosted()

    return boost


def _boost_on(pool: Pool, train: Rows, val: Rows, config: FitConfig, points: Sequence[Params]) -> Boost:
    """Boost some points from the start for more rounds; no booster is transferred between processes."""
    alone = dataclasses.replace(config, jobs=1, device="cpu", pool=None)
    work = functools.partial(_boost_point, train, val, alone)
    return lambda numbers, rounds: iter(pool.map(work, [(points[i], rounds) for i in numbers]))


def _boost_point(train: Rows, val: Rows, config: FitConfig, task: tuple[Params, int]) -> Boosted:
    course = Course(params_of(train, task[0], config), *_binned_pair(train, val, config))
    course.train_until(task[1])
    return course.boosted()


def better_half(losses: Sequence[Sequence[float]]) -> list[int]:
    """Return the numbers of the points that continue after the first check, by their validation log-losses so far."""
    order = np.argsort([min(own) for own in losses], kind="stable")
    return [int(i) for i in order[: (len(losses) + 1) // 2]]


def fit_boosting(train: Rows, params: Params, config: FitConfig) -> Boosting:
    """Boost a chosen point for its number of rounds on all given rows."""
    point = {name: value for name, value in params.items() if name != "rounds"}
    booster = xgboost.train(params_of(train, point, config), binned(train, config), params["rounds"])
    return Boosting(booster)


def params_of(train: Rows, point: Params, config: FitConfig) -> Params:
    """Return XGBoost's parameters of a point."""
    own = {"num_class": train.n_classes, "seed": config.seed, "nthread": config.jobs, "device": config.device}
    return FIXED | point | own


def binned(rows: Rows, config: FitConfig, *, like: xgboost.DMatrix | None = None) -> xgboost.DMatrix:
    """Return the binned features of rows, on disk if the rows are streamed.

    Args:
        rows: rows to bin.
        config: threads, and the seed of a streamed sample that gives the bins' borders.
        like: another matrix, whose borders are used.
    """
    if isinstance(rows, StreamedRows):
        return external_matrix(rows, max_bin=FIXED["max_bin"], jobs=config.jobs, seed=config.seed, like=like)
    return xgboost.QuantileDMatrix(rows.features, rows.y, max_bin=FIXED["max_bin"], ref=like, nthread=config.jobs)


def _binned_pair(train: Rows, val: Rows, config: FitConfig) -> tuple[xgboost.DMatrix, xgboost.DMatrix]:
    matrix = binned(train, config)
    return matrix, binned(val, config, like=matrix)
