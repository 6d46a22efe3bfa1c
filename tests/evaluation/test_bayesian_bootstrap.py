"""The Bayesian bootstrap against closed forms and brute force."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from pipeline.evaluation import bayesian_bootstrap as module
from pipeline.evaluation.bayesian_bootstrap import Superiority, superiority
from pipeline.evaluation.bootstrap import paired_counts


def test_two_units_follow_the_uniform_law():
    # Head a is right on unit 0 alone, b on unit 1 alone: the difference of accuracy is w - (1 - w), w uniform.
    y = np.zeros(2, dtype=int)
    a, units = np.array([0, 1]), np.arange(2)
    found = superiority(paired_counts(y, a, 1 - a, metric="accuracy", units=units), rope=0.2, n_draws=20_000)
    assert (found.better, found.equal, found.worse) == pytest.approx((0.4, 0.2, 0.4), abs=0.015)


def test_ten_units_follow_the_beta_law():
    # a alone right in 7 units of 10, b in 3: the weight of the seven is Beta(7, 3).
    y = np.zeros(10, dtype=int)
    a = (np.arange(10) >= 7).astype(int)
    found = superiority(paired_counts(y, a, 1 - a, metric="accuracy", units=np.arange(10)), rope=0.1, n_draws=20_000)
    weight = stats.beta(7, 3)
    expected = (weight.sf(0.55), weight.cdf(0.55) - weight.cdf(0.45), weight.cdf(0.45))
    assert (found.better, found.equal, found.worse) == pytest.approx(expected, abs=0.015)
    assert found.n_units == 10


def test_macro_f1_equals_weighted_brute_force():
    rng = np.random.default_rng(0)
    y, a, b = (rng.integers(3, size=30) for _ in range(3))
    units = np.arange(30) // 5
    found = superiority(paired_counts(y, a, b, metric="macro_f1", units=units), rope=0.05, n_draws=200, seed=4)
    (weights,) = module._weights(6, n_draws=200, seed=4)

    def score(predicted, draw):
        return f1_score(y, predicted, average="macro", sample_weight=draw[units])

    differences = np.array([score(a, draw) - score(b, draw) for draw in weights.T])
    assert found.better == np.mean(differences > 0.05)
    assert found.worse == np.mean(differences < -0.05)
    assert found.better + found.equal + found.worse == pytest.approx(1)


def test_identical_heads_are_equal_even_without_a_region():
    y = np.array([0, 1, 0, 1])
    found = superiority(paired_counts(y, y, y, metric="macro_f1", units=np.arange(4)), rope=0.0, n_draws=50)
    assert found == Superiority(0.0, 1.0, 0.0, n_units=4)


def test_a_sure_win_and_its_mirror():
    y = np.arange(40) % 2
    better = superiority(paired_counts(y, y, 1 - y, metric="macro_f1", units=np.arange(40) // 4), n_draws=50)
    worse = superiority(paired_counts(y, 1 - y, y, metric="macro_f1", units=np.arange(40) // 4), n_draws=50)
    assert (better.better, worse.worse) == (1.0, 1.0)


def test_one_unit_says_nothing():
    y = np.array([0, 1])
    found = superiority(paired_counts(y, y, 1 - y, metric="accuracy", units=np.zeros(2, dtype=int)))
    assert found.n_units == 1
    assert all(math.isnan(share) for share in (found.better, found.equal, found.worse))


def test_draws_do_not_depend_on_the_chunks(monkeypatch):
    rng = np.random.default_rng(1)
    y, a, b = (rng.integers(2, size=60) for _ in range(3))
    whole = superiority(paired_counts(y, a, b, metric="macro_f1", units=np.arange(60) // 4), n_draws=100)
    monkeypatch.setattr(module, "CHUNK_CELLS", 100)
    assert superiority(paired_counts(y, a, b, metric="macro_f1", units=np.arange(60) // 4), n_draws=100) == whole


@pytest.mark.parametrize("change", [{"rope": -0.01}, {"rope": math.nan}, {"n_draws": 0}])
def test_wrong_arguments_are_refused(change):
    y = np.array([0, 1])
    with pytest.raises(ValueError, match="n_draws must be positive and rope not negative"):
        superiority(paired_counts(y, y, y, metric="accuracy", units=y), **change)
