"""Read predictions of either form, CSV or Parquet, into arrays."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.comparison.predictions import Predictions
from pipeline.errors import BadInput
from pipeline.evaluation.validate import IntArray, ProbabilityArray
from pipeline.names import SPLITS
from pipeline.storage import freshness, records
from pipeline.storage.predictions import csv_table as stored
from pipeline.storage.predictions.columns import TILE_COLUMNS
from pipeline.storage.predictions.parquet_table import HeadProbabilities
from pipeline.storage.records import Record


def read_predictions(path: Path, *, force: bool = False) -> Predictions:
    """Read predictions.csv, or the Parquet table in its place, after checking it against its record and its inputs.

    Args:
        path: predictions.csv of a run.
        force: use it although an input of it has changed since.

    Raises:
        BadArtifact: missing, damaged, or not what the schema states.
        StaleInput: it, or something it was made from, was made from files that have changed since.
        BadInput: the heads disagree about a tile's group, split or label, or there are no test rows.
    """
    path = records.existing_table(path)
    record = freshness.checked_record(path, schema=stored.SCHEMA, force=force)
    found = _from_parquet(path, record) if path.suffix == ".parquet" else _from_csv(path, record)
    if not len(found.rows("test")):
        raise BadInput(f"{path}: no test rows, so there is nothing to compare on: make the split again (prepare)")
    return found


def _from_parquet(path: Path, record: Record) -> Predictions:
    """Read all columns but the probabilities, which are read head by head where they are used."""
    table = stored.open_parquet(path)
    tiles = table.tiles()
    return Predictions(
        classes=table.classes,
        heads=table.heads,
        tiles=tiles,
        y=tiles["label"].cat.codes.to_numpy(),
        p=HeadProbabilities(table),
        predicted={head: table.predicted(head) for head in table.heads},
        record=record,
    )


def _from_csv(path: Path, record: Record) -> Predictions:
    """Read the whole table, and take it apart by heads."""
    table = stored.read_predictions(path)
    classes = stored.classes_of(table)
    columns = list(TILE_COLUMNS)
    heads = {str(head): rows for head, rows in table.groupby("head", sort=False)}
    first = next(iter(heads.values()))[columns].reset_index(drop=True)
    if any(not rows[columns].reset_index(drop=True).equals(first) for rows in heads.values()):
        raise BadInput(f"{path}: group, split or label of a tile differ between the heads: run fit_heads again")
    p: dict[str, ProbabilityArray] = {
        head: rows[[f"p_{name}" for name in classes]].to_numpy(np.float64) for head, rows in heads.items()
    }
    predicted: dict[str, IntArray] = {
        head: pd.Categorical(rows["predicted"], classes).codes.astype(np.int64) for head, rows in heads.items()
    }
    tiles = first.assign(
        group=pd.Categorical(first["group"]),
        split=pd.Categorical(first["split"], SPLITS),
        label=pd.Categorical(first["label"], classes),
    )
    y = tiles["label"].cat.codes.to_numpy(np.int64)
    return Predictions(classes=classes, heads=list(heads), tiles=tiles, y=y, p=p, predicted=predicted, record=record)
