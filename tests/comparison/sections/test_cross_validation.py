"""The gap to the random-split control: aligned rows, and a code that needs enough groups."""

import math

import numpy as np
import pytest

from pipeline.comparison.sections.cross_validation import aligned, gap_code, gap_sentence
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
    ("low", "n_units", "code", "text"),
    [
        (0.01, 10, "biased_upwards", "softmax 5.0 (1.0 to 9.0); 10 groups"),
        (-0.01, 10, "undecided", "softmax 5.0 (-1.0 to 9.0); 10 groups"),
        (0.01, 5, "too_few_units", "5 groups are too few"),
        (math.nan, 1, "too_few_units", "1 group"),
    ],
)
def test_the_gap_to_the_random_split_has_a_code(low: float, n_units: int, code: str, text: str) -> None:
    gap = Difference(0.05, low, 0.09, n_units=n_units, standard_error=0.02)
    assert gap_code(gap) == code
    assert text in gap_sentence({"softmax": gap}, unit="group")
