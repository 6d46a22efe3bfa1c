"""Measure the accuracy of every head in every test group."""

import dataclasses

import numpy as np

from pipeline.comparison.predictions import Predictions
from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.storage.csv_files import csv_text, no_formula

CSV_COLUMNS = ("group", "head", "n", "accuracy", "n_classes")


@dataclasses.dataclass(frozen=True)
class GroupScores:
    """The G test groups, in the order of their names."""

    names: list[str]
    n_tiles: IntArray
    n_classes: IntArray
    accuracy: dict[str, FloatArray]
    """Head -> (G,) share of test rows classified correctly."""

    pooled: dict[str, float]
    """Head -> share of all test rows classified correctly."""


def score_groups(predictions: Predictions) -> GroupScores:
    """Return the accuracy of all heads, baselines too, in each test group; seeds are pooled."""
    rows = predictions.rows("test")
    of_rows, all_names = predictions.group_code
    present, code = np.unique(of_rows[rows], return_inverse=True)
    n_codes = 1 + int(predictions.tile_code.max())
    tiles = np.unique(code.astype(np.int64) * n_codes + predictions.tile_code[rows]) // n_codes
    classes = np.unique(code * len(predictions.classes) + predictions.y[rows]) // len(predictions.classes)
    correct = {head: predictions.predicted[head][rows] == predictions.y[rows] for head in predictions.heads}
    return GroupScores(
        names=[all_names[each] for each in present],
        n_tiles=np.bincount(tiles),
        n_classes=np.bincount(classes),
        accuracy={head: np.bincount(code, weights=each) / np.bincount(code) for head, each in correct.items()},
        pooled={head: float(each.mean()) for head, each in correct.items()},
    )


def per_group_csv(predictions: Predictions) -> str:
    """Return per_group.csv: one row for each test group and head, baselines too; no rows where groups are not known.

    Columns: group; head; n, the distinct tiles; accuracy of all their predictions, seeds pooled; n_classes, the number
    of classes of the group's tiles.
    """
    if not predictions.groups_known:
        return csv_text(CSV_COLUMNS, ())
    groups = score_groups(predictions)
    rows = (
        (no_formula(name), head, groups.n_tiles[i], groups.accuracy[head][i], groups.n_classes[i])
        for i, name in enumerate(groups.names)
        for head in predictions.heads
    )
    return csv_text(CSV_COLUMNS, rows)
