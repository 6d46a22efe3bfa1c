"""Predict whole groups (patients, slides) from their tiles, where each group has one label.

The label is that of the group's tiles, or the user's. A group is then a row of `Predictions` as a tile is, so that the
same scores, intervals, pairs and verdict hold for it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.comparison.scores import FEW_UNITS
from pipeline.errors import BadInput
from pipeline.evaluation.group_rule import RULES, GroupRule, group_probabilities, sensitivity_threshold
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.evaluation.validate import IntArray
from pipeline.runtime.console import list_names, log
from pipeline.storage.csv_files import no_formula
from pipeline.storage.user_tables import read_user_table

COLUMNS = {"group": ("patient", "patient_id", "slide", "case", "source"), "label": ("class", "diagnosis")}
"""Columns of a table of group labels, with other names for each."""


@dataclasses.dataclass(frozen=True)
class GroupRequest:
    """What the user requests for groups."""

    labels: Mapping[str, str] | None = None
    """Group -> its label; None: the label that all its tiles carry."""

    sensitivity: float | None = None
    """Least share of the positive validation groups that a threshold finds; None: no threshold."""

    positive: str = ""
    """Class that the threshold is for; "": the second of two."""


@dataclasses.dataclass(frozen=True)
class GroupLevel:
    """Predictions of whole groups."""

    predictions: Predictions
    """One row for each group and seed; `tile_id` is the group. The classes are those that groups have."""

    rule: GroupRule
    n_val: int
    """Validation groups that chose the rule; 0: too few, so that the mean probability holds."""

    n_positive_val: int
    """Validation groups that the thresholds were chosen on; 0: there are none."""


def read_group_labels(file: Path) -> Mapping[str, str]:
    """Return group -> label of a user's table with columns group and label.

    Raises:
        BadInput: no such table, an empty cell, or a group with two labels.
    """
    listing = read_user_table(file, COLUMNS, needed=("group", "label"))
    if listing.notes:
        log.warning(f"report: {file} was read with: {'; '.join(listing.notes)}")
    found: dict[str, str] = {}
    for row, (group, label) in enumerate(zip(listing.table["group"], listing.table["label"], strict=True)):
        if not group or not label:
            raise BadInput(f"{listing.where(row)}: every row needs a group and a label")
        if found.setdefault(group, label) != label:
            raise BadInput(f"{listing.where(row)}: group '{group}' has the labels '{found[group]}' and '{label}'")
    return found


def group_level(predictions: Predictions, request: GroupRequest) -> GroupLevel | None:
    """Return the predictions of groups; None where they make no sense and the user did not request them.

    Raises:
        BadInput: they were requested and are not possible, or a group has no label or one that no tile has.
    """
    why = _impossible(predictions, request)
    if why:
        if request != GroupRequest():
            raise BadInput(f"predictions of groups are not possible: {why}")
        return None
    y = predictions.y if request.labels is None else _given(predictions, request.labels)
    predictions = dataclasses.replace(predictions, y=y)
    val = predictions.rows("val")
    n_val = predictions.n_groups("val") or 0
    if n_val < FEW_UNITS or not _heads_for_val(predictions):
        n_val = 0
    rule = next(iter(RULES))
    if n_val:
        rule = max(RULES, key=lambda each: _val_score(_aggregated(predictions, val, each)))  # the first of equals
    groups = _aggregated(predictions, np.arange(len(y)), rule)
    chosen, n_positive = _with_thresholds(GroupRule(rule, groups.classes), groups, request)
    return GroupLevel(groups, chosen, n_val, n_positive)


def _impossible(predictions: Predictions, request: GroupRequest) -> str:
    """Return why groups cannot be predicted, "" where they can."""
    tiles = predictions.tiles
    if not predictions.groups_known or predictions.protocol == "random":
        return "the tiles have no groups, or a group is in several splits"
    if tiles["group"].nunique() == tiles["tile_id"].nunique():
        return "each group has one tile"
    if request.labels is None and tiles.groupby("group", observed=True)["label"].nunique().max() > 1:
        return "tiles of one group have several labels: give --group-labels"
    return "" if request.labels is not None or tiles["label"].nunique() > 1 else "all tiles have one label"


def _given(predictions: Predictions, labels: Mapping[str, str]) -> IntArray:
    """Return the code of the label of each tile's group, (N,).

    Raises:
        BadInput: a group has no label or one that no tile has, or all groups have the same.
    """
    group, names = predictions.group_code
    if missing := [name for name in names if name not in labels]:
        raise BadInput(f"--group-labels: {len(missing)} group(s) have no label: {list_names(missing)}")
    used = {labels[name] for name in names}
    if unknown := sorted(used - set(predictions.classes)):
        raise BadInput(
            f"--group-labels: the label '{unknown[0]}' is no class of the tiles ({', '.join(predictions.classes)})"
        )
    if len(used) < 2:
        raise BadInput("--group-labels: all groups have the same label")
    return np.array([predictions.classes.index(labels[name]) for name in names])[group]


def _heads_for_val(predictions: Predictions) -> list[str]:
    """Return the main heads, or all if there are none, that were not fitted on the validation rows."""
    heads = predictions.main_heads or predictions.heads
    return [head for head in heads if not predictions.is_fitted_on(head, "val")]


def _val_score(groups: Predictions) -> float:
    """Return the mean balanced accuracy on validation rows of the heads that were not fitted on them."""
    heads = _heads_for_val(groups)
    matrices = np.stack([confusion(groups.y, groups.predicted[head], len(groups.classes)) for head in heads])
    return float(scores_from_confusion(matrices)["balanced_accuracy"].mean())


def _aggregated(predictions: Predictions, rows: IntArray, rule: str) -> Predictions:
    """Return one row for each group and seed of some rows, by a rule, with the classes that groups have."""
    tiles = predictions.tiles.iloc[rows]
    keyed = tiles.groupby(["split", "seed", "group"], sort=True, observed=True)
    code = keyed.ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    classes = np.unique(predictions.y)
    y = np.searchsorted(classes, predictions.y[rows][first])
    names = [predictions.classes[each] for each in classes]
    table = tiles.iloc[first].assign(tile_id=tiles["group"].iloc[first], label=[names[each] for each in y])
    p = {
        head: group_probabilities(rule, values[rows], predictions.predicted[head][rows], code, classes=classes.tolist())
        for head, values in predictions.p.items()
    }
    return dataclasses.replace(
        predictions,
        classes=names,
        tiles=table.reset_index(drop=True),
        y=y,
        p=p,
        predicted={head: values.argmax(axis=1) for head, values in p.items()},
    )


def _with_thresholds(rule: GroupRule, groups: Predictions, request: GroupRequest) -> tuple[GroupRule, int]:
    """Return the rule with a threshold for each head, and the number of validation groups that chose them.

    Raises:
        BadInput: no class or an unknown one is given for the threshold, or no validation group is of it.
    """
    if request.sensitivity is None:
        return rule, 0
    positive = request.positive or (groups.classes[1] if len(groups.classes) == 2 else "")
    if positive not in groups.classes:
        what = f"'{positive}' is no label of the groups" if positive else "several classes"
        raise BadInput(f"--sensitivity: {what}: give --positive with one of {', '.join(groups.classes)}")
    code, val = groups.classes.index(positive), groups.rows("val")
    rows = val[groups.y[val] == code]
    if not len(rows):
        raise BadInput(
            f"--sensitivity: no validation group is {positive}, and test groups must not choose a threshold: prepare "
            "one split with validation groups of it (a plan with folds reports test tiles only)"
        )
    heads = [head for head in groups.heads if not groups.is_fitted_on(head, "val")]
    if not heads:
        raise BadInput("--sensitivity: all heads were fitted on the validation tiles (fit_heads --fit-on heldout)")
    thresholds = {head: sensitivity_threshold(groups.p[head][rows, code], request.sensitivity) for head in heads}
    return dataclasses.replace(rule, positive=positive, sensitivity=request.sensitivity, thresholds=thresholds), len(
        rows
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
