"""The approximated kernel of many rows: near to the exact one, readable by anyone, the same for the same seed."""

import numpy as np
import pytest
import skops.io
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pipeline.heads.base import SCHEMA, Rows
from pipeline.heads.config import LANDMARKS, FitConfig
from pipeline.heads.svm import nystroem
from pipeline.heads.svm.classifier import Svm, fit_svm
from pipeline.heads.svm.nystroem import C_LANDMARKS, landmark_points
from pipeline.heads.svm.search import search_svm, standard_points
from pipeline.storage.records import Artifact, write_record


def rings(n: int, *, n_classes: int, seed: int) -> Rows:
    """Return rows whose class is how far they lie from the middle: no linear head can tell."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    direction = rng.normal(size=(n, 5))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    features = direction * (1 + 2 * y[:, None] + 0.2 * rng.normal(size=(n, 1)))
    return Rows(features.astype(np.float32), np.zeros((n, n_classes), np.float32), y.astype(np.int64))


POINT = {"kernel": "rbf", "gamma": 0.3, "landmarks": 60, "C": 10.0}


def test_points_keep_the_gammas_of_rbf_kernels() -> None:
    points = landmark_points(standard_points(10))
    assert {point["gamma"] for point in points} == {p["gamma"] for p in standard_points(10) if p["kernel"] == "rbf"}
    assert {point["landmarks"] for point in points} == {LANDMARKS}
    assert len(points) == len({point["gamma"] for point in points}) * len(C_LANDMARKS)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_tells_what_an_exact_kernel_tells_and_a_linear_one_cannot(n_classes: int) -> None:
    train, test = rings(300, n_classes=n_classes, seed=1), rings(150, n_classes=n_classes, seed=2)
    right = {
        name: (fit_svm(train, params).scores(test).argmax(axis=1) == test.y).mean()
        for name, params in (
            ("near", POINT),
            ("exact", {"kernel": "rbf", "gamma": 0.3, "C": 10.0}),
            ("linear", {"kernel": "linear", "C": 0.1}),
        )
    }
    assert right["near"] > 0.97
    assert right["near"] >= right["exact"] - 0.02
    assert right["linear"] < 0.8


def test_it_is_scikit_learns_own_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nystroem, "BLOCK_ROWS", 13)
    train, test = rings(100, n_classes=3, seed=1), rings(50, n_classes=3, seed=2)
    head = fit_svm(train, POINT, seed=3)
    scaler, kernel, regression = head.pipeline.named_steps.values()
    assert isinstance(scaler, StandardScaler)
    assert isinstance(kernel, Nystroem)
    assert isinstance(regression, LogisticRegression)
    mapped = kernel.transform(scaler.transform(train.features)).astype(np.float32)
    again = LogisticRegression(C=10.0, max_iter=1000).fit(mapped, train.y)
    np.testing.assert_allclose(again.coef_, regression.coef_, atol=1e-4)
    np.testing.assert_allclose(head.scores(test), head.pipeline.decision_function(test.features), rtol=1e-6, atol=1e-8)
    assert not np.array_equal(fit_svm(train, POINT, seed=4).scores(test), head.scores(test)), "other landmarks"
    np.testing.assert_array_equal(fit_svm(train, POINT, seed=3).scores(test), head.scores(test))


def test_the_search_judges_what_is_then_fitted() -> None:
    train, val = rings(150, n_classes=3, seed=1), rings(90, n_classes=3, seed=2)
    points = [POINT | {"gamma": gamma, "C": c} for c in (10.0, 0.01) for gamma in (0.3, 1e-4)]
    search = search_svm(train, val, FitConfig(seed=5, jobs=2), points=points)
    assert [point.params for point in search.points] == points
    assert len({point.nll for point in search.points}) == 4
    for found, point in zip(search.points, points, strict=True):
        np.testing.assert_allclose(found.scores, fit_svm(train, point, seed=5).scores(val), rtol=0.1, atol=0.05)
    assert search.best.params == points[0]


def test_it_is_saved_without_types_that_need_trust_and_loads_alike(tmp_path) -> None:
    train = rings(90, n_classes=3, seed=1)
    head = fit_svm(train, POINT)
    path = tmp_path / "svm.skops"
    head.save(path)
    write_record(Artifact(path, SCHEMA, "fit_heads"))
    assert skops.io.get_untrusted_types(file=path) == []
    np.testing.assert_array_equal(Svm.load(path).scores(train), head.scores(train))


@pytest.mark.fault("a head that does not converge, or rows of one class")
def test_a_regression_that_takes_all_its_steps_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    train = rings(60, n_classes=3, seed=1)
    assert fit_svm(train, POINT).notes(60) == [
        "too many rows for an exact SVM (60): Nystroem, 60 landmarks, and a logistic regression"
    ]
    monkeypatch.setattr(nystroem, "MOST_STEPS", 2)
    assert "did not converge" in fit_svm(train, POINT).notes(60)
