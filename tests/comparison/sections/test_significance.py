import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.comparison.scores import by_key, choose_resampling, score_heads
from pipeline.comparison.sections.significance import per_group, per_group_csv, section
from pipeline.comparison.verdict import judge
from pipeline.markup.document import Bullets, Document, Table, Text, to_markdown

Y = [0, 1, 2] * 20
GOOD = list(Y)
POOR = [(code + 1) % 3 if i < 24 else code for i, code in enumerate(Y)]


@pytest.fixture
def material(make_predictions):
    """What the sections take from the material: predictions and verdict, of 60 tiles in ten groups by default."""

    def make(answers, *, y=Y, n_train=None, **other):
        predictions = make_predictions(y, answers, **{"group": [f"g{i % 10}" for i in range(len(y))]} | other)
        resampling = choose_resampling(predictions, n_draws=200, seed=0, level=0.95)
        scores = by_key(score_heads(predictions, resampling, {}))
        verdict = judge(predictions, scores, resampling, n_train=n_train)
        flattering = "Random split: these figures flatter. " if predictions.protocol == "random" else ""
        return SimpleNamespace(predictions=predictions, verdict=verdict, flattering=flattering)

    return make


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def bullets(section):
    return " ".join(blocks(section, Bullets)[0].items)


def test_every_pair_has_a_row_with_all_columns(material):
    found = section(material({"softmax": POOR, "svm": GOOD, "xgboost": POOR, "majority": [0] * 60}))
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
    assert "exact, all swaps were tried" in bullets(found)
    assert "Nadeau-Bengio p: n/a, because there is one part" in bullets(found)


def test_random_splits_and_unknown_groups_are_told(material):
    answers = {"softmax": POOR, "svm": GOOD}
    found = section(material(answers, protocol="random"))
    assert blocks(found, Table)[0].caption.startswith("Random split: these figures flatter. ")
    assert "rests on 60 tiles" in blocks(found, Table)[0].caption
    assert "these groups were also trained on" in bullets(found)
    assert "else 20000 random ones" in bullets(found)  # 24 tiles differ
    found = section(material(answers, group=[""] * 60))
    assert blocks(found, Table)[0].rows[0][2] == "n/a"
    assert "n/a, because groups (slides, patients) are not known" in bullets(found)


def test_one_group_is_not_available_with_the_reason(material):
    found = section(material({"softmax": POOR, "svm": GOOD}, group=["only"] * 60))
    row = blocks(found, Table)[0].rows[0]
    assert row[2] == "n/a"
    assert row[-2:] == ["n/a / n/a / n/a", "undecided"]
    assert "n/a, because the test rows come from one group" in bullets(found)


def test_seeds_and_folds_are_told(material):
    seeds = {
        "y": Y * 2,
        "tile_id": [f"t{i}" for i in range(60)] * 2,
        "seed": [0] * 60 + [1] * 60,
        "fold": [i % 10 // 5 for i in range(60)] * 2,
        "group": [f"g{i % 10}" for i in range(60)] * 2,
    }
    answers = {"softmax": POOR * 2, "svm": GOOD * 2}
    found = section(material(answers, **seeds))
    assert "60 test tiles" in blocks(found, Table)[0].caption
    assert "The largest p of 2 seeds is shown" in bullets(found)
    assert "the seeds are pooled, and how they differ is in no interval" in bullets(found)
    assert "n/a, because the number of training tiles is not known" in bullets(found)
    found = section(material(answers, n_train=60, **seeds))
    assert "t over 4 parts (seed, fold)" in bullets(found)
    assert blocks(found, Table)[0].rows[0][6] not in ("n/a", "")
    equal = section(material({"softmax": POOR * 2, "svm": POOR * 2}, n_train=60, **seeds))
    assert blocks(equal, Table)[0].rows[0][6] == "n/a"
    assert "n/a where all parts differ by the same amount" in bullets(equal)
    assert "2 seeds pooled" in blocks(per_group(material(answers, **seeds)), Table)[0].caption


def test_one_head_has_no_pair(material):
    found = section(material({"svm": GOOD, "linear": POOR}))
    assert blocks(found, Text)[0].text == "Fewer than two main heads were evaluated: there is no pair to compare."
    (table,) = blocks(per_group(material({"svm": GOOD, "linear": POOR})), Table)
    assert table.head == ["group", "tiles", "SVM"]


def test_groups_stand_by_size_with_the_accuracy_of_each_head(material):
    group = ["big"] * 40 + ["small"] * 5 + ["middle"] * 15
    found = per_group(material({"softmax": POOR, "svm": GOOD, "majority": [0] * 60}, group=group))
    (table,) = blocks(found, Table)
    assert table.rows == [
        ["big", "40", "0.400", "1.000"],
        ["middle", "15", "1.000", "1.000"],
        ["small", "5", "1.000", "1.000"],
    ]
    assert "SVM is ahead of softmax in 1 of 3 groups, behind in 0, level in 2; pooled difference 40.0" in bullets(found)
    assert "The largest group, big, holds 67 % of the test tiles." in bullets(found)
    assert "disagree" not in bullets(found)


def test_pooled_figures_that_disagree_with_the_groups_are_told(material):
    group = ["big"] * 48 + [f"g{i // 2}" for i in range(12)]
    svm = [(code + 1) % 3 if i >= 48 and i % 2 else code for i, code in enumerate(Y)]
    found = per_group(material({"softmax": POOR, "svm": svm}, group=group))
    assert "SVM is ahead of softmax in 1 of 7 groups, behind in 6, level in 0" in bullets(found)
    assert "The count of groups and the pooled accuracy and macro-F1 disagree" in bullets(found)


def test_many_groups_are_cut_in_the_report_but_not_in_the_file(material):
    y = [0, 1, 2] * 43
    made = material({"softmax": y, "svm": y}, y=y, group=[f"g{i // 3:02d}" for i in range(129)])
    found = per_group(made)
    assert len(blocks(found, Table)[0].rows) == 40
    assert blocks(found, Text)[0].text == "And 3 more groups (in per_group.csv)."
    rows = list(csv.DictReader(io.StringIO(per_group_csv(made.predictions))))
    assert len(rows) == 43 * 2
    assert rows[0] == {"group": "g00", "head": "softmax", "n": "3", "accuracy": "1", "n_classes": "3"}


def test_the_file_holds_all_heads_and_pools_the_seeds(material):
    made = material(
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


def test_train_rows_count_nowhere(material):
    split = ["train"] * 30 + ["test"] * 30
    made = material({"softmax": POOR, "svm": GOOD}, split=split, group=["t"] * 30 + ["a"] * 15 + ["b"] * 15)
    assert [row[0] for row in blocks(per_group(made), Table)[0].rows] == ["a", "b"]
    assert "t,svm" not in per_group_csv(made.predictions)


def test_unknown_groups_have_no_table(material):
    made = material({"softmax": POOR, "svm": GOOD}, group=[""] * 60)
    assert blocks(per_group(made), Text)[0].text == "n/a: groups (slides, patients) are not known."
    assert per_group_csv(made.predictions) == "group,head,n,accuracy,n_classes\n"


def test_hostile_group_names_stay_text(material):
    made = material({"softmax": POOR, "svm": GOOD}, group=["<b>|x"] * 30 + ["y"] * 30)
    text = to_markdown(Document("t", [section(made), per_group(made)]))
    assert "<b>" not in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 2  # two tables, every row of each as wide as its head


def test_no_nan_is_written(material):
    rng = np.random.default_rng(0)
    answers = {head: rng.integers(3, size=60).tolist() for head in ("softmax", "svm", "xgboost")}
    for group in (["only"] * 60, [""] * 60, [f"g{i}" for i in range(60)]):
        made = material(answers, group=group)
        assert "nan" not in to_markdown(Document("t", [section(made), per_group(made)]))
