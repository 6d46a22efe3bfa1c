"""Making heads of rows: each fitted, then calibrated on held-out scores; and what a head so made says of rows.

`fit_heads` brings the rows, says of each head whether it is there already, and writes what comes of it.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.evaluation.calibration_choice import choose_calibration
from pipeline.heads.base import Head, Rows
from pipeline.heads.baselines import SOURCES, fit_baselines
from pipeline.heads.cluster.client import connected
from pipeline.heads.memory_budget import Memory, Room
from pipeline.heads.saved import decide
from pipeline.heads.search import FitConfig, FitResult, fit_softmax, fit_svm_head, fit_xgboost_head
from pipeline.heads.streamed_rows import scores_of
from pipeline.runtime.progress import progress
from pipeline.storage import atomic
from pipeline.storage.predictions.csv_table import HeadOutput

FITTERS: Mapping[str, Callable[[dict[str, Rows], FitConfig], FitResult]] = {
    "svm": fit_svm_head,
    "xgboost": fit_xgboost_head,
}
"""Head -> what searches and fits it; those of `names.FILES`."""


class CalibratedHead(NamedTuple):
    """A fitted and calibrated head."""

    head: Head
    facts: dict[str, Any]
    """Its entry of heads.json: search, chosen, notes, seconds, calibration."""


Keep = Callable[[str, Callable[[], CalibratedHead]], CalibratedHead]
"""Name of a head and what makes it -> the head: one that is there already, or the new one after it was saved."""


@contextlib.contextmanager
def open_fit_backend(
    asked: FitConfig, memory: Memory, *, folder: Path, cluster: str | None
) -> Iterator[tuple[FitConfig, tuple[Room, Path] | None]]:
    """Yield how heads are fitted in that memory, and where rows stay in their file, the room for them with a folder.

    Rows that do not fit are fitted on the CPU, and so are those of a cluster.

    Args:
        asked: how heads would be fitted on rows that fit, by this process.
        memory: as it was shared out.
        folder: of the run; what is put there is removed with the block.
        cluster: address of the cluster, if there is one.

    Raises:
        BadInput: the cluster does not answer or is another.
    """
    room, streamed = memory.room, None
    setting = asked if room is None else dataclasses.replace(asked, device="cpu", svm_rows=room.svm_rows)
    with contextlib.ExitStack() as stack:
        if room is not None or cluster is not None:
            cache = stack.enter_context(atomic.temporary_folder(folder))
            streamed = None if room is None else (room, cache)
            if cluster is not None:
                pool = stack.enter_context(connected(cluster, memory.shared, folder=cache))
                setting = dataclasses.replace(setting, device="cpu", pool=pool)
        yield setting, streamed


def make_heads(
    rows: dict[str, Rows], setting: FitConfig, *, wanted: Sequence[str], keep: Keep
) -> dict[str, CalibratedHead]:
    """Make softmax, which costs nothing, and the heads that are wanted beside it, in their order.

    Args:
        rows: of train, val and test; test rows serve for nothing.
        setting: how heads are fitted and calibrated.
        wanted: names of `FITTERS`.
        keep: called with each of them as its turn comes, so that what is finished outlasts an interruption.

    Raises:
        BadInput: a head cannot be fitted on so many rows, or on so few.
        DiskFull: no room for what is kept on disk of rows that do not fit into memory.
    """
    made = {"softmax": make_softmax(rows, setting)}
    for name in wanted:
        made[name] = keep(name, functools.partial(_make_head, name, rows, setting))
    return made


def make_softmax(rows: dict[str, Rows], setting: FitConfig) -> CalibratedHead:
    """Return the network's own head; "auto" is its temperature, which leaves the network's own answers as they are."""
    if setting.calibration == "auto":
        setting = dataclasses.replace(setting, calibration="temperature")
    return calibrated(fit_softmax(rows), setting)


def _make_head(name: str, rows: dict[str, Rows], setting: FitConfig) -> CalibratedHead:
    return calibrated(FITTERS[name](rows, setting), setting)


def make_baselines(sources: Mapping[str, dict[str, Rows]], setting: FitConfig) -> dict[str, CalibratedHead]:
    """Make every baseline whose features are given, calibrated as the heads are.

    Args:
        sources: as for `baselines.fit_baselines`.
        setting: as for the heads.
    """
    with progress(sum(source in sources for source in SOURCES.values()), unit="baseline", label="baselines") as bar:
        baselines = fit_baselines(sources, setting, on_baseline=bar.update)
    return {name: calibrated(fitted, setting) for name, fitted in baselines.items()}


def calibrated(fitted: FitResult, setting: FitConfig) -> CalibratedHead:
    """Return a head with its calibration, which is fitted on held-out scores of the val rows."""
    choice = choose_calibration(
        fitted.held_scores,
        fitted.held_y,
        list(fitted.held_groups),
        seed=setting.seed,
        method=setting.calibration,
    )
    how = dataclasses.asdict(choice.calibration) | {"rows": "val", "unit": choice.unit, "nll": choice.nll}
    return CalibratedHead(fitted.head, fitted.facts | {"calibration": how})


def predict_all(
    heads: Mapping[str, CalibratedHead], every: Rows, sources: Mapping[str, Rows]
) -> Iterator[tuple[str, HeadOutput]]:
    """Yield each head with what it says of all rows.

    Args:
        heads: by name.
        every: M rows with the embeddings.
        sources: the same rows with the features that baselines take, as for `make_baselines`.
    """
    for name, made in heads.items():
        yield name, answer_of(made, sources.get(SOURCES.get(name, ""), every))


def answer_of(made: CalibratedHead, every: Rows) -> HeadOutput:
    """Return what a head says of rows; its speed, `predict_tiles_per_second`, goes into its facts.

    Args:
        made: the head.
        every: M rows with the features that the head takes.
    """
    start = time.perf_counter()
    scores = scores_of(made.head, every)
    is_stored = scores is every.logits
    speed = None if is_stored else round(len(every.y) / (time.perf_counter() - start), 1)
    made.facts["predict_tiles_per_second"] = speed
    return decide(made.facts["calibration"], scores)
