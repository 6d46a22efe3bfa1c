"""The sample of test rows that a page carries, and the counts of all rows."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.comparison.explorer import carried
from pipeline.comparison.explorer.carried import carry
from pipeline.comparison.predictions import Predictions
from pipeline.comparison.report_data import ReportData
from pipeline.comparison.report_figures import EmbeddingMap
from pipeline.evaluation.metrics import confusion
from pipeline.markup.document import Figure

N = 600


@pytest.fixture
def data(make_predictions: Callable[..., Predictions], make_data: Callable[..., ReportData]) -> ReportData:
    """Two heads and a baseline on 500 test tiles of three classes; every sixth tile is a training tile."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=N)
    shares = {"softmax": 0.1, "svm": 0.05, "majority": 0.6}
    wrong = {head: np.where(rng.random(N) < share, (y + 1) % 3, y).tolist() for head, share in shares.items()}
    split = ["train" if i % 6 == 0 else "test" for i in range(N)]
    group = ["t" if i % 6 == 0 else f"g{i % 7}" for i in range(N)]
    predictions = make_predictions(y.tolist(), wrong, split=split, group=group)
    for head in predictions.heads:
        predictions.p[head][:] = rng.dirichlet(np.ones(3), N)
    return make_data(predictions)


def test_few_rows_are_all_carried_with_all_heads(data: ReportData) -> None:
    found = carry(data)
    assert not found.is_sample
    assert found.rows.tolist() == data.predictions.rows("test").tolist()
    assert found.heads == ["softmax", "svm", "majority"]


@pytest.mark.parametrize(
    ("probabilities", "heads", "n"),
    [(4500, ["softmax", "svm", "majority"], 500), (4499, ["softmax", "svm"], 500), (2999, ["softmax", "svm"], 499)],
)
def test_probabilities_of_baselines_are_left_out_before_rows(
    data: ReportData, monkeypatch: pytest.MonkeyPatch, probabilities: int, heads: list[str], n: int
) -> None:
    monkeypatch.setattr(carried, "MOST_PROBABILITIES", probabilities)
    found = carry(data)
    assert (found.heads, len(found.rows)) == (heads, n)


def test_a_sample_has_each_cell_of_each_head_with_the_surest_errors(
    data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "MOST_ROWS", 100)
    predictions, found = data.predictions, carry(data)
    rows, y = predictions.rows("test"), predictions.y
    assert found.is_sample
    assert (len(found.rows), found.n_all) == (100, 500)
    assert set(found.rows) <= set(rows)
    for head in found.heads:
        predicted = predictions.predicted[head]
        sure = predictions.named_probability(head, np.arange(N))
        for true in range(3):
            for named in range(3):
                cell = rows[(y[rows] == true) & (predicted[rows] == named)]
                kept = np.intersect1d(cell, found.rows)
                assert len(kept) >= min(len(cell), found.per_cell)
                if true != named:
                    surest = cell[np.argsort(-sure[cell], kind="stable")][: found.per_cell]
                    assert set(surest) <= set(found.rows)
    assert carry(data).rows.tolist() == found.rows.tolist()


def test_the_counts_are_those_of_all_test_rows(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "MOST_ROWS", 100)
    monkeypatch.setattr(carried, "BLOCK_ROWS", 64)
    predictions, found = data.predictions, carry(data)
    rows = predictions.rows("test")
    group = predictions.group_code[0][rows]
    assert found.groups is not None
    assert found.groups.tolist() == np.bincount(group, minlength=8).tolist()
    for head in found.heads:
        counts, predicted = found.counts[head], predictions.predicted[head][rows]
        right = predicted == predictions.y[rows]
        assert np.array_equal(counts.matrix, confusion(predictions.y[rows], predicted, 3))
        assert counts.groups_right.tolist() == np.bincount(group[right], minlength=8).tolist()
        expected = predictions.reliability(head, "test")["count"]
        assert counts.bins.tolist() == expected.tolist()
        assert counts.bins_right.sum() == right.sum()


def test_tiles_of_the_map_come_first(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "MOST_ROWS", 40)
    shown = np.array([f"tile_{i}" for i in range(0, 60, 2)])
    drawn = EmbeddingMap(Figure("figures/embedding_map.png", "", ""), shown, np.zeros((30, 2)))
    found = carry(dataclasses.replace(data, map=drawn))
    on_map = {i for i in range(0, 60, 2) if i % 6}
    assert on_map <= set(found.rows.tolist())
    assert len(found.rows) == 40


def test_tiles_of_the_map_take_at_most_half_of_a_sample(data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "MOST_ROWS", 40)
    shown = np.array([f"tile_{i}" for i in range(N)])
    drawn = EmbeddingMap(Figure("figures/embedding_map.png", "", ""), shown, np.zeros((N, 2)))
    found = carry(dataclasses.replace(data, map=drawn))
    assert (len(found.rows), found.n_on_map) == (40, 20)
    assert found.per_cell >= 1
