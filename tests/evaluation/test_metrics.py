"""Every metric against scikit-learn or a brute-force loop, also where classes are missing."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from pipeline.evaluation.metrics import (
    METRICS,
    class_metrics,
    confusion,
    expected_calibration_error,
    most_confused,
    reliability_bins,
    scalar_metrics,
    scores_from_confusion,
)

K = 5


def random_rows(seed, n_rows=300, n_classes=K):
    """Probabilities with some ties and zeros, labels and predictions that need not agree with them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_classes, 0.4), size=n_rows).round(2)
    p[:, -1] = 1 - p[:, :-1].sum(axis=1)
    p = np.clip(p, 0, 1)
    y = rng.integers(n_classes, size=n_rows)
    return y, p / p.sum(axis=1, keepdims=True), rng.integers(n_classes, size=n_rows)


@st.composite
def small_cases(draw):
    """Few rows over 1..4 classes: most cases lack a class among the truths or the predictions."""
    n_classes, n_rows = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    labels = st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows)
    weights = st.lists(st.integers(0, 3), min_size=n_classes, max_size=n_classes).filter(any)
    p = np.array(draw(st.lists(weights, min_size=n_rows, max_size=n_rows)), dtype=float)
    return np.array(draw(labels)), p / p.sum(axis=1, keepdims=True), np.array(draw(labels))


def brute_force_ece(y, p, n_bins):
    edges = np.linspace(0, 1, n_bins + 1)
    total = 0.0
    for low, high in pairwise(edges):
        rows = [i for i in range(len(y)) if low < max(p[i]) <= high]
        if rows:
            hit = np.mean([np.argmax(p[i]) == y[i] for i in rows])
            total += len(rows) / len(y) * abs(hit - np.mean([max(p[i]) for i in rows]))
    return total


def brute_force_brier(y, p):
    return np.mean([sum((p[i, k] - (k == y[i])) ** 2 for k in range(p.shape[1])) for i in range(len(y))])


def reference_auroc(y, p):
    areas = [reference.roc_auc_score(y == k, p[:, k]) for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    return np.mean(areas) if areas else math.nan


def reference_scores(y, p, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are only predicted
        return {
            "accuracy": reference.accuracy_score(y, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
            "macro_f1": reference.f1_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0),
            "auroc_ovr": reference_auroc(y, p),
            "nll": -np.mean(np.log(np.maximum(p[np.arange(len(y)), y], 1e-15))),
            "brier": brute_force_brier(y, p),
            "ece": brute_force_ece(y, p, 15),
        }


@pytest.mark.parametrize("seed", range(3))
def test_scalar_metrics_equal_scikit_learn(seed):
    y, p, predicted = random_rows(seed)
    scores = scalar_metrics(y, p, predicted)
    assert tuple(scores) == METRICS
    assert all(type(value) is float for value in scores.values())
    assert scores == pytest.approx(reference_scores(y, p, predicted), abs=1e-12)
    assert scores["auroc_ovr"] == pytest.approx(reference.roc_auc_score(y, p, multi_class="ovr"))


def test_nll_equals_scikit_learn_log_loss():
    y, p, predicted = random_rows(4)
    smooth = 0.9 * p + 0.1 / K
    expected = reference.log_loss(y, smooth, labels=np.arange(K))
    assert scalar_metrics(y, smooth, predicted)["nll"] == pytest.approx(expected)


@given(small_cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_scalar_metrics_with_classes_absent(case):
    assert scalar_metrics(*case) == pytest.approx(reference_scores(*case), abs=1e-9, nan_ok=True)


@given(small_cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_class_metrics_equal_scikit_learn_where_defined(case):
    y, p, predicted = case
    n_classes = p.shape[1]
    scores = class_metrics(y, predicted, n_classes)
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        y, predicted, labels=np.arange(n_classes), zero_division=np.nan
    )
    absent = support == 0
    np.testing.assert_array_equal(scores["support"], support)
    np.testing.assert_allclose(scores["precision"], precision)
    np.testing.assert_allclose(scores["recall"], recall)
    np.testing.assert_allclose(scores["f1"], np.where(absent, np.nan, f1))


def test_class_metrics_where_undefined():
    # Class 1 occurs but is never predicted, 2 is predicted but does not occur, 3 neither.
    scores = class_metrics(np.array([0, 0, 1]), np.array([0, 2, 0]), 4)
    np.testing.assert_array_equal(scores["precision"], [0.5, np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(scores["recall"], [0.5, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(scores["f1"], [0.5, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(scores["support"], [2, 1, 0, 0])


def test_confusion_equals_scikit_learn_for_narrow_integers():
    y, _, predicted = random_rows(1, n_classes=200)
    expected = reference.confusion_matrix(y, predicted, labels=np.arange(200))
    # int16, as in embeddings.h5: 199 * 200 + 199 would overflow in it.
    np.testing.assert_array_equal(confusion(y.astype(np.int16), predicted.astype(np.int16), 200), expected)


def test_scores_from_confusion_take_leading_axes():
    matrices = np.random.default_rng(0).integers(1, 9, size=(2, 3, 4, 4))
    stacked = scores_from_confusion(matrices)
    for name, values in stacked.items():
        assert values.shape == (2, 3)
        assert values[1, 2] == scores_from_confusion(matrices[1, 2])[name]


def test_most_confused_sorts_by_count_then_index():
    matrix = np.array([[5, 2, 3], [0, 4, 2], [3, 0, 0]])
    assert most_confused(matrix) == [(0, 2, 3, 0.3), (2, 0, 3, 1.0), (0, 1, 2, 0.2), (1, 2, 2, 2 / 6)]
    assert most_confused(np.diag([1, 0, 2])) == []


def test_ece_worked_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.45, 0.55]])
    y = np.array([0, 1, 1, 1])
    # Five bins: 0.7, 0.8 in (0.6, 0.8]: mean 0.75, one of two right; 0.9 in (0.8, 1], right;
    # 0.55 in (0.4, 0.6], right.
    bins = reliability_bins(y, p, n_bins=5)
    np.testing.assert_array_equal(bins["count"], [0, 0, 1, 2, 1])
    np.testing.assert_allclose(bins["confidence"], [np.nan, np.nan, 0.55, 0.75, 0.9])
    np.testing.assert_allclose(bins["accuracy"], [np.nan, np.nan, 1.0, 0.5, 1.0])
    expected = (1 * 0.45 + 2 * 0.25 + 1 * 0.1) / 4
    assert expected_calibration_error(bins) == pytest.approx(expected)


@given(small_cases(), st.integers(1, 20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_ece_equals_brute_force(case, n_bins):
    y, p, _ = case
    bins = reliability_bins(y, p, n_bins)
    assert bins["count"].sum() == len(y)
    assert expected_calibration_error(bins) == pytest.approx(brute_force_ece(y, p, n_bins), abs=1e-12)


def test_certain_and_wrong_is_finite():
    scores = scalar_metrics(np.array([0, 1]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 0]))
    assert scores["nll"] == pytest.approx(-math.log(1e-15))
    assert (scores["brier"], scores["ece"], scores["auroc_ovr"]) == (2.0, 1.0, 0.0)


GOOD_Y, GOOD_P = np.array([0, 1]), np.array([[0.6, 0.4], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("y", "p", "predicted", "message"),
    [
        (GOOD_Y, GOOD_P[:1], GOOD_Y, "y must have 1 rows"),
        (GOOD_Y, GOOD_P, GOOD_Y[:1], "predicted must have 2 rows"),
        (GOOD_Y, GOOD_P * 3, GOOD_Y, r"p must be in 0\.\.1"),
        (GOOD_Y, GOOD_P / 2, GOOD_Y, "row 0 sums to 0.5"),
        (GOOD_Y, GOOD_P * [np.nan, 1], GOOD_Y, "row 0 is not"),
        (GOOD_Y + 1, GOOD_P, GOOD_Y, r"y must be in 0\.\.1"),
        (GOOD_Y, GOOD_P, GOOD_Y - 1, r"predicted must be in 0\.\.1"),
        (GOOD_Y * 1.0, GOOD_P, GOOD_Y, "y must hold integers"),
        (GOOD_Y[:0], GOOD_P[:0], GOOD_Y[:0], "non-empty"),
        (GOOD_Y, GOOD_P[:, 0], GOOD_Y, r"\(N, K\)"),
    ],
)
def test_wrong_arrays_are_refused(y, p, predicted, message):
    with pytest.raises(ValueError, match=message):
        scalar_metrics(y, p, predicted)


def test_zero_bins_are_refused():
    with pytest.raises(ValueError, match="n_bins"):
        reliability_bins(GOOD_Y, GOOD_P, n_bins=0)
