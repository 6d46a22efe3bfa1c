"""predictions.csv of predict: what was written is read; a table that breaks a rule is refused with the rule."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArtifact
from pipeline.storage.predictions import unlabelled
from pipeline.storage.predictions.csv_table import HeadOutput
from pipeline.storage.predictions.unlabelled import read_predictions, write_predictions

CLASSES = ["ADI", 'a,"b"', "=TUM"]
TILES = ["t_1", "=1+1", "é,x", "NA"]
P = np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0.1, 0.2, 0.7], [1 / 3] * 3])
ANSWERS = {"softmax": HeadOutput(np.array([0, 1, 2, 0]), P), "svm": HeadOutput(np.array([2, 1, 2, 1]), P[::-1])}
COORDS = np.array([[0, 0], [10, 0], [0, 10], [2_000_000_000, 10]], np.int32)


@pytest.mark.parametrize("coords", [COORDS, None])
def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coords: np.ndarray | None) -> None:
    write_predictions(tmp_path / "a.csv", TILES, ANSWERS, coords=coords, classes=CLASSES)
    table = read_predictions(tmp_path / "a.csv")
    assert list(table["tile_id"]) == TILES * 2
    assert list(table["head"]) == ["softmax"] * 4 + ["svm"] * 4
    assert [CLASSES.index(name) for name in table["predicted"]] == [0, 1, 2, 0, 2, 1, 2, 1]
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]], np.concatenate([P, P[::-1]]), atol=1e-9)
    if coords is None:
        assert (table[["x", "y"]] == "").all(axis=None)
    else:
        assert table[["x", "y"]].to_numpy().tolist() == COORDS.tolist() * 2
    monkeypatch.setattr(unlabelled, "BLOCK_ROWS", 3)
    write_predictions(tmp_path / "b.csv", TILES, ANSWERS, coords=coords, classes=CLASSES)
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_hundreds_of_classes_are_written_without_a_warning(tmp_path: Path) -> None:
    """Pandas warns of columns that are added one by one."""
    classes = [f"P{k}" for k in range(279)]
    answer = HeadOutput(np.arange(3), np.full((3, 279), 1 / 279))
    with warnings.catch_warnings(action="error"):
        write_predictions(tmp_path / "p.csv", ["a", "b", "c"], {"svm": answer}, coords=None, classes=classes)
        read = read_predictions(tmp_path / "p.csv")
    assert list(read.columns[-2:]) == ["p_P277", "p_P278"]
    assert list(read["predicted"]) == classes[:3]


BREAKS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no rows": (lambda t: t[:0], "no rows"),
    "other columns": (lambda t: t.drop(columns="x"), "its first columns are not tile_id, x, y"),
    "no classes": (lambda t: t[["tile_id", "x", "y", "head", "predicted"]], "its columns are not"),
    "a sum": (lambda t: t.assign(p_ADI=0.9), "sum to 1"),
    "a text": (lambda t: t.assign(p_ADI="x"), "sum to 1"),
    "a class": (lambda t: t.assign(predicted="NEW"), "a class or head is unknown"),
    "a head": (lambda t: t.assign(head="guess"), "a class or head is unknown"),
    "a coordinate": (lambda t: t.assign(x="-1"), "a coordinate is not a whole number"),
    "half a coordinate": (lambda t: t.assign(x=""), "a coordinate is not a whole number"),
    "a huge coordinate": (lambda t: t.assign(x="9" * 30), "a coordinate is not a whole number"),
    "other tiles": (lambda t: t[:-1], "the heads have different tiles"),
    "a tile twice": (lambda t: t.assign(tile_id="t"), "the heads have different tiles"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_rule_is_named(tmp_path: Path, name: str) -> None:
    change, rule = BREAKS[name]
    write_predictions(tmp_path / "a.csv", TILES, ANSWERS, coords=COORDS, classes=CLASSES)
    table = pd.read_csv(tmp_path / "a.csv", dtype=dict.fromkeys(["tile_id", "x", "y"], str), keep_default_na=False)
    change(table).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(BadArtifact, match=rule) as caught:
        read_predictions(tmp_path / "a.csv")
    assert "python -m pipeline.predict --restart" in str(caught.value)
