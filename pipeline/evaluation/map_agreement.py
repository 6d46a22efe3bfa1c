"""Compute the agreement of two class maps, cell by cell: Cohen's kappa, and the Jaccard index of each class.

Both take the (K, K) counts of `pipeline.evaluation.metrics.confusion`; accuracy is `scores_from_confusion`'s.
"""

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray


def share_agreed(matrix: IntArray) -> float:
    """Return the share of cells on the diagonal; NaN without cells."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")


def cohen_kappa(matrix: IntArray) -> float:
    """Return (observed - expected) / (1 - expected) agreement: 1 is perfect, 0 what chance gives.

    Cohen 1960, "A Coefficient of Agreement for Nominal Scales". Expected is what two raters with these shares of each
    class would agree on if they rated independently. NaN without cells, or where both name one and the same class
    everywhere, so that chance agrees fully too.

    Args:
        matrix: (K, K) counts, rows by one rater, columns by the other.
    """
    total = matrix.sum()
    if not total:
        return float("nan")
    expected = float((matrix.sum(axis=1) / total) @ (matrix.sum(axis=0) / total))
    return (share_agreed(matrix) - expected) / (1 - expected) if expected < 1 else float("nan")


def jaccard_index(matrix: IntArray) -> FloatArray:
    """Return each class's intersection over union (K,): cells that both give it, over cells that either gives it.

    Jaccard 1912, "The Distribution of the Flora in the Alpine Zone"; the IoU of Everingham et al. 2010, "The Pascal
    Visual Object Classes Challenge", equation 3: TP / (TP + FP + FN). NaN for a class that neither gives a cell.

    Args:
        matrix: (K, K) counts, rows true, columns predicted.
    """
    both = np.diagonal(matrix).astype(np.float64)
    either = matrix.sum(axis=0) + matrix.sum(axis=1) - both
    return np.divide(both, either, out=np.full(len(matrix), np.nan), where=either > 0)


def mean_jaccard(matrix: IntArray) -> float:
    """Return the mean index over the classes that occur in the truth (rows); NaN if none does.

    A class that is only predicted is no term of its own; it counts through the cells it took from the others.
    """
    occurs = matrix.sum(axis=1) > 0
    return float(jaccard_index(matrix)[occurs].mean()) if occurs.any() else float("nan")
