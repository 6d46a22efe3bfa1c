"""The report's section on the baselines: what stands in it, and what it says of the heads."""

import dataclasses

import pytest

from pipeline.comparison.report_data import ReportData
from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.comparison.sections import baselines
from pipeline.markup.document import Bullets, Table, Text
from pipeline.names import BASELINES

Y = [0, 1, 2] * 20
POOR = [(code + 1) % 3 if i % 5 < 2 else code for i, code in enumerate(Y)]


@pytest.fixture
def material(make_predictions):
    """Return a function that makes the material of 60 test tiles of three classes in `n_groups` groups."""

    def make(answers, *, n_groups=10, **known):
        group = [f"g{i % n_groups}" for i in range(len(Y))]
        predictions = make_predictions(Y, answers, group=group, **known)
        resampling = choose_resampling(predictions, n_draws=200, seed=0, level=0.95)
        scores = by_key(score_heads(predictions, resampling, {}))
        empty = dict.fromkeys(field.name for field in dataclasses.fields(ReportData))
        return ReportData(**empty | {"predictions": predictions, "resampling": resampling, "scores": scores})

    return make


def sentences(section):
    return next(list(block.items) for block in section.blocks if isinstance(block, Bullets))


def test_no_baselines_is_said(material):
    section = baselines.section(material({"softmax": Y, "svm": Y}))
    assert section.title == "Baselines"
    (block,) = section.blocks
    assert isinstance(block, Text)
    assert block.text.startswith("n/a: predictions.csv holds no baselines")


def test_table_holds_baselines_then_heads_on_the_same_rows(material):
    section = baselines.section(material({"softmax": Y, "majority": [0] * 60, "knn": POOR}))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["majority class", "20 nearest neighbours", "softmax"]
    assert table.rows[0][2].startswith("0.167 (")
    assert table.rows[0][3].startswith("0.333 (")
    assert table.rows[1][3].startswith("0.600 (")
    assert table.rows[2][2] == "1.000 (1.000 to 1.000)"
    assert "10 groups" in table.caption
    assert "60 tiles" in table.caption


def test_a_head_clears_the_highest_baseline_or_not(material):
    answers = {"softmax": Y, "svm": POOR, "xgboost": [0] * 60, "majority": [0] * 60, "linear": POOR}
    told = sentences(baselines.section(material(answers)))
    assert told[0].startswith(
        "softmax clears the baseline linear probe (0.600): 40.0 points of macro-F1 (95 % interval "
    )
    assert told[1].startswith("SVM is not shown to clear the baseline linear probe (0.600): 0.0 points")
    assert told[2].startswith("XGBoost lies below the baseline linear probe (0.600): -43.3 points")
    assert told[3].startswith("Without the trained network, majority class is the highest baseline. softmax clears ")


def test_few_groups_say_nothing_and_one_group_has_no_interval(material):
    answers = {"softmax": Y, "majority": POOR}
    assert sentences(baselines.section(material(answers, n_groups=4)))[0].endswith(
        "4 groups), too few to say whether it clears it."
    )
    section = baselines.section(material(answers, n_groups=1))
    assert "no interval (n/a), the rows come from 1 group" in sentences(section)[0]
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert "No intervals (n/a)" in table.caption


def test_baselines_that_were_not_fitted_are_named(material):
    told = sentences(baselines.section(material({"softmax": Y, "majority": POOR, "knn": POOR, "linear": POOR})))
    assert told[-1] == (
        "n/a: colour histogram + SVM, hand-crafted features + XGBoost and untrained ResNet-50 + SVM not fitted "
        "(baselines.h5 was not there when fit_heads ran)."
    )
    every = sentences(baselines.section(material({"softmax": Y, **dict.fromkeys(BASELINES, POOR)})))
    assert not any(line.startswith("n/a") for line in every)
    assert any("batch normalisation does nothing" in line for line in every)


def test_a_random_split_says_that_it_flatters(material):
    section = baselines.section(material({"softmax": Y, "majority": POOR}, protocol="random"))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.caption.startswith("Random split: these figures flatter. ")


def test_every_baseline_is_explained():
    assert set(baselines.KNOWS) == set(BASELINES)
    assert set(baselines.WITHOUT_NETWORK) < set(BASELINES)
