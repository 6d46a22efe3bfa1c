"""Thresholds at a stated sensitivity, and exact intervals of shares."""

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.evaluation.group_rule import exact_share, sensitivity_threshold


@pytest.mark.parametrize(("sensitivity", "expected"), [(1.0, 0.1), (0.9, 0.2), (0.85, 0.2), (0.5, 0.6), (0.01, 1.0)])
def test_the_highest_threshold_that_finds_enough(sensitivity: float, expected: float) -> None:
    scores = np.arange(1, 11) / 10
    found = sensitivity_threshold(scores[::-1], sensitivity)
    assert found == expected
    assert (scores >= found).mean() >= sensitivity


def test_equal_scores_are_found_together() -> None:
    assert sensitivity_threshold(np.array([0.3, 0.3, 0.3, 0.9]), 0.5) == 0.3


@pytest.mark.parametrize(("n", "of"), [(0, 7), (7, 7), (3, 20), (1, 1)])
def test_intervals_are_those_of_scipy(n: int, of: int) -> None:
    theirs = binomtest(n, of).proportion_ci(0.9, method="exact")
    ours = exact_share(n, of, level=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert ours.value == n / of


def test_a_share_of_no_cases_is_unknown() -> None:
    found = exact_share(0, 0, level=0.95)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0, 1)
