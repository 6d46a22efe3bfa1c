"""Split tiles into folds: every tile is tested once, by a network that was trained without its fold.

Some of the tiles outside the test fold are held out for validation (choices, early stopping, calibration), by whole
groups where groups are kept whole.
"""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from pipeline.errors import BadInput


def fold_numbers(labels: list[str], groups: list[str] | None, *, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each tile, (N,) int from 0; with the classes as even as possible.

    scikit-learn's StratifiedGroupKFold (StratifiedKFold without groups), shuffled by `seed`. With as many folds as
    groups, every group is a fold, in the order of the names.

    Args:
        labels: class name of each tile, (N,).
        groups: group of each tile, (N,), to be kept whole; None: single tiles.
        n_folds: at least 2.
        seed: the same input and seed give the same folds.

    Raises:
        BadInput: fewer groups (or tiles) than folds.
    """
    units = groups if groups is not None else list(range(len(labels)))
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    if len(names) < n_folds:
        what = "group(s)" if groups is not None else "tile(s)"
        raise BadInput(f"{len(names)} {what} cannot make {n_folds} folds: give more sources or fewer folds")
    if groups is not None and len(names) == n_folds:
        return unit
    folds = np.empty(len(labels), dtype=np.int64)
    splitter = (StratifiedGroupKFold if groups is not None else StratifiedKFold)(
        n_folds, shuffle=True, random_state=seed
    )
    with warnings.catch_warnings():  # a class with fewer tiles than folds is absent from some: the plan lists that
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        try:
            parts = list(splitter.split(np.zeros(len(labels)), np.asarray(labels), None if groups is None else unit))
        except ValueError:  # every class has fewer tiles than there are folds
            raise BadInput(f"no class has {n_folds} tiles: lower --folds or add tiles") from None
    for number, (_, tested) in enumerate(parts):
        folds[tested] = number
    return folds


def held_out(labels: list[str], groups: list[str] | None, *, share: float, seed: int) -> np.ndarray:
    """Return a mask (N,) of the tiles that are held out for validation: about `share`, whole groups.

    The training side is divided into 1 / share folds. The chosen fold removes the fewest classes from train; among
    equals it is the nearest to `share` of every class.

    Raises:
        BadInput: fewer than two groups, so that nothing is left to train on.
    """
    n_units = len(set(groups)) if groups is not None else len(labels)
    if n_units < 2:
        raise BadInput("one group is left to train on, none can be held out for validation: give more sources")
    n_folds = min(max(2, round(1 / share)), n_units)
    folds = fold_numbers(labels, groups, n_folds=n_folds, seed=seed)
    names, code = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((n_folds, len(names)))
    np.add.at(counts, (folds, code), 1)
    total = counts.sum(axis=0)
    lost = ((total - counts) == 0).sum(axis=1)
    distance = ((counts / total - share) ** 2).sum(axis=1)
    chosen = min(range(n_folds), key=lambda fold: (lost[fold], distance[fold], fold))
    is_held: np.ndarray = folds == chosen
    return is_held
