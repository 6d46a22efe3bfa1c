"""The cheapest of all heads and baselines that is about as good as the best; a head must beat the best baseline."""

import dataclasses

import pytest

from pipeline.comparison.choice import NOT_EARNED, NOT_FOR_NEW_TILES, Candidate, Candidates, by_cost
from pipeline.comparison.recommendation import judge, rule_text
from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.names import COST_ORDER, HEADS, RUN_ONLY, UNTRAINED

Y = [0, 1, 2] * 20


def errors(n, *, first=0):
    """Return predictions with n errors from a tile on, spread over the groups."""
    return [(code + 1) % 3 if first <= i < first + n else code for i, code in enumerate(Y)]


GOOD, NEARLY, MIDDLE, POOR = errors(0), errors(2), errors(12), errors(30)
LEVEL = errors(1, first=5), errors(2)
"""Predictions with errors in other groups: one more error is within a standard error."""


@pytest.fixture
def verdict(make_predictions):
    """Judge heads on 60 tiles of three classes in `n_groups` groups."""

    def make(predicted, n_groups=12, *, rope=0.01, **other):
        group = other.pop("group", [f"g{i % n_groups}" for i in range(len(Y))])
        predictions = make_predictions(Y, predicted, group=group, **other)
        resampling = choose_resampling(predictions, n_draws=300, seed=0, level=0.95)
        return judge(predictions, by_key(score_heads(predictions, resampling, {})), resampling, rope=rope)

    return make


def test_every_head_has_its_place_in_the_order_of_costs():
    assert sorted(COST_ORDER) == sorted(HEADS)
    assert by_cost(["svm", "unknown", "softmax", "histogram_svm"]) == ["histogram_svm", "softmax", "svm", "unknown"]


def test_no_head_beats_the_best_baseline(verdict):
    found = verdict({"softmax": MIDDLE, "svm": NEARLY, "majority": [0] * 60, "histogram_svm": GOOD})
    assert (found.code, found.recommended, found.best) == ("baseline", "histogram_svm", "histogram_svm")
    assert found.action.startswith("None of the heads beats colour histogram + SVM: the best head, SVM, ")
    assert NOT_EARNED in found.action
    assert NOT_FOR_NEW_TILES not in found.action
    # the heads with the best baseline; majority is never a candidate
    assert [(pair.tests.head, pair.tests.reference) for pair in found.asked] == [
        ("softmax", "histogram_svm"),
        ("svm", "histogram_svm"),
    ]


def test_a_head_with_a_lead_that_may_be_chance_does_not_beat_the_baseline(verdict):
    found = verdict({"softmax": GOOD, "handcrafted_xgboost": NEARLY, "majority": [0] * 60})
    assert (found.code, found.recommended, found.best) == ("baseline", "handcrafted_xgboost", "softmax")


def test_the_cheapest_baseline_that_is_about_as_good_is_recommended(verdict):
    best, level = LEVEL
    predicted = {"softmax": POOR, "histogram_svm": MIDDLE, "handcrafted_xgboost": level, "baseline_mean": best}
    found = verdict(predicted)
    assert (found.code, found.baseline, found.recommended) == ("baseline", "baseline_mean", "handcrafted_xgboost")
    assert "(macro-F1 0.967): it is cheaper than mean of colour and texture baselines (0.983) and about" in found.action
    assert found.action.startswith("None of the heads beats mean of colour and texture baselines")


def test_one_far_below_the_best_is_not_recommended_although_it_is_undecided(verdict):
    """Nine errors in three of nine groups: no sign-flip p is below 0.25, but the loss is more than a standard error."""
    far = [(code + 1) % 3 if i < 27 and i % 9 < 3 else code for i, code in enumerate(Y)]
    found = verdict({"softmax": POOR, "histogram_svm": far, "baseline_mean": GOOD}, n_groups=9)
    pair = next(each for each in found.asked if each.head == "histogram_svm")
    assert pair.outcome == "undecided"
    assert -pair.difference.value > pair.difference.standard_error
    assert (found.code, found.recommended) == ("baseline", "baseline_mean")


def test_the_cheapest_head_that_beats_the_baselines_and_is_about_as_good_as_the_best(verdict):
    best, level = LEVEL
    predicted = {"softmax": level, "svm": best, "mean": best, "histogram_svm": POOR, "majority": [0] * 60}
    found = verdict(predicted)
    assert (found.code, found.recommended, found.best) == ("cheaper", "softmax", "svm")
    assert "beats the best baseline, colour histogram + SVM" in found.action
    assert [(pair.tests.head, pair.tests.reference, pair.outcome) for pair in found.asked] == [
        ("softmax", "histogram_svm", "better"),
        ("svm", "histogram_svm", "better"),
        ("mean", "histogram_svm", "better"),
        ("softmax", "svm", "undecided"),
    ]
    assert len(found.pairs) == 3


def test_the_best_is_recommended_if_all_cheaper_heads_are_worse(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD, "histogram_svm": POOR})
    assert (found.code, found.recommended, found.best) == ("best", "svm", "svm")


def test_a_cheaper_head_that_does_not_beat_the_baseline_is_passed_over(verdict):
    # only the SVM is shown to beat the histogram
    found = verdict({"softmax": errors(7), "svm": errors(1), "histogram_svm": errors(12)})
    outcome = {(pair.tests.head, pair.tests.reference): pair.outcome for pair in found.asked}
    assert outcome["softmax", "histogram_svm"] == "undecided"
    assert outcome["svm", "histogram_svm"] == "better"
    assert found.recommended == "svm"


def test_the_best_is_not_recommended_if_only_another_is_shown_to_beat_the_baseline(make_predictions):
    """softmax has the highest macro-F1, but gains it in one group; SVM gains a little in each of twelve."""
    y = [i % 2 for i in range(240)]
    group = [f"g{i // 20:02d}" for i in range(240)]
    wrong = {
        "histogram_svm": {20 * g + i for g in range(12) for i in range(8)},
        "svm": {20 * g + i for g in range(12) for i in range(6)},
        "softmax": {20 * g + i for g in range(5, 12) for i in range(9)},
    }
    answers = {head: [1 - each if i in rows else each for i, each in enumerate(y)] for head, rows in wrong.items()}
    predictions = make_predictions(y, answers, group=group, classes=("a", "b"))
    resampling = choose_resampling(predictions, n_draws=400, seed=0, level=0.95)
    found = judge(predictions, by_key(score_heads(predictions, resampling, {})), resampling)
    assert (found.best, found.code, found.recommended) == ("softmax", "proven", "svm")


def test_without_baselines_the_heads_alone_are_compared(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD})
    assert (found.code, found.recommended, found.baseline) == ("best", "svm", None)
    assert found.asked is found.pairs
    assert verdict({"softmax": GOOD, "svm": GOOD}).recommended == "softmax"
    assert "softmax and SVM (1.000)" in verdict({"softmax": GOOD, "svm": GOOD}).ranking
    assert (verdict({"svm": GOOD, "xgboost": GOOD}).code, verdict({"svm": GOOD}).code) == ("best", "one_candidate")


@pytest.mark.parametrize(("n_groups", "code"), [(1, "too_few_units"), (6, "too_few_units"), (7, "best")])
def test_the_number_of_pairs_decides_how_many_groups_are_needed(verdict, n_groups, code):
    found = verdict({"softmax": POOR, "svm": GOOD, "histogram_svm": POOR}, n_groups)
    assert (found.code, found.recommended) == (code, "svm" if code == "best" else None)
    assert ("7 are needed for 3 comparisons" in found.action) == (code == "too_few_units")


def test_majority_counts_only_where_no_other_baseline_is(verdict):
    found = verdict({"softmax": GOOD, "majority": [0] * 60, "linear": GOOD})
    assert (found.baseline, found.recommended, found.code) == ("majority", "softmax", "best")
    assert verdict({"majority": [0] * 60}).code == "no_head"


def test_a_random_split_rests_on_tiles(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD}, protocol="random")
    assert (found.unit, found.n_units) == ("tile", 60)
    assert "sign-flip p over tiles" in rule_text(found)


def test_a_baseline_without_a_file_says_so(make_predictions):
    resampling = choose_resampling(make_predictions(Y, {"svm": GOOD}), n_draws=20, seed=0, level=0.95)
    knn = Candidate("knn", "20 nearest neighbours", 0.9, is_head=True, needs_no_training=False, run_only=True)
    other = dataclasses.replace(knn, run_only=False)
    actions = [Candidates([each]).choose([], n_units=9, resampling=resampling).action for each in (knn, other)]
    assert [action.endswith(NOT_FOR_NEW_TILES) for action in actions] == [True, False]
    assert {"majority", "knn"} == RUN_ONLY


def test_each_pair_is_asked_once():
    value = {"histogram_svm": 0.5, "baseline_mean": 0.6, "softmax": 0.7, "svm": 0.8, "mean": 0.9}
    everyone = [
        Candidate(head, head, value[head], is_head=head not in UNTRAINED, needs_no_training=head in UNTRAINED)
        for head in value
    ]
    assert Candidates(everyone).asked_pairs() == [
        ("softmax", "baseline_mean"),
        ("svm", "baseline_mean"),
        ("mean", "baseline_mean"),
        ("histogram_svm", "mean"),
        ("softmax", "mean"),
        ("svm", "mean"),
    ]
    assert len(Candidates(everyone[2:]).asked_pairs()) == 3, "of heads alone all pairs"
    assert Candidates(everyone[:2]).asked_pairs() == []
    assert set(UNTRAINED) < set(COST_ORDER)
