"""Write the predictions of three heads that do not exist, for measuring reports of many rows."""

import numpy as np
import pandas as pd

from pipeline.names import SPLITS
from pipeline.storage import records
from pipeline.storage.predictions import csv_table

BLOCK = 100_000

GROUPS = 200
"""Slides; seven of ten are test."""

HEADS = {"softmax": 1.6, "svm": 1.8, "xgboost": 1.7}
"""Head -> how far it lifts the true class above noise."""


def write_synthetic(run, n_rows, *, n_classes=9, seed=0):
    """Write predictions of three heads on n_rows tiles into a run folder, with their record; return the table.

    Args:
        run: the folder.
        n_rows: tiles.
        n_classes: K.
        seed: of everything.
    """
    run.mkdir(parents=True, exist_ok=True)
    path = csv_table.table_for(run / "predictions.csv", n_rows * len(HEADS))
    with csv_table.written(path) as add:
        for number, skill in enumerate(HEADS.values()):
            for start in range(0, n_rows, BLOCK):
                add(_block(start, min(BLOCK, n_rows - start), number, skill, n_classes=n_classes, seed=seed))
    details = {"protocol": "grouped", "dataset": "synthetic", "credit": None, "calibrated_on": "val", "n_skipped": 0}
    artifact = records.Artifact(path, csv_table.SCHEMA, "fit_heads", {"rows": n_rows}, seed=seed)
    records.write_record(artifact, details=details)
    return path


def _block(start, n, head, skill, *, n_classes, seed):
    """Return lines start..start+n-1 of a head; the tiles are those of every head."""
    tiles, own = np.random.default_rng([seed, start, 0]), np.random.default_rng([seed, start, 1 + head])
    names = np.array([f"class_{k}" for k in range(n_classes)], dtype=object)
    group = np.arange(start, start + n) % GROUPS
    y = tiles.integers(0, n_classes, n)
    of_group = np.random.default_rng([seed, 7]).normal(0, 0.5, (GROUPS, n_classes))
    scores = own.normal(size=(n, n_classes)) + of_group[group] + skill * np.eye(n_classes)[y]
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    lines = pd.DataFrame(
        {
            "tile_id": np.array([f"slide_{g:04d}_x{row}_y0" for row, g in enumerate(group, start)], dtype=object),
            "group": np.array([f"slide_{g:04d}" for g in group], dtype=object),
            "split": np.array(SPLITS, dtype=object)[[0, 0, 1, 2, 2, 2, 2, 2, 2, 2]][group % 10],
            "label": names[y],
            "head": list(HEADS)[head],
            "predicted": names[p.argmax(axis=1)],
        }
    )
    lines[[f"p_{name}" for name in names]] = p
    return lines
