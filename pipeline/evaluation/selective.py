"""Compute accuracy against coverage, if the tiles with the lowest confidence are referred to a human.

Confidence is the probability of the class that the head names. Selective classification after Geifman
and El-Yaniv 2017, "Selective Classification for Deep Neural Networks", and 2019, "Bias-Reduced Uncertainty Estimation
for Deep Neural Classifiers".
"""

import dataclasses
import math

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray, ProbabilityArray, as_labels, check_probabilities


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

        A confidence without information gives the head's error rate.
        """
        return float(1 - self.accuracy.mean())

    def accuracy_at(self, coverage: float) -> float:
        """Return the accuracy on the surest tiles that make up at least this share.

        Raises:
            ValueError: `coverage` is not in 0..1, 0 excluded.
        """
        return float(self.accuracy[place(coverage, len(self.accuracy)) - 1])


def place(coverage: float, n_rows: int) -> int:
    """Return how many of `n_rows` rows make up at least a share.

    Raises:
        ValueError: `coverage` is not in 0..1, 0 excluded.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in 0..1, 0 excluded, but is {coverage}")
    return math.ceil(round(coverage * n_rows, 9))  # rounded first: 0.07 * 100 is a little more than 7


def selective_curve(y: IntArray, p: ProbabilityArray, predicted: IntArray) -> SelectiveCurve:
    """Return accuracy against coverage.

    Tiles of equal confidence have no order: each counts with their share of correct tiles, which is what a
    random order among them gives on average.

    Args:
        y: (N,) true class index in 0..K-1.
        p: (N, K) probabilities, rows sum to 1.
        predicted: (N,) predicted class index.

    Raises:
        ValueError: Wrong shapes or types, no rows, indices outside 0..K-1, rows of `p` that are no probabilities.
    """
    p = check_probabilities(p)
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
