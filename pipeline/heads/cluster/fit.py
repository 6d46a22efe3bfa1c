"""Fit rows that do not fit into memory on the workers of a cluster.

A worker fits the SVM of a fold. All workers boost together: each reads its part of the rows.
"""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xgboost

from pipeline.heads.base import Params, subsample
from pipeline.heads.cluster.client import Pool
from pipeline.heads.config import FitConfig
from pipeline.heads.search_result import Point, Search
from pipeline.heads.streamed_rows import StreamedRows, scores_of
from pipeline.heads.svm.nystroem_streamed import fit_streamed
from pipeline.heads.xgb import booster

TRACKER_S = 60
"""Seconds that XGBoost's tracker may take to end after its workers."""


def refit_svm(pool: Pool, fit: StreamedRows, held: StreamedRows, params: Params, *, seed: int) -> Search:
    """Fit a point on streamed rows by one worker, and score the held-out rows."""
    return pool.map(functools.partial(_fit_svm, fit, held, seed), [params])[0]


def _fit_svm(fit: StreamedRows, held: StreamedRows, seed: int, params: Params) -> Search:
    start = time.perf_counter()
    with _own_folder() as folder:
        head = fit_streamed(dataclasses.replace(fit, cache=folder), params, seed=seed)
    return Search([Point(params, scores_of(head, held), held.y, time.perf_counter() - start, head)])


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Yield a folder on the disk of the worker that runs this; the run folder's disk may be far away."""
    from distributed import get_worker

    with tempfile.TemporaryDirectory(dir=get_worker().local_directory) as folder:
        yield Path(folder)


def refit_boosting(pool: Pool, train: StreamedRows, val: StreamedRows, point: Params, config: FitConfig) -> Search:
    """Boost a point with early stopping by all workers together, and score the validation rows."""
    start = time.perf_counter()
    head = boost_together(pool, train, val, point | {"rounds": config.rounds}, config)
    seconds = time.perf_counter() - start
    params = point | {"rounds": head.booster.num_boosted_rounds()}
    return Search([Point(params, scores_of(head, val), val.y, seconds, head)])


class Part(NamedTuple):
    """What one worker contributes to boosting together."""

    train: StreamedRows
    """Its part of the rows to fit on."""

    val: StreamedRows | None
    """Its part of the rows to stop by; None: boost all rounds."""

    cuts: StreamedRows
    """The sample that gives every worker the same borders of bins."""

    params: Params
    """The point, with its most rounds."""

    config: FitConfig
    rabit: dict[str, str | int]
    """Arguments of XGBoost's communicator."""


def boost_together(
    pool: Pool, train: StreamedRows, val: StreamedRows | None, params: Params, config: FitConfig
) -> booster.Boosting:
    """Boost a point on rows of which each worker reads a part, and return the head.

    Every worker bins its rows by the borders of the same sample; XGBoost's tracker connects the workers. XGBoost's
    module for Dask does the same, but only for arrays in the workers' memory.

    Args:
        pool: the cluster.
        train: rows to fit on.
        val: rows for early stopping; None: all rounds.
        params: a point of the search, with its most rounds.
        config: seed of row and column sampling.

    Raises:
        WorkerLost: a worker was lost: the others cannot continue without its rows.
    """
    from distributed.utils import get_ip
    from xgboost.tracker import RabitTracker

    most = min(len(rows.y) for rows in (train, val) if rows is not None)
    threads = dict(list(pool.threads().items())[:most])
    tracker = RabitTracker(len(threads), get_ip(pool.scheduler), sortby="task")
    tracker.start()
    cuts = train.take(subsample(train.y, train.sample_rows, seed=config.seed))
    parts = {
        worker: Part(
            train=_part(train, i, len(threads)),
            val=None if val is None else _part(val, i, len(threads)),
            cuts=cuts,
            params=params,
            config=dataclasses.replace(config, jobs=jobs, device="cpu", pool=None),
            rabit=tracker.worker_args() | {"dmlc_task_id": f"{i:05}"},
        )
        for i, (worker, jobs) in enumerate(threads.items())
    }
    try:
        model = pool.together(_boost_part, parts)[0]
        tracker.wait_for(TRACKER_S)  # it ends after all workers; freed earlier, it may close a foreign socket
    finally:
        with contextlib.suppress(xgboost.core.XGBoostError):  # it raises for workers that were lost
            tracker.free()
    return booster.Boosting.of_bytes(model)


def _part(rows: StreamedRows, i: int, n: int) -> StreamedRows:
    """Return the i-th of n parts, rows that follow one another in the file."""
    part = rows.take(np.array_split(np.arange(len(rows.y)), n)[i])
    return dataclasses.replace(part, groups=part.groups[:0])


def _boost_part(part: Part) -> bytes:
    """Boost as one of the workers; return the whole model, which all workers have at the end."""
    with _own_folder() as folder, xgboost.config_context(verbosity=0):
        train = dataclasses.replace(part.train, cache=folder)
        val = None if part.val is None else dataclasses.replace(part.val, cache=folder)
        return _boosted(part._replace(train=train, val=val))  # its matrices are freed before their folder is removed


def _boosted(part: Part) -> bytes:
    config, rounds = part.config, part.params["rounds"]
    point = {name: value for name, value in part.params.items() if name != "rounds"}
    like = booster.binned(part.cuts.read(), config)  # before it connects: else all samples would be merged
    given = booster.params_of(part.train, point, config)
    with xgboost.collective.CommunicatorContext(**part.rabit):
        matrix = booster.binned(part.train, config, like=like)
        if part.val is None:
            return booster.Boosting(xgboost.train(given, matrix, rounds)).raw()
        course = booster.Course(given, matrix, booster.binned(part.val, config, like=like))
        course.train_until(rounds)
        return course.boosted().model
