"""Do the same work for every part of a cross-validation plan, one after the other."""

import dataclasses
import time
from collections.abc import Callable

from pipeline.cli.options import Common
from pipeline.runtime.console import log
from pipeline.storage.lock import locked_run
from pipeline.storage.protocol import Protocol, check_part

IDLE_S = 2.0
"""A part that took fewer seconds was current already, and does not count in the estimate of the time left."""


def each_part(common: Common, protocol: Protocol | None, work: Callable[[Common], int], *, what: str) -> int:
    """Do `work` in the run folder, or in the folder of every part of its plan with the seed of that part.

    The work itself skips a part that is finished, so that an interrupted plan continues where it stopped.

    Args:
        common: the options; `run` is the folder of the run or of the plan.
        protocol: the plan; None for a single split.
        work: takes the options of one part and returns its exit code.
        what: first word of the line before each part, e.g. "train".

    Returns:
        The highest exit code.
    """
    if protocol is None:
        return work(common)
    code = 0
    took: list[float] = []
    for i, part in enumerate(protocol.parts):
        check_part(protocol, part)
        left = ""
        if took:
            left = f", about {duration((len(protocol.parts) - i) * sum(took) / len(took))} left"
        log.info(f"{what}: part {i + 1} of {len(protocol.parts)}, {part.name}{left}")
        start = time.monotonic()
        place = dataclasses.replace(common, run=protocol.folder(part), seed=part.seed)
        with locked_run(place.run):
            code = max(code, work(place))
        if time.monotonic() - start > IDLE_S:
            took.append(time.monotonic() - start)
    return code


def duration(seconds: float) -> str:
    """Return a time as "50 s", "12 min" or "3 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
