import json
import math

import pytest

from pipeline.comparison.heads_summary import read_heads_summary
from pipeline.comparison.scores import Score, by_key, choose_resampling, score_heads, to_csv

BOOTSTRAP = {"n_draws": 200, "seed": 0, "level": 0.9}


def test_scores_of_a_case_done_by_hand(make_predictions):
    predictions = make_predictions([0, 0, 1, 1], {"svm": [0, 1, 1, 1]}, classes=("a", "b"))
    scores = by_key(score_heads(predictions, choose_resampling(predictions, **BOOTSTRAP), {}))
    assert scores["svm", "test", "accuracy"].value == 0.75
    assert scores["svm", "test", "precision[b]"].value == pytest.approx(2 / 3)
    assert scores["svm", "test", "recall[a]"].value == 0.5
    assert scores["svm", "test", "f1[b]"].value == pytest.approx(0.8)
    assert scores["svm", "test", "f1[b]"].n == 2
    assert scores["svm", "test", "macro_f1"].value == pytest.approx((0.8 + 2 / 3) / 2)


def test_splits_are_scored_apart_and_an_empty_one_has_no_rows(make_predictions):
    predictions = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 1, 0]}, split=["train", "train", "test", "test"])
    scores = by_key(score_heads(predictions, choose_resampling(predictions, **BOOTSTRAP), {}))
    assert scores["svm", "train", "accuracy"].value == 1
    assert scores["svm", "test", "accuracy"].value == 0
    assert {split for _, split, _ in scores} == {"train", "test"}


@pytest.mark.parametrize(
    ("protocol", "group", "unit"),
    [
        ("grouped", ["g", "g", "h", "h"], "group"),
        ("given", ["g", "g", "h", "h"], "group"),
        ("random", ["g", "g", "h", "h"], "tile"),
        ("given", ["g", "g", "h", ""], "tile"),
    ],
)
def test_what_is_resampled(make_predictions, protocol, group, unit):
    predictions = make_predictions([0, 1, 0, 1], {"svm": [0, 1, 1, 0]}, group=group, protocol=protocol)
    resampling = choose_resampling(predictions, **BOOTSTRAP)
    assert resampling.unit == unit
    assert resampling.n_units(predictions.rows("test")) == (2 if unit == "group" else 4)


def test_groups_widen_the_interval_of_tiles_that_err_together(make_predictions):
    y = [0] * 40
    answers = {"svm": [0] * 30 + [1] * 10}
    group = [f"g{i // 10}" for i in range(40)]
    width = {}
    for protocol in ("grouped", "random"):
        predictions = make_predictions(y, answers, group=group, protocol=protocol)
        score = by_key(score_heads(predictions, choose_resampling(predictions, **BOOTSTRAP), {}))
        width[protocol] = score["svm", "test", "accuracy"].high - score["svm", "test", "accuracy"].low
    assert width["grouped"] > 1.5 * width["random"]


def test_costs_that_are_no_numbers_are_left_out(make_predictions, tmp_path):
    predictions = make_predictions([0, 1], {"svm": [0, 1]})
    entry = {"bytes": 12, "fit_seconds": None, "search_seconds": "1", "predict_tiles_per_second": math.inf}
    (tmp_path / "heads.json").write_text(json.dumps({"heads": {"svm": entry}}))
    costs = {"svm": read_heads_summary(tmp_path / "heads.json").heads["svm"].costs}
    scores = score_heads(predictions, choose_resampling(predictions, **BOOTSTRAP), costs)
    assert [(score.metric, score.value) for score in scores if score.split == ""] == [("bytes", 12)]


def test_csv_leaves_undefined_cells_empty_and_quotes_names():
    text = to_csv([Score("svm", "test", 'recall[a,"b"]', math.nan, n=0), Score("svm", "", "bytes", 12)])
    assert text.splitlines()[1:] == ['svm,test,"recall[a,""b""]",,,,0,', "svm,,bytes,12,,,,"]
