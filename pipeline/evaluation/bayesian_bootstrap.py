"""Compute the probability that a head is better than another by more than a negligible difference."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.bootstrap import CHUNK_CELLS, PairedCounts
from pipeline.evaluation.validate import FloatArray

ROPE = 0.01
"""Half the width of the region of practical equivalence: one percentage point either way."""


@dataclass(frozen=True)
class Superiority:
    """Probabilities that the difference is above, within and below the region of practical equivalence."""

    better: float
    equal: float
    worse: float
    n_units: int


def superiority(counts: PairedCounts, *, rope: float = ROPE, n_draws: int = 2000, seed: int = 0) -> Superiority:
    """Return the probabilities that head a is better than b by more than `rope`, within it, or worse.

    The Bayesian bootstrap over whole units (Rubin 1981, "The Bayesian Bootstrap", The Annals of Statistics 9): each
    draw gives the units weights from Dirichlet(1, ..., 1), under which both heads are scored; the shares of the draws
    are the probabilities. The region of practical equivalence: Benavoli, Corani, Demsar and Zaffalon 2017, "Time for
    a Change: a Tutorial for Comparing Multiple Classifiers Through Bayesian Analysis", JMLR 18(77).

    The model knows no other groups than those seen, and its spread is that of a plain bootstrap (less a factor
    sqrt(n / (n + 1))): with few units the probabilities are surer than they should be.

    Args:
        counts: as `bootstrap.paired_counts` returns them.
        rope: Differences of at most this size, either way, do not matter; from 0.
        n_draws: Number of draws.
        seed: Equal seeds, n_draws and units give equal weights.

    Returns:
        Probabilities that sum to 1; NaN with fewer than two units.

    Raises:
        ValueError: n_draws or rope out of range.
    """
    if n_draws < 1 or not rope >= 0:
        raise ValueError(f"n_draws must be positive and rope not negative, but they are {n_draws} and {rope}")
    if counts.n_units < 2:
        return Superiority(math.nan, math.nan, math.nan, n_units=counts.n_units)
    draws = counts.draws(_weights(counts.n_units, n_draws=n_draws, seed=seed, n_sums=counts.a.shape[0]))
    better, worse = float((draws > rope).mean()), float((draws < -rope).mean())
    equal = float((np.abs(draws) <= rope).mean())
    return Superiority(better, equal, worse, n_units=counts.n_units)


def _weights(n_units: int, *, n_draws: int, seed: int, n_sums: int = 1) -> Iterator[FloatArray]:
    """Yield (units, draws) weights in chunks: exponential, which are Dirichlet(1, ..., 1) up to the scale.

    No score depends on the scale of the weights. The chunks do not change the draws.
    """
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // max(n_units, n_sums))
    for start in range(0, n_draws, chunk):
        size = min(chunk, n_draws - start)
        yield np.ascontiguousarray(rng.standard_exponential((size, n_units)).T)
