"""Keep the points of a hyper-parameter search, and choose one by its held-out scores."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.evaluation.metrics import row_nll, scalar_metrics
from pipeline.heads.base import AnyRows, Head, Params


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a search with its scores of held-out rows."""

    params: Params
    scores: np.ndarray
    """(N, K) scores of the held-out rows."""

    y: np.ndarray
    """(N,) classes of these rows."""

    seconds: float
    head: Head | None = None
    """The head, if the search has fitted it on all its rows."""

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """(N, K) temperature-scaled scores."""
        return apply_temperature(self.scores, fit_temperature(self.scores, self.y))

    @functools.cached_property
    def nll(self) -> float:
        """Mean negative log-likelihood of the held-out rows; the lowest one is chosen.

        It is a proper score, and smoother than the accuracy on some hundred rows.
        """
        return float(row_nll(self.y, self.probabilities).mean())

    @property
    def facts(self) -> dict[str, Any]:
        """The entry of the point in heads.json."""
        metrics = scalar_metrics(self.y, self.probabilities, self.scores.argmax(axis=1))
        seconds = round(self.seconds, 3)
        return {
            "params": self.params,
            "val_nll": self.nll,
            "val_accuracy": metrics["accuracy"],
            "seconds": seconds,
        }


@dataclasses.dataclass(frozen=True)
class Search:
    """The points of a search, in the order of the table."""

    points: list[Point]

    @property
    def best(self) -> Point:
        """The point with the lowest held-out NLL; the first of equals."""
        return min(self.points, key=lambda point: point.nll)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """All points as heads.json lists them."""
        return [point.facts for point in self.points]


def cross_search(
    rows: AnyRows,
    folds: np.ndarray,
    search: Callable[[AnyRows, AnyRows], Search],
    *,
    each_of: Callable[[Callable[[int], Search], list[int]], Iterable[Search]] = map,
) -> Search:
    """Score every point by cross-validation: the rows of a fold are scored by heads fitted on the other folds.

    Args:
        rows: N rows that the network was not trained on.
        folds: (N,) fold of each row, whole groups (`evaluation.folds.assign_folds`).
        search: fits all points on the first rows and scores the second; always the same points in the same order.
            For the number of boosting rounds, which the fit chooses, the median over the folds is used.
        each_of: applies a function to each fold, like `map`.

    Raises:
        BadInput: the rows outside a fold have one class only.
    """
    if any(len(np.unique(rows.y[folds != fold])) < 2 for fold in np.unique(folds)):
        raise BadInput("the held-out rows are too few to fit heads on by cross-validation: give more sources")
    numbers = np.unique(folds).tolist()
    by_fold = list(each_of(lambda fold: search(rows.take(folds != fold), rows.take(folds == fold)), numbers))
    merged = []
    for same in zip(*(found.points for found in by_fold), strict=True):
        scores = np.empty((len(rows.y), rows.n_classes))
        for fold, point in zip(numbers, same, strict=True):
            scores[folds == fold] = point.scores
        params = dict(same[0].params)
        if "rounds" in params:
            params["rounds"] = int(np.median([point.params["rounds"] for point in same]))
        merged.append(Point(params, scores, rows.y, sum(point.seconds for point in same)))
    return Search(merged)
