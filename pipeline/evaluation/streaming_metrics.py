"""Scores of one head on more rows than are held: rows are given in blocks, and only what they add up to is kept.

Counts, means and intervals are those of `metrics` and `intervals`. What needs an order of all rows (AUROC, accuracy
against coverage) takes probabilities whose log odds fall into one step of `STEP` as equal: they differ by less than
half a percent of the odds.
"""

import math

import numpy as np
from scipy import sparse

from pipeline.evaluation.bootstrap import resampled_metrics
from pipeline.evaluation.bootstrap_sums import block_starts, metrics_of_sums, unit_statistics
from pipeline.evaluation.metrics import METRICS, bin_means
from pipeline.evaluation.selective import SteppedCurve
from pipeline.evaluation.validate import FloatArray, IntArray, as_labels, as_probabilities

STEPS = 8192
MOST_LOG_ODDS = 20.0
"""Beyond 20, a probability of 2e-9, all are equal; float32 holds nothing between 1 - 6e-8 and 1."""

STEP = 2 * MOST_LOG_ODDS / STEPS
"""0.005."""


def step_of(p: FloatArray) -> IntArray:
    """Return the step 0..STEPS-1 of each probability, rising with it."""
    with np.errstate(divide="ignore"):
        log_odds = np.log(p) - np.log1p(-np.minimum(p, 1.0))
    places = (np.clip(log_odds, -MOST_LOG_ODDS, MOST_LOG_ODDS) + MOST_LOG_ODDS) / STEP
    return np.minimum(places.astype(np.int64), STEPS - 1)


class Tally:
    """What the rows of one head and split add up to.

    tally = Tally(n_classes=9, n_units=50)
    for y, p, predicted, unit in blocks:
        tally.add(y, p, predicted, unit=unit)
    tally.scalar_metrics()
    """

    def __init__(self, *, n_classes: int, n_units: int) -> None:
        self.n_classes = n_classes
        self.n_units = n_units
        self.n_rows = 0
        self._statistics = sparse.csr_array((int(block_starts(n_classes)[-1]), n_units))
        self._ranked = np.zeros((n_classes, 2, STEPS), dtype=np.int64)
        """Rows that are not of a class and those that are, by its probability."""
        self._surest = np.zeros((2, STEPS), dtype=np.int64)
        """Wrong and right rows by the probability of the class that the head names."""

    def add(self, y: IntArray, p: FloatArray, predicted: IntArray, *, unit: IntArray) -> None:
        """Add rows.

        Args:
            y: (N,) true class index in 0..K-1.
            p: (N, K) probabilities, rows sum to 1.
            predicted: (N,) predicted class index.
            unit: (N,) number of the unit of each row, in 0..n_units-1.

        Raises:
            ValueError: Wrong shapes or types, no rows, indices outside 0..K-1, rows of `p` that are no probabilities.
        """
        p = as_probabilities(p)
        y = as_labels(y, name="y", n_classes=self.n_classes, n_rows=len(p))
        predicted = as_labels(predicted, name="predicted", n_classes=self.n_classes, n_rows=len(p))
        unit = as_labels(unit, name="unit", n_classes=self.n_units, n_rows=len(p))
        self._statistics = self._statistics + unit_statistics(y, p, predicted, unit=unit, n_units=self.n_units)
        steps = step_of(p)
        for k in range(self.n_classes):
            self._ranked[k] += _by_step(steps[:, k], y == k)
        self._surest += _by_step(steps[np.arange(len(p)), predicted], predicted == y)
        self.n_rows += len(p)

    def scalar_metrics(self) -> dict[str, float]:
        """Return the keys of `metrics.scalar_metrics`; auroc_ovr is exact to `auroc_error`."""
        found = metrics_of_sums(self._statistics.sum(axis=1)[None], n_classes=self.n_classes)
        values = {name: float(value[0]) for name, value in found.items()} | {"auroc_ovr": self._auroc()[0]}
        return {name: values[name] for name in METRICS}

    @property
    def auroc_error(self) -> float:
        """How far auroc_ovr is from that of the rows at most: half the share of pairs that fall into one step."""
        return self._auroc()[1]

    def _auroc(self) -> tuple[float, float]:
        areas, errors = [], []
        for out, within in self._ranked:
            n_pairs = float(out.sum()) * float(within.sum())
            if n_pairs:
                tied = (out * (within / n_pairs)).sum()
                below = (np.cumsum(out) - out) * (within / n_pairs)
                areas.append(float(below.sum() + tied / 2))
                errors.append(float(tied / 2))
        return (float(np.mean(areas)), float(np.mean(errors))) if areas else (math.nan, math.nan)

    def intervals(self, *, n_draws: int, seed: int, level: float) -> dict[str, tuple[float, float]]:
        """Return the keys of `intervals.bootstrap_metrics`; units without rows are left out, as there."""
        statistics = self._statistics[:, np.flatnonzero(np.diff(self._statistics.tocsc().indptr))]
        return resampled_metrics(statistics, n_classes=self.n_classes, n_draws=n_draws, seed=seed, level=level)

    def reliability_bins(self) -> dict[str, FloatArray]:
        """Return what `metrics.reliability_bins` does."""
        sums = np.split(self._statistics.sum(axis=1), block_starts(self.n_classes)[1:-1])
        return bin_means(count=sums[3], confidence=sums[4], correct=sums[5])

    def selective_curve(self) -> SteppedCurve:
        """Return what `selective.selective_curve` does, in steps of confidence."""
        wrong, right = self._surest[:, ::-1]  # the surest first
        occurs = wrong + right > 0
        return SteppedCurve.of_steps(n=(wrong + right)[occurs], right=right[occurs])


def _by_step(steps: IntArray, is_in: np.ndarray) -> IntArray:
    """Return (2, STEPS) counts of the rows that are not and that are in."""
    return np.bincount(is_in * STEPS + steps, minlength=2 * STEPS).reshape(2, STEPS)
