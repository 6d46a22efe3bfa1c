"""Predict whole groups (patients, slides) from their tiles, where all tiles of a group carry one label.

A group is then a row of `Predictions` as a tile is, so that the same scores, intervals, pairs and verdict hold for it.
"""

import dataclasses

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS
from pipeline.evaluation.group_rule import RULES, group_means
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.evaluation.validate import IntArray
from pipeline.storage.csv_files import no_formula


@dataclasses.dataclass(frozen=True)
class GroupLevel:
    """Predictions of whole groups."""

    predictions: Predictions
    """One row for each group and seed; `tile_id` is the group."""

    rule: str
    """One of `RULES`."""

    n_val: int
    """Validation groups that chose the rule; 0: too few, so that the first rule holds."""


def group_level(predictions: Predictions) -> GroupLevel | None:
    """Return the predictions of groups; None where a group has several labels or no group has several tiles."""
    tiles = predictions.tiles
    if not predictions.groups_known or predictions.protocol == "random":
        return None
    one_label = tiles.groupby("group")["label"].nunique().max() == 1
    if not one_label or tiles["label"].nunique() < 2 or tiles["group"].nunique() == tiles["tile_id"].nunique():
        return None
    val = predictions.rows("val")
    n_val = predictions.n_groups("val") or 0
    rule = next(iter(RULES))
    if n_val >= FEW_UNITS:
        rule = max(RULES, key=lambda each: _val_score(_aggregated(predictions, val, each)))  # the first of equals
    every = np.arange(len(predictions.y))
    return GroupLevel(_aggregated(predictions, every, rule), rule, n_val if n_val >= FEW_UNITS else 0)


def _val_score(groups: Predictions) -> float:
    """Return the mean balanced accuracy of the main heads on all rows."""
    heads = groups.main_heads or groups.heads
    matrices = np.stack([confusion(groups.y, groups.predicted[head], len(groups.classes)) for head in heads])
    return float(scores_from_confusion(matrices)["balanced_accuracy"].mean())


def _aggregated(predictions: Predictions, rows: IntArray, rule: str) -> Predictions:
    """Return one row for each group and seed of some rows, by a rule."""
    tiles = predictions.tiles.iloc[rows]
    keyed = tiles.groupby(["split", "seed", "group"], sort=True)
    code = keyed.ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    table = tiles.iloc[first].assign(tile_id=tiles["group"].iloc[first]).reset_index(drop=True)
    p = {
        head: group_means(rule, values[rows], predictions.predicted[head][rows], code)
        for head, values in predictions.p.items()
    }
    return dataclasses.replace(
        predictions,
        tiles=table,
        y=predictions.y[rows][first],
        p=p,
        predicted={head: values.argmax(axis=1) for head, values in p.items()},
    )


def groups_csv(found: GroupLevel | None) -> str | None:
    """Return groups.csv: group, split, seed, label, head, predicted and p_<class>; None without predictions."""
    if found is None:
        return None
    groups = found.predictions
    tables = []
    for head in groups.heads:
        table = groups.tiles[["group", "split", "seed", "label"]].map(lambda cell: no_formula(str(cell)))
        table = table.assign(head=head, predicted=[no_formula(groups.classes[code]) for code in groups.predicted[head]])
        for k, name in enumerate(groups.classes):
            table[f"p_{name}"] = groups.p[head][:, k].round(6)
        tables.append(table)
    return pd.concat(tables).to_csv(index=False, lineterminator="\n")
