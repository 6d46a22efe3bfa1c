import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.selective import selective_curve


def two_classes(confidence):
    return np.column_stack([confidence, 1 - np.asarray(confidence)])


def test_a_case_done_by_hand():
    # right, right, wrong, right, wrong in falling confidence; rows given in another order
    y = np.array([1, 0, 0, 1, 0])
    p = two_classes([0.6, 0.9, 0.95, 0.8, 0.7])
    curve = selective_curve(y, p, p.argmax(axis=1))
    np.testing.assert_allclose(curve.accuracy, [1, 1, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(curve.coverage, [0.2, 0.4, 0.6, 0.8, 1])
    assert curve.aurc == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert [curve.accuracy_at(share) for share in (1.0, 0.8, 0.7, 0.01)] == pytest.approx([0.6, 0.75, 0.75, 1])


def test_tied_tiles_share_their_accuracy():
    y = np.array([0, 0, 1, 1])
    p = two_classes([0.9, 0.7, 0.7, 0.7])  # of the three tied ones, one is right
    expected = [1, (1 + 1 / 3) / 2, (1 + 2 / 3) / 3, 2 / 4]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        curve = selective_curve(y[order], p[order], np.zeros(4, dtype=int))
        np.testing.assert_allclose(curve.accuracy, expected)


@pytest.mark.parametrize("n_classes", [2, 9])
def test_constant_probabilities_say_nothing(n_classes):
    y = np.array([0] * 7 + [1] * 3)
    curve = selective_curve(y, np.full((10, n_classes), 1 / n_classes), np.zeros(10, dtype=int))
    np.testing.assert_allclose(curve.accuracy, 0.7)
    assert curve.aurc == pytest.approx(0.3)


def test_what_is_judged_is_the_class_the_head_names():
    p = two_classes([0.9, 0.8])
    assert selective_curve(np.array([1, 1]), p, np.array([1, 1])).aurc == 0
    assert selective_curve(np.array([1, 1]), p, np.array([0, 0])).aurc == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_curve_is_the_mean_over_orders_of_the_ties(tiles):
    confidence = 0.5 + np.array([level for level, _ in tiles]) / 10
    right = np.array([r for _, r in tiles])
    curve = selective_curve((~right).astype(int), two_classes(confidence), np.zeros(len(tiles), dtype=int))
    assert curve.accuracy[-1] == pytest.approx(right.mean())
    assert (curve.accuracy >= 0).all()
    assert (curve.accuracy <= 1).all()
    # tied tiles in the best and the worst order bound it
    for best in (True, False):
        order = np.lexsort([~right if best else right, -confidence])
        bound = np.cumsum(right[order]) / np.arange(1, len(tiles) + 1)
        assert ((bound - curve.accuracy) * (1 if best else -1) > -1e-9).all()


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_coverage_counts_tiles_without_rounding_up(n):
    curve = selective_curve(np.arange(n) % 2, two_classes(np.linspace(0.9, 0.6, n)), np.zeros(n, dtype=int))
    for percent in range(1, 101):
        kept = -(-percent * n // 100)
        assert curve.accuracy_at(percent / 100) == curve.accuracy[kept - 1]


@pytest.mark.parametrize("coverage", [0.0, 1.1, -0.5])
def test_wrong_coverage(coverage):
    curve = selective_curve(np.array([0]), np.array([[1.0, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match="coverage must be"):
        curve.accuracy_at(coverage)
