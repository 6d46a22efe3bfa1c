"""The SVM head against scikit-learn, its files, and what it refuses."""

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.errors import BadArtifact
from pipeline.heads.base import SCHEMA, Rows, Search, as_columns
from pipeline.heads.svm import N_POINTS, Svm, fit_svm, search_svm, squared_distances, subsample
from pipeline.storage.records import write_record


def blobs(n: int, *, n_classes: int, seed: int, n_features: int = 12) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, n_features)) * 1.5
    y = np.arange(n) % n_classes
    features = (centres[y] + rng.normal(size=(n, n_features))).astype(np.float32)
    return Rows(features=features, logits=np.zeros((n, n_classes), np.float32), y=y.astype(np.int64))


def test_squared_distances_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    brute = ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)
    np.testing.assert_allclose(squared_distances(a, b), brute, atol=1e-5)
    assert (squared_distances(a, a) >= 0).all()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_search_judges_each_point_as_scikit_learn_would(n_classes: int) -> None:
    train, val = blobs(80, n_classes=n_classes, seed=1), blobs(41, n_classes=n_classes, seed=2)
    search = search_svm(train, val, seed=0, jobs=1)
    assert len(search.points) == N_POINTS
    scaler = StandardScaler().fit(train.features)
    for point in search.points:
        svc = SVC(**point["params"], break_ties=True).fit(scaler.transform(train.features), train.y)
        expected = (svc.predict(scaler.transform(val.features)) == val.y).mean()
        assert point["val_accuracy"] == pytest.approx(expected, abs=1.01 / len(val.y)), point["params"]


def test_decision_is_the_largest_score_and_is_scikit_learns_prediction() -> None:
    train, test = blobs(90, n_classes=3, seed=1), blobs(60, n_classes=3, seed=5)
    head = fit_svm(train, {"kernel": "rbf", "gamma": 0.1, "C": 1.0})
    scores = head.scores(test)
    assert scores.shape == (60, 3)
    np.testing.assert_array_equal(scores.argmax(1), head.pipeline.predict(test.features))
    assert (scores.argmax(1) == test.y).mean() > 0.9


def test_two_classes_give_two_columns_with_the_right_sign() -> None:
    train = blobs(40, n_classes=2, seed=1)
    scores = fit_svm(train, {"kernel": "linear", "C": 0.1}).scores(train)
    assert scores.shape == (40, 2)
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])
    assert (scores.argmax(1) == train.y).mean() > 0.9
    np.testing.assert_array_equal(as_columns(np.array([0.5]), np.array([0, 1]), 2), [[-0.5, 0.5]])


def test_validation_rows_choose_and_training_rows_do_not() -> None:
    # validation labels are reversed for one half of the space: only a choice made on them can notice
    train, val = blobs(80, n_classes=2, seed=1), blobs(60, n_classes=2, seed=2)
    search = search_svm(train, val, seed=0, jobs=1)
    flipped = search_svm(train, Rows(val.features, val.logits, 1 - val.y), seed=0, jobs=1)
    assert min(p["val_nll"] for p in flipped.points) > min(p["val_nll"] for p in search.points)


def test_saved_head_scores_the_same_and_needs_no_trust(tmp_path) -> None:
    train = blobs(60, n_classes=3, seed=1)
    head = fit_svm(train, {"kernel": "rbf", "gamma": 0.05, "C": 10.0})
    head.save(tmp_path / "svm.skops")
    write_record(tmp_path / "svm.skops", schema=SCHEMA, stage="fit_heads", options={})
    assert skops.io.get_untrusted_types(file=tmp_path / "svm.skops") == []
    np.testing.assert_array_equal(Svm.load(tmp_path / "svm.skops").scores(train), head.scores(train))


def test_foreign_files_are_refused(tmp_path) -> None:
    path = tmp_path / "svm.skops"
    path.write_bytes(b"not a zip")
    with pytest.raises(BadArtifact, match=r"record of svm\.skops is missing"):
        Svm.load(path)
    write_record(path, schema=SCHEMA, stage="fit_heads", options={})
    with pytest.raises(BadArtifact, match="not a readable skops file"):
        Svm.load(path)
    skops.io.dump(LogisticRegression(), path)
    write_record(path, schema=SCHEMA, stage="fit_heads", options={})
    with pytest.raises(BadArtifact, match="Pipeline is needed"):
        Svm.load(path)
    skops.io.dump({"head": Search()}, path)  # a type of ours, but not one that a head file may hold
    write_record(path, schema=SCHEMA, stage="fit_heads", options={})
    with pytest.raises(BadArtifact, match="not trusted"):
        Svm.load(path)


def test_subsample_keeps_proportions_and_order() -> None:
    y = np.repeat([0, 1, 2], [600, 300, 4])
    rows = subsample(y, 90, seed=3)
    assert (np.diff(rows) > 0).all()
    counts = np.bincount(y[rows])
    assert counts[0] in (59, 60, 61)
    assert counts[2] == 2
    np.testing.assert_array_equal(subsample(y, 2000, seed=3), np.arange(len(y)))
    np.testing.assert_array_equal(rows, subsample(y, 90, seed=3))


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(
    "params", [{"kernel": "linear", "C": 0.1}, {"kernel": "rbf", "gamma": 0.05, "C": 10.0}], ids=["linear", "rbf"]
)
@pytest.mark.parametrize("standardise", [True, False])
def test_scores_are_the_pipelines_own_decision_values(
    n_classes: int, params: dict[str, object], standardise: bool
) -> None:
    train, other = blobs(90, n_classes=n_classes, seed=3), blobs(1500, n_classes=n_classes, seed=4)
    head = fit_svm(train, params, standardise=standardise)
    own = head.pipeline.decision_function(other.features)
    expected = np.column_stack([-own, own]) if n_classes == 2 else own
    scores = head.scores(other)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(scores.argmax(axis=1), head.pipeline.predict(other.features))
