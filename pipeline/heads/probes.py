"""Measure what embeddings reveal besides the class: their source, and whether a tile was in the training set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold

from pipeline.heads.base import Rows, subsample
from pipeline.heads.streamed_rows import StreamedRows, in_memory
from pipeline.heads.svm.classifier import fit_svm

FOLDS = 3

LEAST_TILES = 2 * FOLDS
"""A group with fewer tiles is left out of the source probe."""

MOST_ROWS = 2000


def probes(rows: Mapping[str, Rows], params: dict[str, Any] | None, *, seed: int) -> dict[str, Any]:
    """Return the entries of heads.json about the embeddings: `source_probe` and `separability`.

    Args:
        rows: split -> rows, with train and val.
        params: as in `source_probe`.
        seed: as in `source_probe`.
    """
    return {
        "source_probe": source_probe(rows["val"], params, seed=seed),
        "separability": {name: separability(rows[name]) for name in ("train", "val")},
    }


def source_probe(rows: Rows, params: dict[str, Any] | None, *, seed: int) -> dict[str, Any]:
    """Return how well an SVM predicts the group (source, slide, patient) of a tile from its embedding.

    A head can use the source in an embedding as a shortcut that fails on a new source (Howard et al. 2021, Nat. Commun.
    12:4423). The network must not be trained on the rows. Cross-validated over tiles.

    Args:
        rows: held-out rows with their groups.
        params: parameters of the SVM head; None: an RBF kernel with gamma 1 / D, and C 1.
        seed: seed of the folds, and of the sample if there are more than `MOST_ROWS` rows.

    Returns:
        accuracy, chance (share of the largest group), balanced_accuracy, chance_balanced (1 / n_groups), n_groups,
        n_tiles; or {"reason": why there is no result}.
    """
    if len(rows.groups) == 0 or "" in rows.groups:
        return {"reason": "groups are not known"}
    names, code, counts = np.unique(rows.groups, return_inverse=True, return_counts=True)
    enough = counts[code] >= LEAST_TILES
    n_groups = int((counts >= LEAST_TILES).sum())
    if n_groups < 2:
        return {"reason": f"fewer than two of {len(names)} held-out group(s) have {LEAST_TILES} tiles or more"}
    chosen = np.flatnonzero(enough)
    chosen = chosen[subsample(code[chosen], MOST_ROWS, seed=seed)]
    params = params or {"kernel": "rbf", "gamma": 1 / rows.features.shape[1], "C": 1.0}
    x, y = in_memory(rows.take(chosen)).features, np.unique(code[chosen], return_inverse=True)[1]
    predicted = np.empty(len(y), dtype=np.int64)
    for fit, held in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        fit_rows = Rows(x[fit], np.zeros((len(fit), n_groups), np.float32), y[fit])
        held_rows = Rows(x[held], np.zeros((len(held), n_groups), np.float32), y[held])
        predicted[held] = fit_svm(fit_rows, params, seed=seed).scores(held_rows).argmax(axis=1)
    return {
        "accuracy": float((predicted == y).mean()),
        "chance": float(np.bincount(y).max() / len(y)),
        "balanced_accuracy": float(balanced_accuracy_score(y, predicted)),
        "chance_balanced": 1 / n_groups,
        "n_groups": n_groups,
        "n_tiles": len(y),
    }


def separability(rows: Rows) -> dict[str, float | None]:
    """Return how far apart the classes are in the embeddings, and the accuracy of the network's own head.

    `scatter_ratio` is the trace of the scatter between the class means over that within the classes (Fisher's
    criterion; Fukunaga 1990, "Introduction to Statistical Pattern Recognition", chapter 10). It is larger on
    training tiles than on others; the difference shows how optimistic training embeddings are. None if no class has
    two different rows. `accuracy` is None for a frozen encoder, which has no head.
    """
    between, within = _streamed_scatter(rows) if isinstance(rows, StreamedRows) else _scatter(rows)
    return {
        "scatter_ratio": between / within if within > 0 else None,
        "accuracy": float((rows.logits.argmax(axis=1) == rows.y).mean()) if rows.logits.shape[1] else None,
        "n_tiles": len(rows.y),
    }


def _scatter(rows: Rows) -> tuple[float, float]:
    """Return the traces of the scatter between the class means and within the classes."""
    mean = rows.features.mean(axis=0, dtype=np.float64)
    between = within = 0.0
    for code in np.unique(rows.y):
        own = rows.features[rows.y == code].astype(np.float64)
        centre = own.mean(axis=0)
        between += len(own) * float(((centre - mean) ** 2).sum())
        within += float(((own - centre) ** 2).sum())
    return between, within


def _streamed_scatter(rows: StreamedRows) -> tuple[float, float]:
    """Return the same as `_scatter` for streamed rows, from sums and sums of squares in float64."""
    counts = np.bincount(rows.y, minlength=rows.n_classes)
    sums, squares = np.zeros((len(counts), rows.features.width)), 0.0
    for _, block in rows.blocks():
        for code in np.unique(block.y):
            own = block.features[block.y == code].astype(np.float64)
            sums[code] += own.sum(axis=0)
            squares += float((own**2).sum())
    seen = counts > 0
    centres = float(((sums[seen] ** 2).sum(axis=1) / counts[seen]).sum())
    return centres - float((sums.sum(axis=0) ** 2).sum()) / len(rows.y), squares - centres
