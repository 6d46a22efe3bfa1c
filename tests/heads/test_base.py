"""How points of a search are judged."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from pipeline.errors import BadInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.heads.base import Rows, Softmax
from pipeline.heads.search_result import Point, Search, cross_search


def test_softmax_scores_are_the_stored_logits() -> None:
    rows = Rows(np.zeros((2, 3), np.float32), np.array([[1, 2], [3, 4]], np.float32), np.array([0, 1]))
    assert Softmax().scores(rows) is rows.logits


def test_points_are_judged_by_calibrated_log_loss_not_by_the_scale_of_scores() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    good = rng.normal(size=(200, 3)) + 2 * np.eye(3)[y]
    bad = rng.normal(size=(200, 3)) + 0.5 * np.eye(3)[y]
    search = Search([Point({"name": "bad"}, bad, y, 1.0), Point({"name": "good"}, 1000 * good, y, 1.0)])
    assert search.best.params == {"name": "good"}
    p = apply_temperature(bad, fit_temperature(bad, y))
    assert search.facts[0]["val_nll"] == pytest.approx(log_loss(y, p), rel=1e-6)
    assert search.facts[0]["val_accuracy"] == pytest.approx((bad.argmax(1) == y).mean())


def test_cross_search_needs_two_classes_without_any_fold() -> None:
    rows = Rows(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32), np.array([0, 0, 0, 1]))
    with pytest.raises(BadInput, match="too few to fit heads on by cross-validation"):
        cross_search(rows, np.array([0, 0, 1, 1]), lambda fit, held: Search([]))


def test_cross_search_scores_every_row_by_what_was_fitted_without_its_fold() -> None:
    rows = Rows(np.zeros((6, 2), np.float32), np.zeros((6, 2), np.float32), np.array([0, 1, 0, 1, 0, 1]))
    folds = np.array([0, 0, 1, 1, 2, 2])

    def search(fit: Rows, held: Rows) -> Search:
        params = {"rounds": len(fit.y) + int(held.y[0])}
        return Search([Point(params, np.full((len(held.y), 2), len(fit.y)), held.y, 1.0, Softmax())])

    (merged,) = cross_search(rows, folds, search).points
    assert merged.params == {"rounds": 4}
    assert merged.seconds == 3.0
    assert merged.head is None, "no head was fitted on all rows"
    assert (merged.scores == 4).all()
