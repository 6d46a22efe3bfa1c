"""Measure whether embeddings are organised by class or by source: the cross-confounder robustness margin (CRoMa).

Grisi, van der Laak and Litjens 2026, "A distributional robustness margin for pathology foundation models",
arXiv:2607.25497, design "all"; it follows the robustness index of Koemen et al., "Towards robust foundation models for
digital pathology", arXiv:2507.17845. The authors' library `croma` refuses tiles without enough neighbours; here they
are left out and counted.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray

NEIGHBOURS = 5
"""Neighbours of each kind whose mean distance counts: the m of the paper."""

TAIL = 0.1
"""Share of the tiles with the smallest margins whose mean is reported: the alpha of the paper."""

SAME = 1e-12
"""A sum of distances up to this is 0 apart from rounding; a row of a smaller length has no direction."""

BLOCK_CELLS = 4_000_000
"""Distances that are held at once: 32 MB each for the distances and the two kinds of neighbours."""


@dataclass(frozen=True)
class RobustnessMargin:
    """The margins of some tiles in numbers; NaN where no tile has a margin."""

    median: float
    """From -1 to 1. Above 0 the class decides which tiles are near, below 0 the source does."""

    tail_mean: float
    """Mean of the smallest tenth of the margins."""

    share_negative: float
    """Share of the margins that are 0 or less."""

    n_scored: int
    """Tiles with a margin."""

    n: int
    """All tiles."""


def robustness_margins(
    features: FloatArray, label: IntArray, source: IntArray, *, neighbours: int = NEIGHBOURS
) -> FloatArray:
    """Return (N,) the margin of each tile; NaN where it has too few neighbours, or all of them at distance 0.

    The margin is (d_other - d_same) / (d_other + d_same). d_same is the mean cosine distance to the nearest tiles of
    the same class from other sources, d_other that to the nearest tiles of other classes from the same source.

    Args:
        features: (N, D) embeddings; they are scaled to length 1 here.
        label: (N,) class of each tile.
        source: (N,) slide, patient or centre of each tile.
        neighbours: number of nearest tiles of each kind.

    Raises:
        ValueError: wrong shapes, or no positive number of neighbours.
    """
    x = np.asarray(features, dtype=np.float64)
    label, source = np.asarray(label), np.asarray(source)
    if x.ndim != 2 or label.shape != (len(x),) or source.shape != (len(x),) or neighbours < 1:
        raise ValueError("features must be (N, D), label and source (N,), and neighbours positive")
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), SAME)
    margins = np.full(len(x), np.nan)
    for start in range(0, len(x), step := max(1, BLOCK_CELLS // max(1, len(x)))):
        rows = slice(start, start + step)
        distance = np.clip(1 - x[rows] @ x.T, 0, 2)
        same_label, same_source = label[rows, None] == label, source[rows, None] == source
        same = _mean_of_nearest(distance, same_label & ~same_source, neighbours)
        other = _mean_of_nearest(distance, ~same_label & same_source, neighbours)
        total = other + same
        usable = np.isfinite(total) & (total > SAME)
        margins[rows][usable] = (other[usable] - same[usable]) / total[usable]
    return margins


def _mean_of_nearest(distance: FloatArray, kind: np.ndarray, neighbours: int) -> FloatArray:
    """Return (B,) mean of the smallest of (B, N) distances where `kind` holds; infinite with fewer than needed."""
    if distance.shape[1] < neighbours:
        return np.full(len(distance), np.inf)
    chosen = np.where(kind, distance, np.inf)
    nearest: FloatArray = np.partition(chosen, neighbours - 1, axis=1)[:, :neighbours].mean(axis=1)
    return nearest


def summarise_margins(margins: FloatArray) -> RobustnessMargin:
    """Return the margins (N,) in numbers; NaN are tiles without a margin."""
    known = margins[np.isfinite(margins)]
    if not len(known):
        return RobustnessMargin(np.nan, np.nan, np.nan, 0, len(margins))
    tail = known[known <= np.percentile(known, 100 * TAIL)]
    return RobustnessMargin(
        float(np.median(known)), float(tail.mean()), float((known <= 0).mean()), len(known), len(margins)
    )
