"""Find the training tiles whose embeddings are most similar to those of each test tile."""

import dataclasses
from pathlib import Path

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray
from pipeline.names import SPLITS
from pipeline.storage.embeddings.reader import BLOCK_ROWS, OK, Embeddings, feature_rows

NEIGHBOURS = 3
"""Training tiles that are found for each test tile."""

MOST_COMPARISONS = 50_000_000
"""Test tiles times training tiles: 5000 by 10,000 take about 10 s on one core. Above, none are found."""


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The nearest training tiles of some test tiles."""

    row: IntArray
    """(T, k) rows of the embeddings file, the nearest first; k is `NEIGHBOURS`, or the number of training tiles."""

    cosine: FloatArray
    """(T, k) similarities, -1 to 1."""


def nearest_training_tiles(path: Path, embeddings: Embeddings, names: np.ndarray) -> Nearest | None:
    """Return the nearest training tiles; None if a name has no embedding, or there are none or too many to compare.

    Training rows are read block by block: memory holds the features of the test tiles, (T, D) float32, and one block.

    Args:
        path: embeddings.h5.
        embeddings: its content, without features.
        names: (T,) names of test tiles.
    """
    is_train = (embeddings.split == SPLITS.index("train")) & (embeddings.status == OK) & (embeddings.label >= 0)
    train = np.flatnonzero(is_train)
    if not len(train) or len(train) * len(names) > MOST_COMPARISONS:
        return None
    place = {name: row for row, name in enumerate(embeddings.tile_id) if embeddings.status[row] == OK}
    if not all(name in place for name in names):
        return None
    rows = np.array([place[name] for name in names])
    order = np.argsort(rows)
    tested = np.empty((len(rows), 0), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = order[start : start + BLOCK_ROWS]
        found = _unit_length(feature_rows(path, rows[part]))
        if start == 0:
            tested = np.empty((len(rows), found.shape[1]), np.float32)
        tested[part] = found
    row, cosine = np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0))
    for start in range(0, len(train), BLOCK_ROWS):
        block = train[start : start + BLOCK_ROWS]
        similar = tested @ _unit_length(feature_rows(path, block)).T
        row = np.concatenate([row, np.broadcast_to(block, similar.shape)], axis=1)
        cosine = np.concatenate([cosine, similar], axis=1)
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :NEIGHBOURS]
        row, cosine = np.take_along_axis(row, best, axis=1), np.take_along_axis(cosine, best, axis=1)
    return Nearest(row, cosine)


def _unit_length(features: np.ndarray) -> np.ndarray:
    """Return (M, D) float32 rows of length 1; a row of zeros stays."""
    values = features.astype(np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, np.finfo(np.float32).tiny))
