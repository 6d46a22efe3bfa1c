"""Rows given in blocks come to what all rows at once do."""

import math

import numpy as np
import pytest

from pipeline.evaluation.bootstrap import bootstrap_metrics
from pipeline.evaluation.metrics import reliability_bins, scalar_metrics
from pipeline.evaluation.selective import selective_curve
from pipeline.evaluation.streaming_metrics import STEPS, Tally, step_of

N, K, UNITS = 5000, 4, 12


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    y = rng.integers(0, K, N)
    scores = rng.normal(size=(N, K)) + 2.0 * np.eye(K)[y] * rng.gamma(1, size=(N, 1))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    p[:20] = np.eye(K)[(y[:20] + rng.integers(0, 2, 20)) % K]  # probabilities of 0 and 1
    predicted = np.where(rng.random(N) < 0.02, (y + 1) % K, p.argmax(axis=1))
    return y, p, predicted, rng.integers(0, UNITS, N)


def tallied(y, p, predicted, unit, *, n_units=UNITS, blocks=7):
    tally = Tally(n_classes=K, n_units=n_units)
    for part in np.array_split(np.arange(len(y)), blocks):
        tally.add(y[part], p[part], predicted[part], unit=unit[part])
    return tally


def test_metrics_are_those_of_all_rows_at_once(rows):
    y, p, predicted, _ = rows
    tally, exact = tallied(*rows), scalar_metrics(y, p, predicted)
    found = tally.scalar_metrics()
    assert list(found) == list(exact)
    for name in set(exact) - {"auroc_ovr"}:
        assert found[name] == pytest.approx(exact[name], rel=1e-12), name
    assert abs(found["auroc_ovr"] - exact["auroc_ovr"]) <= tally.auroc_error + 1e-12
    assert 0 < tally.auroc_error < 2e-3
    assert tally.n_rows == N


def test_intervals_are_those_of_all_rows_at_once(rows):
    y, p, predicted, unit = rows
    how = {"n_draws": 300, "seed": 5, "level": 0.9}
    exact = bootstrap_metrics(y, p, predicted, units=unit, **how)
    found = tallied(*rows, n_units=UNITS + 3).intervals(**how)  # three units have no rows
    assert list(found) == list(exact)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-10)


def test_one_unit_has_no_interval(rows):
    y, p, predicted, _ = rows
    found = tallied(y, p, predicted, np.zeros(N, int)).intervals(n_draws=100, seed=0, level=0.9)
    assert all(math.isnan(bound) for bounds in found.values() for bound in bounds)


def test_reliability_is_that_of_all_rows_at_once(rows):
    y, p, _, _ = rows
    exact, found = reliability_bins(y, p), tallied(*rows).reliability_bins()
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-12)


def test_the_selective_curve_is_that_of_rows_whose_confidence_is_rounded(rows):
    y, p, predicted, _ = rows
    found = tallied(*rows).selective_curve()
    exact = selective_curve(y, p, predicted)
    assert found.aurc == pytest.approx(exact.aurc, abs=5e-4)
    for share in (0.05, 0.5, 0.8, 0.9, 1.0):
        assert found.accuracy_at(share) == pytest.approx(exact.accuracy_at(share), abs=2e-3)
    assert found.accuracy[-1] == exact.accuracy[-1]
    assert found.coverage[-1] == 1
    own = p[np.arange(N), predicted]
    at_steps = np.column_stack([1 - step_of(own) / STEPS, step_of(own) / STEPS])  # same order, same ties
    same = selective_curve((predicted != y).astype(int), at_steps[:, ::-1], np.zeros(N, int))
    assert found.aurc == pytest.approx(same.aurc, rel=1e-9)
    assert found.accuracy_at(0.37) == pytest.approx(same.accuracy_at(0.37), rel=1e-12)
    with pytest.raises(ValueError, match="coverage"):
        found.accuracy_at(0)


def test_steps_rise_with_the_probability_to_both_ends():
    p = np.array([0.0, 1e-12, 1e-6, 0.4, 0.5, 0.6, 1 - 1e-6, 1.0, 1.0005])
    steps = step_of(p)
    assert steps[0] == steps[1] == 0
    assert steps[-1] == steps[-2] == STEPS - 1
    assert (np.diff(steps[1:-1]) > 0).all()


def test_an_absent_class_has_no_rank():
    tally = Tally(n_classes=K, n_units=1)
    tally.add(np.zeros(3, int), np.full((3, K), 0.25), np.zeros(3, int), unit=np.zeros(3, int))
    assert math.isnan(tally.scalar_metrics()["auroc_ovr"])


def test_wrong_rows_are_refused():
    tally = Tally(n_classes=K, n_units=2)
    p = np.full((1, K), 0.25)
    with pytest.raises(ValueError, match="unit"):
        tally.add(np.zeros(1, int), p, np.zeros(1, int), unit=np.array([2]))
    with pytest.raises(ValueError, match="sum to 1"):
        tally.add(np.zeros(1, int), p * 2, np.zeros(1, int), unit=np.array([1]))
