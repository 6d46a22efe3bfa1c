"""Read predictions into arrays."""

from pathlib import Path

import numpy as np

from pipeline.comparison.predictions import TILE_COLUMNS, Predictions
from pipeline.errors import BadInput
from pipeline.evaluation.validate import FloatArray, IntArray, as_probabilities
from pipeline.storage import freshness, records
from pipeline.storage.predictions import csv_table as stored


def read_predictions(path: Path, *, force: bool = False) -> Predictions:
    """Read predictions.csv, or the Parquet table in its place, after checking it against its record and its inputs.

    Args:
        path: predictions.csv of a run.
        force: use it although an input of it has changed since.

    Raises:
        BadArtifact: missing, damaged, or not what the schema says.
        StaleInput: it, or something it was made from, was made from files that have changed since.
        BadInput: the heads disagree about a tile's group, split or label, or there are no test rows.
    """
    path = records.standing(path)
    record = records.check_artifact(path, schema=stored.SCHEMA)
    if not force:
        freshness.check_inputs_unchanged(path, record)
    if path.suffix == ".parquet":
        from pipeline.comparison.large_predictions import read_large

        return read_large(path, record)
    table = stored.read_predictions(path)
    classes = stored.classes_of(table)
    if not (table["split"] == "test").any():
        raise BadInput(f"{path}: no test rows, so there is nothing to compare on: make the split again (prepare)")
    codes = {name: code for code, name in enumerate(classes)}
    heads = list(dict.fromkeys(table["head"]))
    tiles = table.loc[table["head"] == heads[0], TILE_COLUMNS].reset_index(drop=True)
    p: dict[str, FloatArray] = {}
    predicted: dict[str, IntArray] = {}
    for head in heads:
        rows = table[table["head"] == head]
        if not rows[TILE_COLUMNS].reset_index(drop=True).equals(tiles):
            raise BadInput(f"{path}: group, split or label of a tile differ between the heads: run fit_heads again")
        p[head] = as_probabilities(rows[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float64))
        predicted[head] = rows["predicted"].map(codes).to_numpy(dtype=np.int64)
    return Predictions(
        classes=classes,
        heads=heads,
        tiles=tiles,
        y=tiles["label"].map(codes).to_numpy(dtype=np.int64),
        p=p,
        predicted=predicted,
        record=record,
    )
