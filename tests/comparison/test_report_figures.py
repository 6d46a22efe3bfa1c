import numpy as np

from pipeline.comparison import report_figures
from pipeline.comparison.report_figures import predictions_for, worst_errors


def test_the_most_confident_error_of_any_head_comes_first(make_predictions):
    predictions = make_predictions([0, 0, 1, 1], {"softmax": [0, 1, 1, 0], "svm": [0, 0, 2, 1]})
    predictions.p["svm"][2] = [0.04, 0.01, 0.95]
    predictions.p["softmax"][3] = [0.9, 0.05, 0.05]
    assert [(error.row, round(error.probability, 2)) for error in worst_errors(predictions, 9)] == [
        (2, 0.95),
        (3, 0.9),
        (1, 0.8),
    ]
    assert [error.row for error in worst_errors(predictions, 2)] == [2, 3]


def test_only_test_tiles_and_only_errors_count(make_predictions):
    predictions = make_predictions([0, 0], {"svm": [1, 0]}, split=["train", "test"])
    assert worst_errors(predictions, 5) == []


def test_a_wrong_prediction_of_probability_zero_is_an_error(make_predictions):
    predictions = make_predictions([0, 0], {"svm": [0, 1]}, confidence=1.0)
    predictions.p["svm"][1] = np.array([1.0, 0.0, 0.0])
    assert [error.row for error in worst_errors(predictions, 5)] == [1]


def test_predictions_for_a_tile(make_predictions):
    predictions = make_predictions([0, 1], {"softmax": [0, 1], "svm": [1, 1]})
    first, second = predictions_for(predictions, 0)
    assert (first.head, first.predicted, first.correct) == ("softmax", "a", True)
    assert (second.head, second.predicted, second.correct, second.probability) == ("SVM", "b", False, 0.8)


def test_a_head_has_no_reliability_on_tiles_that_it_was_fitted_on(make_predictions, tmp_path, monkeypatch):
    predictions = make_predictions([0, 1] * 2, {"softmax": [0, 1] * 2, "svm": [0, 1] * 2}, split=["val", "test"] * 2)
    drawn = []
    for name in ("draw_confusion", "draw_class_bars", "draw_selective"):
        monkeypatch.setattr(report_figures, name, lambda *args, **kwargs: None)
    monkeypatch.setattr(report_figures, "draw_reliability", lambda path, bins, heads: drawn.append(bins))
    for fit_on in ("train", "heldout"):
        predictions.record["details"]["fit_on"] = fit_on
        report_figures.draw_scores(tmp_path, predictions)
    shown = [{head: list(splits) for head, splits in bins.items()} for bins in drawn]
    assert shown[0] == {"softmax": ["val", "test"], "SVM": ["val", "test"]}
    assert shown[1] == {"softmax": ["val", "test"], "SVM": ["test"]}
