"""Fit multinomial logistic regression on standardised features: the head of a frozen encoder, and the linear probe."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.heads.base import Head, Params, Rows, Step, as_columns, nothing
from pipeline.heads.config import FitConfig
from pipeline.heads.kind import PlainKind, SavedKind
from pipeline.heads.skops_io import load_pipeline, stable_bytes
from pipeline.heads.streamed_rows import StreamedRows
from pipeline.heads.svm.nystroem_streamed import fit_regression
from pipeline.storage import atomic

C_POINTS = (1e-3, 1e-2, 1e-1, 1.0)
"""Small, because 2048 standardised features separate a few thousand rows entirely."""

MOST_STEPS = 1000


class Logistic:
    """Standardised features and a multinomial logistic regression."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def scores(self, rows: Rows) -> np.ndarray:
        """Return logits (N, K)."""
        decision = self.pipeline.decision_function(rows.features)
        return as_columns(decision, self.pipeline.classes_, rows.n_classes)

    def save(self, path: Path) -> None:
        """Write the scikit-learn pipeline as a skops file."""
        atomic.write_bytes(path, stable_bytes(self.pipeline))


def fit_logistic(fit: Rows, params: Params) -> Logistic:
    """Fit with strength C of the data against the weights' squared length."""
    regression = LogisticRegression(C=params["C"], max_iter=MOST_STEPS)
    return Logistic(make_pipeline(StandardScaler(), regression).fit(fit.features, fit.y))


def fit_streamed(fit: StreamedRows, params: Params, on_pass: Step) -> Logistic:
    """Fit on rows that do not fit into memory, by passes over their file."""
    scaler = StandardScaler()
    for _, block in fit.blocks():
        scaler.partial_fit(block.features)
    on_pass()
    regression = fit_regression(
        lambda: ((scaler.transform(block.features), block.y) for _, block in fit.blocks()),
        fit.y,
        n_weights=fit.features.shape[1],
        C=params["C"],
        on_pass=on_pass,
    )
    return Logistic(make_pipeline(scaler, regression))


@dataclasses.dataclass(frozen=True)
class LogisticKind(PlainKind, SavedKind):
    """Search the strength C; the head of an encoder without a softmax layer."""

    fit_point: Callable[[Rows, Params], Head] = fit_logistic
    candidates: Sequence[Params] = tuple({"C": c} for c in C_POINTS)

    def fit(self, rows: Rows, params: Params, config: FitConfig, on_step: Step = nothing) -> Head:
        """Fit one point."""
        if isinstance(rows, StreamedRows):
            return fit_streamed(rows, params, on_step)
        return super().fit(rows, params, config, on_step)

    def notes(self, head: Head, rows: Rows, chosen: Params, config: FitConfig) -> list[str]:
        """Return whether the regression took all its steps."""
        is_short = isinstance(head, Logistic) and head.pipeline[-1].n_iter_.max() >= MOST_STEPS
        return ["did not converge"] if is_short else []

    def load(self, path: Path) -> Logistic:
        """Read a skops file."""
        return Logistic(load_pipeline(path, ([StandardScaler, LogisticRegression],)))
