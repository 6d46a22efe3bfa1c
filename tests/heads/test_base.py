"""How points of a search are judged."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.heads.base import Rows, Search, Softmax


def test_softmax_scores_are_the_stored_logits() -> None:
    rows = Rows(np.zeros((2, 3), np.float32), np.array([[1, 2], [3, 4]], np.float32), np.array([0, 1]))
    assert Softmax().scores(rows) is rows.logits


def test_points_are_judged_by_calibrated_log_loss_not_by_the_scale_of_scores() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    good = rng.normal(size=(200, 3)) + 2 * np.eye(3)[y]
    bad = rng.normal(size=(200, 3)) + 0.5 * np.eye(3)[y]
    search = Search()
    search.add({"name": "bad"}, bad, y, seconds=1.0)
    search.add({"name": "good"}, 1000 * good, y, seconds=1.0)
    assert search.best == {"name": "good"}
    p = apply_temperature(bad, fit_temperature(bad, y))
    assert search.points[0]["val_nll"] == pytest.approx(log_loss(y, p), rel=1e-6)
    assert search.points[0]["val_accuracy"] == pytest.approx((bad.argmax(1) == y).mean())
