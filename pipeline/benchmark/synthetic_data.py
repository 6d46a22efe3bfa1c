"""Embeddings that no network made: rectified mixtures of a few factors, as those of a trained network look to a head.

About half of the values are zero, classes overlap a little, and the best SVM lies within the grid, not at its edge.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.names import SPLITS
from pipeline.storage import records
from pipeline.storage.predictions import csv_table

FACTORS = 24
"""Dimensions that the classes differ in."""

APART = 0.75
"""Standard deviation of the classes' centres, in standard deviations of a class: nine of ten rows can be told."""

OWN, THRESHOLD = 0.5, 0.3
"""Standard deviation of each feature's own noise, and what is taken off before negative values are cut."""


def synthetic_features(y: np.ndarray, n_features: int, *, seed: int) -> np.ndarray:
    """Return features (N, n_features) float32 of rows of the classes y (N,); equal classes lie alike for every seed.

    Args:
        y: class codes from 0.
        n_features: D.
        seed: of the rows; the classes' centres and the features' meaning do not depend on it.
    """
    world = np.random.default_rng(0)
    centres = APART * world.standard_normal((64, FACTORS))
    mixing = world.standard_normal((FACTORS, n_features)) / np.sqrt(FACTORS)
    rng = np.random.default_rng([seed, 1])
    features = np.empty((len(y), n_features), dtype=np.float32)
    for start in range(0, len(y), 4096):  # memory for a block only
        own = y[start : start + 4096] % len(centres)
        factors = centres[own] + rng.standard_normal((len(own), FACTORS))
        noise = rng.standard_normal((len(own), n_features), dtype=np.float32)
        features[start : start + 4096] = np.maximum(factors @ mixing + OWN * noise - THRESHOLD, 0)
    return features


def synthetic_logits(features: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return logits (N, n_classes) float32 of a linear head on such features: nearness to the classes' means.

    Args:
        features: (N, D), of every class at least one row.
        y: (N,) class codes below `n_classes`.
        n_classes: K.
    """
    means = np.stack([features[y == code].mean(axis=0) for code in range(n_classes)])
    scores = features @ means.T - (means**2).sum(axis=1) / 2
    return (scores / scores.std()).astype(np.float32)


BLOCK = 100_000

GROUPS = 200
"""Slides; seven of ten are test."""

HEADS = {"softmax": 1.6, "svm": 1.8, "xgboost": 1.7}
"""Head -> how far it lifts the true class above noise."""


def write_synthetic(run: Path, n_rows: int, *, n_classes: int = 9, seed: int = 0) -> Path:
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


def _block(start: int, n: int, head: int, skill: float, *, n_classes: int, seed: int) -> pd.DataFrame:
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
