import pytest

from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.comparison.verdict import judge

Y = [0, 1, 2] * 20
GOOD = list(Y)
POOR = [(code + 1) % 3 if i % 5 < 2 else code for i, code in enumerate(Y)]
NEARLY = [(code + 1) % 3 if i in (7, 31) else code for i, code in enumerate(Y)]


@pytest.fixture
def verdict(make_predictions):
    """Judge heads on 60 tiles of three classes in `n_groups` groups."""

    def make(answers, n_groups=10, **other):
        group = [f"g{i % n_groups}" for i in range(len(Y))]
        predictions = make_predictions(Y, answers, group=group, **other)
        resampling = choose_resampling(predictions, n_draws=300, seed=0, level=0.95)
        return judge(predictions, by_key(score_heads(predictions, resampling, {})), resampling)

    return make


def test_a_head_that_measurably_beats_softmax_is_recommended(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD, "xgboost": POOR})
    assert found.best == "svm"
    assert found.action.startswith("SVM gains 40.0 points of macro-F1")
    assert "over softmax: use it where that is worth a second model file" in found.action
    assert found.sentences[0] == "Highest macro-F1 on the test rows: SVM (1.000)."
    assert found.sentences[1].startswith("SVM is better than softmax by 40.0 points of macro-F1 (95 % interval ")
    assert found.sentences[1].endswith("; 10 groups).")
    assert found.sentences[3] == "softmax and XGBoost give the same answer on every test tile."


def test_a_lead_that_may_be_chance_leaves_softmax(verdict):
    found = verdict({"softmax": NEARLY, "svm": GOOD})
    assert found.best == "svm"
    assert found.action == "Use softmax: the other head gains nothing measurable."
    assert (
        "not distinguishable on these rows: difference 3.3 points of macro-F1 (95 % interval 0.0 to"
        in (found.sentences[1])
    )


def test_softmax_that_beats_all_others(verdict):
    found = verdict({"svm": POOR, "softmax": GOOD, "xgboost": POOR})
    assert found.action == "Use softmax: it is better than SVM and XGBoost."


def test_a_lesser_head_that_measurably_beats_softmax_wins_over_an_unsure_best(verdict):
    answers = {"softmax": POOR, "xgboost": NEARLY, "svm": GOOD}
    assert verdict(answers).action.startswith("SVM gains")


def test_few_groups_conclude_nothing(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD}, n_groups=4)
    assert found.action == (
        "No choice can be founded on 4 groups of test rows; keep softmax, which needs no second model."
    )
    assert found.sentences[1].startswith("SVM is ahead of softmax by 40.0 points")
    assert found.sentences[1].endswith("4 groups), but 4 groups are too few to conclude anything.")


def test_one_group_has_no_interval(verdict):
    found = verdict({"softmax": POOR, "svm": GOOD}, n_groups=1)
    assert "there is no interval (the test rows come from 1 group)" in found.sentences[1]


def test_a_random_split_rests_on_tiles(verdict):
    assert verdict({"softmax": POOR, "svm": GOOD}, protocol="random").sentences[1].endswith("; 60 tiles).")


def test_heads_without_softmax(verdict):
    assert verdict({"svm": GOOD, "xgboost": POOR}).action.startswith("Use SVM: it gains 40.0 points")
    assert "take the one that is easier to keep" in verdict({"svm": GOOD, "xgboost": NEARLY}).action


def test_equal_heads_share_the_first_place(verdict):
    found = verdict({"softmax": GOOD, "svm": GOOD})
    assert found.sentences[0] == "Highest macro-F1 on the test rows: softmax and SVM (1.000)."
    assert found.action == "Use softmax: the other head gains nothing measurable."
