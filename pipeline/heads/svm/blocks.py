"""Scale feature blocks that are side by side, so that each has the same weight."""

from collections.abc import Sequence

import numpy as np
from sklearn.preprocessing import StandardScaler

from pipeline.heads.base import Rows

LEAST_SPREAD = 1e-9
"""A column with less spread is constant: it is not scaled."""


def block_scale(features: np.ndarray, blocks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (D,) and the factor (D,) of each feature of rows (N, D).

    The first block, a histogram, keeps the proportions of its columns: standardising gives a colour of one tile as much
    weight as all others. The columns of the others are standardised.

    Args:
        features: rows to fit on.
        blocks: widths, D in all.
    """
    centre, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale, start = np.ones(len(centre)), 0
    for i, width in enumerate(blocks):
        own = slice(start, start + width)
        total = np.sqrt((spread[own] ** 2).sum())
        divisor = np.full(width, total) if i == 0 else spread[own] * np.sqrt(width)
        scale[own] = 1 / np.where(divisor > LEAST_SPREAD, divisor, 1)
        start += width
    return centre, scale


def scaler_of(rows: Rows) -> StandardScaler:
    """Return the scaler of rows: that of scikit-learn, or of several blocks `block_scale` in the same form."""
    scaler = StandardScaler().fit(rows.features)
    if len(rows.widths) > 1:
        scaler.mean_, factor = block_scale(rows.features, rows.widths)
        scaler.scale_ = 1 / factor
        scaler.var_ = scaler.scale_**2
    return scaler
