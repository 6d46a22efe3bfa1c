"""Compute intervals of scores and of paired differences by the percentile bootstrap over whole units.

The caller chooses the unit: the tile gives the tile bootstrap; the group (source, patient) gives the cluster bootstrap,
which keeps similar tiles together. With n units a plain percentile interval is too narrow, as a normal interval is
compared with Student's. Every interval is therefore Hesterberg's expanded interval (`tail_probability`).
"""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from pipeline.evaluation.bootstrap_sums import confusion_counts, dense_units, metrics_of_sums, unit_statistics
from pipeline.evaluation.metrics import METRICS, auroc_ovr, scores_from_confusion
from pipeline.evaluation.validate import (
    FloatArray,
    IntArray,
    NumberArray,
    ProbabilityArray,
    as_labels,
    as_rows,
    check_probabilities,
)

CHUNK_CELLS = 1_000_000
"""Units, or cells of a confusion matrix, times draws held at once; about 40 MB at the peak."""

PAIRED_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")

NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Difference:
    """The difference a - b of one metric between two heads on the same rows, with its interval and standard error."""

    value: float
    low: float
    high: float
    n_units: int
    standard_error: float
    """Standard deviation of the draws, times the root of n / (n - 1): draws of n units vary too little. NaN of one."""


@dataclass(frozen=True)
class PairedCounts:
    """Confusion counts of two heads in every unit, from which differences are resampled."""

    metric: str
    n_classes: int
    a: sparse.csr_array
    """(K * K, units) counts of head a; the cell of true class i and predicted class j is row i * K + j."""

    b: sparse.csr_array
    """(K * K, units) counts of head b."""

    @property
    def n_units(self) -> int:
        """Number of units."""
        return int(self.a.shape[1])

    def difference(self, cells_a: NumberArray, cells_b: NumberArray) -> FloatArray:
        """Return (draws,) metric of a less metric of b, from (draws, K * K) cells of each."""
        shape = (-1, self.n_classes, self.n_classes)
        score_a, score_b = (scores_from_confusion(cells.reshape(shape))[self.metric] for cells in (cells_a, cells_b))
        return score_a - score_b

    @property
    def value(self) -> float:
        """The difference on all rows."""
        return float(self.difference(self.a.sum(axis=1)[None], self.b.sum(axis=1)[None])[0])

    def draws(self, weights: Iterable[FloatArray]) -> FloatArray:
        """Return (draws,) differences under weights of the units, given as chunks (units, draws)."""
        return np.concatenate([self.difference((self.a @ chunk).T, (self.b @ chunk).T) for chunk in weights])


def bootstrap_metrics(
    y: IntArray,
    p: ProbabilityArray,
    predicted: IntArray,
    *,
    units: IntArray,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return (low, high) for every key of `scalar_metrics`: an expanded percentile bootstrap over whole units.

    Each draw takes as many units as there are, with replacement, and is scored by the functions of
    `metrics`; its means over classes run over the classes that occur in the draw. Nothing is scored row
    by row: a draw only needs the sums of its units, so it is one weighted sum of the units' statistics
    (confusion counts, loss sums, reliability-bin sums). auroc_ovr has no such sums (every draw would
    need its own ranking of all rows and classes) and gets no interval: (nan, nan).

    The ece of a resample is larger on average than that of the rows it came from, because resampling adds
    noise to every bin and the gaps enter as absolute values: for a well calibrated head the whole
    interval may be above the value.

    Args:
        y: (N,) true class index in 0..K-1.
        p: (N, K) probabilities, rows sum to 1.
        predicted: (N,) predicted class index.
        units: (N,) integer id of the resampling unit of each row.
        n_draws: Number of resamples.
        seed: Equal seeds, n_draws and units give equal resamples for every head.
        level: Nominal coverage of the interval, in (0, 1).

    Returns:
        Keys in the order of `scalar_metrics`; all (nan, nan) with fewer than two units.

    Raises:
        ValueError: As `scalar_metrics`, or `units` are not (N,) integers, or n_draws or level are out
            of range.
    """
    p = check_probabilities(p)
    n_rows, n_classes = p.shape
    y = as_labels(y, name="y", n_classes=n_classes, n_rows=n_rows)
    predicted = as_labels(predicted, name="predicted", n_classes=n_classes, n_rows=n_rows)
    _check_draws(n_draws, level)
    n_units, unit = dense_units(units, n_rows=n_rows)
    if n_units < 2:
        return dict.fromkeys(METRICS, NO_INTERVAL)
    statistics = unit_statistics(y, p, predicted, unit=unit, n_units=n_units)
    draws: dict[str, list[FloatArray]] = {}
    for counts in resampling_counts(n_units, n_draws=n_draws, seed=seed, n_sums=statistics.shape[0]):
        for name, values in metrics_of_sums((statistics @ counts).T, n_classes=n_classes).items():
            draws.setdefault(name, []).append(values)
    return {
        name: percentile_interval(np.concatenate(draws[name]), level=level, n_units=n_units)
        if name in draws
        else NO_INTERVAL
        for name in METRICS
    }


def bootstrap_auroc(
    y: IntArray, p: ProbabilityArray, *, units: IntArray, n_draws: int, seed: int, level: float
) -> tuple[float, float]:
    """Return (low, high) of `auroc_ovr` over whole units; every draw ranks its rows: for some hundred rows.

    Args:
        y: (N,) true class index.
        p: (N, K) probabilities.
        units: (N,) integer id of the resampling unit of each row.
        n_draws: number of resamples; draws with one class only do not count.
        seed: seed of the draws.
        level: nominal coverage.
    """
    n_units, unit = dense_units(units, n_rows=len(y))
    if n_units < 2:
        return NO_INTERVAL
    areas = []
    for counts in resampling_counts(n_units, n_draws=n_draws, seed=seed):
        for drawn in counts.T:
            rows = np.repeat(np.arange(len(y)), drawn[unit].astype(np.int64))
            areas.append(auroc_ovr(y[rows], p[rows]))
    found = np.array(areas)
    found = found[np.isfinite(found)]
    return percentile_interval(found, level=level, n_units=n_units) if len(found) else NO_INTERVAL


def paired_difference(counts: PairedCounts, *, n_draws: int = 2000, seed: int = 0, level: float = 0.95) -> Difference:
    """Return a - b of one metric, both heads scored on the same resampled units in every draw.

    Args:
        counts: as `paired_counts` returns them.
        n_draws: Number of resamples.
        seed: As in `bootstrap_metrics`.
        level: Coverage of the interval, in (0, 1).

    Returns:
        The difference on all rows, its expanded percentile interval and the number of units. With fewer than
        two units the interval is NaN.

    Raises:
        ValueError: n_draws or level are out of range.
    """
    _check_draws(n_draws, level)
    if counts.n_units < 2:
        return Difference(counts.value, *NO_INTERVAL, counts.n_units, standard_error=float("nan"))
    weights = resampling_counts(counts.n_units, n_draws=n_draws, seed=seed, n_sums=counts.a.shape[0])
    draws = counts.draws(weights)
    interval = percentile_interval(draws, level=level, n_units=counts.n_units)
    spread = float(np.std(draws)) * math.sqrt(counts.n_units / (counts.n_units - 1))
    return Difference(counts.value, *interval, counts.n_units, standard_error=spread)


def paired_counts(
    y: IntArray, predicted_a: IntArray, predicted_b: IntArray, *, metric: str, units: IntArray
) -> PairedCounts:
    """Return the confusion counts of two heads in every unit, units in the order of their ids.

    `paired_difference`, `significance.sign_flip` and `bayesian_bootstrap.superiority` take them.

    Args:
        y: (N,) true class index, from 0.
        predicted_a: (N,) class index predicted by head a.
        predicted_b: (N,) class index predicted by head b.
        metric: "accuracy", "balanced_accuracy" or "macro_f1".
        units: (N,) integer id of the unit of each row.

    Raises:
        ValueError: An unknown metric, wrong shapes or types, or no rows.
    """
    if metric not in PAIRED_METRICS:
        raise ValueError(f"metric must be one of {', '.join(PAIRED_METRICS)}, but is {metric!r}")
    n_classes = 1 + max(int(np.max(labels, initial=0)) for labels in (y, predicted_a, predicted_b))
    y = as_rows(y, name="y")
    n_units, unit = dense_units(units, n_rows=len(y))
    a, b = (
        confusion_counts(y, as_rows(labels, name=name, n_rows=len(y)), unit, n_classes=n_classes, n_units=n_units)
        for name, labels in (("predicted_a", predicted_a), ("predicted_b", predicted_b))
    )
    return PairedCounts(metric, n_classes, a, b)


def tail_probability(*, level: float, n_units: int) -> float:
    """Return `tail_probabilities` for one number of units."""
    return float(tail_probabilities(level=level, n_units=np.array(n_units)))


def tail_probabilities(*, level: float, n_units: IntArray) -> FloatArray:
    """Return the share of bootstrap draws to cut off at each end: less than (1 - level) / 2.

    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), section on
    the expanded percentile interval: Phi(-sqrt(n / (n - 1)) * t), t the quantile of Student's distribution with
    n - 1 degrees of freedom at (1 + level) / 2. For symmetric data the interval of a mean is then Student's.
    With few units the share is so small that draws cannot resolve it (2000 draws: below six units), and the
    interval ends near the most extreme draws.

    Args:
        level: Nominal coverage, in (0, 1).
        n_units: Numbers of units drawn, at least 2.
    """
    quantile = stats.t.ppf((1 + level) / 2, n_units - 1)
    return np.asarray(stats.norm.sf(np.sqrt(n_units / (n_units - 1)) * quantile))


def percentile_interval(draws: FloatArray, *, level: float, n_units: int) -> tuple[float, float]:
    """Return (low, high) of (draws,) bootstrap values of `n_units` units: the expanded percentile interval."""
    tail = tail_probability(level=level, n_units=n_units)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def resampling_counts(n_units: int, *, n_draws: int, seed: int, n_sums: int = 1) -> Iterator[FloatArray]:
    """Yield how often each unit is in each draw, (n_units, draws) float64, read-only, in chunks of draws.

    The chunks do not change the draws: they are cut from one stream of random numbers. A report uses the same draws for
    every pair of heads: the last counts that fitted into one chunk are kept.

    Args:
        n_units: Number of units.
        n_draws: Number of draws.
        seed: Seed of the draws.
        n_sums: Number of sums that the caller computes for each draw, such as the cells of a confusion matrix, which
            are more than the units where there are many classes.
    """
    chunk = max(1, CHUNK_CELLS // max(n_units, n_sums))
    if n_draws <= chunk:
        yield _all_counts(n_units, n_draws, seed)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, n_draws, chunk):
        yield _next_counts(rng, n_units, min(chunk, n_draws - start))


@functools.lru_cache(maxsize=2)
def _all_counts(n_units: int, n_draws: int, seed: int) -> FloatArray:
    """Return the counts of all draws at once, at most 8 MB."""
    return _next_counts(np.random.default_rng(seed), n_units, n_draws)


def _next_counts(rng: np.random.Generator, n_units: int, size: int) -> FloatArray:
    """Return the counts of the next `size` draws, (n_units, size)."""
    drawn = rng.integers(n_units, size=(size, n_units))
    drawn += n_units * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * n_units).reshape(size, n_units)
    found = np.ascontiguousarray(counts.T, dtype=np.float64)
    found.flags.writeable = False
    return found


def _check_draws(n_draws: int, level: float) -> None:
    if n_draws < 1 or not 0 < level < 1:
        raise ValueError(f"n_draws must be positive and level inside (0, 1), but they are {n_draws} and {level}")
