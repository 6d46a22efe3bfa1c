import dataclasses
import itertools
import math

import numpy as np
import pytest

from pipeline.comparison.scores import Resampling, choose_resampling
from pipeline.comparison.verdict import decide, head_pairs, judge_pairs, p_text, rope_text, units_needed
from pipeline.evaluation.bootstrap import Difference, paired_counts, paired_difference
from pipeline.evaluation.significance import holm, sign_flip

Y = [0, 1, 2] * 20
GOOD = list(Y)
POOR = [(code + 1) % 3 if i < 24 else code for i, code in enumerate(Y)]
NEARLY = [(code + 1) % 3 if i in (7, 31) else code for i, code in enumerate(Y)]


@pytest.fixture
def pairs(make_predictions):
    """Judge all pairs of heads on 60 tiles of three classes in `n_groups` groups."""

    def make(predicted, n_groups=10, *, rope=0.01, **other):
        group = other.pop("group", [f"g{i % n_groups}" for i in range(len(Y))])
        predictions = make_predictions(Y, predicted, group=group, **other)
        resampling = choose_resampling(predictions, n_draws=300, seed=0, level=0.95)
        return judge_pairs(predictions, resampling, head_pairs(predictions.main_heads), rope=rope)

    return make


def test_a_clear_difference_is_decided_and_stated(pairs):
    found = pairs({"softmax": POOR, "svm": GOOD, "xgboost": POOR})
    assert [(pair.tests.head, pair.tests.reference, pair.outcome) for pair in found] == [
        ("svm", "softmax", "better"),
        ("xgboost", "softmax", "practically equal"),
        ("xgboost", "svm", "worse"),
    ]
    differences = [pair.tests.difference for pair in found]
    assert [each.value for each in differences] == pytest.approx([0.4, 0, -0.4])
    assert differences[0].low > 0
    assert all(text in found[0].sentence for text in ("SVM is better than softmax", "p 0.006 after Holm", "10 groups"))


def test_the_p_is_adjusted_for_the_number_of_pairs(pairs):
    found = pairs({"softmax": POOR, "svm": GOOD, "xgboost": POOR})
    assert [pair.tests.flip.p for pair in found] == [2 / 2**10, 1.0, 2 / 2**10]
    assert [pair.holm_p for pair in found] == pytest.approx([6 / 2**10, 1.0, 6 / 2**10])
    (alone,) = pairs({"softmax": POOR, "svm": GOOD})
    assert alone.holm_p == alone.tests.flip.p
    assert "after Holm" not in alone.sentence


def test_a_lead_that_may_be_chance_is_undecided(pairs):
    (found,) = pairs({"softmax": NEARLY, "svm": GOOD})
    assert found.outcome == "undecided"
    assert found.tests.difference.value == pytest.approx(1 / 30, abs=0.001)
    # both errors are in two groups, so that even the clearest swap has a p of 2 / 2^2
    assert found.tests.flip.smallest_p == 0.5
    assert "no smaller one than 0.500" in found.sentence


def test_six_groups_decide_one_pair_but_not_three(pairs):
    assert pairs({"softmax": POOR, "svm": GOOD}, n_groups=6)[0].outcome == "better"
    found = pairs({"softmax": POOR, "svm": GOOD, "xgboost": NEARLY}, n_groups=6)
    assert found[0].outcome == "undecided"
    assert "no smaller one than 0.094" in found[0].sentence
    assert [units_needed(n, level=0.95) for n in (0, 1, 2, 3, 11)] == [6, 6, 7, 7, 9]
    assert all(n * 2.0 ** (1 - units_needed(n, level=0.95)) < 0.05 for n in range(1, 50))


@pytest.mark.parametrize("n_groups", [2, 5])
def test_few_groups_conclude_nothing(pairs, n_groups):
    (found,) = pairs({"softmax": POOR, "svm": GOOD}, group=[f"g{i // 3 % n_groups}" for i in range(60)])
    assert found.outcome == "undecided"
    assert f"{n_groups} groups are too few" in found.sentence
    (same,) = pairs({"softmax": GOOD, "svm": GOOD}, n_groups=2)
    assert same.outcome == "undecided"


def test_one_group_has_no_interval(pairs):
    (found,) = pairs({"softmax": POOR, "svm": GOOD}, n_groups=1)
    assert math.isnan(found.tests.difference.low)
    assert math.isnan(found.tests.superiority.better)
    assert "no interval" in found.sentence


def test_a_random_split_rests_on_tiles(pairs):
    tests = pairs({"softmax": POOR, "svm": GOOD}, protocol="random")[0].tests
    assert (tests.by_tile, tests.by_group.n_units) == (tests.difference, 10)


def test_unknown_groups_rest_on_tiles(pairs):
    (found,) = pairs({"softmax": POOR, "svm": GOOD}, group=["g"] * 59 + [""])
    assert found.tests.by_group is None
    assert found.outcome == "better"


def test_heads_that_always_predict_the_same_class(pairs):
    (found,) = pairs({"softmax": [0] * 60, "svm": [2] * 60}, classes=("a", "b", "c", "never seen"))
    assert found.tests.difference == Difference(0.0, 0.0, 0.0, n_units=10, standard_error=0.0)
    assert found.outcome == "practically equal"  # both predict one of three balanced classes


@pytest.fixture
def three_seeds(make_predictions):
    """The same 60 tiles with three seeds and two folds each: 180 rows; in seed 2 the SVM is as poor as softmax."""
    predictions = make_predictions(
        Y * 3,
        {"softmax": POOR * 3, "svm": [*NEARLY, *GOOD, *POOR]},
        tile_id=[f"t{i}" for i in range(60)] * 3,
        group=[f"g{i % 10}" for i in range(60)] * 3,
        seed=np.repeat([0, 1, 2], 60).tolist(),
        fold=[i % 10 // 5 for i in range(60)] * 3,
    )
    ids = np.unique(predictions.tiles["group"], return_inverse=True)[1]
    return predictions, Resampling("group", ids, n_draws=300, seed=0, level=0.95)


def test_a_tile_of_several_seeds_is_one_unit(three_seeds):
    predictions, resampling = three_seeds
    tests = judge_pairs(predictions, resampling, [("svm", "softmax")], n_train=90)[0].tests
    assert tests.by_tile.n_units == 60
    assert tests.by_group.n_units == 10
    assert tests.mcnemar_p == 1.0  # of seed 2; those of the others are far below 0.001
    assert tests.resampled.n_parts == 6


def test_the_resampled_t_is_that_of_the_parts(three_seeds):
    predictions, resampling = three_seeds
    tests = judge_pairs(predictions, resampling, [("svm", "softmax")], n_train=90)[0].tests
    parts = predictions.tiles.groupby(["seed", "fold"]).indices.values()
    one = np.zeros(30, dtype=int)
    d = np.array(
        [
            paired_difference(
                paired_counts(
                    predictions.y[part],
                    predictions.predicted["svm"][part],
                    predictions.predicted["softmax"][part],
                    metric="macro_f1",
                    units=one,
                )
            ).value
            for part in parts
        ]
    )
    assert tests.resampled.t == pytest.approx(d.mean() / math.sqrt(d.var(ddof=1) * (1 / 6 + 30 / 90)))
    assert math.isnan(judge_pairs(predictions, resampling, [("svm", "softmax")])[0].tests.resampled.p)


BASE = Difference(0.03, 0.02, 0.04, n_units=10, standard_error=0.005)


@pytest.mark.parametrize(
    ("change", "p", "outcome"),
    [
        ({}, 0.01, "better"),
        ({"low": -0.04, "high": -0.02}, 0.01, "worse"),
        ({}, 0.05, "undecided"),
        ({"low": -0.001}, 0.01, "undecided"),
        ({"low": 0.001, "high": 0.009}, 0.001, "practically equal"),
        ({"low": -0.01, "high": 0.01}, 1.0, "practically equal"),
        ({"low": -0.011, "high": 0.001}, 0.9, "undecided"),
        ({"n_units": 5}, 0.001, "undecided"),
        ({"n_units": 6}, 0.04, "better"),
        ({"low": math.nan, "high": math.nan, "n_units": 1}, 1.0, "undecided"),
    ],
)
def test_the_rule(change, p, outcome):
    assert decide(dataclasses.replace(BASE, **change), p=p, level=0.95, rope=0.01) == outcome


def test_identical_predictions_of_few_groups_decide_nothing():
    for n_units, outcome in ((1, "undecided"), (5, "undecided"), (6, "practically equal")):
        none = Difference(0.0, 0.0, 0.0, n_units=n_units, standard_error=0.0)
        assert decide(none, p=1.0, level=0.95, rope=0.0, same_predictions=True) == outcome


def test_a_wide_region_makes_a_clear_difference_practically_equal(pairs):
    (found,) = pairs({"softmax": POOR, "svm": GOOD}, rope=0.6)
    assert found.outcome == "practically equal"
    assert "within 60 points" in found.sentence


def test_wording_of_figures():
    assert [rope_text(rope) for rope in (0.01, 0.005, 0.02)] == ["1 point", "0.5 points", "2 points"]
    assert [p_text(p) for p in (0.0004, 0.001, 0.5, math.nan)] == ["<0.001", "0.001", "0.500", "n/a"]


def simulated(seed, *, n_groups, accuracy):
    """Predictions of heads of these mean accuracies on 20 tiles a group, with good and bad groups of their own."""
    rng = np.random.default_rng([seed, n_groups])
    groups = np.repeat(np.arange(n_groups), 20)
    y = rng.integers(2, size=len(groups))
    level = rng.uniform(-0.1, 0.1, n_groups)
    heads = []
    for mean in accuracy:
        hit = rng.random(len(groups)) < (mean + level + rng.uniform(-0.05, 0.05, n_groups))[groups]
        heads.append(np.where(hit, y, 1 - y))
    return y, heads, groups


def outcomes(seed, *, n_groups, accuracy):
    y, heads, groups = simulated(seed, n_groups=n_groups, accuracy=accuracy)
    pairs = list(itertools.combinations(heads, 2))
    adjusted = holm(
        np.array(
            [
                sign_flip(paired_counts(y, a, b, metric="macro_f1", units=groups), n_draws=999, seed=seed).p
                for a, b in pairs
            ]
        )
    )
    differences = [
        paired_difference(paired_counts(y, a, b, metric="macro_f1", units=groups), n_draws=400, seed=seed)
        for a, b in pairs
    ]
    return [decide(d, p=p, level=0.95, rope=0.01) for d, p in zip(differences, adjusted, strict=True)]


@pytest.mark.parametrize("n_groups", [8, 12, 40])
def test_equal_heads_seldom_differ(n_groups):
    false = sum(
        not {"better", "worse"}.isdisjoint(outcomes(seed, n_groups=n_groups, accuracy=(0.8, 0.8, 0.8)))
        for seed in range(300)
    )
    assert false <= 18  # 6 % of 300: one false claim among the three pairs of a comparison


def test_heads_of_unequal_accuracy_differ():
    found = [outcomes(seed, n_groups=40, accuracy=(0.85, 0.75))[0] for seed in range(100)]
    assert found.count("better") >= 90
    assert "worse" not in found


def test_nearly_identical_heads_on_many_groups_are_practically_equal():
    y, (a, _), groups = simulated(0, n_groups=120, accuracy=(0.85, 0.85))
    b = a.copy()
    b[::200] = 1 - b[::200]  # half a point apart
    difference = paired_difference(paired_counts(y, a, b, metric="macro_f1", units=groups), n_draws=400)
    assert decide(difference, p=0.0001, level=0.95, rope=0.01) == "practically equal"


def test_heads_just_over_the_region_apart_are_seldom_called_equal():
    equal = 0
    for seed in range(200):
        y, (a,), groups = simulated(seed, n_groups=60, accuracy=(0.85,))
        lost = (a == y) & (np.random.default_rng(seed).random(len(y)) < 0.0105 / 0.85)
        b = np.where(lost, 1 - y, a)  # 1.05 points of accuracy behind
        difference = paired_difference(paired_counts(y, a, b, metric="macro_f1", units=groups), n_draws=400, seed=seed)
        equal += decide(difference, p=0.0001, level=0.95, rope=0.01) == "practically equal"
    assert equal <= 10  # 5 % of 200
