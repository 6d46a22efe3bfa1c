"""Do the same work for each of several slides; one that cannot be used does not stop the others."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SKIPPED,
    BadSlide,
    DiskFull,
    Interrupted,
    PipelineError,
    UsageError,
)
from pipeline.runtime.console import log
from pipeline.slides.find import SlideEntry
from pipeline.slides.outcomes import Outcome, record_outcome, write_table
from pipeline.slides.place import results_folder
from pipeline.storage import atomic
from pipeline.storage.lock import locked
from pipeline.tiles.datasets.names import name_key

FATAL = (DiskFull, Interrupted, UsageError)
"""Errors that stop the whole batch, because they do not come from one slide."""


def each_slide(run: Path, entries: Sequence[SlideEntry], work: Callable[[SlideEntry], Outcome], *, stage: str) -> int:
    """Call `work` for every slide, write slides.csv, and return the exit code.

    Each slide is locked while it is worked on, so that commands on different slides of a run can work at the same time.

    Args:
        run: the run folder.
        entries: the slides.
        work: returns the outcome of one slide, without the seconds, or raises.
        stage: begins each message, e.g. "extract".

    Raises:
        PipelineError: the only slide cannot be used, or the error does not come from one slide, such as a full disk.
    """
    outcomes: list[Outcome] = []
    folders = _folders_by_key(run)
    try:
        for i, entry in enumerate(entries):
            if len(entries) > 1:
                log.info(f"{stage}: slide {i + 1} of {len(entries)}, {entry.name}")
            try:
                if entry.problem:
                    raise BadSlide(entry.problem)
                if (folder := folders.get(name_key(entry.name), entry.name)) != entry.name:
                    raise BadSlide(
                        f"{entry.path}: {run / atomic.SLIDES / folder} holds results of a slide whose name differs "
                        "only in case, blanks or the coding of accents: rename the slide, or give another --run"
                    )
                outcomes.append(_one(run, entry, work, stage))
            except FATAL:
                raise
            except PipelineError as error:
                if len(entries) == 1:
                    raise
                log.warning(f"{stage}: skipped {entry.name}: {error}")
                outcomes.append(Outcome(entry.name, problem=str(error)))
    finally:
        write_table(run)
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    if failed:
        log.warning(f"{stage}: {failed} of {len(outcomes)} slides could not be used")
    if failed == len(outcomes):
        return EXIT_FAILED
    return EXIT_SKIPPED if failed or any(outcome.skipped for outcome in outcomes) else EXIT_OK


def _folders_by_key(run: Path) -> dict[str, str]:
    """Return the folders of slides in a run by what two spellings of their names have in common."""
    place = run / atomic.SLIDES
    return {name_key(folder.name): folder.name for folder in place.iterdir()} if place.is_dir() else {}


def _one(run: Path, entry: SlideEntry, work: Callable[[SlideEntry], Outcome], stage: str) -> Outcome:
    """Do the work on one slide under its lock, and record the outcome."""
    folder = results_folder(run, atomic.SLIDES, entry.name)
    with locked(folder):
        atomic.remove_temporaries(folder)
        start = time.monotonic()
        try:
            outcome = work(entry)
        except FATAL:
            raise
        except PipelineError as error:
            record_outcome(folder, stage, Outcome(entry.name, problem=str(error), seconds=time.monotonic() - start))
            raise
        outcome = dataclasses.replace(outcome, seconds=time.monotonic() - start)
        record_outcome(folder, stage, outcome)
    return outcome
