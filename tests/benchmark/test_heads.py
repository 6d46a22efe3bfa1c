"""Both searches score the same points alike; equal points are chosen alike."""

import numpy as np
import pytest
import torch

from pipeline.benchmark import heads
from pipeline.benchmark.config import BenchConfig
from pipeline.benchmark.heads import best_point, grid_search, log_loss, our_search, synthetic_rows
from pipeline.benchmark.measurement import OURS, PLAIN, find

CONFIG = BenchConfig(torch.device("cpu"), threads=1, rounds=2, seed=0, is_quick=True)


def test_of_equal_points_the_one_with_the_lowest_c_then_gamma_is_chosen() -> None:
    assert best_point({(10.0, 0.1): 0.9, (1.0, 0.2): 0.9, (1.0, 0.1): 0.9, (0.1, 0.1): 0.5}) == (1.0, 0.1)


def test_our_search_and_scikit_learns_find_the_same_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "C", (0.1, 10.0))
    monkeypatch.setattr(heads, "GAMMA_PER_FEATURE", (0.1, 1.0))
    rows = synthetic_rows(121, 16, seed=0)
    folds = np.arange(121) % 3  # of 41, 40 and 40 rows
    ours, theirs = (search(rows, folds, config=CONFIG) for search in (our_search, grid_search))
    assert ours.keys() == theirs.keys()
    assert len(ours) == 4
    for point, value in theirs.items():
        assert ours[point] == pytest.approx(value, abs=1.01 / 121)
        assert 121 * value == pytest.approx(round(121 * value))  # a share of all rows, not a mean of the folds'
    assert max(ours.values()) > 0.3


def test_rows_of_both_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "C", (1.0,))
    table = list(heads.measure_heads(CONFIG))
    for part in ("svm", "xgboost"):
        ours, plain = find(table, part, OURS, "s"), find(table, part, PLAIN, "s")
        assert ours is not None
        assert plain is not None
        assert ours.ratio == pytest.approx(plain.median / ours.median)
    same, loss = find(table, "svm", "same choice"), find(table, "xgboost", OURS, "log-loss")
    assert same is not None
    assert same.values in ((0.0,), (1.0,))
    assert loss is not None
    assert len(loss.values) == 2


def test_log_loss() -> None:
    scores = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])) + 7
    assert log_loss(scores, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)
