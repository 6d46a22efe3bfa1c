"""Temperature and Platt scaling and isotonic regression against scikit-learn, known answers and degenerate labels."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn import calibration as reference
from sklearn.isotonic import IsotonicRegression

from pipeline.evaluation.calibration import (
    METHODS,
    Calibration,
    apply_sigmoid,
    apply_temperature,
    fit_calibration,
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
        (np.zeros((2, 2)), np.array([0, 2]), r"y must be in 0\.\.1"),
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


def test_calibration_is_the_method_it_names():
    scores, y = drawn_labels(10, n_rows=200, temperature=1.5)
    temperature = fit_calibration(scores, y, "temperature")
    np.testing.assert_array_equal(temperature.apply(scores), apply_temperature(scores, fit_temperature(scores, y)))
    sigmoid = fit_calibration(scores, y, "sigmoid")
    np.testing.assert_array_equal(sigmoid.apply(scores), apply_sigmoid(scores, fit_sigmoid(scores, y)))


def test_isotonic_equals_scikit_learn():
    scores, y = drawn_labels(11, n_rows=300, temperature=1.5)
    fresh, _ = drawn_labels(12, n_rows=300)
    columns = []
    for k in range(4):
        n_in, n_out = (y == k).sum(), (y != k).sum()
        curve = IsotonicRegression(y_min=1 / (n_out + 2), y_max=(n_in + 1) / (n_in + 2), out_of_bounds="clip")
        columns.append(curve.fit(scores[:, k], y == k).predict(fresh[:, k]))
    expected = np.column_stack(columns)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fit_calibration(scores, y, "isotonic").apply(fresh), expected, atol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@given(finite_scores, st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_calibrated_rows_are_probabilities_and_survive_json(method, scores, data):
    n_rows, n_classes = scores.shape
    y = np.array(data.draw(st.lists(st.integers(0, n_classes - 1), min_size=n_rows, max_size=n_rows)))
    calibration = fit_calibration(scores, y, method)
    for matrix in (scores, -scores, np.full((1, n_classes), 1e9)):
        p = calibration.apply(matrix)
        np.testing.assert_allclose(p.sum(axis=1), 1)
        assert p.min() >= 0
        if method == "isotonic":
            assert p.min() > 0
    entry = json.loads(json.dumps({"method": calibration.method, "params": calibration.params}, allow_nan=False))
    np.testing.assert_array_equal(Calibration(**entry).apply(scores), calibration.apply(scores))


@pytest.mark.parametrize("method", METHODS)
def test_a_rising_score_never_lowers_the_probability_of_its_class(method):
    scores, y = drawn_labels(13, n_rows=400, temperature=1.5)
    calibration = fit_calibration(scores, y, method)
    for k in range(4):
        raised = np.tile(scores[0], (200, 1))
        raised[:, k] = np.linspace(-15, 15, 200)
        assert (np.diff(calibration.apply(raised)[:, k]) > -1e-12).all()


def test_isotonic_recovers_steps():
    rng = np.random.default_rng(14)
    scores = rng.uniform(0, 3, size=6000)
    p = np.array([0.1, 0.3, 0.8])[scores.astype(int)]
    y = (rng.random(6000) < p).astype(int)
    calibration = fit_calibration(np.column_stack([-scores, scores]), y, "isotonic")
    inside = np.array([0.5, 1.5, 2.5])
    np.testing.assert_allclose(calibration.apply(np.column_stack([-inside, inside]))[:, 1], [0.1, 0.3, 0.8], atol=0.05)


def test_isotonic_keeps_the_heads_own_order_where_its_steps_tie():
    y = np.repeat([0, 1], 20)
    right = np.where(np.eye(2)[y] == 1, 5.0, -5.0)
    calibration = fit_calibration(right, y, "isotonic")
    assert calibration.apply([[6.0, 7.0], [7.0, 6.0]]).argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_without_a_slope_to_fit_all_rows_get_the_mean_target(method):
    scores = np.random.default_rng(15).normal(size=(30, 3))
    absent = fit_calibration(scores, np.array([0, 1] * 15), method).apply(scores)
    # n tiles without one of the class: 1 / (n + 2), before the row is normalised
    assert (absent[:, 2] < 0.06).all()
    only = fit_calibration(scores, np.zeros(30, dtype=int), method).apply(scores)
    np.testing.assert_allclose(only, np.tile([31 / 33, 1 / 33, 1 / 33], (30, 1)), atol=1e-5)
    constant = fit_calibration(np.ones((30, 3)), np.repeat([0, 1, 2], 10), method).apply(np.ones((1, 3)))
    np.testing.assert_allclose(constant, np.full((1, 3), 1 / 3))


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_of_other_classes_is_refused(method):
    calibration = fit_calibration(*drawn_labels(16, n_rows=50), method)
    if method == "temperature":
        assert calibration.apply(np.zeros((1, 3))).shape == (1, 3)
        return
    with pytest.raises(ValueError, match=r"classes|params must be"):
        calibration.apply(np.zeros((1, 3)))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of temperature, sigmoid, isotonic"):
        fit_calibration(np.zeros((2, 2)), np.array([0, 1]), "beta")
    with pytest.raises(ValueError, match="method must be"):
        Calibration("beta", {}).apply(np.zeros((2, 2)))
