"""predictions.csv: what every head says of every tile; the only source of the figures in a report.

Of one split it holds all rows. Of a plan it holds the test rows of all parts, each predicted by the networks that were
trained without its fold, with the columns seed and fold behind `predicted`: a tile has one row per seed and head.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.errors import BadArtifact
from pipeline.storage.embeddings import OK, Embeddings
from pipeline.storage.tables import read_table
from pipeline.tiles.split import SPLITS

SCHEMA = "predictions/1.0"
COLUMNS = ("tile_id", "group", "split", "label", "head", "predicted")
"""Columns before the probabilities `p_<class>`, which stand in the order of the classes."""

PART_COLUMNS = ("seed", "fold")
"""Columns that only a plan's pooled predictions have in the file; readers fill in 0."""

SUM_TOLERANCE = 1e-6
"""How far the probabilities of a row may be from 1 (nine digits are written)."""


class Answer(NamedTuple):
    """What one head says of N tiles."""

    predicted: np.ndarray
    """(N,) class codes that the head's own scores decide for; a calibration by class (sigmoid, isotonic) may put
    another class on top, but does not change a decision."""

    p: np.ndarray
    """(N, K) calibrated probabilities."""


def usable_rows(embeddings: Embeddings) -> np.ndarray:
    """Return which rows (N,) bool of an embeddings file have features, a label and a split."""
    return (embeddings.status == OK) & (embeddings.split < len(SPLITS)) & (embeddings.label >= 0)


def to_csv(embeddings: Embeddings, answers: Mapping[str, Answer]) -> str:
    """Return the table: for each head one line per usable row, in the order of the embeddings file.

    Args:
        embeddings: the file's content.
        answers: head -> what it says of the M usable rows.
    """
    usable = np.flatnonzero(usable_rows(embeddings))
    classes = np.array(embeddings.classes, dtype=object)
    parts = []
    for head, answer in answers.items():
        table = pd.DataFrame(
            {
                "tile_id": np.array(embeddings.tile_id, dtype=object)[usable],
                "group": np.array(embeddings.group, dtype=object)[usable],
                "split": np.array(SPLITS, dtype=object)[embeddings.split[usable]],
                "label": classes[embeddings.label[usable]],
                "head": head,
                "predicted": classes[answer.predicted],
            }
        )
        for i, name in enumerate(classes):
            table[f"p_{name}"] = answer.p[:, i]
        parts.append(table)
    return pd.concat(parts).to_csv(index=False, float_format="%.9g", lineterminator="\n")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions.csv and check it against its schema; its record is the caller's to check.

    Returns:
        The file's columns, with seed and fold in any case.

    Raises:
        BadArtifact: names the rule that the file breaks.
    """

    def refuse(rule: str) -> BadArtifact:
        return BadArtifact(f"{path}: {rule}: run `python -m pipeline.fit_heads --restart`")

    table = read_table(path, texts=COLUMNS, refuse=refuse)
    pooled = tuple(table.columns[len(COLUMNS) :][:2]) == PART_COLUMNS
    rest = list(table.columns[len(COLUMNS) + (2 if pooled else 0) :])
    if len(rest) < 2 or any(name[:2] != "p_" for name in rest):
        raise refuse(f"its columns are not {', '.join(COLUMNS)}, p_<class>, ...")
    check_probabilities(table, rest, refuse)
    classes = {name[2:] for name in rest}
    if not set(table["label"]) | set(table["predicted"]) <= classes or not set(table["split"]) <= set(SPLITS):
        raise refuse("a label or split is unknown")
    if pooled and any(table[name].dtype.kind != "i" for name in PART_COLUMNS):
        raise refuse("a seed or fold is no whole number")
    if not pooled:
        for name in reversed(PART_COLUMNS):
            table.insert(len(COLUMNS), name, 0)
    rows = pd.Series(list(zip(table["tile_id"], table["seed"], strict=True)), index=table.index)
    heads = rows.groupby(table["head"], sort=False).agg(list)
    if any(ids != heads.iloc[0] for ids in heads) or len(set(heads.iloc[0])) != len(heads.iloc[0]):
        raise refuse("the heads do not stand on the same rows")
    return table


def check_probabilities(table: pd.DataFrame, names: Sequence[str], refuse: Callable[[str], BadArtifact]) -> None:
    """Check the columns `p_<class>` of a table.

    Raises:
        BadArtifact: what `refuse` makes: they are no probabilities.
    """
    p = table[list(names)].to_numpy(np.float64) if all(table[name].dtype.kind in "fi" for name in names) else None
    if p is None or not np.isfinite(p).all() or (p < 0).any() or (abs(p.sum(axis=1) - 1) > SUM_TOLERANCE).any():
        raise refuse("a row's probabilities are no numbers from 0 up that sum to 1")


def classes_of(table: pd.DataFrame) -> list[str]:
    """Return the class names of a table from `read_predictions`, in the order of their codes."""
    return [name[2:] for name in table.columns[len(COLUMNS) + len(PART_COLUMNS) :]]
