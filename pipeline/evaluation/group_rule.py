"""Predict a group from its tiles: rules by which probabilities become those of a group, and thresholds for them."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray, ProbabilityArray

Votes = Callable[[ProbabilityArray, IntArray], FloatArray]
"""Maps probabilities (M, K) and predicted classes (M,) of tiles to the weights that each tile gives, (M, K)."""


def _votes(p: ProbabilityArray, predicted: IntArray) -> FloatArray:
    return np.eye(p.shape[1])[predicted]


def _sure_votes(threshold: float) -> Votes:
    return lambda p, predicted: (p > threshold).astype(np.float64)


RULES: Mapping[str, Votes] = {
    "mean probability": lambda p, predicted: np.asarray(p, np.float64),
    "vote": _votes,
    "vote of tiles above 0.75": _sure_votes(0.75),
    "vote of tiles above 0.9": _sure_votes(0.9),
}
"""Rule -> the weights that are summed over the tiles of a group. "vote of tiles above t": only tiles vote that give one
class a probability above t. The mean holds where validation groups are too few."""


@dataclasses.dataclass(frozen=True)
class GroupRule:
    """How a report predicts groups; `predict` applies it to slides."""

    rule: str
    """One of `RULES`."""

    classes: Sequence[str]
    """Classes that a group can be of."""

    positive: str = ""
    """Class that the thresholds are for; "": there are none."""

    sensitivity: float | None = None
    """Share of the positive validation groups that reach the thresholds."""

    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Head -> least probability of the class `positive` from which a group counts as positive."""


def group_probabilities(
    rule: str, p: ProbabilityArray, predicted: IntArray, code: IntArray, *, classes: Sequence[int] | None = None
) -> FloatArray:
    """Return the share of the weights of each group's tiles that each class has, (G, L), with sum 1.

    A group without any weight has its mean probabilities.

    Args:
        rule: one of `RULES`.
        p: (M, K) probabilities of the tiles.
        predicted: (M,) their predicted classes.
        code: (M,) number of each tile's group, 0..G-1.
        classes: L classes that a group can be of; None: all K. Weights of other classes have no effect.
    """
    columns = range(p.shape[1]) if classes is None else classes
    values = RULES[rule](p, predicted)
    sums = np.stack([np.bincount(code, values[:, k]) for k in columns], axis=1)
    empty = sums.sum(axis=1) == 0
    if empty.any():
        fallback = np.stack([np.bincount(code, p[:, k]) for k in columns], axis=1)
        sums[empty] = np.maximum(fallback[empty], np.finfo(np.float64).tiny)
    return np.asarray(sums / sums.sum(axis=1, keepdims=True))


def sensitivity_threshold(scores: FloatArray, sensitivity: float) -> float:
    """Return the highest threshold that at least a share `sensitivity` of the positives reaches (score >= threshold).

    Args:
        scores: (N,) scores of the positives, N >= 1.
        sensitivity: above 0, at most 1.
    """
    n_kept = math.ceil(sensitivity * len(scores) - 1e-9)
    return float(np.sort(scores)[len(scores) - n_kept])


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of independent cases with its interval."""

    n: int
    """Cases that count."""

    of: int
    """All cases."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """Return n / of, NaN without cases."""
        return self.n / self.of if self.of else math.nan


def exact_share(n: int, of: int, *, level: float) -> Share:
    """Return a share with its exact interval (Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits")."""
    from scipy.stats import binomtest

    low, high = binomtest(n, of).proportion_ci(level, method="exact") if of else (0.0, 1.0)
    return Share(n, of, float(low), float(high))
