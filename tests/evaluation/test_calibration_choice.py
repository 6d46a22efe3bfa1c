"""Which method is chosen on scores whose own model is known, and that no row judges a fit it was part of."""

import numpy as np
import pytest

from pipeline.evaluation import calibration_choice
from pipeline.evaluation.calibration import METHODS, fit_calibration, softmax
from pipeline.evaluation.calibration_choice import choose_calibration


def draw(p, rng):
    return np.minimum((p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1), p.shape[1] - 1)


def groups_of(n, *, size=50):
    return [f"g{i // size}" for i in range(n)]


def of_temperature(seed, n=1500):
    rng = np.random.default_rng(seed)
    scores = 3 * rng.normal(size=(n, 4))
    return scores, draw(softmax(scores / 2), rng)


def of_sigmoids(seed, n=1500):
    """Two classes and an offset, which no temperature can undo."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-1.5 * z - 1))).astype(int)
    return np.column_stack([-z, z]), y


def of_steps(seed, n=1500):
    """Probabilities rise in steps of scores that are uneven: no sigmoid has that shape."""
    rng = np.random.default_rng(seed)
    first = rng.choice([0.03, 0.47, 0.53, 0.97], size=n)
    scores = np.select([first == 0.03, first == 0.47, first == 0.53], [-1.0, -0.98, 8.0], 8.05)
    y = (rng.random(n) >= first).astype(int)
    return np.column_stack([scores, -scores]), y


def of_votes(seed, n=1500, n_classes=5):
    """Scores like an SVM's, one class against another: votes, their ties broken by less than a third.

    The first class wins votes that it should not and the last loses some, which no temperature can undo.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    hidden = rng.normal(size=(n, n_classes)) + 2.5 * np.eye(n_classes)[y] + [2.0, 0, 0, 0, -1.5]
    votes = (hidden[:, :, None] > hidden[:, None, :]).sum(axis=2)
    sums = hidden - hidden.mean(axis=1, keepdims=True)
    return votes + sums / (3 * (np.abs(sums) + 1)), y


@pytest.mark.parametrize(
    ("make", "expected"), [(of_temperature, "temperature"), (of_sigmoids, "sigmoid"), (of_steps, "isotonic")]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_method_wins_on_scores_of_its_own_kind(make, expected, seed):
    scores, y = make(seed)
    choice = choose_calibration(scores, y, groups_of(len(y)), seed=0)
    assert choice.calibration.method == expected
    assert set(choice.nll) == set(METHODS)
    assert choice.unit == "group"
    assert choice.calibration == fit_calibration(scores, y, expected)


def test_votes_are_calibrated_better_class_by_class():
    scores, y = of_votes(0)
    nll = choose_calibration(scores, y, groups_of(len(y)), seed=0).nll
    fresh, truth = of_votes(1)
    of_fresh = {
        m: -np.log(fit_calibration(scores, y, m).apply(fresh)[np.arange(len(truth)), truth]).mean() for m in nll
    }
    for method in ("sigmoid", "isotonic"):
        assert nll[method] < nll["temperature"]
        assert of_fresh[method] < of_fresh["temperature"]
    for method in METHODS:
        assert nll[method] == pytest.approx(of_fresh[method], rel=0.1)  # what cross-validation is for


@pytest.mark.parametrize("known", [True, False])
def test_no_row_is_scored_by_a_fit_on_its_group(monkeypatch, known):
    """Scores are row numbers, so that a fit and its use tell which rows they saw."""
    n = 60
    groups = np.array([f"g{i % 7}" for i in range(n)])
    scores, y = np.column_stack([np.arange(n), np.zeros(n)]).astype(float), np.arange(n) % 2
    fitted_on, scored = [], []

    class Spy:
        def __init__(self, rows):
            self.rows = rows

        def apply(self, scores):
            scored.append((self.rows, scores[:, 0].astype(int)))
            return np.full(scores.shape, 0.5)

    def fit(scores, y, method):
        fitted_on.append(scores[:, 0].astype(int))
        return Spy(fitted_on[-1])

    monkeypatch.setattr(calibration_choice, "fit_calibration", fit)
    names = groups.tolist() if known else [""] * n
    nll = choose_calibration(scores, y, names, seed=0).nll
    assert nll == pytest.approx(dict.fromkeys(METHODS, np.log(2)))
    assert len(scored) == 5 * len(METHODS)
    for fit_rows, score_rows in scored:
        assert not set(fit_rows) & set(score_rows)
        if known:
            assert not set(groups[fit_rows]) & set(groups[score_rows])
    assert sorted(np.concatenate([rows for _, rows in scored])) == sorted(list(range(n)) * len(METHODS))


def test_temperature_is_taken_unless_another_is_worth_it(monkeypatch):
    scores, y = of_temperature(0, n=40)
    for loss, expected in ((0.995, "temperature"), (0.98, "sigmoid")):
        nll = {"temperature": 1.0, "sigmoid": loss, "isotonic": 1.0}
        monkeypatch.setattr(calibration_choice, "_compare", lambda *_, nll=nll, **__: (nll, "tile"))
        assert choose_calibration(scores, y, [""] * 40, seed=0).calibration.method == expected


@pytest.mark.parametrize(("n_groups", "expected"), [(1, "temperature"), (4, "temperature"), (5, "sigmoid")])
def test_few_groups_cannot_overrule_temperature(n_groups, expected):
    scores, y = of_sigmoids(0)
    groups = [f"g{i % n_groups}" for i in range(len(y))]
    choice = choose_calibration(scores, y, groups, seed=0)
    assert choice.calibration.method == expected
    assert choice.nll["sigmoid"] < 0.9 * choice.nll["temperature"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_is_asked_for_is_taken_and_all_are_compared(method):
    scores, y = of_votes(0, n=100)
    choice = choose_calibration(scores, y, [""] * 100, seed=0, method=method)
    assert (choice.calibration.method, choice.unit, set(choice.nll)) == (method, "tile", set(METHODS))


@pytest.mark.parametrize("n_classes", [2, 9])
@pytest.mark.parametrize("groups", [["g"] * 20, ["a"] * 10 + ["b"] * 10, [f"g{i}" for i in range(20)]])
def test_poor_rows_give_finite_figures(n_classes, groups):
    rng = np.random.default_rng(0)
    y = np.array([0] * 10 + [1] * 10)  # with two groups, one class in each
    for scores in (np.zeros((20, n_classes)), rng.normal(size=(20, n_classes)), 1e6 * np.eye(n_classes)[y]):
        for truth in (y, 0 * y):
            choice = choose_calibration(scores, truth, groups, seed=0)
            assert np.isfinite(list(choice.nll.values())).all()
            np.testing.assert_allclose(choice.calibration.apply(scores).sum(axis=1), 1)


def test_a_single_row_cannot_be_compared_on():
    choice = choose_calibration(np.array([[1.0, 0.0]]), np.array([0]), ["g"], seed=0)
    assert (choice.calibration.method, choice.nll) == ("temperature", {})
