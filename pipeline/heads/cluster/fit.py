"""Heads fitted by the workers of a cluster: points of a search, folds, and XGBoost trained by all workers together.

A search chooses what it chooses on one machine: each point is judged by one worker as it would be here. XGBoost's last
fit on rows that do not fit into memory is shared: each worker reads its part of them.
"""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xgboost

from pipeline.heads.base import Rows, subsample
from pipeline.heads.cluster.client import Pool
from pipeline.heads.search_result import Search
from pipeline.heads.streamed_rows import StoredRows, scores_of
from pipeline.heads.svm import classifier
from pipeline.heads.svm.nystroem_streamed import fit_streamed
from pipeline.heads.xgb import booster

TRACKER_S = 60
"""Seconds that XGBoost's tracker may take to end after its workers."""


class _Point(NamedTuple):
    """What became of a point on a worker."""

    model: bytes
    losses: list[float]
    scores: np.ndarray
    """(M, K) of the validation rows at the best round."""

    seconds: float

    @property
    def rounds(self) -> int:
        """The rounds with the lowest validation log-loss."""
        return int(np.argmin(self.losses)) + 1


def _boost_point(*, train: Rows, val: Rows, point: dict[str, Any], seed: int, rounds: int) -> _Point:
    """Boost one point with early stopping."""
    matrix = booster.binned(train, jobs=1, seed=seed)
    held = booster.binned(val, jobs=1, seed=seed, like=matrix)
    course = booster.Course(booster.params_of(train, point, seed=seed, jobs=1, device="cpu"), matrix, held)
    course.train_until(rounds)
    head = course.head()
    return _Point(bytes(head.booster.save_raw(raw_format="ubj")), course.losses, head.scores(val), course.seconds)


def search_boosting(
    pool: Pool,
    train: Rows,
    val: Rows,
    *,
    seed: int,
    rounds: int,
    on_point: Callable[[], object] = lambda: None,
) -> tuple[Search, booster.Boosting, float]:
    """Do what `boosting.search_boosting` does, each point by a worker of its own: the same choice and head.

    Points that go on after the first look begin anew, so that no booster has to travel.
    """
    first = [{"point": point, "rounds": min(rounds, booster.LOOK), "seed": seed} for point in booster.POINTS]
    found = pool.map(_boost_point, first, train=train, val=val)
    ahead = booster.better_half([course.losses for course in found])
    again = [first[i] | {"rounds": rounds} for i in ahead]
    for i, course in zip(ahead, pool.map(_boost_point, again, train=train, val=val), strict=True):
        found[i] = course
    search = Search()
    for point, course in zip(booster.POINTS, found, strict=True):
        search.add(point | {"rounds": course.rounds}, course.scores, val.y, seconds=course.seconds)
        on_point()
    best = found[search.best_index]
    return search, booster.Boosting.of_bytes(best.model), best.seconds


def search_svm(
    pool: Pool,
    train: Rows,
    val: Rows,
    *,
    seed: int,
    points: Sequence[dict[str, Any]],
    on_point: Callable[[], object] = lambda: None,
) -> Search:
    """Do what `svm.search_svm` does, each kernel by a worker of its own: the same scores of every point."""
    known = train.take(subsample(train.y, classifier.SEARCH_ROWS, seed=seed))
    groups = classifier.by_kernel(points)
    tasks = [{"points": [points[i] for i in numbers], "seed": seed, "jobs": 1} for numbers in groups]
    eval_network: dict[int, tuple[np.ndarray, float]] = {}
    for numbers, own in zip(groups, pool.map(_search_svm, tasks, train=known, val=val), strict=True):
        for i, scores, point in zip(numbers, own.scores, own.tried, strict=True):
            eval_network[i] = scores, point["seconds"]
            on_point()
    search = Search()
    for i, point in enumerate(points):
        search.add(dict(point), eval_network[i][0], val.y, seconds=eval_network[i][1])
    return search


def _search_svm(*, train: Rows, val: Rows, **how: Any) -> Search:
    return classifier.search_svm(train, val, **how)


def fit_svm(
    pool: Pool, fit: StoredRows, held: StoredRows, params: dict[str, Any], *, seed: int
) -> tuple[classifier.Svm, np.ndarray]:
    """Fit a point on rows that do not fit into memory by a worker; return the head and its scores of the held rows."""
    return pool.map(_fit_svm, [{"params": params, "seed": seed}], fit=fit, held=held)[0]


def _fit_svm(
    *, fit: StoredRows, held: StoredRows, params: dict[str, Any], seed: int
) -> tuple[classifier.Svm, np.ndarray]:
    with _own_folder() as folder:
        head = fit_streamed(dataclasses.replace(fit, cache=folder), params, seed=seed)
    return head, scores_of(head, held)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Yield a folder on the disk of the worker that runs this, which the run folder's may be far from."""
    from distributed import get_worker

    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder:
        yield Path(folder)


def finish_boosting(
    pool: Pool, train: StoredRows, val: StoredRows, point: dict[str, Any], *, seed: int, rounds: int
) -> tuple[Search, booster.Boosting, float]:
    """Do what `boosting.search_boosting` does with one point, by all workers together."""
    start = time.perf_counter()
    head = boost_together(pool, train, val, point, seed=seed, rounds=rounds)
    seconds = time.perf_counter() - start
    search = Search()
    search.add(point | {"rounds": head.booster.num_boosted_rounds()}, scores_of(head, val), val.y, seconds=seconds)
    return search, head, seconds


def boost_together(
    pool: Pool, train: StoredRows, val: StoredRows | None, point: dict[str, Any], *, seed: int, rounds: int
) -> booster.Boosting:
    """Boost a point on rows that each worker reads its part of, and return the head.

    Every worker bins its rows by the borders of one and the same sample; XGBoost's own tracker joins them. Its module
    for Dask does the same, but takes arrays in the workers' memory only.

    Args:
        pool: the cluster.
        train: rows to fit on.
        val: rows to stop by; None: after all rounds.
        point: of the search.
        seed: of row and column sampling.
        rounds: boosting rounds at most.

    Raises:
        WorkerLost: a worker was lost: the others cannot go on without its rows.
    """
    from distributed.utils import get_ip
    from xgboost.tracker import RabitTracker

    most = min(len(rows.y) for rows in (train, val) if rows is not None)
    threads = dict(list(pool.threads().items())[:most])
    tracker = RabitTracker(len(threads), get_ip(pool.scheduler), sortby="task")
    tracker.start()
    cuts = train.take(subsample(train.y, train.sample_rows, seed=seed))
    how = {"cuts": cuts, "point": point, "seed": seed, "rounds": rounds}
    items = {
        worker: {
            "train": _part(train, i, len(threads)),
            "val": None if val is None else _part(val, i, len(threads)),
            "jobs": jobs,
            "process_group": tracker.worker_args() | {"dmlc_task_id": f"{i:05}"},
            **how,
        }
        for i, (worker, jobs) in enumerate(threads.items())
    }
    try:
        model = pool.together(_boost_part, items)[0]
        tracker.wait_for(TRACKER_S)  # it ends when all have left; freed before, it may close a socket that is another's
    finally:
        with contextlib.suppress(xgboost.core.XGBoostError):  # it complains of workers that never came back
            tracker.free()
    return booster.Boosting.of_bytes(model)


def _part(rows: StoredRows, i: int, n: int) -> StoredRows:
    """Return the i-th of n parts, rows that lie together in the file."""
    part = rows.take(np.array_split(np.arange(len(rows.y)), n)[i])
    return dataclasses.replace(part, groups=part.groups[:0])


def _boost_part(*, train: StoredRows, process_group: dict[str, Any], **how: Any) -> bytes:
    """Take part in a training as one of its workers; return the whole model, which all have in the end."""
    with _own_folder() as folder, xgboost.config_context(verbosity=0):
        return _boosted(dataclasses.replace(train, cache=folder), process_group=process_group, **how)


def _boosted(
    train: StoredRows,
    *,
    val: StoredRows | None,
    cuts: StoredRows,
    point: dict[str, Any],
    seed: int,
    rounds: int,
    jobs: int,
    process_group: dict[str, Any],
) -> bytes:
    like = booster.binned(cuts.held(), jobs=jobs, seed=seed)  # before it joins: else all samples were merged
    given = booster.params_of(train, point, seed=seed, jobs=jobs, device="cpu")
    with xgboost.collective.CommunicatorContext(**process_group):
        matrix = booster.binned(train, jobs=jobs, seed=seed, like=like)
        if val is None:
            return bytes(xgboost.train(given, matrix, rounds).save_raw(raw_format="ubj"))
        held = booster.binned(dataclasses.replace(val, cache=train.cache), jobs=jobs, seed=seed, like=like)
        course = booster.Course(given, matrix, held)
        course.train_until(rounds)
        return bytes(course.booster[: course.rounds].save_raw(raw_format="ubj"))
