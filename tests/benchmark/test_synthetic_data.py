"""Synthetic embeddings look like a network's to a head."""

import numpy as np

from pipeline.benchmark.heads import synthetic_rows
from pipeline.benchmark.synthetic_data import synthetic_features, synthetic_logits
from pipeline.heads.base import Rows
from pipeline.heads.svm.classifier import fit_svm


def test_half_are_zero_and_seeds_share_the_classes() -> None:
    train, held = synthetic_rows(400, 64, seed=0), synthetic_rows(400, 64, seed=1)
    assert 0.4 < float((train.features == 0).mean()) < 0.7
    assert not np.array_equal(train.features, held.features)
    head = fit_svm(Rows(train.features, train.logits, train.y), {"kernel": "rbf", "C": 1.0, "gamma": 1 / 64})
    accuracy = float((head.scores(held).argmax(axis=1) == held.y).mean())
    assert 0.6 < accuracy < 1.0


def test_the_same_again_and_logits_that_know_the_class() -> None:
    y = np.arange(200) % 5
    features = synthetic_features(y, 32, seed=3)
    assert np.array_equal(features, synthetic_features(y, 32, seed=3))
    assert features.dtype == np.float32
    logits = synthetic_logits(features, y, 5)
    assert logits.shape == (200, 5)
    assert float((logits.argmax(axis=1) == y).mean()) > 0.5
