"""Temperature and Platt scaling against scikit-learn, known answers and degenerate labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn import calibration as reference

from pipeline.evaluation.calibration import (
    apply_sigmoid,
    apply_temperature,
    fit_sigmoid,
    fit_temperature,
    softmax,
)

finite_scores = arrays(
    np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.floats(-1e6, 1e6)
)


def drawn_labels(seed, *, n_rows=4000, n_classes=4, temperature=1.0):
    """Scores, and labels drawn from softmax(scores / temperature): that temperature is the truth."""
    rng = np.random.default_rng(seed)
    scores = 3 * rng.normal(size=(n_rows, n_classes))
    p = softmax(scores / temperature)
    y = (p.cumsum(axis=1) < rng.random((n_rows, 1))).sum(axis=1)
    return scores, np.minimum(y, n_classes - 1)


def nll(p, y):
    return -np.log(p[np.arange(len(y)), y]).mean()


@given(finite_scores)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_softmax_rows_sum_to_one_and_ignore_shifts(scores):
    p = softmax(scores)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(softmax(scores + 1024.0), p, atol=1e-9)


def test_softmax_by_hand():
    np.testing.assert_allclose(softmax([[0.0, math.log(3)], [1e9, -1e9]]), [[0.25, 0.75], [1, 0]])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_is_recovered(temperature):
    scores, y = drawn_labels(0, temperature=temperature)
    assert fit_temperature(scores, y) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_the_minimum(temperature):
    scores, y = drawn_labels(1, n_rows=200, temperature=temperature)
    best = fit_temperature(scores, y)
    losses = [nll(apply_temperature(scores, best * factor), y) for factor in (0.99, 1.0, 1.01)]
    assert losses[1] == min(losses)
    assert fit_temperature(10 * scores, y) == pytest.approx(10 * best, rel=1e-8)


@pytest.mark.skipif(
    not hasattr(reference, "_TemperatureScaling"), reason="scikit-learn before 1.8 has no temperature method"
)
@pytest.mark.parametrize("seed", range(3))
def test_temperature_equals_scikit_learn(seed):
    scores, y = drawn_labels(seed, n_rows=300, temperature=1.7)
    expected = reference._TemperatureScaling().fit(scores, y)
    temperature = fit_temperature(scores, y)
    assert temperature == pytest.approx(1 / expected.beta_, rel=1e-5)
    np.testing.assert_allclose(apply_temperature(scores, temperature), expected.predict(scores), atol=1e-5)


@given(finite_scores, st.floats(math.exp(-5), math.exp(5)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_temperature_never_changes_the_top_class(scores, temperature):
    p = apply_temperature(scores, temperature)
    top = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    assert (p[rows, top] == p.max(axis=1)).all()  # rounding may tie, but nothing overtakes
    runner_up = np.sort(scores, axis=1)[:, -2:]
    clear = runner_up[:, 0] < runner_up[:, -1] - 1e-12 * temperature - 1e-9 * np.abs(runner_up[:, -1])
    assert (p.argmax(axis=1)[clear] == top[clear]).all()


@given(finite_scores, st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_temperature_is_bounded_for_any_labels(scores, data):
    n_rows, n_classes = scores.shape
    y = np.array(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows)))
    assert math.exp(-5) <= fit_temperature(scores, y) <= math.exp(5)


def test_temperature_at_its_bounds():
    y = np.array([0, 1, 2, 1])
    right = np.eye(3)[y]
    assert fit_temperature(right, y) == math.exp(-5)
    assert fit_temperature(-right, y) == math.exp(5)
    assert fit_temperature(1e6 * right, y) == 1.0  # already certain at T = 1
    assert fit_temperature(np.ones((4, 3)), y) == 1.0  # no temperature matters


def test_temperature_with_a_class_absent():
    scores, y = drawn_labels(2, temperature=2.0)
    kept = y != 3
    assert math.exp(-5) < fit_temperature(scores[kept], y[kept]) < math.exp(5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_sigmoid_equals_scikit_learn(scale):
    scores, y = drawn_labels(3, n_rows=400, temperature=1.5)
    scores = scale * (scores + 2.0)
    params = fit_sigmoid(scores, y)
    assert params.shape == (4, 2)
    sigmoids = [reference._SigmoidCalibration().fit(scores[:, k], y == k) for k in range(4)]
    if scale == 1.0:  # scikit-learn's own stopping rule is loose for scores far from unit scale
        np.testing.assert_allclose(params, [(s.a_, s.b_) for s in sigmoids], rtol=1e-4)
    q = np.column_stack([s.predict(scores[:, k]) for k, s in enumerate(sigmoids)])
    np.testing.assert_allclose(
        apply_sigmoid(scores, params), q / q.sum(axis=1, keepdims=True), atol=1e-5 if scale == 1.0 else 2e-3
    )


def test_sigmoid_does_not_depend_on_the_scale_of_the_scores():
    scores, y = drawn_labels(4, n_rows=200)
    p = apply_sigmoid(scores, fit_sigmoid(scores, y))
    shifted = 1e4 * scores - 3e4
    np.testing.assert_allclose(apply_sigmoid(shifted, fit_sigmoid(shifted, y)), p, atol=1e-6)


def test_sigmoid_fit_is_stationary():
    scores, y = drawn_labels(5, n_rows=200)
    for k, (a, b) in enumerate(fit_sigmoid(scores, y)):
        member = y == k
        target = np.where(member, (member.sum() + 1) / (member.sum() + 2), 1 / ((~member).sum() + 2))
        residual = target - 1 / (1 + np.exp(a * scores[:, k] + b))
        assert abs(residual.mean()) < 1e-6
        assert abs((residual * scores[:, k]).mean()) < 1e-5


def test_sigmoid_of_absent_universal_and_constant_classes():
    scores = np.random.default_rng(6).normal(size=(8, 3))
    scores[:, 1] = 0.1
    y = np.array([0, 1] * 4)
    params = fit_sigmoid(scores, y)
    sigmoid = 1 / (1 + np.exp(params[:, 1]))
    assert params[1:, 0].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(sigmoid[1:], [(5 / 6 + 1 / 6) / 2, 1 / 10])
    universal = fit_sigmoid(scores, np.zeros(8, dtype=int))
    assert universal[:, 0].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(1 / (1 + np.exp(universal[:, 1])), [9 / 10, 1 / 10, 1 / 10])


def test_sigmoids_that_underflow_still_sum_to_one():
    params = np.array([[1.0, 0.0], [1.0, math.log(3)]])
    np.testing.assert_allclose(apply_sigmoid(np.full((1, 2), 5000.0), params), [[0.75, 0.25]])


@given(finite_scores, st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_sigmoid_gives_probabilities_for_any_labels(scores, data):
    n_rows, n_classes = scores.shape
    y = np.array(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows)))
    p = apply_sigmoid(scores, fit_sigmoid(scores, y))
    assert p.shape == scores.shape
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize("fit", [fit_temperature, fit_sigmoid])
@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        (np.zeros(3), np.zeros(3, dtype=int), r"scores must be a non-empty \(N, K\)"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "non-empty"),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), np.array([0, 1]), "scores must be finite, but row 1"),
        (np.zeros((2, 2)), np.array([0]), "y must have 2 rows"),
        (np.zeros((2, 2)), np.array([0, 2]), r"y must lie in 0\.\.1"),
        (np.zeros((2, 2)), np.array([-1, 0]), "from -1 to 0"),
    ],
)
def test_wrong_scores_are_refused(fit, scores, y, message):
    with pytest.raises(ValueError, match=message):
        fit(scores, y)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        apply_temperature(np.zeros((1, 2)), temperature)


@pytest.mark.parametrize("params", [np.zeros((3, 2)), np.zeros((2, 3)), np.full((2, 2), np.nan)])
def test_wrong_sigmoid_parameters_are_refused(params):
    with pytest.raises(ValueError, match="params must be"):
        apply_sigmoid(np.zeros((1, 2)), params)
