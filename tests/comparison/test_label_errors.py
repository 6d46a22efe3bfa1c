"""Planted wrong labels are found; where nothing can be found there is a reason."""

import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.comparison import label_errors
from pipeline.comparison.label_errors import find_suspects
from pipeline.comparison.predictions import Predictions

needs_cleanlab = pytest.mark.skipif(importlib.util.find_spec("cleanlab") is None, reason="needs the extra audit")

Make = Callable[..., Predictions]


def flipped(make: Make, *, n: int = 600, share: float = 0.05, seeds: int = 1, signal: float = 3.5, k: int = 4) -> Any:
    """Return predictions of heads that see the true class through noise, and which tiles carry a wrong label."""
    rng = np.random.default_rng(11)
    true = rng.integers(0, k, n)
    wrong = rng.random(n) < share
    label = np.where(wrong, (true + rng.integers(1, k, n)) % k, true)
    classes = tuple("abcdefgh"[:k])
    ids = [f"tile_{i}" for i in range(n)] * seeds
    seed = [s for s in range(seeds) for _ in range(n)]
    y = list(label) * seeds
    predictions = make(y, {"softmax": y, "svm": y, "knn": y}, classes=classes, tile_id=ids, seed=seed)
    for head in predictions.heads:
        z = rng.normal(size=(n * seeds, k)) + signal * np.eye(k)[np.tile(true, seeds)]
        p = np.exp(1.3 * z)
        predictions.p[head][:] = p / p.sum(axis=1, keepdims=True)
    predictions.p["knn"][:] = np.eye(k)[y]  # a baseline that believes every label
    return predictions, wrong


@needs_cleanlab
@pytest.mark.parametrize("seeds", [1, 3])
def test_planted_flips_are_found_with_high_precision(make_predictions: Make, seeds: int) -> None:
    predictions, wrong = flipped(make_predictions, seeds=seeds)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert not suspects["tile_id"].duplicated().any()
    index = suspects["tile_id"].str.removeprefix("tile_").astype(int).to_numpy()
    issues = index[suspects["is_issue"]]
    assert wrong[issues].mean() >= 0.9
    assert wrong[issues].sum() >= 0.6 * wrong.sum()  # this filter flags few tiles, most of them correctly
    assert wrong[index[:20]].mean() >= 0.95  # what a reader looks at first


@needs_cleanlab
def test_the_table_is_ranked_by_the_mean_of_the_main_heads(make_predictions: Make) -> None:
    predictions, _ = flipped(make_predictions)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    read = pd.read_csv(io.StringIO(label_errors.to_csv(suspects) or ""))
    assert tuple(read.columns) == label_errors.COLUMNS
    assert list(read["rank"]) == list(range(1, len(read) + 1))
    n_issues = int(read["is_issue"].sum())
    assert len(read) == max(20, n_issues)
    assert read["is_issue"][:n_issues].all()
    assert read["self_confidence"][:n_issues].is_monotonic_increasing
    assert read["self_confidence"][n_issues:].is_monotonic_increasing
    row = int(suspects["tile_id"].iloc[0].removeprefix("tile_"))
    mean = (predictions.p["softmax"][row] + predictions.p["svm"][row]) / 2  # main heads only
    assert suspects["self_confidence"].iloc[0] == pytest.approx(mean[predictions.y[row]])
    assert suspects["suggested"].iloc[0] == predictions.classes[mean.argmax()]
    assert (suspects["suggested"] != suspects["label"])[:n_issues].all()


@needs_cleanlab
def test_right_labels_give_no_issues_but_still_the_least_confident(make_predictions: Make) -> None:
    predictions, _ = flipped(make_predictions, share=0.0, signal=8.0)
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert not suspects["is_issue"].any()
    assert len(suspects) == 20


@needs_cleanlab
def test_only_test_rows_count(make_predictions: Make) -> None:
    y = [0, 1] * 10
    predicted = [1, *y[1:]]
    predictions = make_predictions(y, {"svm": predicted}, split=["train"] + ["test"] * 19, classes=("a", "b"))
    suspects = find_suspects(predictions)
    assert isinstance(suspects, pd.DataFrame)
    assert "tile_0" not in set(suspects["tile_id"])
    assert len(suspects) == 19


@needs_cleanlab
def test_an_absent_class_and_a_single_class_are_no_crash(make_predictions: Make) -> None:
    predictions = make_predictions([0, 1] * 15, {"svm": [0, 1] * 14 + [2, 1]})
    assert isinstance(find_suspects(predictions), pd.DataFrame)
    assert "of one class" in str(find_suspects(make_predictions([0] * 9, {"svm": [0] * 9})))


def test_without_cleanlab_there_is_a_reason(make_predictions: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    suspects = find_suspects(make_predictions([0, 1], {"svm": [0, 1]}))
    assert suspects == label_errors.MISSING
    assert label_errors.to_csv(suspects) is None
    assert "histoheads[audit]" in label_errors.MISSING
