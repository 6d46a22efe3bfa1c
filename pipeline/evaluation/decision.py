"""Decide on a class by calibrated probabilities, corrected for the share of each class in the validation rows.

The largest probability is the decision with the fewest errors. Macro-F1 and balanced accuracy count rare classes more:
they gain if a probability is divided by a power of its class's share (Menon et al. 2021, "Long-tail learning via logit
adjustment"). The power is chosen by cross-validation; the probabilities stay as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.calibration import Method, fit_calibration
from pipeline.evaluation.folds import assign_folds
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.evaluation.validate import FloatArray, IntArray, as_labels, as_scores

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Powers to choose from: 0 takes the largest probability, 1 gives every class the same weight. One number for all
classes and a coarse grid, because a threshold tuned on some hundred rows is chance."""

FOLDS = 5

LEAST_P = 1e-300
"""Probabilities below this count as this in a logarithm."""


class PriorCorrection(NamedTuple):
    """The power of the class shares that probabilities are divided by, and what it was chosen by."""

    strength: float
    log_prior: list[float]
    """(K,) logarithm of the share of each class."""

    macro_f1: dict[str, float]
    """Strength -> cross-validated macro-F1; empty for a single row or fold."""


def decided(p: npt.ArrayLike, offsets: npt.ArrayLike) -> IntArray:
    """Return the class (N,) with the largest log p less its offset.

    Args:
        p: (N, K) probabilities.
        offsets: (K,) strength times log share of each class.
    """
    found: IntArray = (np.log(np.maximum(p, LEAST_P)) - np.asarray(offsets)).argmax(axis=1)
    return found


def decision_offsets(entry: Mapping[str, Any]) -> FloatArray | None:
    """Return what is subtracted from the log-probability of each class (K,); None: the largest score decides.

    Args:
        entry: of the head in heads.json.
    """
    if entry.get("decide", "argmax") == "argmax":
        return None
    decision = entry["decision"]
    return float(decision["strength"]) * np.array(decision["log_prior"], dtype=np.float64)


def log_shares(y: IntArray, n_classes: int) -> FloatArray:
    """Return the logarithm of the share of each class (K,), with one row added to each."""
    counts = np.bincount(y, minlength=n_classes) + 1.0
    found: FloatArray = np.log(counts / counts.sum())
    return found


def choose_prior_correction(
    scores: npt.ArrayLike, y: IntArray, groups: Sequence[str], *, method: Method, seed: int
) -> PriorCorrection:
    """Return the strength with the highest macro-F1 in grouped cross-validation of calibration and decision.

    The macro-F1 of a strength is averaged with that of its neighbours on the grid; of equals the smallest is taken.

    Args:
        scores: (N, K) on held-out rows.
        y: (N,) true class index in 0..K-1.
        groups: N names of groups, "" where not known.
        method: of the calibration.
        seed: of the folds.

    Raises:
        ValueError: as `calibration.fit_calibration` and `folds.assign_folds`.
    """
    matrix = as_scores(scores)
    n_classes = matrix.shape[1]
    y = as_labels(y, name="y", n_classes=n_classes, n_rows=len(matrix))
    fold = assign_folds(y, groups, seed=seed, folds=FOLDS)[0]
    prior = log_shares(y, n_classes).tolist()
    if fold.max() == 0:
        return PriorCorrection(0.0, prior, {})
    predicted = np.empty((len(STRENGTHS), len(y)), np.int64)
    for left_out in range(fold.max() + 1):
        out = fold == left_out
        p = fit_calibration(matrix[~out], y[~out], method).apply(matrix[out])
        shares = log_shares(y[~out], n_classes)
        for i, strength in enumerate(STRENGTHS):
            predicted[i, out] = decided(p, strength * shares)
    counts = np.stack([confusion(y, each, n_classes) for each in predicted])
    macro_f1 = scores_from_confusion(counts)["macro_f1"]
    padded = np.concatenate([macro_f1[:1], macro_f1, macro_f1[-1:]])
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    best = STRENGTHS[int(np.argmax(np.round(smooth, 12)))]
    return PriorCorrection(best, prior, {str(s): float(f1) for s, f1 in zip(STRENGTHS, macro_f1, strict=True)})
