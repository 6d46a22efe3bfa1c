"""Keep the points of a hyper-parameter search."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.errors import BadInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.evaluation.metrics import row_nll, scalar_metrics
from pipeline.heads.base import Rows


class Search:
    """The points of a search with what they gave on held-out rows; the lowest NLL is chosen.

    NLL of temperature-scaled scores: a proper score, and smoother than an accuracy over some hundred rows.
    """

    def __init__(self) -> None:
        """Begin without points."""
        self.tried: list[dict[str, Any]] = []
        """Of each point, its params and seconds."""
        self.scores: list[np.ndarray] = []
        """Of each point, (N, K) on the held-out rows."""
        self._truth: list[np.ndarray] = []
        self._points: list[dict[str, Any]] = []

    def add(self, params: dict[str, Any], scores: np.ndarray, y: np.ndarray, *, seconds: float) -> None:
        """Add a point with its scores (N, K) on held-out rows of classes y (N,)."""
        self.tried.append({"params": params, "seconds": round(seconds, 3)})
        self.scores.append(scores)
        self._truth.append(y)

    @property
    def points(self) -> list[dict[str, Any]]:
        """What was tried, each with val_nll and val_accuracy: judged when first asked for, which takes its time."""
        for point, scores, y in list(zip(self.tried, self.scores, self._truth, strict=True))[len(self._points) :]:
            p = apply_temperature(scores, fit_temperature(scores, y))
            accuracy = scalar_metrics(y, p, scores.argmax(axis=1))["accuracy"]
            self._points.append(
                {
                    "params": point["params"],
                    "val_nll": float(row_nll(y, p).mean()),
                    "val_accuracy": accuracy,
                    "seconds": point["seconds"],
                }
            )
        return self._points

    @property
    def best_index(self) -> int:
        """The point with the lowest held-out NLL (the first of equals)."""
        return min(range(len(self.points)), key=lambda i: self.points[i]["val_nll"])

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the best point."""
        return dict(self.points[self.best_index]["params"])


def cross_search(
    rows: Rows,
    folds: np.ndarray,
    search: Callable[[Rows, Rows], Search],
    *,
    each_of: Callable[[Callable[[Any], Any], Any], Iterable[Any]] = map,
) -> Search:
    """Judge every point by cross-validation: each fold's rows are scored by what was fitted on the other folds.

    Args:
        rows: N rows that the network was not trained on.
        folds: (N,) fold of each row, whole groups (`evaluation.folds.assign_folds`).
        search: judges all points, fitted on its first rows, by its second; always the same points in the same order.
            A parameter that comes out of the fitting (boosting rounds) is taken as its median over the folds.
        each_of: does it for each fold, as `map` does.

    Raises:
        BadInput: without one fold's rows, those of one class only are left to fit on.
    """
    if any(len(np.unique(rows.y[folds != fold])) < 2 for fold in np.unique(folds)):
        raise BadInput("the held-out rows are too few to fit heads on by cross-validation: give more sources")
    numbers = np.unique(folds).tolist()
    found_of = each_of(lambda fold: search(rows.take(folds != fold), rows.take(folds == fold)), numbers)
    each = [(folds == fold, found) for fold, found in zip(numbers, found_of, strict=True)]
    merged = Search()
    for i in range(len(each[0][1].tried)):
        scores = np.empty_like(rows.logits, dtype=np.float64)
        for chosen, found in each:
            scores[chosen] = found.scores[i]
        params = dict(each[0][1].tried[i]["params"])
        if "rounds" in params:
            params["rounds"] = int(np.median([found.tried[i]["params"]["rounds"] for _, found in each]))
        merged.add(params, scores, rows.y, seconds=sum(found.tried[i]["seconds"] for _, found in each))
    return merged
