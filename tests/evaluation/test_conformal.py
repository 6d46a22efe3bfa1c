import importlib.util
import sys

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.evaluation import conformal
from pipeline.evaluation.calibration import softmax
from pipeline.evaluation.conformal import PredictionSets, conformal_by_groups, split_conformal

needs_mapie = pytest.mark.skipif(not conformal.is_installed(), reason="needs mapie")


def draw(n, n_classes, seed):
    rng = np.random.default_rng(seed)
    p = softmax(2 * rng.normal(size=(n, n_classes)))
    return p, np.minimum((p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1), n_classes - 1)


def test_figures_of_sets_by_hand():
    sets = PredictionSets(
        np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool), np.array([0, 1, 0, 1]), "tile"
    )
    assert (sets.coverage, sets.mean_size) == (0.5, 1.0)
    assert [sets.share_of_size(size) for size in range(4)] == [0.25, 0.5, 0.25, 0]
    np.testing.assert_equal(sets.class_coverage, [0.5, 0.5, np.nan])


@needs_mapie
@pytest.mark.parametrize("n_classes", [2, 9])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_are_those_of_the_formula(n_classes, alpha):
    """Least ambiguous sets: 1 - p at most the ceil((n + 1)(1 - alpha))-th smallest of 1 - p[true]."""
    p_calibration, y_calibration = draw(99, n_classes, 0)
    p, y = draw(50, n_classes, 1)
    score = np.sort(1 - p_calibration[np.arange(99), y_calibration])
    threshold = score[int(np.ceil(round(100 * (1 - alpha), 9))) - 1]
    sets = PredictionSets(split_conformal(p_calibration, y_calibration, p, alpha=alpha), y, "tile")
    np.testing.assert_array_equal(sets.sets, 1 - p <= threshold + 1e-8)


@needs_mapie
@pytest.mark.parametrize("n_classes", [2, 9])
def test_coverage_is_what_was_asked_for(n_classes):
    p, y = draw(4000, n_classes, 2)
    groups = [f"g{i // 10}" for i in range(4000)]
    sharpened = softmax(3 * np.log(p))  # far too sure of itself: the sets do not believe it
    sets = conformal_by_groups(sharpened, y, groups, alpha=0.1, seed=0)
    assert sets.unit == "group"
    assert sets.coverage == pytest.approx(0.9, abs=0.02)


@needs_mapie
def test_no_group_covers_itself():
    p, y = draw(400, 3, 3)
    groups = [f"g{i // 100}" for i in range(400)]
    sets = conformal_by_groups(p, y, groups, alpha=0.1, seed=0)
    fold, _ = conformal.assign_folds(y, groups, seed=0, folds=2)
    for covered in (0, 1):
        a, b = fold == covered, fold != covered
        np.testing.assert_array_equal(sets.sets[a], split_conformal(p[b], y[b], p[a], alpha=0.1))


@needs_mapie
@pytest.mark.parametrize("n_classes", [2, 9])
@pytest.mark.parametrize("groups", [["g"] * 60, [""] * 60, ["a"] * 30 + ["b"] * 30])
def test_poor_rows(n_classes, groups):
    y = np.array([0] * 30 + [1] * 30)
    for p in (np.full((60, n_classes), 1 / n_classes), np.eye(n_classes)[0 * y], np.eye(n_classes)[y]):
        sets = conformal_by_groups(p, y, groups, alpha=0.1, seed=0)
        assert np.isfinite([sets.coverage, sets.mean_size]).all()
        assert np.isfinite(sets.class_coverage[:2]).all()
        assert np.isnan(sets.class_coverage[2:]).all()


@needs_mapie
def test_rounded_probabilities_pass():
    p, y = draw(100, 7, 4)
    sets = conformal_by_groups(p.round(4), y, [""] * 100, alpha=0.1, seed=0)
    assert sets.sets.shape == (100, 7)


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 20), (0.1, 10), (0.9, 10)])
def test_too_few_calibration_rows(alpha, n):
    p, y = draw(50, 3, 5)
    with pytest.raises(PipelineError, match=f"need more than {n} calibration rows, but there are {n}"):
        split_conformal(p[:n], y[:n], p, alpha=alpha)
    if conformal.is_installed():
        split_conformal(p[: n + 1], y[: n + 1], p, alpha=alpha)
    with pytest.raises(PipelineError, match="calibration rows"):
        conformal_by_groups(p[:1], y[:1], ["g"], alpha=alpha, seed=0)


def test_without_mapie(monkeypatch):
    monkeypatch.setitem(sys.modules, "mapie", None)
    monkeypatch.setitem(sys.modules, "mapie.classification", None)
    p, y = draw(50, 3, 6)
    with pytest.raises(PipelineError, match=r"pip install 'histoheads\[conformal\]'"):
        split_conformal(p, y, p, alpha=0.1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not conformal.is_installed()


def test_wrong_alpha():
    p, y = draw(50, 3, 7)
    with pytest.raises(ValueError, match="alpha must be inside"):
        split_conformal(p, y, p, alpha=1.0)
