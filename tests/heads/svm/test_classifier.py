"""The SVM head against scikit-learn, its files, and what it refuses."""

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pipeline.errors import BadArtifact, BadInput, StaleInput
from pipeline.fit_heads import FitHeadsOptions
from pipeline.heads.base import SCHEMA, Rows, as_columns, subsample
from pipeline.heads.config import EXACT_ROWS, FitConfig
from pipeline.heads.search_result import Search
from pipeline.heads.svm import classifier, kind
from pipeline.heads.svm.classifier import Svm, fit_svc, fit_svm
from pipeline.heads.svm.kind import SvmKind
from pipeline.heads.svm.nystroem import landmark_points
from pipeline.heads.svm.search import affordable, search_svm, standard_points
from pipeline.storage import environment, records
from pipeline.storage.records import Artifact, write_record


def blobs(n: int, *, n_classes: int, seed: int, n_features: int = 12) -> Rows:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, n_features)) * 1.5
    y = np.arange(n) % n_classes
    features = (centres[y] + rng.normal(size=(n, n_features))).astype(np.float32)
    return Rows(features=features, logits=np.zeros((n, n_classes), np.float32), y=y.astype(np.int64))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_search_judges_each_point_as_scikit_learn_would(n_classes: int) -> None:
    train, val = blobs(80, n_classes=n_classes, seed=1), blobs(41, n_classes=n_classes, seed=2)
    search = search_svm(train, val, FitConfig())
    assert [point.params for point in search.points] == standard_points(12)
    scaler = StandardScaler().fit(train.features)
    for point in search.facts:
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
    search = search_svm(train, val, FitConfig())
    flipped = search_svm(train, Rows(val.features, val.logits, 1 - val.y), FitConfig())
    assert flipped.best.nll > search.best.nll


def test_saved_head_scores_the_same_and_needs_no_trust(tmp_path) -> None:
    train = blobs(60, n_classes=3, seed=1)
    head = fit_svm(train, {"kernel": "rbf", "gamma": 0.05, "C": 10.0})
    head.save(tmp_path / "svm.skops")
    write_record(Artifact(tmp_path / "svm.skops", SCHEMA, "fit_heads"))
    assert skops.io.get_untrusted_types(file=tmp_path / "svm.skops") == []
    np.testing.assert_array_equal(Svm.load(tmp_path / "svm.skops").scores(train), head.scores(train))


@pytest.mark.fault("head saved by another scikit-learn")
@pytest.mark.parametrize(("made", "fits"), [("now", True), ("minor", False), ("major", False), ("patch", True)])
def test_a_head_of_another_scikit_learn(tmp_path, monkeypatch: pytest.MonkeyPatch, made: str, *, fits: bool) -> None:
    path, found = tmp_path / "svm.skops", environment.versions()
    fit_svm(blobs(60, n_classes=3, seed=1), {"kernel": "rbf", "gamma": 0.05, "C": 10.0}).save(path)
    major, minor, *_ = str(found["scikit-learn"]).split(".")
    other = {
        "now": found["scikit-learn"],
        "minor": f"{major}.{int(minor) + 1}.0",
        "major": f"{int(major) + 1}.{minor}.0",
        "patch": f"{major}.{minor}.99",
    }[made]
    with monkeypatch.context() as patched:
        patched.setattr(records, "versions", lambda: found | {"scikit-learn": other})
        write_record(Artifact(path, SCHEMA, "fit_heads"))
    if fits:
        Svm.load(path)
        return
    with pytest.raises(StaleInput, match=f"scikit-learn {other}, and {found['scikit-learn']} is installed") as caught:
        Svm.load(path)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_refused(tmp_path) -> None:
    path = tmp_path / "svm.skops"
    path.write_bytes(b"not a zip")
    with pytest.raises(BadArtifact, match=r"record of svm\.skops is missing"):
        Svm.load(path)
    write_record(Artifact(path, SCHEMA, "fit_heads"))
    with pytest.raises(BadArtifact, match="not a readable skops file"):
        Svm.load(path)
    skops.io.dump(LogisticRegression(), path)
    write_record(Artifact(path, SCHEMA, "fit_heads"))
    with pytest.raises(BadArtifact, match="holds no fitted pipeline"):
        Svm.load(path)
    skops.io.dump({"head": Search([])}, path)  # a type of ours, but not one that a head file may hold
    write_record(Artifact(path, SCHEMA, "fit_heads"))
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


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize(
    "params", [{"kernel": "linear", "C": 0.1}, {"kernel": "rbf", "gamma": 0.05, "C": 10.0}], ids=["linear", "rbf"]
)
def test_the_last_fit_is_scikit_learns_own(n_classes: int, params: dict[str, object]) -> None:
    """The support vectors, predictions and state that `SVC.fit` gives, and coefficients to libsvm's own tolerance."""
    train, other = blobs(150, n_classes=n_classes, seed=3), blobs(200, n_classes=n_classes, seed=4)
    shuffled = train.take(np.random.default_rng(0).permutation(150))
    svc = fit_svc(shuffled.features, shuffled.y, params)
    plain = SVC(**params, break_ties=True).fit(shuffled.features, shuffled.y)
    np.testing.assert_array_equal(svc.support_, plain.support_)
    np.testing.assert_array_equal(svc.predict(other.features), plain.predict(other.features))
    ways = {"n_iter_", "_num_iter"} | ({"_gamma"} if params["kernel"] == "linear" else set())
    for name, value in vars(plain).items():
        own = getattr(svc, name)
        if isinstance(value, np.ndarray):
            assert (own.dtype, own.shape) == (value.dtype, value.shape), name
            if name not in ways:
                np.testing.assert_allclose(own, value, rtol=0, atol=5e-3, err_msg=name)
        elif name not in ways:
            assert own == value, name
    assert set(vars(svc)) == set(vars(plain))


def test_a_classifier_that_does_not_take_its_features_is_fitted_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    train = blobs(90, n_classes=3, seed=3)
    params = {"kernel": "rbf", "gamma": 0.05, "C": 10.0}

    class OtherState(SVC):
        def set_params(self, **given: object) -> SVC:
            self._gamma = 0.5  # as if the kernel's parameters were kept elsewhere
            return super().set_params(**given)

    monkeypatch.setattr(classifier, "SVC", OtherState)
    svc = fit_svc(train.features, train.y, params)
    plain = SVC(**params, break_ties=True).fit(train.features, train.y)
    np.testing.assert_array_equal(svc.decision_function(train.features), plain.decision_function(train.features))


def test_points_may_stand_in_any_order_and_each_is_fitted_with_its_own_c() -> None:
    """Also where a weaker C has bound no coefficient, so that its solution serves the stronger ones."""
    train, val = blobs(90, n_classes=3, seed=1), blobs(60, n_classes=3, seed=2)
    strengths = (1000.0, 0.01, 10.0, 0.3, 100.0)
    points = [{"kernel": "rbf", "gamma": gamma, "C": c} for c in strengths for gamma in (0.02, 1.0)]
    search = search_svm(train, val, FitConfig(jobs=2), points=points)
    assert [point.params for point in search.points] == points
    for point, found in zip(points, search.points, strict=True):
        np.testing.assert_allclose(found.scores, fit_svm(train, point).scores(val), atol=2e-3, err_msg=str(point))
    scores = [point.scores for point in search.points]
    reused = [np.array_equal(scores[i], scores[j]) for i, j in ((5, 9), (4, 8), (1, 9))]
    assert any(reused), "no point of this data is free: it tests nothing"
    assert not np.array_equal(scores[2], scores[6])


def test_above_the_limit_the_kernel_is_approximated_and_below_it_is_not() -> None:
    points = standard_points(12)
    assert affordable(points, 100, most=100) == points
    assert affordable(points, 101, most=100) == landmark_points(points)
    assert FitHeadsOptions().svm_rows == EXACT_ROWS


@pytest.mark.fault("memory of the machine full")
def test_rows_that_do_not_fit_into_memory_are_refused_before_the_search() -> None:
    with pytest.raises(BadInput, match="give --svm-rows"):
        affordable(standard_points(12), 10**8, most=10**9)


@pytest.mark.fault("a head that does not converge, or rows of one class")
def test_notes_tell_how_it_was_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, params = blobs(40, n_classes=2, seed=1), {"kernel": "linear", "C": 0.1}
    head = fit_svm(rows, params)
    first = f"{head.pipeline[-1].n_support_.sum()} support vectors of 40 rows"
    assert SvmKind().notes(head, rows, params, FitConfig()) == [first]
    monkeypatch.setattr(kind, "SEARCH_ROWS", 30)
    sampled = "searched on a stratified sample of 30 rows"
    assert SvmKind().notes(head, rows, params, FitConfig()) == [first, sampled]
