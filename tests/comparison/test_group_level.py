"""Whole groups: aggregates by hand, rule and threshold from validation groups only, labels by the user, the section."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.comparison.group_level import GroupRequest, group_level, groups_csv, read_group_labels
from pipeline.comparison.sections.group_level import FIGURE, section
from pipeline.errors import BadInput
from pipeline.evaluation.bootstrap import bootstrap_auroc
from pipeline.figures.roc import roc_points
from pipeline.markup.document import Figure, Table, Text

CLASSES = ("a", "b")
NONE = GroupRequest()


@pytest.fixture
def patients(make_predictions):
    """Return a function that makes n patients of 5 tiles, classes in turn; `wrong` tiles of each patient are wrong."""

    def make(n=24, wrong=2, *, confidence=0.8, n_val=0, **other):
        y = [i % 2 for i in range(n) for _ in range(5)]
        poor = [1 - code if tile < wrong else code for i, code in enumerate(y[::5]) for tile in range(5)]
        split = ["val" if i < n_val else "test" for i in range(n) for _ in range(5)]
        group = [f"P{i:02d}" for i in range(n) for _ in range(5)]
        answers = {"softmax": poor, "svm": y}
        return make_predictions(y, answers, group=group, split=split, classes=CLASSES, confidence=confidence, **other)

    return make


def test_the_first_rule_is_the_mean_probability(patients):
    found = group_level(patients(4), NONE)
    assert (found.rule.rule, found.n_val) == ("mean probability", 0)
    assert list(found.predictions.tiles["tile_id"]) == ["P00", "P01", "P02", "P03"]
    np.testing.assert_allclose(found.predictions.p["softmax"][0], [(3 * 0.8 + 2 * 0.2) / 5, (3 * 0.2 + 2 * 0.8) / 5])
    assert found.predictions.predicted["softmax"].tolist() == [0, 1, 0, 1]
    assert group_level(patients(4, wrong=3), NONE).predictions.predicted["softmax"].tolist() == [1, 0, 1, 0]


def test_the_rule_is_chosen_on_validation_groups_alone(patients):
    """In validation groups two sure tiles are right and three unsure ones wrong; in test groups all are right."""
    predictions = patients(20, wrong=0, n_val=8)
    val = predictions.rows("val")
    for head in predictions.heads:
        for at, row in enumerate(val):
            sure, true = at % 5 < 2, predictions.y[row]
            predictions.p[head][row] = 0.4 if sure else 0.6
            predictions.p[head][row, true] = 0.6 if sure else 0.4
            if sure:
                predictions.p[head][row, true], predictions.p[head][row, 1 - true] = 0.8, 0.2
            predictions.predicted[head][row] = true if sure else 1 - true
    found = group_level(predictions, NONE)
    # the mean probability of the true class is (2 * 0.8 + 3 * 0.4) / 5 = 0.56: right, and the first of equals
    assert (found.rule.rule, found.n_val) == ("mean probability", 8)
    for head in predictions.heads:
        for at, row in enumerate(val):
            true = predictions.y[row]
            if at % 5 >= 2:
                predictions.p[head][row, true], predictions.p[head][row, 1 - true] = 0.3, 0.7
    found = group_level(predictions, NONE)  # now 0.5: not above 0.75, so that only the sure tiles count
    assert found.rule.rule == "vote of tiles above 0.75"
    assert set(found.predictions.tiles["split"]) == {"val", "test"}


def test_groups_without_any_share_have_their_mean(patients):
    found = group_level(patients(4, confidence=0.7), NONE)
    assert found is not None
    for rule_p in found.predictions.p.values():
        np.testing.assert_allclose(rule_p.sum(axis=1), 1)


def test_tiles_of_other_classes_have_no_effect_on_groups_with_labels_of_the_user(make_predictions):
    """Patients are a or b by the user's table; most of their tiles are of the class c."""
    y = [2, 2, 0, 2, 2, 1]
    predictions = make_predictions(y, {"svm": y}, group=["P", "P", "P", "Q", "Q", "Q"])
    assert group_level(predictions, NONE) is None  # tiles of one group have several labels
    found = group_level(predictions, GroupRequest({"P": "a", "Q": "b", "R": "c"}))
    assert found.predictions.classes == ["a", "b"]
    assert list(found.predictions.tiles["label"]) == ["a", "b"]
    assert found.predictions.y.tolist() == found.predictions.predicted["svm"].tolist() == [0, 1]
    np.testing.assert_allclose(found.predictions.p["svm"][0], [1.0 / 1.3, 0.3 / 1.3])  # 0.8 + 0.1 + 0.1, and 3 * 0.1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"P": "a"}, "1 group"),
        ({"P": "a", "Q": "d"}, "'d'"),
        ({"P": "a", "Q": "a"}, "the same label"),
    ],
)
def test_labels_of_groups_that_are_refused(make_predictions, labels, words):
    predictions = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 0, 1]}, group=["P", "P", "Q", "Q"])
    with pytest.raises(BadInput, match=words):
        group_level(predictions, GroupRequest(labels))


def test_a_table_of_group_labels(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("\ufeffPatient;Diagnosis\r\nP1;a\r\nP2;b\r\nP1;a\r\n", encoding="utf-8")
    assert read_group_labels(file) == {"P1": "a", "P2": "b"}
    for rows in ("P1,a\nP1,b\n", "P1,\n"):
        file.write_text(f"group,label\n{rows}")
        with pytest.raises(BadInput, match=r"line [23]"):
            read_group_labels(file)


def test_the_threshold_is_that_of_validation_groups_alone(patients, make_data):
    predictions = patients(40, wrong=0, n_val=20)
    rng = np.random.default_rng(0)
    share = np.repeat(rng.permutation(40) / 40, 5)
    predictions.p["svm"][:] = np.stack([1 - share, share], axis=1)
    predictions.predicted["svm"][:] = share > 0.5
    found = group_level(predictions, GroupRequest(sensitivity=0.8))
    assert (found.rule.positive, found.n_positive_val) == ("b", 10)
    positives = np.sort(share[::5][:20][1::2])
    assert found.rule.thresholds["svm"] == pytest.approx(positives[2])  # 8 of 10 are as high
    tables = [block for block in section(make_data(predictions, groups=found)).blocks if isinstance(block, Table)]
    shown = {row[0]: row for row in tables[-1].rows}["SVM"]
    test = share[::5][20:]
    n = int((test[1::2] >= positives[2]).sum())
    assert shown[2].endswith(f"{n} of 10")
    assert shown[3].endswith(f"{int((test[::2] < positives[2]).sum())} of 10")
    predictions.p["svm"][100:] = predictions.p["svm"][100:, ::-1]  # other test groups
    again = group_level(predictions, GroupRequest(sensitivity=0.8))
    assert again.rule.thresholds["svm"] == found.rule.thresholds["svm"]


def test_heads_that_were_fitted_on_validation_tiles_choose_nothing(patients):
    """Their probabilities there are too good, so that the threshold would be too high."""
    predictions = patients(40, wrong=0, n_val=20)
    predictions = dataclasses.replace(
        predictions, record={**predictions.record, "details": {**predictions.details, "fit_on": "heldout"}}
    )
    assert list(group_level(predictions, GroupRequest(sensitivity=0.8)).rule.thresholds) == ["softmax"]
    without = dataclasses.replace(predictions, heads=["svm"])
    with pytest.raises(BadInput, match="--fit-on heldout"):
        group_level(without, GroupRequest(sensitivity=0.8))
    assert group_level(without, NONE).n_val == 0


def test_thresholds_that_are_refused(patients):
    with pytest.raises(BadInput, match="no validation group"):
        group_level(patients(8), GroupRequest(sensitivity=0.9))
    with pytest.raises(BadInput, match="--positive"):
        group_level(patients(20, n_val=8), GroupRequest(sensitivity=0.9, positive="c"))
    with pytest.raises(BadInput, match="not possible"):
        group_level(patients(4, protocol="random"), GroupRequest(sensitivity=0.9))


def test_no_group_level_where_a_group_has_two_labels_or_one_tile(make_predictions, make_data, patients):
    mixed = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 0, 1]}, group=["g", "g", "h", "h"], classes=CLASSES)
    single = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 0, 1]}, classes=CLASSES)
    for predictions in (mixed, single, patients(4, protocol="random")):
        assert group_level(predictions, NONE) is None
        assert section(make_data(predictions)) is None
        assert groups_csv(group_level(predictions, NONE)) is None


def test_the_section_scores_groups_not_tiles(patients, make_data):
    data = make_data(patients(24, wrong=2))
    found = section(data)
    (table,) = [block for block in found.blocks if isinstance(block, Table)]
    assert [row[0] for row in table.rows] == ["softmax", "SVM"]
    assert table.rows[0][1].startswith("1.000")  # two of five tiles are wrong, no group is
    assert table.caption.startswith("24 test groups; ")
    assert not [block for block in found.blocks if isinstance(block, Text)]
    (figure,) = [block for block in found.blocks if isinstance(block, Figure)]
    assert figure.file == f"figures/{FIGURE}"
    assert (data.run / figure.file).is_file()


def test_few_groups_are_named_as_few(patients, make_data):
    found = section(make_data(patients(8)))
    (text,) = [block for block in found.blocks if isinstance(block, Text)]
    assert text.text.startswith("8 test groups allow little: one group is 12 points")
    assert "0.69" in text.text  # 0.05 ** (1 / 8)


def test_groups_csv_has_every_group_and_head(patients):
    found = group_level(patients(4), NONE)
    table = pd.read_csv(io.StringIO(groups_csv(found)))
    assert list(table.columns) == ["group", "split", "seed", "label", "head", "predicted", "p_a", "p_b"]
    assert table["head"].value_counts().to_dict() == {"softmax": 4, "svm": 4}
    assert (table.loc[table["head"] == "svm", "predicted"] == table.loc[table["head"] == "svm", "label"]).all()


def test_roc_points_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    positive, score = rng.random(60) < 0.4, rng.integers(0, 12, 60) / 12
    false, true = roc_points(positive, score)
    theirs = roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false, theirs[0])
    np.testing.assert_allclose(true, theirs[1])


def test_the_interval_of_auroc_holds_the_truth():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 80)
    score = 1 / (1 + np.exp(-(y + rng.normal(size=80))))
    p = np.stack([1 - score, score], axis=1)
    low, high = bootstrap_auroc(y, p, units=np.arange(80), n_draws=300, seed=0, level=0.95)
    assert low < roc_auc_score(y, score) < high
    assert 0.1 < high - low < 0.35
    assert all(np.isnan(bootstrap_auroc(y, p, units=np.zeros(80, int), n_draws=10, seed=0, level=0.95)))
