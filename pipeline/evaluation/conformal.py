"""Compute split-conformal prediction sets, which contain the true class with a chosen probability.

Least ambiguous sets (Sadinle, Lei and Wasserman 2019): a class is in the set if its probability is at least a
threshold, which is fixed on calibration rows. The coverage holds on average over tiles, if calibration and covered rows
are exchangeable. Rows of one group are not exchangeable; if groups are kept whole, the coverage holds approximately,
and better with more groups. Needs MAPIE (extra `conformal`).
"""

import dataclasses
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.evaluation.folds import Unit, assign_folds
from pipeline.evaluation.validate import FloatArray, IntArray, as_labels, as_probabilities
from pipeline.runtime.extras import import_library


@dataclasses.dataclass(frozen=True)
class PredictionSets:
    """Sets of classes for N rows, with their coverage."""

    sets: npt.NDArray[np.bool_]
    """(N, K): whether the class is in the row's set. A set may be empty: no class is likely enough."""

    y: IntArray
    """(N,) true class index."""

    unit: Unit
    """What `conformal_by_groups` divided into halves: groups or tiles."""

    @property
    def coverage(self) -> float:
        """Share of rows whose set contains the true class."""
        return float(self._held.mean())

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set."""
        return float(self.sets.sum(axis=1).mean())

    def share_of_size(self, size: int) -> float:
        """Return the share of rows whose set has that many classes."""
        return float((self.sets.sum(axis=1) == size).mean())

    @property
    def class_coverage(self) -> FloatArray:
        """(K,) coverage of the rows of each class, NaN for a class without rows."""
        n_classes = self.sets.shape[1]
        n_rows = np.bincount(self.y, minlength=n_classes)
        held = np.bincount(self.y, weights=self._held, minlength=n_classes)
        return np.divide(held, n_rows, out=np.full(n_classes, np.nan), where=n_rows > 0)

    @property
    def _held(self) -> npt.NDArray[np.bool_]:
        return self.sets[np.arange(len(self.y)), self.y]


def is_installed() -> bool:
    """Return whether MAPIE can be imported."""
    return importlib.util.find_spec("mapie") is not None


def conformal_by_groups(
    p: FloatArray, y: IntArray, groups: Sequence[str], *, alpha: float, seed: int
) -> PredictionSets:
    """Return sets for all rows: for each half of the groups, the other half calibrates.

    Args:
        p: (N, K) held-out probabilities.
        y: (N,) true classes.
        groups: N names of groups; with one group, or an unknown one (""), tiles are halved instead.
        alpha: share of sets that may miss the true class, in (0, 1).
        seed: seed of the halves.

    Raises:
        PipelineError: As `split_conformal`.
        ValueError: As `split_conformal`.
    """
    p = as_probabilities(p)
    y = as_labels(y, name="y", n_classes=p.shape[1], n_rows=len(p))
    half, unit = assign_folds(y, groups, seed=seed, folds=2)
    sets = np.zeros(p.shape, dtype=bool)
    for covered in (half == 0, half == 1):
        sets[covered] = split_conformal(p[~covered], y[~covered], p[covered], alpha=alpha)
    return PredictionSets(sets, y, unit=unit)


def split_conformal(
    p_calibration: FloatArray, y_calibration: IntArray, p: FloatArray, *, alpha: float
) -> npt.NDArray[np.bool_]:
    """Return sets (N, K) bool for the rows of `p` that contain the true class with probability 1 - alpha.

    Args:
        p_calibration: (M, K) probabilities of other rows than those of `p`.
        y_calibration: (M,) their true classes.
        p: (N, K) probabilities.
        alpha: share of sets that may miss the true class, in (0, 1).

    Raises:
        PipelineError: MAPIE is not installed, or there are too few calibration rows for alpha.
        ValueError: Wrong shapes or types, no rows, rows that are no probabilities, alpha out of range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be inside (0, 1), but is {alpha}")
    least = max(1 / alpha, 1 / (1 - alpha))  # with fewer rows the threshold is not defined
    if len(p_calibration) <= least:
        raise PipelineError(
            f"sets at {100 * (1 - alpha):.6g} % need more than {least:.0f} calibration rows, but there are "
            f"{len(p_calibration)}"
        )
    p_calibration, p = as_probabilities(p_calibration), as_probabilities(p)
    y_calibration = as_labels(y_calibration, name="y", n_classes=p.shape[1], n_rows=len(p_calibration))
    mapie = import_library("mapie.classification", extra="conformal", needed_for="a prediction set")
    classifier = mapie.SplitConformalClassifier(
        _as_classifier(p.shape[1]), confidence_level=1 - alpha, conformity_score="lac", prefit=True
    )
    with warnings.catch_warnings():
        # classes without calibration rows: least ambiguous sets have one threshold for all
        warnings.filterwarnings("ignore", message=".*conformalization dataset has less labels")
        # hundreds of classes of few tiles: prepare warns of these
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        classifier.conformalize(_normalised(p_calibration), y_calibration)
        return np.asarray(classifier.predict_set(_normalised(p))[1][:, :, 0], dtype=bool)


def _normalised(p: FloatArray) -> FloatArray:
    """Return rows that sum to 1 in double precision, as MAPIE requires."""
    return p / p.sum(axis=1, keepdims=True)


def _as_classifier(n_classes: int) -> Any:
    """Return a fitted scikit-learn classifier whose features are the probabilities it predicts."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class ReadyProbabilities(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(n_classes)

        def fit(self, p: FloatArray, y: IntArray) -> "ReadyProbabilities":
            return self

        def predict(self, p: FloatArray) -> IntArray:
            return p.argmax(axis=1)

        def predict_proba(self, p: FloatArray) -> FloatArray:
            return p

    return ReadyProbabilities()
