"""predictions.csv is read with hundreds of classes as with two."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.storage.predictions.csv_table import classes_of, read_predictions, with_probabilities


def test_hundreds_of_classes_are_read_without_a_warning(tmp_path: Path) -> None:
    """Pandas warns of columns that are inserted into a wide table."""
    classes = [f"P{k}" for k in range(279)]
    facts = {"tile_id": ["a", "b"], "group": "g", "split": "test", "label": "P1", "head": "svm", "predicted": "P2"}
    table = with_probabilities(pd.DataFrame(facts), np.full((2, 279), 1 / 279), classes)
    table.to_csv(tmp_path / "predictions.csv", index=False, float_format="%.9g")
    with warnings.catch_warnings(action="error"):
        read = read_predictions(tmp_path / "predictions.csv")
    assert classes_of(read) == classes
    assert list(read.columns[5:9]) == ["predicted", "seed", "fold", "p_P0"]
    assert (read[["seed", "fold"]] == 0).all(axis=None)
