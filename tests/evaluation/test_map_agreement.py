"""Kappa and Jaccard index against examples worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, jaccard_score

from pipeline.evaluation.map_agreement import cohen_kappa, jaccard_index, mean_jaccard, share_agreed
from pipeline.evaluation.metrics import confusion


def test_by_hand():
    # truth    0 0 0 1 1 2      class 0: both 2, either 4 (cells 0-3);  class 1: both 1, either 3 (cells 2, 3 and 4)
    # named    0 0 1 0 1 1      class 2: both 0, either 1;              class 3: neither
    matrix = confusion(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 0, 1, 1]), 4)
    np.testing.assert_array_equal(jaccard_index(matrix), [2 / 4, 1 / 4, 0, np.nan])
    assert mean_jaccard(matrix) == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)
    assert share_agreed(matrix) == pytest.approx(3 / 6)
    # expected: 3/6 * 3/6 + 2/6 * 3/6 + 1/6 * 0 = 15/36
    assert cohen_kappa(matrix) == pytest.approx((3 / 6 - 15 / 36) / (1 - 15 / 36))


def test_cohens_own_example():
    """Cohen 1960, table 1 (proportions of 200 cases): kappa is .492."""
    matrix = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    assert cohen_kappa(matrix) == pytest.approx(0.492, abs=5e-4)


def test_perfect_opposite_and_undefined():
    assert cohen_kappa(np.diag([3, 2, 1])) == 1
    assert cohen_kappa(np.array([[0, 2], [2, 0]])) == -1
    assert np.isnan(cohen_kappa(np.array([[5, 0], [0, 0]])))
    nothing = np.zeros((2, 2), int)
    assert np.isnan([cohen_kappa(nothing), share_agreed(nothing), mean_jaccard(nothing), *jaccard_index(nothing)]).all()


def test_a_class_that_is_only_predicted_is_no_term_of_the_mean():
    matrix = np.array([[3, 1], [0, 0]])
    np.testing.assert_array_equal(jaccard_index(matrix), [3 / 4, 0])
    assert mean_jaccard(matrix) == 3 / 4


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40)


@given(rows)
def test_as_scikit_learn(pairs):
    truth, named = np.array(pairs).T
    matrix = confusion(truth, named, 4)
    present = sorted({*truth, *named})
    np.testing.assert_allclose(
        jaccard_index(matrix)[present], jaccard_score(truth, named, average=None, labels=present, zero_division=0)
    )
    np.testing.assert_allclose(
        mean_jaccard(matrix), jaccard_score(truth, named, average="macro", labels=sorted({*truth}), zero_division=0)
    )
    if len(present) > 1:
        np.testing.assert_allclose(cohen_kappa(matrix), cohen_kappa_score(truth, named), atol=1e-12)
