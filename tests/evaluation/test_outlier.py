"""Outlier scores against a slow formula, thresholds against their promise, AUROC against scikit-learn."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from pipeline.evaluation.outlier import fit_outlier_model, left_out_aurocs, rejection_threshold


def rows(n: int, seed: int, *, classes: int = 3, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of classes with distant centres and a common covariance."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(width, width))
    labels = np.arange(n) % classes
    return 8 * np.eye(classes, width)[labels] + rng.normal(size=(n, width)) @ mixing, labels


def test_the_score_is_the_squared_distance_to_the_nearest_mean() -> None:
    features, labels = rows(90, 0)
    means = np.stack([features[labels == code].mean(axis=0) for code in range(3)])
    inverse = np.linalg.inv(ledoit_wolf(features - means[labels], assume_centered=True)[0])
    new, _ = rows(10, 1)
    expected = [min(mahalanobis(row, mean, inverse) ** 2 for mean in means) for row in new]
    np.testing.assert_allclose(fit_outlier_model(features, labels).scores(new), expected, rtol=1e-8)


def test_more_features_than_rows_give_finite_scores() -> None:
    features, labels = rows(12, 0, width=60)
    scores = fit_outlier_model(features, labels).scores(features)
    assert np.isfinite(scores).all()
    constant = np.zeros((6, 4))
    assert np.isfinite(fit_outlier_model(constant, np.array([0, 0, 0, 2, 2, 2])).scores(constant)).all()


def test_at_most_the_stated_share_is_rejected() -> None:
    """Over many draws of held-out rows the share of rejected new rows is that of split conformal prediction."""
    rng = np.random.default_rng(0)
    shares = [(rng.normal(size=200) > rejection_threshold(rng.normal(size=39), 0.1)).mean() for _ in range(400)]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01)


def test_too_few_held_out_rows_have_no_threshold() -> None:
    assert rejection_threshold(np.arange(9.0), 0.1) == 8
    assert rejection_threshold(np.arange(8.0), 0.1) == math.inf
    assert rejection_threshold(np.empty(0), 0.5) == math.inf


def test_a_class_that_the_reference_lacks_is_found() -> None:
    train, held_out = rows(120, 0), rows(40, 1)
    found = left_out_aurocs(train, held_out, range(4))
    assert sorted(found) == [0, 1, 2]
    for code, auroc in found.items():
        kept = train[1] != code
        scores = fit_outlier_model(train[0][kept], train[1][kept]).scores(held_out[0])
        assert auroc == pytest.approx(roc_auc_score(held_out[1] == code, scores))
        assert auroc > 0.9
