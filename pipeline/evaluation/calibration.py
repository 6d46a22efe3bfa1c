"""Turn head scores into probabilities: temperature scaling, and one-vs-rest Platt scaling and isotonic regression.

Scores are (N, K): logits of the softmax head, margins of XGBoost, decision values of the SVM. Fit on
held-out rows (neither the head nor the backbone trained on them, none of them test rows), then apply.
`pipeline.evaluation.calibration_choice` compares the methods.
"""

import dataclasses
import math
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import optimize
from sklearn.isotonic import IsotonicRegression

from pipeline.evaluation.validate import FloatArray, IntArray, as_labels, as_scores

Method = Literal["temperature", "sigmoid", "isotonic"]
METHODS: tuple[Method, ...] = get_args(Method)

LOG_TEMPERATURE_BOUND = 5.0
"""Temperatures stay in exp(-5)..exp(5), about 1/148 to 148."""

ISOTONIC_TILT = 1e-6
"""Weight of softmax(scores) in isotonic probabilities. A step function gives equal probabilities to
classes with different scores; then the scores decide instead of the order of the classes."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fitted calibration of one head; plain JSON values, so that `Calibration(**entry)` reads it back."""

    method: Method
    params: dict[str, Any]
    """temperature: {"temperature": T}. sigmoid: {"a": [K], "b": [K]}, Platt's A and B. isotonic: {"scores": K lists,
    "p": K lists}, the corners of each class's curve, both lists increasing."""

    def apply(self, scores: npt.ArrayLike) -> FloatArray:
        """Return probabilities (N, K) float64, rows sum to 1; isotonic ones are never 0.

        Raises:
            ValueError: Scores as in `softmax`, an unknown method, or parameters of another number of classes.
        """
        if self.method == "temperature":
            return apply_temperature(scores, self.params["temperature"])
        if self.method == "sigmoid":
            return apply_sigmoid(scores, np.column_stack([self.params["a"], self.params["b"]]))
        if self.method == "isotonic":
            return _apply_isotonic(scores, list(zip(self.params["scores"], self.params["p"], strict=True)))
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but is {self.method!r}")


def fit_calibration(scores: npt.ArrayLike, y: IntArray, method: Method) -> Calibration:
    """Fit one method: see `fit_temperature`, `fit_sigmoid`, and for isotonic regression below.

    Isotonic regression (Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates"): for each class against the rest the increasing step function with the least squared error,
    linear between its corners, kept within Platt's smoothed targets so that no probability is 0. Without a slope
    to fit (see `fit_sigmoid`) it is the constant of the sigmoid.

    Args:
        scores: (N, K) on held-out rows.
        y: (N,) true class index in 0..K-1.
        method: one of `METHODS`.

    Raises:
        ValueError: Wrong shapes or types, no rows, scores not finite, indices outside 0..K-1, an unknown method.
    """
    if method == "temperature":
        return Calibration(method, {"temperature": float(fit_temperature(scores, y))})
    if method == "sigmoid":
        a, b = fit_sigmoid(scores, y).T.tolist()
        return Calibration(method, {"a": a, "b": b})
    if method != "isotonic":
        raise ValueError(f"method must be one of {', '.join(METHODS)}, but is {method!r}")
    matrix = as_scores(scores)
    y = as_labels(y, name="y", n_classes=matrix.shape[1], n_rows=len(matrix))
    curves = [_fit_one_isotonic(matrix[:, k], y == k) for k in range(matrix.shape[1])]
    return Calibration(method, {"scores": [x for x, _ in curves], "p": [p for _, p in curves]})


def softmax(scores: npt.ArrayLike) -> FloatArray:
    """Return exp(scores) normalised over each row, (N, K) float64, without overflow.

    Raises:
        ValueError: Scores that are not (N, K), without rows or not finite.
    """
    matrix = as_scores(scores)
    weights = np.exp(matrix - matrix.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def fit_temperature(scores: npt.ArrayLike, y: IntArray) -> float:
    """Return the T > 0 that minimises the mean negative log-likelihood of softmax(scores / T).

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The likelihood is convex in 1/T, so its
    slope has at most one zero, which bracketing finds wherever it is. T is kept in exp(-5)..exp(5):
    if all rows are correct, T -> 0 is optimal; if rows are no better than chance, T -> infinity. If T = 1
    is already a minimum to machine precision (scores that are constant in each row, or margins of
    hundreds), T is 1. Classes may be absent from `y`.

    Args:
        scores: (N, K) on held-out rows.
        y: (N,) true class index in 0..K-1.

    Raises:
        ValueError: Wrong shapes or types, no rows, scores not finite, indices outside 0..K-1.
    """
    matrix = as_scores(scores)
    y = as_labels(y, name="y", n_classes=matrix.shape[1], n_rows=len(matrix))
    margin = matrix - matrix[np.arange(len(y)), y][:, None]

    def slope(log_temperature: float) -> float:
        """Return the derivative of the mean loss by 1/T: the expectation under softmax minus the observed value."""
        p = softmax(margin * math.exp(-log_temperature))
        return float((p * margin).sum(axis=1).mean())

    if slope(0.0) == 0:
        return 1.0
    if slope(-LOG_TEMPERATURE_BOUND) <= 0:
        return math.exp(-LOG_TEMPERATURE_BOUND)
    if slope(LOG_TEMPERATURE_BOUND) >= 0:
        return math.exp(LOG_TEMPERATURE_BOUND)
    return math.exp(optimize.brentq(slope, -LOG_TEMPERATURE_BOUND, LOG_TEMPERATURE_BOUND))


def apply_temperature(scores: npt.ArrayLike, temperature: float) -> FloatArray:
    """Return softmax(scores / temperature), (N, K) float64.

    The order of the classes in a row is kept; scores closer than about 1e-16 * temperature may tie.

    Raises:
        ValueError: Scores as in `softmax`, or a temperature that is not positive and finite.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, but is {temperature}")
    return softmax(as_scores(scores) / temperature)


def fit_sigmoid(scores: npt.ArrayLike, y: IntArray) -> FloatArray:
    """Return (K, 2) parameters (A, B) of P(class k | score) = 1 / (1 + exp(A * score + B)).

    Platt 1999, "Probabilistic Outputs for Support Vector Machines", one class against the rest, with his
    smoothed targets (n_in + 1) / (n_in + 2) and 1 / (n_out + 2). A class that is absent from `y`, or
    the only one, and a score that is the same in all rows leave no slope to fit: A = 0, and B gives the
    mean target, so an absent class gets the constant 1 / (N + 2).

    Args:
        scores: (N, K) on held-out rows.
        y: (N,) true class index in 0..K-1.

    Raises:
        ValueError: Wrong shapes or types, no rows, scores not finite, indices outside 0..K-1.
    """
    matrix = as_scores(scores)
    y = as_labels(y, name="y", n_classes=matrix.shape[1], n_rows=len(matrix))
    return np.array([_fit_one_sigmoid(matrix[:, k], y == k) for k in range(matrix.shape[1])])


def apply_sigmoid(scores: npt.ArrayLike, params: FloatArray) -> FloatArray:
    """Return the sigmoids of every class normalised over each row, (N, K) float64.

    Each class has its own sigmoid, so the argmax of a row may differ from that of its scores.

    Raises:
        ValueError: Scores as in `softmax`, or parameters that are not (K, 2) and finite.
    """
    matrix = as_scores(scores)
    params = as_scores(params, name="params")
    if params.shape != (matrix.shape[1], 2):
        raise ValueError(f"params must be ({matrix.shape[1]}, 2), but have shape {params.shape}")
    # Normalised in the log domain: sigmoids that all underflow keep their proportions instead of 0 / 0.
    return softmax(-np.logaddexp(0.0, matrix * params[:, 0] + params[:, 1]))


def _fit_one_sigmoid(score: FloatArray, member: npt.NDArray[np.bool_]) -> tuple[float, float]:
    target = _smoothed_targets(member)
    constant = math.log((1 - target.mean()) / target.mean())
    if not _has_slope(score, member):
        return 0.0, constant
    centre, spread = float(score.mean()), float(score.std())
    z = (score - centre) / spread  # decision values of 1e-3 and margins of 1e3 then converge equally

    def loss(ab: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean cross-entropy and its gradient, with u = a * z + b and p = 1 / (1 + e^u)."""
        u = ab[0] * z + ab[1]
        residual = target - np.exp(-np.logaddexp(0.0, u))
        value = np.logaddexp(0.0, u) - (1 - target) * u
        return float(value.mean()), np.array([(residual * z).mean(), residual.mean()])

    start = np.array([0.0, constant])
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 1e-15})
    a, b = fit.x
    return float(a / spread), float(b - a * centre / spread)


def _fit_one_isotonic(score: FloatArray, member: npt.NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Return the corners of the curve, scores and probabilities."""
    target = _smoothed_targets(member)
    if not _has_slope(score, member):
        return [float(score.mean())], [float(target.mean())]
    fit = IsotonicRegression(y_min=target.min(), y_max=target.max()).fit(score, member.astype(np.float64))
    return fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist()


def _apply_isotonic(scores: npt.ArrayLike, curves: list[tuple[list[float], list[float]]]) -> FloatArray:
    """Return the curves' values normalised over each row; beyond its corners a curve is constant."""
    matrix = as_scores(scores)
    if len(curves) != matrix.shape[1]:
        raise ValueError(f"scores have {matrix.shape[1]} columns, but there are curves of {len(curves)} classes")
    p = np.column_stack([np.interp(matrix[:, k], x, values) for k, (x, values) in enumerate(curves)])
    return (1 - ISOTONIC_TILT) * p / p.sum(axis=1, keepdims=True) + ISOTONIC_TILT * softmax(matrix)


def _smoothed_targets(member: npt.NDArray[np.bool_]) -> FloatArray:
    """Return Platt's targets instead of 1 and 0: the means of a uniform prior after that many members."""
    n_in = int(member.sum())
    return np.where(member, (n_in + 1) / (n_in + 2), 1 / (len(member) - n_in + 2))


def _has_slope(score: FloatArray, member: npt.NDArray[np.bool_]) -> bool:
    """Return whether a class and the rest both have rows, and its score differs between rows beyond rounding."""
    return bool(member.any() and not member.all() and score.std() > 1e-12 * np.abs(score).max())
