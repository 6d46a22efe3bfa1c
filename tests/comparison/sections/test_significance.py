import csv
import io

import numpy as np
import pytest

from pipeline.comparison.per_group import per_group_csv
from pipeline.comparison.sections.significance import per_group, section
from pipeline.markup.document import Bullets, Document, EmptySection, Section, Table, Text, to_markdown

Y = [0, 1, 2] * 20
GOOD = list(Y)
POOR = [(code + 1) % 3 if i < 24 else code for i, code in enumerate(Y)]


@pytest.fixture
def data(make_predictions, make_data):
    """Return a function that makes the data of 60 tiles, in ten groups by default."""

    def make(predicted, *, y=Y, n_train=None, **other):
        groups = {"group": [f"g{i % 10}" for i in range(len(y))]}
        return make_data(make_predictions(y, predicted, **groups | other), n_train=n_train)

    return make


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def bullets(section):
    return " ".join(blocks(section, Bullets)[0].items)


def test_every_pair_has_a_row_with_all_columns(data):
    found = section(data({"softmax": POOR, "svm": GOOD, "xgboost": POOR}))
    (table,) = blocks(found, Table)
    assert [row[0] for row in table.rows] == ["SVM - softmax", "XGBoost - softmax", "XGBoost - SVM"]
    assert all(len(row) == len(table.head) for row in table.rows)
    first = dict(zip(table.head, table.rows[0], strict=True))
    assert first["macro-F1 difference in points"] == "40.0"
    assert first["sign-flip p (Holm)"] == "0.002 (0.006)"
    assert first["McNemar p"] == "<0.001"
    assert first["Nadeau-Bengio p"] == "n/a"
    assert first["P(better / equal / worse)"] == "1.00 / 0.00 / 0.00"
    assert first["verdict"] == "better"
    assert table.rows[1][2:4] == ["0.0 to 0.0", "0.0 to 0.0"]
    assert [row[-1] for row in table.rows] == ["better", "practically equal", "worse"]
    assert "rests on 10 groups" in table.caption
    assert blocks(found, Text)[0].text == "2 of 3 pairs differ beyond chance, 1 practically equal, 0 undecided."
    assert "exact" in bullets(found)
    assert "Nadeau-Bengio p: n/a" in bullets(found)


def test_pairs_of_the_recommendation_and_pairs_of_heads_are_two_families(data):
    found = section(data({"softmax": POOR, "svm": GOOD, "histogram_svm": POOR}))
    asked, heads = blocks(found, Table)
    names = [row[0] for row in asked.rows]
    assert names == ["softmax - colour histogram + SVM", "SVM - colour histogram + SVM", "softmax - SVM"]
    assert [row[0] for row in heads.rows] == ["SVM - softmax"]
    assert (asked.rows[1][4], heads.rows[0][4]) == ("0.002 (0.006)", "0.002 (0.002)")


def test_random_splits_and_unknown_groups_are_named(data):
    predicted = {"softmax": POOR, "svm": GOOD}
    found = section(data(predicted, protocol="random"))
    assert blocks(found, Table)[0].caption.startswith("Random split: biased upwards. ")
    assert "rests on 60 tiles" in blocks(found, Table)[0].caption
    assert "20000 random" in bullets(found)  # 24 tiles differ
    found = section(data(predicted, group=[""] * 60))
    assert blocks(found, Table)[0].rows[0][2] == "n/a"
    assert "Interval over groups: n/a" in bullets(found)


def test_one_group_is_not_available_with_the_reason(data):
    found = section(data({"softmax": POOR, "svm": GOOD}, group=["only"] * 60))
    row = blocks(found, Table)[0].rows[0]
    assert row[2] == "n/a"
    assert row[-2:] == ["n/a / n/a / n/a", "undecided"]
    assert "Interval over groups: n/a" in bullets(found)


def test_seeds_and_folds_are_counted(data):
    seeds = {
        "y": Y * 2,
        "tile_id": [f"t{i}" for i in range(60)] * 2,
        "seed": [0] * 60 + [1] * 60,
        "fold": [i % 10 // 5 for i in range(60)] * 2,
        "group": [f"g{i % 10}" for i in range(60)] * 2,
    }
    predicted = {"softmax": POOR * 2, "svm": GOOD * 2}
    found = section(data(predicted, **seeds))
    assert "60 test tiles" in blocks(found, Table)[0].caption
    assert "largest p of 2 seeds" in bullets(found)
    assert "Nadeau-Bengio p: n/a" in bullets(found)
    found = section(data(predicted, n_train=60, **seeds))
    assert "t over 4 parts" in bullets(found)
    assert blocks(found, Table)[0].rows[0][6] not in ("n/a", "")
    equal = section(data({"softmax": POOR * 2, "svm": POOR * 2}, n_train=60, **seeds))
    assert blocks(equal, Table)[0].rows[0][6] == "n/a"
    assert "2 seeds pooled" in blocks(per_group(data(predicted, **seeds)), Table)[0].caption


def test_one_head_has_no_pair(data):
    found = section(data({"svm": GOOD}))
    assert not blocks(found, Table)
    assert len(blocks(found, Text)) == 1
    (table,) = blocks(per_group(data({"svm": GOOD})), Table)
    assert table.head == ["group", "tiles", "SVM"]


def test_groups_are_listed_by_size_with_the_accuracy_of_each_head(data):
    group = ["big"] * 40 + ["small"] * 5 + ["middle"] * 15
    found = per_group(data({"softmax": POOR, "svm": GOOD, "majority": [0] * 60}, group=group))
    (table,) = blocks(found, Table)
    assert table.rows == [
        ["big", "40", "0.400", "1.000"],
        ["middle", "15", "1.000", "1.000"],
        ["small", "5", "1.000", "1.000"],
    ]
    assert blocks(found, Text)[0].text == "Accuracy of SVM is 1.000 to 1.000 over 3 test groups."
    assert "in 1 of 3 groups, behind in 0, level in 2; pooled difference 40.0" in bullets(found)
    assert "big, holds 67 %" in bullets(found)
    assert "disagree" not in bullets(found)


def test_pooled_scores_that_disagree_with_the_groups_are_named(data):
    group = ["big"] * 48 + [f"g{i // 2}" for i in range(12)]
    svm = [(code + 1) % 3 if i >= 48 and i % 2 else code for i, code in enumerate(Y)]
    found = per_group(data({"softmax": POOR, "svm": svm}, group=group))
    assert "in 1 of 7 groups, behind in 6, level in 0" in bullets(found)
    assert "accuracy and macro-F1 disagree" in bullets(found)


def test_many_groups_are_cut_in_the_report_but_not_in_the_file(data):
    y = [0, 1, 2] * 43
    made = data({"softmax": y, "svm": y}, y=y, group=[f"g{i // 3:02d}" for i in range(129)])
    found = per_group(made)
    assert len(blocks(found, Table)[0].rows) == 40
    assert blocks(found, Text)[1].text == "3 more groups in per_group.csv."
    rows = list(csv.DictReader(io.StringIO(per_group_csv(made.predictions))))
    assert len(rows) == 43 * 2
    assert rows[0] == {"group": "g00", "head": "softmax", "n": "3", "accuracy": "1", "n_classes": "3"}


def test_the_file_holds_all_heads_and_pools_the_seeds(data):
    made = data(
        {"svm": [0, 0, 1, 0, 1, 1], "majority": [0] * 6},
        y=[0, 0, 1] * 2,
        tile_id=["a", "b", "c"] * 2,
        seed=[0, 0, 0, 1, 1, 1],
        group=["x", "x", 'y, "z"'] * 2,
    )
    rows = list(csv.DictReader(io.StringIO(per_group_csv(made.predictions))))
    assert [tuple(row.values()) for row in rows] == [
        ("x", "svm", "2", "0.75", "1"),
        ("x", "majority", "2", "1", "1"),
        ('y, "z"', "svm", "1", "1", "1"),
        ('y, "z"', "majority", "1", "0", "1"),
    ]


def test_train_rows_count_nowhere(data):
    split = ["train"] * 30 + ["test"] * 30
    made = data({"softmax": POOR, "svm": GOOD}, split=split, group=["t"] * 30 + ["a"] * 15 + ["b"] * 15)
    assert [row[0] for row in blocks(per_group(made), Table)[0].rows] == ["a", "b"]
    assert "t,svm" not in per_group_csv(made.predictions)


def test_unknown_groups_have_no_table(data):
    made = data({"softmax": POOR, "svm": GOOD}, group=[""] * 60)
    assert isinstance(per_group(made), EmptySection)
    assert per_group_csv(made.predictions) == "group,head,n,accuracy,n_classes\n"


def test_hostile_group_names_stay_text(data):
    made = data({"softmax": POOR, "svm": GOOD}, group=["<b>|x"] * 30 + ["y"] * 30)
    text = to_markdown(Document("t", [section(made), per_group(made)]))
    assert "<b>" not in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 2  # two tables, every row of each as wide as its head


def test_no_nan_is_written(data):
    rng = np.random.default_rng(0)
    predicted = {head: rng.integers(3, size=60).tolist() for head in ("softmax", "svm", "xgboost")}
    for group in (["only"] * 60, [""] * 60, [f"g{i}" for i in range(60)]):
        made = data(predicted, group=group)
        shown = [part for part in (section(made), per_group(made)) if isinstance(part, Section)]
        assert "nan" not in to_markdown(Document("t", shown))
