"""Bootstrap intervals against brute-force resampling, closed forms and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation import bootstrap
from pipeline.evaluation.bootstrap import (
    Difference,
    bootstrap_metrics,
    paired_counts,
    paired_difference,
    percentile_interval,
    resampling_counts,
    tail_probability,
)
from pipeline.evaluation.calibration import softmax
from pipeline.evaluation.metrics import METRICS, scalar_metrics


def rows(seed, n_rows, n_classes, *, shift=1.5):
    """Labels, probabilities and predictions of a head that is right more often than not."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n_rows)
    scores = rng.normal(size=(n_rows, n_classes))
    scores[np.arange(n_rows), y] += shift
    return y, softmax(scores), scores.argmax(axis=1)


def clustered_hits(seed, *, n_groups, group_size, spread):
    """Two classes; each group has its own accuracy around 0.8, so its rows succeed or fail together."""
    rng = np.random.default_rng(seed)
    accuracy = np.clip(0.8 + spread * rng.normal(size=n_groups), 0, 1)
    groups = np.repeat(np.arange(n_groups), group_size)
    y = rng.integers(2, size=len(groups))
    hit = rng.random(len(groups)) < accuracy[groups]
    predicted = np.where(hit, y, 1 - y)
    p = np.where(np.arange(2) == predicted[:, None], 0.8, 0.2)
    return y, p, predicted, groups


def width(interval):
    return interval[1] - interval[0]


def resampled_rows(units, n_draws, seed):
    """Yield, for every draw, the row numbers it holds, each as often as its unit was drawn."""
    _, unit = np.unique(units, return_inverse=True)
    for counts in resampling_counts(unit.max() + 1, n_draws=n_draws, seed=seed):
        for draw in counts.T:
            yield np.repeat(np.arange(len(units)), draw[unit].astype(int))


@pytest.mark.parametrize("n_groups", [8, 40])
def test_the_standard_error_of_accuracy_is_that_of_a_mean(n_groups):
    """With groups of one size the difference is the mean of the groups' differences."""
    y, _, a, groups = clustered_hits(3, n_groups=n_groups, group_size=30, spread=0.1)
    _, _, b, _ = clustered_hits(4, n_groups=n_groups, group_size=30, spread=0.1)
    by_group = ((a == y).astype(float) - (b == y)).reshape(n_groups, -1).mean(axis=1)
    counts = paired_counts(y, a, b, metric="accuracy", units=groups)
    found = [paired_difference(counts, n_draws=4000, level=level).standard_error for level in (0.8, 0.95)]
    assert found == [pytest.approx(stats.sem(by_group), rel=0.05)] * 2


@pytest.mark.parametrize("units", [np.arange(12), np.array([7, 7, 7, -2, -2, 90, 90, 90, 90, 5, 5, 5])])
def test_bootstrap_equals_brute_force(units):
    y, p, predicted = rows(0, 12, 3)
    found = bootstrap_metrics(y, p, predicted, units=units, n_draws=50, seed=3, level=0.8)
    draws = [scalar_metrics(y[r], p[r], predicted[r]) for r in resampled_rows(units, 50, 3)]
    assert tuple(found) == METRICS
    for name in METRICS:
        if name != "auroc_ovr":
            values = np.array([draw[name] for draw in draws])
            expected = percentile_interval(values, level=0.8, n_units=len(np.unique(units)))
            assert found[name] == pytest.approx(expected), name


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_paired_difference_equals_brute_force(metric):
    y, p, a = rows(1, 12, 3)
    b = rows(2, 12, 3)[2]
    units = np.repeat([3, 1, 2, 8], 3)
    found = paired_difference(paired_counts(y, a, b, metric=metric, units=units), n_draws=50, seed=5, level=0.8)

    def score(r):
        return scalar_metrics(y[r], p[r], a[r])[metric] - scalar_metrics(y[r], p[r], b[r])[metric]

    draws = np.array([score(r) for r in resampled_rows(units, 50, 5)])
    assert found.value == pytest.approx(score(np.arange(12)))
    assert (found.low, found.high) == pytest.approx(percentile_interval(draws, level=0.8, n_units=4))
    assert found.n_units == 4


def test_tails_are_those_worked_by_hand():
    # n = 5: Student's quantile with 4 degrees of freedom is 2.776, times sqrt(5 / 4) = 3.104, Phi(-3.104) = 0.00095.
    assert tail_probability(level=0.95, n_units=5) == pytest.approx(0.00095, abs=5e-6)
    # n = 10: 2.262 * sqrt(10 / 9) = 2.384, Phi(-2.384) = 0.0086.
    assert tail_probability(level=0.95, n_units=10) == pytest.approx(0.0086, abs=5e-5)
    assert tail_probability(level=0.95, n_units=100_000) == pytest.approx(0.025, abs=1e-5)


def test_the_expanded_interval_of_a_mean_is_students():
    n, mean, deviation = 8, 3.0, 2.0
    plain = mean + deviation * math.sqrt((n - 1) / n / n) * stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    expected = stats.t.interval(0.9, n - 1, loc=mean, scale=deviation / math.sqrt(n))
    assert percentile_interval(plain, level=0.9, n_units=n) == pytest.approx(expected, abs=1e-3)
    assert percentile_interval(np.array([2.0, 1.0, 3.0]), level=0.95, n_units=2) == (1.0, 3.0)  # the draws' own range


def test_draws_do_not_depend_on_the_chunks(monkeypatch):
    y, p, predicted = rows(3, 40, 3)
    whole = bootstrap_metrics(y, p, predicted, units=np.arange(40), n_draws=30)
    monkeypatch.setattr(bootstrap, "CHUNK_CELLS", 130)
    assert [c.shape for c in resampling_counts(40, n_draws=7, seed=0)] == [(40, 3), (40, 3), (40, 1)]
    pieces = bootstrap_metrics(y, p, predicted, units=np.arange(40), n_draws=30)
    for name in METRICS:
        assert pieces[name] == pytest.approx(whole[name], nan_ok=True)


def test_many_sums_are_computed_for_few_draws_at_once():
    """The cells of the confusion matrix of 279 classes are more than the units."""
    chunks = list(bootstrap.resampling_counts(60, n_draws=100, seed=3, n_sums=279**2))
    assert max(chunk.shape[1] for chunk in chunks) == bootstrap.CHUNK_CELLS // 279**2
    whole = next(bootstrap.resampling_counts(60, n_draws=100, seed=3))
    assert np.array_equal(np.concatenate(chunks, axis=1), whole)


def test_every_draw_holds_as_many_units_as_there_are():
    (counts,) = resampling_counts(9, n_draws=2000, seed=0)
    assert (counts.sum(axis=0) == 9).all()
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=0.1)


def test_equal_seeds_give_equal_intervals():
    y, p, predicted = rows(4, 60, 3)
    first, again, other = (
        bootstrap_metrics(y, p, predicted, units=np.arange(60), n_draws=100, seed=seed)["nll"] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_tile_interval_is_close_to_the_binomial():
    y, p, predicted = rows(5, 2000, 4)
    low, high = bootstrap_metrics(y, p, predicted, units=np.arange(2000))["accuracy"]
    accuracy = np.mean(y == predicted)
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 2000)
    assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.1 * half)


def test_cluster_interval_is_wider_on_clustered_rows():
    y, p, predicted, groups = clustered_hits(0, n_groups=20, group_size=50, spread=0.15)
    tiles = bootstrap_metrics(y, p, predicted, units=np.arange(1000), n_draws=500)
    clusters = bootstrap_metrics(y, p, predicted, units=groups, n_draws=500)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier"):
        assert width(clusters[name]) > 1.5 * width(tiles[name]), name


def test_classes_absent_from_a_draw_leave_no_nan():
    y, p, predicted = np.array([0, 0, 0, 1]), np.full((4, 3), 1 / 3), np.array([0, 2, 0, 1])
    found = bootstrap_metrics(y, p, predicted, units=np.arange(4), n_draws=200)
    assert all(np.isfinite(found[name]).all() for name in METRICS if name != "auroc_ovr")


def test_no_interval_for_auroc_or_fewer_than_two_units():
    y, p, predicted = rows(6, 10, 3)
    assert np.isnan(bootstrap_metrics(y, p, predicted, units=np.arange(10), n_draws=5)["auroc_ovr"]).all()
    one = bootstrap_metrics(y, p, predicted, units=np.full(10, 4))
    assert tuple(one) == METRICS
    assert np.isnan(list(one.values())).all()
    difference = paired_difference(paired_counts(y, y, predicted, metric="accuracy", units=np.full(10, 4)))
    assert difference.value == pytest.approx(1 - np.mean(y == predicted))
    assert np.isnan([difference.low, difference.high]).all()
    assert difference.n_units == 1


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_identical_heads_differ_by_exactly_zero(metric):
    y, _, predicted = rows(7, 30, 3)
    found = paired_difference(
        paired_counts(y, predicted, predicted, metric=metric, units=np.arange(30) // 5), n_draws=100
    )
    assert found == Difference(0.0, 0.0, 0.0, n_units=6, standard_error=0.0)


def test_pairing_is_narrower_than_two_separate_intervals():
    y, p, a = rows(8, 500, 4)
    b = a.copy()
    b[:25] = (y[:25] + 1) % 4  # b is a, but wrong on 25 rows
    paired = paired_difference(paired_counts(y, a, b, metric="accuracy", units=np.arange(500)))
    assert paired.high - paired.low < width(bootstrap_metrics(y, p, a, units=np.arange(500))["accuracy"])
    assert paired.low > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": np.arange(3)}, "units must have 4 rows"),
        ({"units": np.arange(4) / 2}, "units must hold integers"),
        ({"n_draws": 0}, "n_draws"),
        ({"level": 1.0}, "level"),
        ({"metric": "nll"}, "metric must be one of accuracy"),
        ({"y": np.array([0, 1, -1, 0])}, "y must be in"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    y = np.array([0, 1, 2, 0])
    arguments = {"y": y, "predicted_a": y, "predicted_b": y, "metric": "accuracy", "units": y} | change
    with pytest.raises(ValueError, match=message):
        paired_difference(
            paired_counts(**{name: each for name, each in arguments.items() if name not in ("n_draws", "level")}),
            **{name: each for name, each in arguments.items() if name in ("n_draws", "level")},
        )


def two_heads(seed, *, n_groups, group_size=20, accuracy=(0.85, 0.80)):
    """Answers of two heads of these mean accuracies, with strong and weak groups: some shared, some of each head."""
    rng = np.random.default_rng([seed, n_groups])
    groups = np.repeat(np.arange(n_groups), group_size)
    y = rng.integers(2, size=len(groups))
    shared = rng.uniform(-0.1, 0.1, n_groups)
    answers = []
    for mean in accuracy:
        own = rng.uniform(-0.05, 0.05, n_groups)  # uniform and small, so that no accuracy is cut off at 1
        hit = rng.random(len(groups)) < (mean + shared + own)[groups]
        answers.append(np.where(hit, y, 1 - y))
    return y, answers, groups


@pytest.mark.parametrize("n_groups", [12, 40])
def test_group_intervals_cover_the_truth(n_groups):
    covered = {"accuracy": 0, "difference": 0}
    for seed in range(500):
        y, answers, groups = two_heads(seed, n_groups=n_groups)
        p = np.full((len(y), 2), 0.5)
        low, high = bootstrap_metrics(y, p, answers[0], units=groups, n_draws=400, seed=seed)["accuracy"]
        covered["accuracy"] += low <= 0.85 <= high
        found = paired_difference(paired_counts(y, *answers, metric="accuracy", units=groups), n_draws=400, seed=seed)
        covered["difference"] += found.low <= 0.05 <= found.high
    assert 450 <= covered["accuracy"] <= 490
    assert 450 <= covered["difference"] <= 490


def test_tile_intervals_do_not_cover_the_truth_on_clustered_rows():
    covered = 0
    for seed in range(100):
        y, p, predicted, _ = clustered_hits(seed, n_groups=40, group_size=20, spread=0.1)
        low, high = bootstrap_metrics(y, p, predicted, units=np.arange(len(y)), n_draws=300)["accuracy"]
        covered += low <= 0.7991 <= high  # 0.8 less what is cut off at 1
    assert covered < 88
