"""Accuracy against coverage: what a head gets right if the tiles it is least sure of are referred to a human.

Confidence is the probability of the class that the head names. Selective classification after Geifman
and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", and 2019, "Bias-Reduced Uncertainty Estimation
for Deep Neural Classifiers".
"""

import dataclasses
import math

import numpy as np
from scipy import special

from pipeline.evaluation.validate import FloatArray, IntArray, as_labels, as_probabilities


@dataclasses.dataclass(frozen=True)
class SelectiveCurve:
    """Accuracy on the n tiles that a head is surest of, for n = 1..N."""

    accuracy: FloatArray
    """(N,) expected accuracy on the surest n tiles, at place n - 1."""

    @property
    def coverage(self) -> FloatArray:
        """(N,) share of the tiles that the head answers, 1/N..1."""
        return np.arange(1, len(self.accuracy) + 1) / len(self.accuracy)

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: the mean of 1 - accuracy over all coverages; 0 is best.

        A confidence that tells nothing gives the head's error rate.
        """
        return float(1 - self.accuracy.mean())

    def accuracy_at(self, coverage: float) -> float:
        """Return the accuracy on the surest tiles that make up at least this share.

        Raises:
            ValueError: `coverage` is not in 0..1, 0 excluded.
        """
        return float(self.accuracy[place(coverage, len(self.accuracy)) - 1])


@dataclasses.dataclass(frozen=True)
class SteppedCurve(SelectiveCurve):
    """The same of rows that are known in steps of equal confidence only; `accuracy` stands at the end of each step."""

    last: IntArray
    """(steps,) number of rows up to the end of each step; the last is N."""

    right: IntArray
    """(steps,) number of right ones among them."""

    @classmethod
    def of_steps(cls, *, n: IntArray, right: IntArray) -> "SteppedCurve":
        """Return the curve of steps with `n` rows each, `right` of them right, the surest first."""
        last, total = np.cumsum(n), np.cumsum(right)
        return cls(total / last, last=last, right=total)

    @property
    def coverage(self) -> FloatArray:
        """(steps,) share of the tiles that the head answers, up to 1."""
        return self.last / self.last[-1]

    @property
    def aurc(self) -> float:
        """As of single rows. After n0 rows, c0 of them right, row n of a step has accuracy s + (c0 - s n0) / n."""
        n0, c0 = self.last - np.diff(self.last, prepend=0), self.right - np.diff(self.right, prepend=0)
        share = (self.right - c0) / (self.last - n0)
        harmonic = special.digamma(self.last + 1.0) - special.digamma(n0 + 1.0)  # sum of 1 / n over the step
        return float(1 - (share * (self.last - n0) + (c0 - share * n0) * harmonic).sum() / self.last[-1])

    def accuracy_at(self, coverage: float) -> float:
        """Return the accuracy on the surest tiles that make up at least this share.

        Raises:
            ValueError: `coverage` is not in 0..1, 0 excluded.
        """
        n = place(coverage, int(self.last[-1]))
        step = int(np.searchsorted(self.last, n))
        n0, c0 = (int(of[step - 1]) if step else 0 for of in (self.last, self.right))
        share = (self.right[step] - c0) / (self.last[step] - n0)
        return float((c0 + share * (n - n0)) / n)


def place(coverage: float, n_rows: int) -> int:
    """Return how many of `n_rows` rows make up at least a share.

    Raises:
        ValueError: `coverage` is not in 0..1, 0 excluded.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in 0..1, 0 excluded, but is {coverage}")
    return math.ceil(round(coverage * n_rows, 9))  # rounded first: 0.07 * 100 is a little more than 7


def selective_curve(y: IntArray, p: FloatArray, predicted: IntArray) -> SelectiveCurve:
    """Return accuracy against coverage.

    Tiles of equal confidence stand in no order: each counts with the share of them that is right, which is what a
    random order among them gives on average.

    Args:
        y: (N,) true class index in 0..K-1.
        p: (N, K) probabilities, rows sum to 1.
        predicted: (N,) predicted class index.

    Raises:
        ValueError: Wrong shapes or types, no rows, indices outside 0..K-1, rows of `p` that are no probabilities.
    """
    p = as_probabilities(p)
    n_rows, n_classes = p.shape
    right = as_labels(y, name="y", n_classes=n_classes, n_rows=n_rows) == as_labels(
        predicted, name="predicted", n_classes=n_classes, n_rows=n_rows
    )
    # negated, so that the surest come first
    confidence = p[np.arange(n_rows), predicted]
    _, level, n_tied = np.unique(-confidence, return_inverse=True, return_counts=True)
    share_right = np.bincount(level, weights=right) / n_tied
    expected = np.cumsum(np.repeat(share_right, n_tied))
    return SelectiveCurve(np.minimum(expected / np.arange(1, n_rows + 1), 1.0))  # sums of shares may round over 1
