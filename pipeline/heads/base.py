"""What every head is: something that turns rows of an embeddings file into class scores.

Scores are on the head's own scale (softmax logits, SVM decision values, boosting margins); one temperature per head,
fitted on validation rows, makes probabilities of them without changing any decision.
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

from pipeline.evaluation.calibration import apply_temperature, fit_temperature
from pipeline.evaluation.metrics import row_nll, scalar_metrics

SCHEMA = "head/1.0"
"""Of the record that a saved head needs: it is loaded only if its bytes are those that were saved."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of an embeddings file that serve one purpose."""

    features: np.ndarray
    """(N, D) float32."""

    logits: np.ndarray
    """(N, K) float32."""

    y: np.ndarray
    """(N,) int64 class codes."""


class Head(Protocol):
    """A fitted head."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return class scores (N, K); the decision is the largest."""
        ...


@dataclasses.dataclass
class Search:
    """The points of a search with what they gave on the validation rows; the lowest NLL is chosen.

    NLL of temperature-scaled scores: a proper score, and smoother than an accuracy over some hundred rows.
    """

    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, params: dict[str, Any], scores: np.ndarray, y: np.ndarray, *, seconds: float) -> None:
        """Judge the validation scores (N, K) of one point."""
        p = apply_temperature(scores, fit_temperature(scores, y))
        accuracy = scalar_metrics(y, p, scores.argmax(axis=1))["accuracy"]
        nll = float(row_nll(y, p).mean())
        self.points.append({"params": params, "val_nll": nll, "val_accuracy": accuracy, "seconds": round(seconds, 3)})

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the point with the lowest validation NLL (the first of equals)."""
        return dict(min(self.points, key=lambda point: point["val_nll"])["params"])


class Softmax:
    """The network's own last layer: its logits stand in the embeddings file."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return the logits."""
        return rows.logits
