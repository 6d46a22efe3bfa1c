"""The baselines against scikit-learn, on rows that lack classes, and what they know."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from pipeline.evaluation.calibration import softmax
from pipeline.heads import baselines
from pipeline.heads.base import Rows
from pipeline.heads.baselines import Majority, Neighbours
from pipeline.heads.config import FitConfig, FitOn
from pipeline.heads.fit import FitResult, fit_baseline
from pipeline.heads.logistic import C_POINTS, fit_logistic
from pipeline.heads.registry import KINDS
from pipeline.heads.svm.blocks import block_scale
from pipeline.heads.svm.classifier import fit_svm
from pipeline.heads.svm.search import search_svm
from pipeline.heads.xgb.booster import POINTS, search_boosting
from pipeline.names import BASELINES, MEANS, SOURCES

N_CLASSES = 4


FITTED = tuple(name for name in BASELINES if name not in MEANS)


def blobs(n: int, *, seed: int, classes: tuple[int, ...] = (0, 1, 2, 3), n_features: int = 6) -> Rows:
    """Return rows of the given classes among `N_CLASSES`, positive like colour shares, six groups."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(N_CLASSES, n_features)) * 2
    y = np.array(classes)[np.arange(n) % len(classes)]
    features = np.abs(centres[y] + rng.normal(size=(n, n_features))).astype(np.float32)
    groups = np.array([f"g{i // len(classes) % 6}" for i in range(n)])
    return Rows(features, np.zeros((n, N_CLASSES), np.float32), y.astype(np.int64), groups)


def config(fit_on: FitOn = "train", *, svm_rows: int = 1000) -> FitConfig:
    return FitConfig(fit_on, rounds=8, svm_rows=svm_rows)


def fitted(name: str, train: Rows, val: Rows, fit_on: FitOn = "train", *, svm_rows: int = 1000) -> FitResult:
    rows = {"train": train, "val": val}
    return fit_baseline(name, KINDS[name], rows, config(fit_on, svm_rows=svm_rows))


def test_blocks_have_equal_weight_and_a_histogram_keeps_its_proportions() -> None:
    features = np.random.default_rng(0).normal(size=(50, 5)) * [1, 3, 10, 0, 100]
    centre, scale = block_scale(features, [2, 3])
    scaled = (features - centre) * scale
    assert scaled[:, :2].var(axis=0).sum() == pytest.approx(1)
    assert scaled[:, 1].std() / scaled[:, 0].std() == pytest.approx(features[:, 1].std() / features[:, 0].std())
    np.testing.assert_allclose(scaled[:, 2:].var(axis=0), [1 / 3, 0, 1 / 3])


def test_majority_answers_the_most_frequent_class_by_smoothed_shares() -> None:
    y = np.array([2, 2, 2, 0, 1, 2], dtype=np.int64)
    fit = Rows(np.zeros((6, 1), np.float32), np.zeros((6, 4), np.float32), y)
    scores = Majority(fit).scores(blobs(3, seed=0))
    np.testing.assert_allclose(np.exp(scores), np.tile([0.2, 0.2, 0.5, 0.1], (3, 1)))


def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "BLOCK_ROWS", 7)
    fit, asked = blobs(120, seed=1), blobs(45, seed=2)
    reference = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(fit.features, fit.y)
    shares = reference.predict_proba(asked.features)
    scores = Neighbours(fit).scores(asked)
    np.testing.assert_allclose(np.exp(scores), (20 * shares + 1 / N_CLASSES) / 21)
    np.testing.assert_array_equal(scores.argmax(axis=1), reference.predict(asked.features))


def test_neighbours_of_few_rows_and_of_rows_of_zeros() -> None:
    fit = blobs(5, seed=1)
    asked = Rows(np.zeros((2, 6), np.float32), np.zeros((2, N_CLASSES), np.float32), np.zeros(2, np.int64))
    scores = Neighbours(fit).scores(asked)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1)
    assert np.exp(scores[0, 0]) == pytest.approx((2 + 0.25) / 6), "all five rows count: two of class 0"


def test_the_probe_is_a_plain_pipeline() -> None:
    fit, asked = blobs(120, seed=1), blobs(45, seed=2)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(fit.features, fit.y)
    scores = fit_logistic(fit, {"C": 0.01}).scores(asked)
    np.testing.assert_allclose(softmax(scores), reference.predict_proba(asked.features), atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(axis=1), reference.predict(asked.features))


def test_the_probe_chooses_c_by_held_out_rows() -> None:
    train, val = blobs(80, seed=1), blobs(60, seed=2)
    facts = fitted("linear", train, val).facts
    assert [point["params"]["C"] for point in facts["search"]] == list(C_POINTS)
    lowest = min(facts["search"], key=lambda point: point["val_nll"])
    assert facts["chosen"] == lowest["params"]


def test_colours_are_not_standardised() -> None:
    train, val = blobs(60, seed=1), blobs(40, seed=2)
    unit = (dataclasses.replace(rows, features=normalize(rows.features)) for rows in (train, val))
    found = fitted("histogram_svm", *unit)
    (svc,) = found.head.pipeline.named_steps.values()  # type: ignore[attr-defined]
    assert (svc.kernel, svc.gamma) == ("rbf", found.facts["chosen"]["gamma"])


@pytest.mark.parametrize("standardise", [True, False])
def test_a_search_of_few_points_judges_what_is_then_fitted(standardise: bool) -> None:
    train, val = blobs(60, seed=1), blobs(40, seed=2)
    points = [{"kernel": "rbf", "gamma": 0.2, "C": c} for c in (1.0, 10.0)] + [{"kernel": "linear", "C": 0.1}]
    search = search_svm(train, val, FitConfig(), points=points, standardise=standardise)
    assert [point.params for point in search.points] == points
    for point in search.facts:
        scores = fit_svm(train, point["params"], standardise=standardise).scores(val)
        assert (scores.argmax(axis=1) == val.y).mean() == pytest.approx(point["val_accuracy"], abs=1.01 / 40)


def test_boosting_of_few_points() -> None:
    found = search_boosting(blobs(60, seed=1), blobs(40, seed=2), FitConfig(rounds=3), points=POINTS[:1])
    assert len(found.points) == 1


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
@pytest.mark.parametrize("name", FITTED)
def test_a_baseline_learns_and_is_calibrated_on_rows_it_was_not_fitted_on(name: str, fit_on: FitOn) -> None:
    train, val, test = blobs(80, seed=1), blobs(72, seed=2), blobs(40, seed=3)
    baseline = fitted(name, train, val, fit_on)
    scores = baseline.head.scores(test)
    assert scores.shape == (40, N_CLASSES)
    assert np.isfinite(scores).all()
    assert baseline.held_scores.shape == (72, N_CLASSES)
    accuracy = (scores.argmax(axis=1) == test.y).mean()
    assert accuracy == 0.25 if name == "majority" else accuracy > 0.6, name
    assert baseline.facts["features"] == SOURCES[name]
    assert {"search", "chosen", "notes", "search_seconds", "fit_seconds"} <= set(baseline.facts)
    own = baseline.head.scores(val)
    if fit_on == "heldout" and name != "majority":
        assert not np.allclose(own, baseline.held_scores), name
    if fit_on == "train":
        np.testing.assert_array_equal(own, baseline.held_scores)
    np.testing.assert_array_equal(fitted(name, train, val, fit_on).head.scores(test), scores)


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
@pytest.mark.parametrize("name", FITTED)
def test_classes_that_are_absent_shift_no_column(name: str, fit_on: FitOn) -> None:
    """Class 1 is nowhere but in test; class 3 is not in val (not in train, where val rows are fitted on)."""
    with_three, without = blobs(81, seed=1, classes=(0, 2, 3)), blobs(72, seed=2, classes=(0, 2))
    test = blobs(40, seed=3)
    baseline = fitted(name, with_three, without, fit_on)
    scores = baseline.head.scores(test)
    assert scores.shape == (40, N_CLASSES)
    assert np.isfinite(scores).all()
    assert np.isfinite(baseline.held_scores).all()
    absent = [1] if fit_on == "train" else [1, 3]
    assert not np.isin(scores.argmax(axis=1), absent).any(), name
    assert f"{len(absent)} class(es) without a fitted row, which it can never predict" in baseline.facts["notes"]
    seen = np.isin(test.y, [0, 2])
    if name != "majority":
        assert (scores.argmax(axis=1) == test.y)[seen].mean() > 0.6, name


@pytest.mark.parametrize("fit_on", ["train", "heldout"])
@pytest.mark.parametrize("name", ["histogram_svm", "histogram_handcrafted_svm", "untrained_svm"])
def test_a_baseline_of_more_rows_than_an_exact_svm_takes_is_approximated(name: str, fit_on: FitOn) -> None:
    train, val, test = blobs(80, seed=1), blobs(72, seed=2), blobs(40, seed=3)
    most = {"train": 80, "heldout": 72}[fit_on]
    for svm_rows in (most, most - 1):
        baseline = fitted(name, train, val, fit_on, svm_rows=svm_rows)
        assert ("landmarks" in baseline.facts["chosen"]) == (svm_rows < most)
        assert baseline.facts["notes"][0].startswith("too many rows for an exact SVM") == (svm_rows < most)
        assert (baseline.head.scores(test).argmax(axis=1) == test.y).mean() > 0.6
