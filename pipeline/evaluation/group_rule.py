"""Predict a group from its tiles: the rules by which probabilities of tiles become those of a group."""

from collections.abc import Callable, Mapping

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray, ProbabilityArray

Shares = Callable[[ProbabilityArray, IntArray], FloatArray]
"""Maps probabilities (M, K) and predicted classes (M,) of tiles to what is averaged over a group, (M, K)."""


def _votes(p: ProbabilityArray, predicted: IntArray) -> FloatArray:
    return np.eye(p.shape[1])[predicted]


def _above(threshold: float) -> Shares:
    return lambda p, predicted: (p > threshold).astype(np.float64)


RULES: Mapping[str, Shares] = {
    "mean probability": lambda p, predicted: np.asarray(p, np.float64),
    "vote": _votes,
    "share above 0.75": _above(0.75),
    "share above 0.9": _above(0.9),
}
"""Rule -> what is averaged over the tiles of a group. The first rule holds where validation groups are too few."""


def group_means(rule: str, p: ProbabilityArray, predicted: IntArray, code: IntArray) -> FloatArray:
    """Return the mean shares of groups, (G, K), with sum 1; a group without any share has its mean probabilities.

    Args:
        rule: one of `RULES`.
        p: (M, K) probabilities of the tiles.
        predicted: (M,) their predicted classes.
        code: (M,) number of each tile's group, 0..G-1.
    """
    values = RULES[rule](p, predicted)
    sums = np.stack([np.bincount(code, values[:, k]) for k in range(values.shape[1])], axis=1)
    empty = sums.sum(axis=1) == 0
    if empty.any():
        fallback = np.stack([np.bincount(code, p[:, k]) for k in range(values.shape[1])], axis=1)
        sums[empty] = fallback[empty]
    return np.asarray(sums / sums.sum(axis=1, keepdims=True))
