"""Fitting the heads: which rows a head is fitted on, by which it is tuned, and by which it is calibrated.

`train`: fitted on training rows, tuned and calibrated on validation rows. `heldout`: fitted on validation rows, which
the network was not trained on, so that the head sees embeddings as they will be at test time; tuned and calibrated by
cross-validation over their groups. Either way no score that a choice rests on is of a row that the head or the network
was fitted on (the reasoning of scikit-learn's StackingClassifier, which fits its last step on cross-validated
outputs).

Rows that do not fit into memory (`heads.stored`) are searched on a stratified sample by the same rule; the chosen point
is then fitted on all of them, read block by block, and its held-out scores are of all validation rows.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from pipeline.evaluation.calibration import Method
from pipeline.evaluation.folds import assign_folds
from pipeline.heads.base import Head, Rows, Softmax
from pipeline.heads.cluster import fit as spread
from pipeline.heads.cluster.client import Pool
from pipeline.heads.search_result import Search, cross_search
from pipeline.heads.streamed_rows import StoredRows, sampled, scores_of
from pipeline.heads.svm import classifier
from pipeline.heads.svm.nystroem_streamed import fit_streamed
from pipeline.heads.xgb import booster
from pipeline.runtime.progress import progress

FitOn = Literal["train", "heldout"]

HELDOUT_FOLDS = 3
"""Folds of the held-out rows for `heldout`."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """A head with what its calibration is fitted on and the facts that heads.json states."""

    head: Head
    held_scores: np.ndarray
    """(M, K) scores of the validation rows, none by a head that was fitted on them."""

    held_y: np.ndarray
    """(M,) class codes of these rows: of a sample where scores of all would need all in memory."""

    held_groups: np.ndarray
    """(M,) their groups."""

    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class FitConfig:
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

    calibration: Method | Literal["auto"]
    """What makes probabilities of scores; auto: `evaluation.calibration_choice` tells."""

    pool: Pool | None = None
    """Workers that points, folds and XGBoost's last fit are given to; None: this process."""

    @property
    def fit_split(self) -> Literal["train", "val"]:
        """The split whose rows the heads are fitted on."""
        return "train" if self.fit_on == "train" else "val"


def fit_softmax(rows: dict[str, Rows]) -> FitResult:
    """Return the network's own head: trained with the network, computed with the embeddings, so at no cost here."""
    head, val = Softmax(), rows["val"]
    n_weights = (val.features.shape[1] + 1) * val.logits.shape[1]
    notes = ["the network's last layer; its logits were computed with the embeddings"]
    facts = {"search": [], "chosen": {}, "notes": notes, "bytes": 4 * n_weights} | times(0, 0)
    return FitResult(head, head.scores(val), val.y, val.groups, facts)


def fit_svm_head(rows: dict[str, Rows], setting: FitConfig) -> FitResult:
    """Search and fit the SVM.

    Raises:
        BadInput: an exact SVM of so many rows does not fit into this machine's memory.
        DiskFull: no room for the kernel values of rows that do not fit into memory.
    """
    start = time.perf_counter()
    fit_rows = rows[setting.fit_split]
    points = classifier.standard_points(fit_rows.features.shape[1])
    points = classifier.affordable(points, len(fit_rows.y), most=0 if is_streamed(rows) else setting.svm_rows)

    def search(fit: Rows, held: Rows) -> Search:
        how: dict[str, Any] = {"seed": setting.seed, "points": points, "on_point": bar.update}
        if setting.pool is not None:
            return spread.search_svm(setting.pool, fit, held, **how)
        return classifier.search_svm(fit, held, jobs=setting.jobs, **how)

    known = sampled(rows, seed=setting.seed)
    folds = heldout_folds(known["val"], setting)
    with progress(len(points) * max(1, folds.max() + 1), unit="point", label="svm search") as bar:
        found = judge(known, folds, search, setting, pool=setting.pool)
    searched = time.perf_counter()
    facts = {"search": found.points, "chosen": found.best}
    told = streamed_notes(rows, known, setting)
    if is_streamed(rows):
        del known
        head, held = fit_svm_streamed(rows, setting, found.best)
    else:
        head = classifier.fit_svm(fit_rows, found.best, seed=setting.seed)
        held = held_scores(head, found, rows, setting)
    facts["notes"] = head.notes(len(fit_rows.y)) + told
    seconds = times(searched - start, time.perf_counter() - searched)
    return FitResult(head, held, rows["val"].y, rows["val"].groups, facts | seconds)


def fit_svm_streamed(
    rows: dict[str, Rows], setting: FitConfig, chosen: dict[str, Any]
) -> tuple[classifier.Svm, np.ndarray]:
    """Fit a point on all rows that do not fit into memory; return the head and its held-out scores (M, K)."""
    heads: list[classifier.Svm] = []

    def fit(fit_rows: Any) -> classifier.Svm:
        heads.append(fit_streamed(fit_rows, chosen, seed=setting.seed, on_pass=bar.update))
        return heads[-1]

    def search(fit_rows: Any, held: Any) -> Search:
        found = Search()
        if setting.pool is None or setting.fit_on == "train":
            scores = scores_of(fit(fit_rows), held)
        else:
            _, scores = spread.fit_svm(setting.pool, fit_rows, held, chosen, seed=setting.seed)
        found.add(chosen, scores, held.y, seconds=0)
        return found

    with progress(0, unit="pass", label="svm, all rows") as bar:
        found = judge(rows, heldout_folds(rows["val"], setting), search, setting, pool=setting.pool)
        head = heads[0] if setting.fit_on == "train" else fit(rows["val"])
    return head, found.scores[0]


def fit_xgboost_head(rows: dict[str, Rows], setting: FitConfig) -> FitResult:
    """Search and fit XGBoost.

    Raises:
        DiskFull: no room for the bins of rows that do not fit into memory.
    """
    how: dict[str, Any] = {"seed": setting.seed, "jobs": setting.jobs, "device": setting.device}
    best: list[tuple[booster.Boosting, float]] = []

    def search(fit: Rows, held: Rows) -> Search:
        given: dict[str, Any] = {"rounds": setting.rounds, "on_point": bar.update}
        if setting.pool is not None:
            found, head, seconds = spread.search_boosting(setting.pool, fit, held, seed=setting.seed, **given)
        else:
            found, head, seconds = booster.search_boosting(fit, held, **how, **given)
        best.append((head, seconds))
        return found

    def finish(fit: Any, held: Any) -> Search:
        given: dict[str, Any] = {"rounds": setting.rounds}
        if setting.pool is not None:
            found, head, seconds = spread.finish_boosting(setting.pool, fit, held, point, seed=setting.seed, **given)
        else:
            given |= {"points": [point], "on_round": bar.update}
            found, head, seconds = booster.search_boosting(fit, held, **how, **given)
        best.append((head, seconds))
        return found

    start = time.perf_counter()
    known = sampled(rows, seed=setting.seed)
    folds = heldout_folds(known["val"], setting)
    with progress(len(booster.POINTS) * max(1, folds.max() + 1), unit="point", label="xgboost search") as bar:
        found = judge(known, folds, search, setting, pool=setting.pool)
    tried, notes = found.points, streamed_notes(rows, known, setting)
    if is_streamed(rows):
        del known
        best.clear()
        point = {name: value for name, value in found.best.items() if name != "rounds"}
        if setting.pool is not None:
            notes.append(f"boosted by {len(setting.pool.threads())} workers together")
        with progress(0, unit="round", label="xgboost, all rows") as bar:
            found = judge(rows, heldout_folds(rows["val"], setting), finish, setting)
    took = time.perf_counter() - start
    if setting.fit_on == "train":
        head, fit_seconds = best[0]  # early stopping fitted it on the way
        seconds = times(took - fit_seconds, fit_seconds)
    else:
        start = time.perf_counter()
        if setting.pool is not None and isinstance(val := rows["val"], StoredRows):
            chosen = {"point": point, "seed": setting.seed, "rounds": found.best["rounds"]}
            head = spread.boost_together(setting.pool, val, None, **chosen)
        else:
            head = booster.fit_boosting(rows["val"], found.best, **how)
        seconds = times(took, time.perf_counter() - start)
    if found.best["rounds"] >= setting.rounds:
        notes.append(f"all {setting.rounds} rounds were used: raise --rounds")
    facts = {"search": tried, "chosen": found.best, "notes": notes}
    held = held_scores(head, found, rows, setting)
    return FitResult(head, held, rows["val"].y, rows["val"].groups, facts | seconds)


def is_streamed(rows: dict[str, Rows]) -> bool:
    """Tell whether the rows do not fit into memory."""
    return isinstance(rows["val"], StoredRows)


def streamed_notes(rows: dict[str, Rows], known: dict[str, Rows], setting: FitConfig) -> list[str]:
    """Return what a reader of heads.json should know of a head whose rows did not fit into memory; else nothing.

    Args:
        rows: all.
        known: the sample that was searched.
        setting: how heads are fitted.
    """
    if not is_streamed(rows):
        return []
    used = ("train", "val") if setting.fit_on == "train" else ("val",)
    samples = ", ".join(f"{len(known[name].y)} of {len(rows[name].y)} {name} rows" for name in used)
    return [f"streamed: fitted on all {len(rows[setting.fit_split].y)} rows, block by block; searched on {samples}"]


def heldout_folds(val: Rows, setting: FitConfig) -> np.ndarray:
    """Return the fold of each validation row, (M,): -1 throughout where heads are fitted on training rows."""
    if setting.fit_on == "train":
        return np.full(len(val.y), -1)
    return assign_folds(val.y, list(val.groups), seed=setting.seed, folds=HELDOUT_FOLDS)[0]


def judge(
    rows: dict[str, Rows],
    folds: np.ndarray,
    search: Callable[[Rows, Rows], Search],
    setting: FitConfig,
    *,
    pool: Pool | None = None,
) -> Search:
    """Judge all points on the validation rows; see the module. With a pool, all folds at the same time."""
    if setting.fit_on == "train":
        return search(rows["train"], rows["val"])
    return cross_search(rows["val"], folds, search, each_of=map if pool is None else pool.side_by_side)


def held_scores(head: Head, found: Search, rows: dict[str, Rows], setting: FitConfig) -> np.ndarray:
    """Return the scores of the validation rows that the calibration is fitted on."""
    return scores_of(head, rows["val"]) if setting.fit_on == "train" else found.scores[found.best_index]


def times(search_seconds: float, fit_seconds: float) -> dict[str, float]:
    """Return the times of a head as heads.json states them."""
    return {"search_seconds": round(search_seconds, 3), "fit_seconds": round(fit_seconds, 3)}
