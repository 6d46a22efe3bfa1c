"""Choose rows: folds of whole groups if they are known, else of tiles; evenly spaced ones."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.evaluation.validate import IntArray

Unit = Literal["group", "tile"]


def assign_folds(y: IntArray, groups: Sequence[str], *, seed: int, folds: int) -> tuple[IntArray, Unit]:
    """Return the fold of each row, numbered from 0.

    Tiles of a group resemble each other, so a group stays whole: the largest first, each into the fold with the
    fewest rows; fewer groups than folds make as many folds as groups. With one group, or one that is not known
    (""), tiles are dealt instead, the classes evenly.

    Args:
        y: (N,) class index.
        groups: N names of groups.
        seed: seed of the order among equals.
        folds: how many, at least 2.

    Returns:
        The fold of each row, (N,) int64, and what was dealt. No fold is empty; a single row makes a single fold.

    Raises:
        ValueError: as many groups as rows are needed, and two folds.
    """
    if len(groups) != len(y) or folds < 2:
        raise ValueError(f"{len(y)} groups and at least 2 folds are needed, but they are {len(groups)} and {folds}")
    rng = np.random.default_rng(seed)
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 2 or "" in names:
        fold = np.empty(len(y), dtype=np.int64)
        order = rng.permutation(len(y))
        fold[order[np.argsort(y[order], kind="stable")]] = np.arange(len(y)) % folds
        return fold, "tile"
    n_rows = np.bincount(group)
    load = np.zeros(min(folds, len(names)), dtype=np.int64)
    fold_of = np.empty(len(names), dtype=np.int64)
    order = rng.permutation(len(names))
    for unit in order[np.argsort(-n_rows[order], kind="stable")]:
        fold_of[unit] = load.argmin()
        load[fold_of[unit]] += n_rows[unit]
    return fold_of[group], "group"


def evenly_spaced(rows: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Return at most n of the rows, evenly spaced in their order."""
    positions = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    evenly: np.ndarray = np.asarray(rows, dtype=int)[positions]
    return evenly
