"""Tests of a difference: against enumeration, hand-worked and published examples, statsmodels; and by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pipeline.evaluation import significance
from pipeline.evaluation.bootstrap import paired_counts
from pipeline.evaluation.metrics import confusion, scores_from_confusion
from pipeline.evaluation.significance import SignFlip, corrected_resampled_t, holm, mcnemar_exact, sign_flip


def answers(seed, *, n_groups, group_size=6, n_classes=3, accuracy=(0.8, 0.6)):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), group_size)
    y = rng.integers(n_classes, size=len(groups))
    heads = [np.where(rng.random(len(y)) < a, y, rng.integers(n_classes, size=len(y))) for a in accuracy]
    return y, *heads, groups


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1"])
def test_exact_sign_flip_equals_brute_force(metric):
    y, a, b, groups = answers(0, n_groups=7)

    def difference(first, second):
        scores = [float(scores_from_confusion(confusion(y, labels, 3))[metric]) for labels in (first, second)]
        return scores[0] - scores[1]

    observed = abs(difference(a, b))
    extreme = 0
    for pattern in itertools.product([False, True], repeat=7):
        swapped = np.array(pattern)[groups]
        extreme += abs(difference(np.where(swapped, b, a), np.where(swapped, a, b))) >= observed - 1e-12
    assert sign_flip(paired_counts(y, a, b, metric=metric, units=groups)) == SignFlip(
        extreme / 2**7, exact=True, n_units=7
    )


@pytest.mark.parametrize("n_groups", [2, 5, 6, 10])
def test_a_head_ahead_in_every_group_has_the_smallest_p(n_groups):
    y = np.zeros(n_groups, dtype=int)
    found = sign_flip(paired_counts(y, y, y + 1, metric="accuracy", units=np.arange(n_groups)))
    assert found.p == found.smallest_p == 2 / 2**n_groups


def test_sign_flip_of_accuracy_is_the_sign_test_where_units_weigh_alike():
    # 9 groups of one tile, head a right alone in 8, head b in 1: two-sided sign test, 2 * (1 + 9) / 2^9.
    y = np.zeros(9, dtype=int)
    wrong = np.arange(9) == 4
    found = sign_flip(paired_counts(y, wrong.astype(int), 1 - wrong.astype(int), metric="accuracy", units=np.arange(9)))
    assert found.p == pytest.approx(20 / 512)
    assert found.p == pytest.approx(stats.binomtest(8, 9).pvalue)


def test_darwins_maize_by_fisher():
    # Fisher 1935, section 21: 15 pairs of plants, crossed less self-fertilised in eighths of an inch; 863 of the 2^15
    # sign patterns have a sum of at least 314, so two-sided 1726 / 32768 = 0.0527.
    eighths = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
    units = np.repeat(np.arange(15), np.abs(eighths))
    a = np.repeat((eighths < 0).astype(int), np.abs(eighths))  # right where the crossed plant is taller
    y = np.zeros(len(units), dtype=int)
    drawn = sign_flip(paired_counts(y, a, 1 - a, metric="accuracy", units=units), n_draws=40_000)
    assert not drawn.exact
    assert drawn.p == pytest.approx(1726 / 32768, abs=0.004)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "EXACT_UNITS", 15)
        assert sign_flip(paired_counts(y, a, 1 - a, metric="accuracy", units=units)).p == pytest.approx(1726 / 32768)


def test_units_with_equal_counts_are_left_out():
    y, a, b, groups = answers(1, n_groups=6)
    alone = sign_flip(paired_counts(y, a, b, metric="accuracy", units=groups))
    y, a, b = (np.concatenate([labels, np.arange(120) % 3]) for labels in (y, a, b))
    assert (
        sign_flip(paired_counts(y, a, b, metric="accuracy", units=np.concatenate([groups, 100 + np.arange(120)])))
        == alone
    )
    assert sign_flip(paired_counts(y, a, a, metric="macro_f1", units=np.arange(len(y)))) == SignFlip(
        1.0, exact=True, n_units=0
    )


def test_random_flips_come_close_to_all_flips(monkeypatch):
    y, a, b, groups = answers(2, n_groups=12, accuracy=(0.75, 0.65))
    exact = sign_flip(paired_counts(y, a, b, metric="macro_f1", units=groups))
    monkeypatch.setattr(significance, "EXACT_UNITS", 3)
    drawn = sign_flip(paired_counts(y, a, b, metric="macro_f1", units=groups))
    assert exact.exact
    assert not drawn.exact
    assert drawn.p == pytest.approx(exact.p, abs=4 * math.sqrt(exact.p * (1 - exact.p) / 20_000))
    monkeypatch.setattr(significance, "CHUNK_CELLS", 500)
    assert sign_flip(paired_counts(y, a, b, metric="macro_f1", units=groups)) == drawn


def test_a_p_from_random_flips_is_never_zero():
    y = np.zeros(200, dtype=int)
    found = sign_flip(paired_counts(y, y, y + 1, metric="accuracy", units=np.arange(200) // 2), n_draws=999)
    assert found == SignFlip(1 / 1000, exact=False, n_units=100)


def test_all_rows_of_a_unit_flip_together():
    # Within each group the heads are right in turn, so that nothing differs between groups: the tiles' order is moot.
    y, a = np.zeros(40, dtype=int), np.arange(40) % 2
    assert sign_flip(paired_counts(y, a, 1 - a, metric="accuracy", units=np.arange(40) // 4)).p == 1.0


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (2, 8), (7, 7), (121, 59)])
def test_mcnemar_equals_statsmodels(only_a, only_b):
    a = np.repeat([True, False, True, False], [only_a, only_b, 30, 10])
    b = np.repeat([False, True, True, False], [only_a, only_b, 30, 10])
    found = mcnemar_exact(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    if only_a + only_b:  # statsmodels has no answer for none
        assert found.p == pytest.approx(mcnemar([[30, only_a], [only_b, 10]], exact=True).pvalue)
    else:
        assert found.p == 1.0


def test_mcnemar_by_hand():
    a, b = np.array([True] * 5 + [False]), np.array([False] * 5 + [True])
    assert mcnemar_exact(a, b).p == pytest.approx(2 * (1 + 6) / 64)


@pytest.mark.parametrize("p", [[0.01], [0.01, 0.04, 0.03], [0.02, 0.02, 0.6, 0.001, 1.0], [0.5, 0.9]])
def test_holm_equals_statsmodels(p):
    np.testing.assert_allclose(holm(np.array(p)), multipletests(p, method="holm")[1])


def test_holm_by_hand_and_without_any():
    # 3 * 0.01, then 2 * 0.03, then 0.04, which may not fall below the one before it.
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03])), [0.06, 0.03, 0.06])
    assert len(holm(np.array([]))) == 0


def test_corrected_t_by_hand():
    # mean 0.02, variance 0.0001 (k = 3), 1 / 3 + 1 / 4 = 0.58333: t = 0.02 / sqrt(5.8333e-5) = 2.6186.
    found = corrected_resampled_t(np.array([0.01, 0.02, 0.03]), test_to_train=0.25)
    assert found.t == pytest.approx(2.6186, abs=1e-4)
    # With 2 degrees of freedom P(T > t) = 1/2 - t / (2 sqrt(2 + t^2)).
    assert found.p == pytest.approx(1 - 2.6186 / math.sqrt(2 + 2.6186**2), abs=1e-4)


def test_corrected_t_without_shared_rows_is_students():
    d = np.random.default_rng(0).normal(0.3, 1, size=12)
    nearly = corrected_resampled_t(d, test_to_train=1e-12)
    expected = stats.ttest_1samp(d, 0)
    assert (nearly.t, nearly.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert corrected_resampled_t(d, test_to_train=0.25).p > nearly.p


@pytest.mark.parametrize("d", [[], [0.1], [0.2, 0.2, 0.2], [0.1 + 0.2, 0.3]])
def test_corrected_t_is_undefined_without_variance(d):
    found = corrected_resampled_t(np.array(d), test_to_train=0.25)
    assert np.isnan([found.t, found.p]).all()
    assert found.n_parts == len(d)


def test_corrected_t_is_undefined_without_a_ratio():
    assert math.isnan(corrected_resampled_t(np.array([0.1, 0.2]), test_to_train=math.nan).p)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm(np.array([0.1, math.nan])), "p must be"),
        (lambda: mcnemar_exact(np.array([1, 0]), np.array([1, 0])), "booleans"),
        (lambda: mcnemar_exact(np.array([True]), np.array([True, False])), "equal length"),
        (lambda: corrected_resampled_t(np.array([math.nan, 1.0]), test_to_train=0.25), "finite"),
        (lambda: corrected_resampled_t(np.array([0.0, 1.0]), test_to_train=0.0), "positive"),
        (lambda: sign_flip(paired_counts(*[np.array([0, 1])] * 3, metric="nll", units=np.arange(2))), "metric must be"),
        (
            lambda: sign_flip(paired_counts(*[np.array([0, 1])] * 3, metric="accuracy", units=np.arange(3))),
            "units must have",
        ),
        (
            lambda: sign_flip(paired_counts(*[np.array([0, 1])] * 3, metric="accuracy", units=np.arange(2)), n_draws=0),
            "n_draws",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
