"""From scores to probabilities and decisions, and the mean of several heads."""

import numpy as np
import pytest

from pipeline.heads.outputs import calibrated_output, mean_entry, with_means
from pipeline.storage.predictions.csv_table import HeadOutput

LOG_PRIOR = np.log([0.9, 0.1]).tolist()
PLAIN = {"calibration": {"method": "temperature", "params": {"temperature": 1.0}}}


def entry(strength: float, decide: str = "balanced") -> dict[str, object]:
    return PLAIN | {"decision": {"strength": strength, "log_prior": LOG_PRIOR}, "decide": decide}


def test_balanced_changes_decisions_and_no_probability() -> None:
    scores = np.array([[1.0, 0.0], [3.0, 0.0]])
    plain, balanced = calibrated_output(entry(0.5, "argmax"), scores), calibrated_output(entry(0.5), scores)
    np.testing.assert_array_equal(plain.p, balanced.p)
    assert plain.predicted.tolist() == [0, 0]
    assert balanced.predicted.tolist() == [1, 0], "half of the log-odds of 9 to 1 are 1.1"
    assert calibrated_output(PLAIN, scores).predicted.tolist() == [0, 0]


def test_a_mean_follows_its_last_member_and_averages_log_odds() -> None:
    p = {"a": np.array([[0.8, 0.2]]), "b": np.array([[0.3, 0.7]]), "c": np.array([[0.5, 0.5]])}
    outputs = [(name, HeadOutput(own.argmax(axis=1), own)) for name, own in p.items()]
    mean = mean_entry(["a", "b"], {"a": entry(0.25), "b": entry(0.75)})
    assert mean["decision"]["strength"] == 0.5
    found = list(with_means(outputs, {"m": mean}))
    assert [name for name, _ in found] == ["a", "b", "m", "c"]
    own = found[2][1].p[0]
    log_odds = [np.log(each[0, 1] / each[0, 0]) for each in (p["a"], p["b"])]
    assert np.log(own[1] / own[0]) == pytest.approx(np.mean(log_odds))
    assert own.sum() == pytest.approx(1)
    assert found[2][1].predicted.tolist() == [int(np.mean(log_odds) > 0)]


def test_a_probability_of_zero_does_not_exclude_a_class() -> None:
    outputs = [
        ("a", HeadOutput(np.array([0]), np.array([[1.0, 0.0]]))),
        ("b", HeadOutput(np.array([1]), np.array([[0.0, 1.0]]))),
    ]
    mean = mean_entry(["a", "b"], {"a": entry(0.0), "b": entry(0.0)})
    *_, (_, output) = with_means(outputs, {"m": mean})
    np.testing.assert_allclose(output.p, [[0.5, 0.5]])
