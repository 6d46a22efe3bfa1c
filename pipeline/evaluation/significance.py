"""Test the difference between two heads: sign-flip over groups, McNemar, Nadeau-Bengio; Holm's adjustment.

The tests have different questions. Sign-flip: do two fixed heads differ beyond chance on new groups? The verdict uses
this test. McNemar: the same, as if every tile were independent. Nadeau and Bengio: do the procedures that make the
heads differ, when they are trained again on other data of the same kind?
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from pipeline.evaluation.bootstrap import PairedCounts
from pipeline.evaluation.validate import FloatArray

EXACT_UNITS = 14
"""Most units with different predictions for which all 2^n swaps are tried; with more, a random sample."""

FLIP_DRAWS = 20_000
"""Random swaps; at p = 0.05 the standard error of the estimate is 0.0015."""

CHUNK_CELLS = 2_000_000
"""Draws times the larger of units and confusion cells held at once; about 50 MB at the peak."""

TIE = 1e-12
"""Differences closer than this count as equal: equal counts summed in another order differ by rounding."""


@dataclass(frozen=True)
class SignFlip:
    """The result of `sign_flip`."""

    p: float
    """Two-sided."""

    exact: bool
    """Whether all swaps were tried; else the p is estimated from random ones and never 0."""

    n_units: int
    """Number of units in which the two heads do not have the same confusion counts."""

    @property
    def smallest_p(self) -> float:
        """The smallest p that this many units allow: only the observed labelling and its mirror are as extreme."""
        return min(1.0, 2.0 ** (1 - self.n_units))


@dataclass(frozen=True)
class McNemar:
    """The result of `mcnemar_exact`."""

    only_a: int
    """Rows that only head a classifies correctly."""

    only_b: int
    p: float
    """Two-sided."""


@dataclass(frozen=True)
class ResampledT:
    """The result of `corrected_resampled_t`; t and p are NaN where the test is undefined."""

    t: float
    p: float
    """Two-sided."""

    n_parts: int


def sign_flip(counts: PairedCounts, *, n_draws: int = FLIP_DRAWS, seed: int = 0) -> SignFlip:
    """Test whether two heads differ in a metric, by swapping their predictions of whole units.

    Where the two heads are exchangeable within every unit, swapping their predictions for any set of units leaves the
    distribution of the difference of any metric of the pooled rows unchanged. The p is the share of the 2^n swaps
    whose absolute difference is at least the observed one (Fisher's randomisation test for matched pairs: Fisher
    1935, "The Design of Experiments", section 21). Units in which both heads have the same confusion counts change
    nothing when swapped and are left out, which leaves the p as it is. For more than `EXACT_UNITS` others, p is
    (b + 1) / (m + 1) with b of m random swaps as extreme: the observed labelling is one of the possible ones, and an
    estimate of 0 would be wrong (Phipson and Smyth 2010, "Permutation P-values should never be zero").

    The null hypothesis is exchangeability, not only an equal expected metric: heads of equal macro-F1 that
    err in different ways are in the strict sense not exchangeable.

    Args:
        counts: as `bootstrap.paired_counts` returns them; all rows of a unit are swapped together.
        n_draws: Number of random swaps where they are not all tried.
        seed: Seed of the random swaps.

    Raises:
        ValueError: n_draws below 1.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws must be positive, but is {n_draws}")
    per_unit = (counts.a - counts.b).tocsc()
    per_unit.eliminate_zeros()
    differing = np.flatnonzero(np.diff(per_unit.indptr))
    n_units = len(differing)
    if n_units == 0:
        return SignFlip(1.0, exact=True, n_units=0)
    exact = n_units <= EXACT_UNITS
    gain = per_unit[:, differing].tocsr()
    total_a, total_b = counts.a.sum(axis=1), counts.b.sum(axis=1)
    chunk = max(1, CHUNK_CELLS // max(n_units, len(total_a)))
    swaps = _all_swaps(n_units, chunk) if exact else _random_swaps(n_units, chunk, n_draws=n_draws, seed=seed)
    threshold = abs(counts.value) - TIE
    as_extreme = tried = 0
    for swapped in swaps:
        moved = (gain @ swapped).T
        differences = counts.difference(total_a - moved, total_b + moved)
        as_extreme += int((np.abs(differences) >= threshold).sum())
        tried += len(differences)
    p = as_extreme / tried if exact else (as_extreme + 1) / (tried + 1)
    return SignFlip(p, exact=exact, n_units=n_units)


def mcnemar_exact(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> McNemar:
    """Test whether two heads have the same accuracy, rows taken as independent.

    Each row that only one head classifies correctly is equally likely for both heads: a two-sided
    binomial test with probability 1/2 (McNemar 1947, "Note on the sampling error of the difference between
    correlated proportions or percentages", in its exact form). Rows of one group are not independent, and then the
    p is too small. Without such rows p is 1.

    Args:
        correct_a: (N,) whether head a classifies the row correctly.
        correct_b: (N,) the same for head b.

    Raises:
        ValueError: The two differ in shape or are not booleans in one dimension.
    """
    correct_a, correct_b = np.asarray(correct_a), np.asarray(correct_b)
    both_bool = correct_a.dtype == correct_b.dtype == np.bool_
    if not both_bool or correct_a.ndim != 1 or correct_a.shape != correct_b.shape:
        raise ValueError("correct_a and correct_b must be (N,) booleans of equal length")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    p = min(1.0, 2 * float(stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))
    return McNemar(only_a, only_b, p)


def corrected_resampled_t(differences: FloatArray, *, test_to_train: float) -> ResampledT:
    """Test whether the mean difference over parts (folds, seeds) is 0, although parts share training rows.

    t = mean(d) / sqrt(var(d) * (1 / k + n_test / n_train)) with k - 1 degrees of freedom, var with divisor k - 1
    (Nadeau and Bengio 2003, "Inference for the Generalization Error", Machine Learning 52). The term n_test /
    n_train accounts for the dependence of the parts; without it the test rejects far too often.

    Args:
        differences: (k,) difference of the two heads in each part.
        test_to_train: Number of test rows over number of training rows; of unequal parts, of their means.

    Returns:
        t and p are NaN with fewer than two parts, without any variance, or where `test_to_train` is NaN.

    Raises:
        ValueError: The differences are not one-dimensional and finite, or the ratio is not positive.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ValueError("differences must be (k,) finite numbers")
    if test_to_train <= 0:
        raise ValueError(f"test_to_train must be positive, but is {test_to_train}")
    k = len(d)
    if k < 2 or math.isnan(test_to_train) or np.ptp(d) <= TIE:
        return ResampledT(math.nan, math.nan, n_parts=k)
    t = float(d.mean() / math.sqrt(d.var(ddof=1) * (1 / k + test_to_train)))
    return ResampledT(t, float(2 * stats.t.sf(abs(t), k - 1)), n_parts=k)


def holm(p: FloatArray) -> FloatArray:
    """Return (m,) p-values adjusted for their number, so that any false one among them stays below its level.

    The i-th smallest is multiplied by m - i + 1; each becomes at least the one before it and at most 1 (Holm 1979,
    "A Simple Sequentially Rejective Multiple Test Procedure").

    Raises:
        ValueError: Not one-dimensional, or a value is outside 0..1.
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p must be (m,) probabilities, but is {p}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def _all_swaps(n_units: int, chunk: int) -> Iterator[FloatArray]:
    """Yield all (units, swaps) patterns of 0 and 1 that leave the last unit as it is.

    The others are their mirrors: swapping all units turns the sign of the difference and keeps its size.
    """
    n_swaps = 2 ** (n_units - 1)
    for start in range(0, n_swaps, chunk):
        numbers = np.arange(start, min(start + chunk, n_swaps))
        yield ((numbers >> np.arange(n_units)[:, None]) & 1).astype(np.float64)


def _random_swaps(n_units: int, chunk: int, *, n_draws: int, seed: int) -> Iterator[FloatArray]:
    """Yield (units, swaps) patterns of 0 and 1, `n_draws` in all; the chunks do not change them."""
    rng = np.random.default_rng(seed)
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        yield np.ascontiguousarray((rng.random((size, n_units)) < 0.5).T, dtype=np.float64)
