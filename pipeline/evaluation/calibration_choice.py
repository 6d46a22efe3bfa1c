"""Choose the calibration of a head by grouped cross-validation on its held-out rows."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.calibration import METHODS, Calibration, Method, fit_calibration
from pipeline.evaluation.folds import Unit, assign_folds
from pipeline.evaluation.metrics import row_nll
from pipeline.evaluation.validate import IntArray, as_labels, as_scores

FOLDS = 5

WORTH_IT = 0.01
"""A method must lower the negative log-likelihood by more than this share of it to be taken before temperature
scaling, which has one parameter and leaves the head's decisions untouched."""

LEAST_GROUPS = 5
"""Known groups that "auto" needs to leave temperature scaling: fewer do not show how a fit carries over to others.
Measured on the demo's two validation sources: sigmoids lowered XGBoost's cross-validated loss from 1.43 to 1.29 and
raised that on the test sources from 1.07 to 1.23."""


class Choice(NamedTuple):
    """A calibration, and what it was chosen by."""

    calibration: Calibration
    """Fitted on all held-out rows."""

    nll: dict[Method, float]
    """Method -> cross-validated mean negative log-likelihood in nats; empty for a single row."""

    unit: Unit
    """What the cross-validation left out whole."""


def choose_calibration(
    scores: npt.ArrayLike,
    y: IntArray,
    groups: Sequence[str],
    *,
    seed: int,
    method: Method | Literal["auto"] = "auto",
) -> Choice:
    """Return a calibration fitted on all held-out rows, with the comparison of all methods.

    Args:
        scores: (N, K) on held-out rows.
        y: (N,) true class index in 0..K-1.
        groups: N names of groups, "" where not known.
        seed: seed of the cross-validation's folds.
        method: "auto" takes the lowest cross-validated negative log-likelihood, but temperature scaling where that
            is not worth it (`WORTH_IT`) or groups are known, but too few (`LEAST_GROUPS`); any other is taken as it is.

    Raises:
        ValueError: As `calibration.fit_calibration` and `folds.assign_folds`, or an unknown method.
    """
    nll, unit = _compare(scores, y, groups, seed=seed)
    if method == "auto":
        names = set(groups)
        best = min(METHODS, key=lambda name: nll.get(name, 0.0))
        keep = not nll or nll["temperature"] <= nll[best] / (1 - WORTH_IT)
        method = "temperature" if keep or ("" not in names and len(names) < LEAST_GROUPS) else best
    return Choice(fit_calibration(scores, y, method), nll, unit)


def _compare(
    scores: npt.ArrayLike, y: IntArray, groups: Sequence[str], *, seed: int
) -> tuple[dict[Method, float], Unit]:
    """Return the cross-validated mean negative log-likelihood of each method, and what folds keep whole."""
    matrix = as_scores(scores)
    y = as_labels(y, name="y", n_classes=matrix.shape[1], n_rows=len(matrix))
    fold, unit = assign_folds(y, groups, seed=seed, folds=FOLDS)
    if fold.max() == 0:
        return {}, unit
    nll: dict[Method, float] = {}
    for method in METHODS:
        losses = np.empty(len(y))
        for left_out in range(fold.max() + 1):
            out = fold == left_out
            calibration = fit_calibration(matrix[~out], y[~out], method)
            losses[out] = row_nll(y[out], calibration.apply(matrix[out]))
        nll[method] = float(losses.mean())
    return nll, unit
