"""The gap to the random-split control: aligned rows, and a sentence only where groups are enough."""

import math

import numpy as np
import pytest

from pipeline.comparison.sections.cross_validation import aligned, gap_sentence
from pipeline.evaluation.bootstrap import Difference


def test_rows_are_aligned_by_tile_and_seed(make_predictions) -> None:
    one = make_predictions([0, 1, 0], {"svm": [0, 1, 0]}, tile_id=["x", "y", "x"], seed=[0, 0, 1])
    other = make_predictions([0, 1, 0], {"svm": [0, 0, 0]}, tile_id=["x", "x", "z"], seed=[1, 0, 0])
    here, there = aligned(one, other)
    assert here.tolist() == [0, 2]
    assert there.tolist() == [1, 0]


def test_no_common_row_gives_two_empty_arrays(make_predictions) -> None:
    one = make_predictions([0], {"svm": [0]}, tile_id=["x"])
    other = make_predictions([0], {"svm": [0]}, tile_id=["z"])
    assert [len(rows) for rows in aligned(one, other)] == [0, 0]
    assert aligned(one, other)[0].dtype == np.int64


@pytest.mark.parametrize(
    ("low", "n_units", "start"),
    [
        (0.01, 10, "The random split flatters softmax; gap in points of macro-F1: softmax 5.0 (1.0 to 9.0); 10 groups"),
        (-0.01, 10, "Whether the random split flatters is undecided; gap"),
        (0.01, 5, "How much the random split flatters is undecided: 5 groups are too few."),
        (math.nan, 1, "How much the random split flatters is undecided: 1 group"),
    ],
)
def test_the_headline_keeps_to_the_rule(low: float, n_units: int, start: str) -> None:
    gap = Difference(0.05, low, 0.09, n_units=n_units)
    assert gap_sentence({"softmax": gap}, unit="group").startswith(start)
