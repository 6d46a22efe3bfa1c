import numpy as np

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
