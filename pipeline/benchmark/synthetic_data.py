"""Draw synthetic embeddings: rectified mixtures of a few factors, similar to the features of a trained network.

About half of the values are zero, classes overlap a little, and the best SVM is inside the searched grid.
"""

import numpy as np

FACTORS = 24
"""Dimensions that the classes differ in."""

APART = 0.75
"""Standard deviation of the classes' centres, in standard deviations of a class: nine of ten rows can be classified."""

OWN, THRESHOLD = 0.5, 0.3
"""Standard deviation of each feature's own noise, and the number subtracted before negative values become 0."""


def synthetic_attrs(classes: list[str]) -> dict[str, object]:
    """Return the root attributes of an embeddings file of synthetic rows, which no network made."""
    made_by = dict.fromkeys(("model_sha256", "manifest_sha256"), "")
    return {"classes": classes, "preprocess": {}, "encoder": "trained", "layer": "avgpool", "versions": {}, **made_by}


def synthetic_features(y: np.ndarray, n_features: int, *, seed: int) -> np.ndarray:
    """Return features (N, n_features) float32 of rows of the classes y (N,).

    Args:
        y: class codes from 0.
        n_features: D.
        seed: seed of the rows; the centres of the classes and the mixing of the factors do not depend on it.
    """
    world = np.random.default_rng(0)
    centres = APART * world.standard_normal((64, FACTORS))
    mixing = world.standard_normal((FACTORS, n_features)) / np.sqrt(FACTORS)
    rng = np.random.default_rng([seed, 1])
    features = np.empty((len(y), n_features), dtype=np.float32)
    for start in range(0, len(y), 4096):  # memory for a block only
        own = y[start : start + 4096] % len(centres)
        factors = centres[own] + rng.standard_normal((len(own), FACTORS))
        noise = rng.standard_normal((len(own), n_features), dtype=np.float32)
        features[start : start + 4096] = np.maximum(factors @ mixing + OWN * noise - THRESHOLD, 0)
    return features


def synthetic_logits(features: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return logits (N, n_classes) float32 of a linear head on such features, by the distance to the class means.

    Args:
        features: (N, D), of every class at least one row.
        y: (N,) class codes below `n_classes`.
        n_classes: K.
    """
    means = np.stack([features[y == code].mean(axis=0) for code in range(n_classes)])
    scores = features @ means.T - (means**2).sum(axis=1) / 2
    return np.asarray(scores / scores.std(), dtype=np.float32)
