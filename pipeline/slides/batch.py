"""Do the same work for each of several slides; one that cannot be used does not stop the others."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from pipeline.errors import EXIT_FAILED, EXIT_OK, EXIT_SKIPPED, DiskFull, Interrupted, Locked, PipelineError, UsageError
from pipeline.runtime.console import log
from pipeline.slides.find import SlideEntry

FATAL = (DiskFull, Interrupted, Locked, UsageError)
"""Errors that stop the whole batch, because they do not come from one slide."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of the work on one slide."""

    slide: str
    tiles: int = 0
    skipped: int = 0
    """Tiles whose region cannot be decoded."""

    seconds: float = 0.0
    problem: str = ""
    """Why the slide was skipped, or ""."""


def each_slide(
    entries: Sequence[SlideEntry], work: Callable[[SlideEntry], Outcome], *, stage: str
) -> tuple[int, list[Outcome]]:
    """Call `work` for every slide and skip a slide that it cannot use.

    Args:
        entries: the slides.
        work: returns the outcome of one slide, without the seconds, or raises.
        stage: begins each message, e.g. "extract".

    Returns:
        The exit code, and the outcomes in order.

    Raises:
        PipelineError: the only slide cannot be used, or the error does not come from one slide, such as a full disk.
    """
    outcomes = []
    for i, entry in enumerate(entries):
        if len(entries) > 1:
            log.info(f"{stage}: slide {i + 1} of {len(entries)}, {entry.name}")
        start = time.monotonic()
        try:
            outcome = work(entry)
        except FATAL:
            raise
        except PipelineError as error:
            if len(entries) == 1:
                raise
            log.info(f"{stage}: skipped {entry.name}: {error}")
            outcome = Outcome(entry.name, problem=str(error))
        outcomes.append(dataclasses.replace(outcome, seconds=time.monotonic() - start))
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    if failed:
        log.info(f"{stage}: {failed} of {len(outcomes)} slides could not be used")
    if failed == len(outcomes):
        return EXIT_FAILED, outcomes
    return EXIT_SKIPPED if failed or any(outcome.skipped for outcome in outcomes) else EXIT_OK, outcomes
