"""Define a head: an object that turns rows of an embeddings file into class scores.

Scores are on the head's own scale (softmax logits, SVM decision values, boosting margins). A calibration that is fitted
on held-out rows turns scores into probabilities.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from pipeline.errors import StaleInput
from pipeline.names import FILES
from pipeline.storage import environment
from pipeline.storage.records import SCHEMAS

SCHEMA = SCHEMAS[FILES["svm"]]
"""Schema of a saved head's record. A head is loaded only if its bytes are those that were saved."""

ABSENT = 10.0
"""Distance of the score of a class without fitted tiles below the lowest score of the row."""

Params = dict[str, Any]
"""Parameters of one point of a search, as heads.json states them: text and numbers."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of an embeddings file that serve one purpose."""

    features: np.ndarray
    """(N, D) float32."""

    logits: np.ndarray
    """(N, K) float32; (N, 0) of a frozen encoder."""

    y: np.ndarray
    """(N,) int64 class codes."""

    groups: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=str))
    """(N,) group names, "" where not known."""

    widths: tuple[int, ...] = ()
    """Widths of the feature sets that are side by side; empty: there is one."""

    n_classes: int = 0
    """K. Default: the width of the logits."""

    def __post_init__(self) -> None:
        """Count the classes."""
        object.__setattr__(self, "n_classes", self.n_classes or self.logits.shape[1])

    def take(self, chosen: np.ndarray) -> Self:
        """Return the rows that an index or mask chooses."""
        groups = self.groups[chosen] if len(self.groups) else self.groups
        features, logits, y = self.features[chosen], self.logits[chosen], self.y[chosen]
        return dataclasses.replace(self, features=features, logits=logits, y=y, groups=groups)


Step = Callable[[], object]
"""Function that is called after each step, for a progress bar."""


def nothing() -> None:
    """Report no progress."""


AnyRows = TypeVar("AnyRows", bound=Rows)
"""Rows in memory or streamed."""


class Head(Protocol):
    """A fitted head."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return class scores (N, K); the largest score decides."""
        ...


class SavableHead(Head, Protocol):
    """A fitted head that has a file of its own."""

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        ...


class Softmax:
    """The network's own last layer: its logits are in the embeddings file."""

    def scores(self, rows: Rows) -> np.ndarray:
        """Return the logits."""
        return rows.logits


def check_same_version(path: Path, record: Mapping[str, Any], package: str) -> None:
    """Check that a saved head's library has the minor version that the head was saved with.

    scikit-learn's user guide, "Model persistence": loading across versions is not supported.

    Raises:
        StaleInput: names both versions.
    """
    noted = record.get("versions")
    made, now = noted.get(package) if isinstance(noted, dict) else None, environment.versions()[package]
    if isinstance(made, str) and now is not None and made.split(".")[:2] != now.split(".")[:2]:
        raise StaleInput(
            f"{path} was made by {package} {made}, and {now} is installed: install that version, or run "
            "`python -m pipeline.fit_heads --restart`"
        )


def subsample(y: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Return about n row numbers, each class in proportion (rounded, at least two rows each), sorted."""
    if len(y) <= n:
        return np.arange(len(y))
    rng = np.random.default_rng(seed)
    chosen = []
    for code in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == code))
        chosen.append(rows[: max(2, round(n * len(rows) / len(y)))])
    return np.sort(np.concatenate(chosen))


def as_columns(decision: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Return scikit-learn's decision values as (N, K) float64, a column for every class.

    For two classes scikit-learn gives one column, and none for a class without fitted rows. Such a class gets a score
    far below the others (`ABSENT`).

    Args:
        decision: (N,) or (N, C) values.
        classes: (C,) codes of the fitted classes, increasing.
        n_classes: K.
    """
    own = np.column_stack([-decision, decision]) if decision.ndim == 1 else np.asarray(decision, dtype=np.float64)
    if len(classes) == n_classes:
        return own
    scores = np.repeat(own.min(axis=1, keepdims=True) - ABSENT, n_classes, axis=1)
    scores[:, classes] = own
    return scores
