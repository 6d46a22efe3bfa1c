"""Score predictions: every metric of every head on every split with its interval, the rows of comparison.csv."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.evaluation import metrics
from pipeline.evaluation.bootstrap import Difference, PairedCounts, bootstrap_metrics, paired_difference
from pipeline.evaluation.validate import IntArray, ProbabilityArray
from pipeline.names import SPLITS, RunFile
from pipeline.storage.csv_files import csv_text
from pipeline.storage.records import SCHEMAS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCHEMA = SCHEMAS[RunFile.COMPARISON]
COSTS = ("fit_seconds", "search_seconds", "predict_tiles_per_second", "bytes")
"""Rows of comparison.csv that belong to a head and to no split, from heads.json."""

CLASS_METRICS = ("precision", "recall", "f1")

FEW_UNITS = 6
"""Below this nothing is decided: with five groups the smallest two-sided sign-flip p is 0.0625."""


@dataclasses.dataclass(frozen=True)
class Resampling:
    """The bootstrap. Its units are whole groups, or tiles where groups are not known or were split at random.

    The rows of one tile under several seeds are one unit.
    """

    unit: Literal["group", "tile", "block"]
    """block: tiles dealt into blocks at random, where they are too many to be drawn one by one."""

    ids: IntArray
    """(N,) unit of each tile."""

    n_draws: int
    seed: int
    level: float
    """Coverage of the intervals, e.g. 0.95."""

    def n_units(self, rows: IntArray) -> int:
        """Return how many units the given tiles come from."""
        return len(np.unique(self.ids[rows]))

    def intervals(
        self, y: IntArray, p: ProbabilityArray, predicted: IntArray, rows: IntArray | None = None
    ) -> dict[str, tuple[float, float]]:
        """Return metric -> (low, high), as `bootstrap_metrics`, of the given rows; None: of all."""
        units = self.ids if rows is None else self.ids[rows]
        return bootstrap_metrics(y, p, predicted, units=units, n_draws=self.n_draws, seed=self.seed, level=self.level)

    def difference(self, counts: PairedCounts) -> Difference:
        """Return a metric of the first head less that of the second, with its paired interval."""
        return paired_difference(counts, n_draws=self.n_draws, seed=self.seed, level=self.level)


@dataclasses.dataclass(frozen=True)
class Score:
    """One row of comparison.csv; an undefined value or bound is NaN, a count that makes no sense is None.

    For a metric of a class, `n` and `n_groups` count the tiles and groups of that class.
    """

    head: str
    split: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    n_groups: int | None = None


def choose_resampling(predictions: Predictions, *, n_draws: int, seed: int, level: float) -> Resampling:
    """Return the bootstrap that fits the split.

    Tiles of a group resemble each other, so whole groups are drawn. After a random split the figures hold for
    further tiles of the same groups only, and then tiles are drawn.
    """
    by_group = predictions.groups_known and predictions.protocol != "random"
    unit, ids = ("group", predictions.group_code[0]) if by_group else (predictions.tile_unit, predictions.tile_units)
    return Resampling(unit, ids, n_draws=n_draws, seed=seed, level=level)  # type: ignore[arg-type]


def score_heads(
    predictions: Predictions, resampling: Resampling, costs: Mapping[str, Mapping[str, float]]
) -> list[Score]:
    """Return all rows of comparison.csv: by head and split, then the costs of each head.

    Args:
        predictions: of all heads.
        resampling: units and size of the bootstrap.
        costs: head -> name of `COSTS` -> value, as far as heads.json has them.
    """
    scores = []
    for head in predictions.heads:
        for split in SPLITS:
            rows = predictions.rows(split)
            if len(rows) and not predictions.is_fitted_on(head, split):
                scores += _split_scores(predictions, resampling, head=head, split=split, rows=rows)
    for head in predictions.heads:
        known = costs.get(head, {})
        scores += [Score(head, "", name, known[name]) for name in COSTS if name in known]
    return scores


def _split_scores(
    predictions: Predictions, resampling: Resampling, *, head: str, split: str, rows: IntArray
) -> list[Score]:
    y, p, predicted = predictions.y[rows], predictions.p[head][rows], predictions.predicted[head][rows]
    n_groups, bounds = predictions.n_groups(split), resampling.intervals(y, p, predicted, rows)
    scores = [
        Score(head, split, metric, value, *bounds[metric], n=len(rows), n_groups=n_groups)
        for metric, value in metrics.scalar_metrics(y, p, predicted).items()
    ]
    by_class = metrics.class_metrics(y, predicted, len(predictions.classes))
    groups = predictions.group_code[0][rows]
    for code, name in enumerate(predictions.classes):
        n_class_groups = None if n_groups is None else len(np.unique(groups[y == code]))
        scores += [
            Score(
                head,
                split,
                f"{metric}[{name}]",
                float(by_class[metric][code]),
                n=int(by_class["support"][code]),
                n_groups=n_class_groups,
            )
            for metric in CLASS_METRICS
        ]
    return scores


def by_key(scores: list[Score]) -> dict[tuple[str, str, str], Score]:
    """Return the scores by (head, split, metric)."""
    return {(score.head, score.split, score.metric): score for score in scores}


def to_csv(rows: Sequence["DataclassInstance"]) -> str:
    """Return rows of one dataclass as CSV."""
    return csv_text((field.name for field in dataclasses.fields(rows[0])), map(dataclasses.astuple, rows))
