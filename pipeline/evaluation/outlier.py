"""Score how far rows are from all classes of the training rows, and choose a threshold on held-out rows.

The score is the squared Mahalanobis distance to the nearest class mean, with one covariance for all classes (Lee et al.
2018, arXiv:1807.03888). The covariance is shrunk as by Ledoit and Wolf (2004, doi:10.1016/S0047-259X(03)00096-4).
The threshold is that of split conformal prediction: a new row like the held-out rows is rejected with at most the
stated probability.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.validate import FloatArray, IntArray

LEAST_VARIANCE = 1e-12
"""Least variance along an axis, relative to the largest one."""


@dataclasses.dataclass(frozen=True)
class OutlierModel:
    """The means of the classes and their common covariance."""

    whitening: FloatArray
    """(D, D): features times it have the covariance 1."""

    means: FloatArray
    """(K, D) whitened means of the classes that have rows."""

    def scores(self, features: FloatArray) -> FloatArray:
        """Return the squared distance of rows (N, D) to the nearest mean, (N,)."""
        white = features @ self.whitening
        squared = (white**2).sum(axis=1)[:, None] + (self.means**2).sum(axis=1) - 2 * white @ self.means.T
        return np.asarray(np.maximum(squared, 0).min(axis=1))


def fit_outlier_model(features: FloatArray, labels: IntArray) -> OutlierModel:
    """Return the model of training rows.

    Args:
        features: (N, D) embeddings.
        labels: (N,) class codes.
    """
    from sklearn.covariance import ledoit_wolf

    codes = np.unique(labels)
    means = np.stack([features[labels == code].mean(axis=0, dtype=np.float64) for code in codes])
    centred = features - means[np.searchsorted(codes, labels)]
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    least = max(float(variances[-1]) * LEAST_VARIANCE, np.finfo(np.float64).tiny)
    whitening = axes / np.sqrt(np.maximum(variances, least))
    return OutlierModel(whitening, means @ whitening)


def rejection_threshold(held_out: FloatArray, rate: float) -> float:
    """Return the score above which a row is rejected; infinite where there are too few held-out rows for the rate.

    Args:
        held_out: scores of held-out rows, (N,).
        rate: largest probability with which a row like these is rejected.
    """
    rank = math.ceil((len(held_out) + 1) * (1 - rate))
    return float(np.sort(held_out)[rank - 1]) if rank <= len(held_out) else math.inf


def left_out_aurocs(
    train: tuple[FloatArray, IntArray], held_out: tuple[FloatArray, IntArray], codes: Sequence[int]
) -> dict[int, float]:
    """Return for each class the AUROC with which its held-out rows are outliers once its training rows are left out.

    Args:
        train: features (N, D) and class codes (N,) of the training rows.
        held_out: the same of the held-out rows.
        codes: classes to leave out, one at a time.

    Returns:
        Code -> AUROC; classes are missing that have no held-out row, or that are the only class.
    """
    from scipy.stats import rankdata

    found = {}
    features, labels = held_out
    for code in codes:
        member, kept = labels == code, train[1] != code
        if member.any() and not member.all() and kept.any():
            scores = fit_outlier_model(train[0][kept], train[1][kept]).scores(features)
            ranks = rankdata(scores)
            n, others = int(member.sum()), int((~member).sum())
            found[int(code)] = float((ranks[member].sum() - n * (n + 1) / 2) / (n * others))
    return found
