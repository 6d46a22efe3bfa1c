"""Define the heads that only baselines use: the majority class and nearest neighbours."""

import dataclasses

import numpy as np

from pipeline.heads.base import Head, Params, Rows
from pipeline.heads.config import FitConfig
from pipeline.heads.kind import PlainKind

NEIGHBOURS = 20
"""Usual number for embeddings (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers")."""

BLOCK_ROWS = 256
"""Rows compared with all fitted rows at once."""

HISTOGRAM_POINTS: tuple[Params, ...] = tuple(
    {"kernel": "rbf", "gamma": gamma, "C": c} for gamma in (0.25, 1.0, 4.0) for c in (10.0, 100.0, 1000.0)
)
"""Histograms have length 1, so that squared distances are 0 to 2. Standardising would give a rare colour as much weight
as all others (it costs 3 points on five colorectal classes)."""

BLOCK_POINTS: tuple[Params, ...] = tuple(
    {"kernel": "rbf", "gamma": gamma, "C": c} for gamma in (0.15, 0.5, 1.5) for c in (1.0, 10.0, 100.0)
)
"""Two blocks of variance 1 have squared distances of about 4."""

GAMMA_PER_FEATURE, C_UNTRAINED = (0.3, 1.0, 3.0), (1.0, 10.0, 100.0)

HANDCRAFTED_POINTS: tuple[Params, ...] = (
    {"max_depth": 3, "eta": 0.2, "colsample_bynode": 0.3, "min_child_weight": 1.0},
    {"max_depth": 6, "eta": 0.2, "colsample_bynode": 0.3, "min_child_weight": 1.0},
)


class Majority:
    """Score every tile with the log shares of the classes among the fitted rows, add-one smoothed."""

    def __init__(self, fit: Rows) -> None:
        counts = np.bincount(fit.y, minlength=fit.n_classes)
        self.log_prior = np.log((counts + 1) / (counts + 1).sum())

    def scores(self, rows: Rows) -> np.ndarray:
        """Return the same scores (N, K) for every row."""
        return np.tile(self.log_prior, (len(rows.y), 1))


class Neighbours:
    """Score a tile by the classes of the 20 fitted rows (at most) with the highest cosine, equally weighted."""

    def __init__(self, fit: Rows) -> None:
        self.features, self.y = _unit_length(fit.features), fit.y

    def scores(self, rows: Rows) -> np.ndarray:
        """Return log shares (N, K) of the classes, smoothed by 1 / K neighbour per class."""
        k, n_classes = min(NEIGHBOURS, len(self.y)), rows.n_classes
        scores = np.empty((len(rows.y), n_classes))
        for start in range(0, len(scores), BLOCK_ROWS):
            block = _unit_length(rows.features[start : start + BLOCK_ROWS])
            nearest = np.argpartition(-(block @ self.features.T), k - 1, axis=1)[:, :k]
            counts = (self.y[nearest][:, :, None] == np.arange(n_classes)).sum(axis=1)
            scores[start : start + BLOCK_ROWS] = np.log((counts + 1 / n_classes) / (k + 1))
        return scores


@dataclasses.dataclass(frozen=True)
class NeighboursKind(PlainKind):
    """Nearest neighbours, of which there may be too few."""

    def notes(self, head: Head, rows: Rows, chosen: Params, config: FitConfig) -> list[str]:
        """Return whether there are fewer rows than neighbours."""
        return [f"only {len(rows.y)} neighbours: there are no more rows"] if len(rows.y) < NEIGHBOURS else []


def untrained_points(n_features: int) -> list[Params]:
    """Return the points of an SVM on `n_features` features of the untrained network."""
    gammas = [factor / n_features for factor in GAMMA_PER_FEATURE]
    return [{"kernel": "rbf", "gamma": gamma, "C": c} for gamma in gammas for c in C_UNTRAINED]


def _unit_length(features: np.ndarray) -> np.ndarray:
    """Return rows (N, D) float32 divided by their lengths; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(length > 0, length, 1)).astype(np.float32)
