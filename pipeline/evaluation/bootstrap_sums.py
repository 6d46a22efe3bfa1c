"""Sum the rows of every unit, block by block, for a bootstrap over units.

Rows are read once, and memory grows with the number of units only.
"""

import numpy as np
from scipy import sparse

from pipeline.evaluation.metrics import (
    ECE_BINS,
    bin_means,
    expected_calibration_error,
    row_brier,
    row_nll,
    scores_from_confusion,
    top_label,
)
from pipeline.evaluation.validate import FloatArray, IntArray, NumberArray, ProbabilityArray, as_labels, as_rows

BLOCK_ROWS = 100_000
"""Rows that are counted at once."""


def unit_statistics(
    y: IntArray, p: ProbabilityArray, predicted: IntArray, *, unit: IntArray, n_units: int
) -> sparse.csr_array:
    """Return all that resampled metrics need of rows: their sums in every unit, (K * K + 2 + 3 * ECE_BINS, n_units).

    The lines of the matrix are confusion counts, the sum of `row_nll`, that of `row_brier`, and of each reliability
    bin the count, the sum of confidences and the number of right rows (`block_starts`). It is kept sparse: a row
    touches one line of each block, so memory grows with rows, not with rows times classes squared. Statistics of
    several sets of rows add up, and so rows are counted in blocks.

    Args:
        y: (N,) int64 true class index in 0..K-1.
        p: (N, K) float64 or float32 probabilities.
        predicted: (N,) int64 predicted class index.
        unit: (N,) number of the unit of each row, in 0..n_units-1.
        n_units: number of units.
    """
    total = None
    for start in range(0, len(y), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        found = _block_statistics(y[part], p[part], predicted[part], unit=unit[part], n_units=n_units)
        total = found if total is None else total + found
    assert total is not None, "no rows are refused"  # noqa: S101
    return total


def _block_statistics(
    y: IntArray, p: ProbabilityArray, predicted: IntArray, *, unit: IntArray, n_units: int
) -> sparse.csr_array:
    """Return the statistics of a block of rows."""
    n_rows, n_classes = p.shape
    bin_index, confidence, correct = top_label(y, p, ECE_BINS)
    one_column, ones = np.zeros(n_rows, dtype=np.int64), np.ones(n_rows)
    blocks = [
        (y * n_classes + predicted, ones),
        (one_column, row_nll(y, p)),
        (one_column, row_brier(y, p)),
        (bin_index, ones),
        (bin_index, confidence),
        (bin_index, correct),
    ]
    starts = block_starts(n_classes)
    columns = np.concatenate([start + column for start, (column, _) in zip(starts, blocks, strict=False)])
    values = np.concatenate([value for _, value in blocks])
    return sparse.csr_array((values, (columns, np.tile(unit, len(blocks)))), shape=(int(starts[-1]), n_units))


def block_starts(n_classes: int) -> IntArray:
    """Return where each block of lines of `unit_statistics` begins, and last their number."""
    return np.cumsum([0, n_classes**2, 1, 1, ECE_BINS, ECE_BINS, ECE_BINS])


def metrics_of_sums(sums: NumberArray, *, n_classes: int) -> dict[str, FloatArray]:
    """Return every key of `scalar_metrics` but auroc_ovr, each (draws,), from sums of `unit_statistics` over units.

    Args:
        sums: (draws, K * K + 2 + 3 * ECE_BINS).
        n_classes: K.
    """
    cells, nll, brier, count, confidence, correct = np.split(sums, block_starts(n_classes)[1:-1], axis=1)
    n_drawn = cells.sum(axis=1)
    return {
        **scores_from_confusion(cells.reshape(-1, n_classes, n_classes)),
        "nll": nll[:, 0] / n_drawn,
        "brier": brier[:, 0] / n_drawn,
        "ece": expected_calibration_error(bin_means(count=count, confidence=confidence, correct=correct)),
    }


def dense_units(units: IntArray, *, n_rows: int) -> tuple[int, IntArray]:
    """Return the number of units and (N,) the number of each row's unit, from 0 in the order of the ids.

    Raises:
        ValueError: `units` are not (N,) integers.
    """
    ids = as_rows(units, name="units", n_rows=n_rows)
    if ids.min() >= 0 and ids.max() < 4 * n_rows + BLOCK_ROWS:  # without sorting the rows
        occurs = np.zeros(int(ids.max()) + 1, dtype=bool)
        occurs[ids] = True
        return int(occurs.sum()), (np.cumsum(occurs) - 1)[ids]
    found, unit = np.unique(ids, return_inverse=True)
    return len(found), unit


def confusion_counts(
    y: IntArray, predicted: IntArray, unit: IntArray, *, n_classes: int, n_units: int
) -> sparse.csr_array:
    """Return (K * K, n_units) confusion counts, added up block by block."""
    total = None
    for start in range(0, len(y), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        true = as_labels(y[part], name="y", n_classes=n_classes)
        cell = true * n_classes + as_labels(predicted[part], name="predicted", n_classes=n_classes)
        shape = (n_classes**2, n_units)
        counts = sparse.csr_array((np.ones(len(cell)), (cell, unit[part])), shape=shape)
        total = counts if total is None else total + counts
    assert total is not None, "no rows are refused"  # noqa: S101
    return total
