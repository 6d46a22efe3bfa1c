"""Choose the test rows that a page carries: all, or a fixed sample with the counts of all."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.evaluation.folds import evenly_spaced
from pipeline.evaluation.metrics import ECE_BINS, confusion, top_label
from pipeline.evaluation.validate import IntArray
from pipeline.storage.predictions.columns import BLOCK_ROWS, hash_names

MOST_ROWS = 20_000
"""Test rows that a page carries."""

MANY_ROWS = 10_000
"""With more test rows, a page carries no probabilities of baselines."""

MOST_PROBABILITIES = 1_000_000
"""Probabilities that a page carries: 11 MB. With more, first those of baselines are left out, then rows."""


@dataclasses.dataclass(frozen=True)
class HeadCounts:
    """Counts of all test rows for one head."""

    matrix: IntArray
    """(K, K) rows by true and predicted class."""

    bins: IntArray
    """(`ECE_BINS`,) rows by confidence."""

    bins_right: IntArray
    """(`ECE_BINS`,) rows of `bins` whose prediction is correct."""

    groups_right: IntArray
    """(G,) rows of each group whose prediction is correct."""


@dataclasses.dataclass(frozen=True)
class Carried:
    """What a page carries of the test rows."""

    rows: IntArray
    """(M,) rows of `Predictions`, in increasing order."""

    heads: list[str]
    """Heads with probabilities on the page."""

    n_all: int
    """Number of all test rows."""

    per_cell: int = 0
    """Rows that a sample has of each cell of each head's confusion matrix, at least; of a smaller cell it has all."""

    n_on_map: int = 0
    """Rows of a sample that it has because their tiles are on the map of the embeddings."""

    groups: IntArray | None = None
    """(G,) number of all test rows of each group; None where all rows are carried."""

    counts: Mapping[str, HeadCounts] = dataclasses.field(default_factory=dict)
    """Head -> counts of all test rows, for a sample."""

    @property
    def is_sample(self) -> bool:
        """Whether the page carries only some of the rows."""
        return len(self.rows) < self.n_all


def carry(data: ReportData) -> Carried:
    """Return the rows and heads that the page of a report carries."""
    predictions = data.predictions
    rows, n_classes = predictions.rows("test"), len(predictions.classes)
    main = predictions.main_heads or predictions.heads

    def fits(heads: list[str]) -> bool:
        return len(rows) * n_classes * len(heads) <= MOST_PROBABILITIES

    if len(rows) <= MOST_ROWS and fits(main):
        with_baselines = len(rows) <= MANY_ROWS and fits(predictions.heads)
        return Carried(rows, predictions.heads if with_baselines else main, len(rows))
    most = min(MOST_ROWS, max(1, MOST_PROBABILITIES // (n_classes * len(main))))
    on_map = data.map.tile_id.tolist() if isinstance(data.map, EmbeddingMap) else []
    first = np.isin(predictions.name_hash[rows], hash_names(pd.Series(on_map, dtype=object)))
    return _sample(predictions, rows, main, first=first, most=most)


def _sample(predictions: Predictions, rows: IntArray, heads: list[str], *, first: np.ndarray, most: int) -> Carried:
    """Return at most `most` rows: some of `first`, then as many as fit of each cell of each head's confusion matrix.

    Errors of a cell are taken by the probability of the predicted class, the highest first; correct rows by a hash of
    the tiles' names. Two heads that disagree are not both correct, so that disagreements are among the errors.

    Args:
        predictions: of all heads.
        rows: (N,) test rows.
        heads: whose cells count.
        first: (N,) bool, rows that are taken before all others, for at most half of the sample.
        most: largest number of rows.
    """
    y, group, hashes = predictions.y[rows], predictions.group_code[0][rows], predictions.name_hash[rows]
    n_classes, n_groups = len(predictions.classes), len(predictions.group_code[1])
    rank = np.full(len(rows), len(rows))
    counts = {}
    for head in heads:
        p, predicted = predictions.p[head], predictions.predicted[head][rows]
        confidence = predictions.named_probability(head, rows)
        cell, is_right = y.astype(np.int64) * n_classes + predicted, predicted == y
        bins = np.empty(len(rows), np.int8)
        for start in range(0, len(rows), BLOCK_ROWS):  # a copy of all probabilities takes much memory
            part = slice(start, start + BLOCK_ROWS)
            bins[part] = top_label(y[part], p[rows[part]], ECE_BINS)[0]
        order = np.lexsort((hashes, np.where(is_right, 0, -confidence), cell))
        starts = np.searchsorted(cell[order], np.arange(n_classes**2))
        rank[order] = np.minimum(rank[order], np.arange(len(rows)) - starts[cell[order]])
        counts[head] = HeadCounts(
            matrix=confusion(y, predicted, n_classes),
            bins=np.bincount(bins, minlength=ECE_BINS),
            bins_right=np.bincount(bins[is_right], minlength=ECE_BINS),
            groups_right=np.bincount(group[is_right], minlength=n_groups),
        )
    preferred = evenly_spaced(np.flatnonzero(first), most // 2)
    rank[preferred] = -1
    chosen = np.argsort(rank, kind="stable")[:most]
    per_cell = max(0, int(rank[chosen[-1]]))
    groups = np.bincount(group, minlength=n_groups)
    return Carried(np.sort(rows[chosen]), heads, len(rows), per_cell, len(preferred), groups, counts)
