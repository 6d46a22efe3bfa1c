"""Fitting the heads: which rows a head is fitted on, by which it is tuned, and by which it is calibrated.

`train`: fitted on training rows, tuned and calibrated on validation rows. `heldout`: fitted on validation rows, which
the network was not trained on, so that the head sees embeddings as they will be at test time; tuned and calibrated by
cross-validation over their groups. Either way no score that a choice rests on is of a row that the head or the network
was fitted on (the reasoning of scikit-learn's StackingClassifier, which fits its last step on cross-validated
outputs).
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from pipeline.cli.progress import progress
from pipeline.evaluation.folds import assign_folds
from pipeline.heads import boosting, svm
from pipeline.heads.base import Head, Rows, Search, Softmax, cross_search

FitOn = Literal["train", "heldout"]

HELDOUT_FOLDS = 3
"""Folds of the held-out rows for `heldout`."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A head with what its calibration is fitted on and the facts that heads.json states."""

    head: Head
    held_scores: np.ndarray
    """(M, K) scores of the validation rows, none by a head that was fitted on them."""

    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the heads of a run are fitted."""

    fit_on: FitOn
    seed: int
    jobs: int
    """Threads."""

    device: Literal["cpu", "cuda"]
    """Where XGBoost computes."""

    rounds: int
    """XGBoost's rounds at most."""

    svm_rows: int
    """Rows that an exact SVM is fitted on at most; above, its kernel is approximated."""

    @property
    def fit_split(self) -> Literal["train", "val"]:
        """The split whose rows the heads are fitted on."""
        return "train" if self.fit_on == "train" else "val"


def fit_softmax(rows: dict[str, Rows]) -> Fitted:
    """Return the network's own head: trained with the network, computed with the embeddings, so at no cost here."""
    head, val = Softmax(), rows["val"]
    n_weights = (val.features.shape[1] + 1) * val.logits.shape[1]
    notes = ["the network's last layer; its logits were computed with the embeddings"]
    return Fitted(
        head, head.scores(val), {"search": [], "chosen": {}, "notes": notes, "bytes": 4 * n_weights} | times(0, 0)
    )


def fit_svm_head(rows: dict[str, Rows], setting: Setting) -> Fitted:
    """Search and fit the SVM.

    Raises:
        BadInput: an exact SVM of so many rows does not fit into this machine's memory.
    """
    start = time.perf_counter()
    fit_rows = rows[setting.fit_split]
    points = svm.standard_points(fit_rows.features.shape[1])
    points = svm.affordable(points, len(fit_rows.y), most=setting.svm_rows)

    def search(fit: Rows, held: Rows) -> Search:
        how: dict[str, Any] = {"seed": setting.seed, "jobs": setting.jobs, "points": points}
        return svm.search_svm(fit, held, **how, on_point=bar.update)

    folds = heldout_folds(rows["val"], setting)
    with progress(len(points) * max(1, folds.max() + 1), unit="point", label="svm search") as bar:
        found = judge(rows, folds, search, setting)
    searched = time.perf_counter()
    head = svm.fit_svm(fit_rows, found.best, seed=setting.seed)
    facts = {"search": found.points, "chosen": found.best, "notes": head.notes(len(fit_rows.y))}
    seconds = times(searched - start, time.perf_counter() - searched)
    return Fitted(head, held_scores(head, found, rows, setting), facts | seconds)


def fit_xgboost_head(rows: dict[str, Rows], setting: Setting) -> Fitted:
    """Search and fit XGBoost."""
    how: dict[str, Any] = {"seed": setting.seed, "jobs": setting.jobs, "device": setting.device}
    best: list[tuple[boosting.Boosting, float]] = []

    def search(fit: Rows, held: Rows) -> Search:
        found, head, seconds = boosting.search_boosting(fit, held, **how, rounds=setting.rounds, on_point=bar.update)
        best.append((head, seconds))
        return found

    start = time.perf_counter()
    folds = heldout_folds(rows["val"], setting)
    with progress(len(boosting.POINTS) * max(1, folds.max() + 1), unit="point", label="xgboost search") as bar:
        found = judge(rows, folds, search, setting)
    took = time.perf_counter() - start
    if setting.fit_on == "train":
        head, fit_seconds = best[0]  # early stopping fitted it on the way
        seconds = times(took - fit_seconds, fit_seconds)
    else:
        start = time.perf_counter()
        head = boosting.fit_boosting(rows["val"], found.best, **how)
        seconds = times(took, time.perf_counter() - start)
    used_up = found.best["rounds"] >= setting.rounds
    notes = [f"all {setting.rounds} rounds were used: raise --rounds"] if used_up else []
    facts = {"search": found.points, "chosen": found.best, "notes": notes}
    return Fitted(head, held_scores(head, found, rows, setting), facts | seconds)


def heldout_folds(val: Rows, setting: Setting) -> np.ndarray:
    """Return the fold of each validation row, (M,): -1 throughout where heads are fitted on training rows."""
    if setting.fit_on == "train":
        return np.full(len(val.y), -1)
    return assign_folds(val.y, list(val.groups), seed=setting.seed, folds=HELDOUT_FOLDS)[0]


def judge(rows: dict[str, Rows], folds: np.ndarray, search: Callable[[Rows, Rows], Search], setting: Setting) -> Search:
    """Judge all points on the validation rows; see the module."""
    if setting.fit_on == "train":
        return search(rows["train"], rows["val"])
    return cross_search(rows["val"], folds, search)


def held_scores(head: Head, found: Search, rows: dict[str, Rows], setting: Setting) -> np.ndarray:
    """Return the scores of the validation rows that the calibration is fitted on."""
    return head.scores(rows["val"]) if setting.fit_on == "train" else found.scores[found.best_index]


def times(search_seconds: float, fit_seconds: float) -> dict[str, float]:
    """Return the times of a head as heads.json states them."""
    return {"search_seconds": round(search_seconds, 3), "fit_seconds": round(fit_seconds, 3)}
