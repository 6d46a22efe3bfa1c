"""Check the arrays that evaluations take: labels, probabilities, head scores.

A wrong array here is a programmer's error, not a user's, so the checks raise ValueError.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]
NumberArray = npt.NDArray[np.number[Any]]
ProbabilityArray = npt.NDArray[np.floating[Any]]
"""float64, or float32 where a table has very many rows."""

ROW_SUM_TOLERANCE = 1e-3
"""Probabilities read back from a table with four decimals still pass; logits and margins do not."""


def as_labels(labels: IntArray, *, name: str, n_classes: int, n_rows: int | None = None) -> IntArray:
    """Return class indices as int64.

    Args:
        labels: (N,) integers in 0..n_classes-1.
        name: What the array is, for the message.
        n_classes: K.
        n_rows: N, where another array has fixed it.

    Raises:
        ValueError: The array is not one-dimensional, empty, of another length, not of an integer type,
            or holds an index outside 0..K-1.
    """
    labels = as_rows(labels, name=name, n_rows=n_rows)
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"{name} must be in 0..{n_classes - 1}, but runs from {labels.min()} to {labels.max()}")
    return labels


def as_rows(values: IntArray, *, name: str, n_rows: int | None = None) -> IntArray:
    """Return one integer per row as int64 (a narrower type would overflow in index arithmetic).

    Raises:
        ValueError: The array is not one-dimensional, empty, of another length or not of an integer type.
    """
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be a non-empty (N,) array, but has shape {values.shape}")
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} must hold integers, but is {values.dtype}")
    if n_rows is not None and len(values) != n_rows:
        raise ValueError(f"{name} must have {n_rows} rows, but has {len(values)}")
    return values.astype(np.int64)


def as_scores(scores: npt.ArrayLike, *, name: str = "scores") -> FloatArray:
    """Return (N, K) finite values as float64.

    Raises:
        ValueError: The array is not two-dimensional, has no rows or columns, or holds NaN or infinity.
    """
    matrix: FloatArray = np.asarray(scores, dtype=np.float64)
    _check_finite(matrix, name=name)
    return matrix


def _check_finite(matrix: ProbabilityArray, *, name: str) -> None:
    """Check that a matrix has rows and columns and that its values are finite."""
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"{name} must be a non-empty (N, K) array, but has shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        bad = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(f"{name} must be finite, but row {bad} is not")


def as_probabilities(p: npt.ArrayLike) -> FloatArray:
    """Return (N, K) probabilities as float64; raises as `check_probabilities`."""
    return check_probabilities(np.asarray(p, dtype=np.float64)).astype(np.float64, copy=False)


def check_probabilities(p: ProbabilityArray) -> ProbabilityArray:
    """Return (N, K) probabilities after checking them; float32 stays float32, and nothing is copied.

    Raises:
        ValueError: As `as_scores`, or a value is outside 0..1, or a row does not sum to 1.
    """
    matrix = np.asarray(p)
    if not np.issubdtype(matrix.dtype, np.floating):
        matrix = matrix.astype(np.float64)
    _check_finite(matrix, name="p")
    if matrix.min() < 0 or matrix.max() > 1 + ROW_SUM_TOLERANCE:
        raise ValueError(f"p must be in 0..1, but runs from {matrix.min():g} to {matrix.max():g}")
    off = np.abs(matrix.sum(axis=1, dtype=np.float64) - 1)
    if off.max() > ROW_SUM_TOLERANCE:
        row = int(off.argmax())
        raise ValueError(f"rows of p must sum to 1, but row {row} sums to {matrix[row].sum():g}")
    return matrix
