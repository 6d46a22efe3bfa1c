"""What every head is: something that turns rows of an embeddings file into class scores.

Scores are on the head's own scale (softmax logits, SVM decision values, boosting margins); a calibration fitted on
held-out rows makes probabilities of them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import BadInput, StaleInput
from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.evaluation.metrics import row_nll, scalar_metrics
from pipeline.storage import records

SCHEMA = "head/1.0"
"""Of the record that a saved head needs: it is loaded only if its bytes are those that were saved."""

ABSENT = 10.0
"""How far below a row's lowest score a class stands that the head never saw a tile of."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of an embeddings file that serve one purpose."""

    features: np.ndarray
    """(N, D) float32."""

    logits: np.ndarray
    """(N, K) float32."""

    y: np.ndarray
    """(N,) int64 class codes."""

    groups: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=str))
    """(N,) group names, "" where not known."""

    def take(self, chosen: np.ndarray) -> "Rows":
        """Return the rows that an index or mask chooses."""
        groups = self.groups[chosen] if len(self.groups) else self.groups
        features, logits, y = self.features[chosen], self.logits[chosen], self.y[chosen]
        return dataclasses.replace(self, features=features, logits=logits, y=y, groups=groups)


def refuse_other_version(path: Path, record: Mapping[str, Any], package: str) -> None:
    """Refuse a saved head whose library has another minor version now: what it computes may be another thing.

    scikit-learn's user guide, "Model persistence": loading across versions is not supported.

    Raises:
        StaleInput: names both versions.
    """
    noted = record.get("versions")
    made, now = noted.get(package) if isinstance(noted, dict) else None, records.versions()[package]
    if isinstance(made, str) and now is not None and made.split(".")[:2] != now.split(".")[:2]:
        raise StaleInput(
            f"{path} was made by {package} {made}, and {now} is installed: install that version, or run "
            "`python -m pipeline.fit_heads --restart`"
        )


def subsample(y: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Return about n row numbers, each class in proportion (rounded, at least two of each), sorted."""
    if len(y) <= n:
        return np.arange(len(y))
    rng = np.random.default_rng(seed)
    chosen = []
    for code in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == code))
        chosen.append(rows[: max(2, round(n * len(rows) / len(y)))])
    return np.sort(np.concatenate(chosen))


class Head(Protocol):
    """A fitted head."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return class scores (N, K); the decision is the largest."""
        ...


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


def as_columns(decision: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return scikit-learn's decision values as (N, K) float64, a column for every class.

    For two classes scikit-learn gives one column; for a class that was not among the fitted rows it gives none: such
    a class gets a score far below the others (`ABSENT`).

    Args:
        decision: (N,) or (N, C) values.
        classes: (C,) codes of the fitted classes, rising.
        n_classes: K.
    """
    own = np.column_stack([-decision, decision]) if decision.ndim == 1 else np.asarray(decision, dtype=np.float64)
    if len(classes) == n_classes:
        return own
    scores = np.repeat(own.min(axis=1, keepdims=True) - ABSENT, n_classes, axis=1)
    scores[:, classes] = own
    return scores


class Softmax:
    """The network's own last layer: its logits stand in the embeddings file."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return the logits."""
        return rows.logits
