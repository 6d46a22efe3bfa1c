"""The section on baselines: its table, and which heads are better than the best baseline."""

import pytest

from pipeline.comparison.sections import baselines
from pipeline.markup.document import Bullets, EmptySection, Table
from pipeline.names import BASELINES

Y = [0, 1, 2] * 20
POOR = [(code + 1) % 3 if i % 5 < 2 else code for i, code in enumerate(Y)]


@pytest.fixture
def data(make_predictions, make_data):
    """Return a function that makes the data of 60 test tiles of three classes in `n_groups` groups."""

    def make(predicted, *, n_groups=10, **known):
        return make_data(make_predictions(Y, predicted, group=[f"g{i % n_groups}" for i in range(60)], **known))

    return make


def sentences(section):
    return next(list(block.items) for block in section.blocks if isinstance(block, Bullets))


def test_without_baselines_the_section_has_the_reason(data):
    found = baselines.section(data({"softmax": Y, "svm": Y}))
    assert isinstance(found, EmptySection)
    assert found.title == "Baselines"
    assert found.reason.startswith("predictions.csv holds no baselines")


def test_table_holds_baselines_then_heads_on_the_same_rows(data):
    section = baselines.section(data({"softmax": Y, "majority": [0] * 60, "knn": POOR}))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [row[0] for row in table.rows] == ["majority class", "20 nearest neighbours", "softmax"]
    assert table.rows[0][2].startswith("0.167 (")
    assert table.rows[0][3].startswith("0.333 (")
    assert table.rows[1][3].startswith("0.600 (")
    assert table.rows[2][2] == "1.000 (1.000 to 1.000)"
    assert "10 groups" in table.caption
    assert "60 tiles" in table.caption


def test_the_headline_names_the_heads_that_beat_the_best_baseline_without_the_network(data):
    poor = [(code + 1) % 3 if i < 24 else code for i, code in enumerate(Y)]  # errors in every group
    predicted = {"softmax": Y, "svm": poor, "majority": [0] * 60, "histogram_svm": poor, "linear": Y}
    section = baselines.section(data(predicted))
    assert section.blocks[0].text == "softmax is better than the best baseline, colour histogram + SVM."
    section = baselines.section(data({"softmax": POOR, "histogram_svm": Y}))
    assert section.blocks[0].text.startswith("No head is shown to be better")
    assert baselines.section(data({"softmax": POOR, "knn": Y})).blocks[0].text.startswith("No head can be compared")


def test_one_group_has_no_interval(data):
    made = data({"softmax": Y, "majority": POOR}, n_groups=1)
    assert "No head is shown to be better" in baselines.section(made).blocks[0].text
    (table,) = (block for block in baselines.section(made).blocks if isinstance(block, Table))
    assert "No intervals (n/a)" in table.caption


def test_baselines_that_were_not_fitted_are_named(data):
    found = sentences(baselines.section(data({"softmax": Y, "majority": POOR, "knn": POOR, "linear": POOR})))
    assert found[-1].startswith("n/a: colour histogram + SVM, hand-crafted features + XGBoost, histogram and ")
    assert "untrained ResNet-50 + SVM not fitted" in found[-1]
    every = sentences(baselines.section(data({"softmax": Y, **dict.fromkeys(BASELINES, POOR)})))
    assert not any(line.startswith("n/a") for line in every)
    assert any("batch normalisation of the untrained network" in line for line in every)


def test_after_a_random_split_the_caption_states_the_bias(data):
    section = baselines.section(data({"softmax": Y, "majority": POOR}, protocol="random"))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert table.caption.startswith("Random split: biased upwards. ")


def test_every_baseline_is_explained():
    assert set(baselines.KNOWS) == set(BASELINES)


def test_relative_features_come_with_the_table_of_their_harm(make_predictions, make_data):
    predictions = make_predictions(Y, {"softmax": Y, "majority": POOR})
    assert baselines.HARM not in baselines.section(make_data(predictions)).blocks
    predictions.record["details"]["relative"] = "group"
    assert baselines.HARM in baselines.section(make_data(predictions)).blocks
    assert all(len(row) == len(baselines.HARM.head) for row in baselines.HARM.rows)
