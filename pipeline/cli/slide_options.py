"""What the commands on slides have in common: which slides, and the same work for each of them."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.options import check
from pipeline.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SKIPPED,
    DiskFull,
    Interrupted,
    Locked,
    PipelineError,
    UsageError,
)
from pipeline.runtime.console import log

if TYPE_CHECKING:
    from pipeline.slides.find import SlideEntry

FATAL = (DiskFull, Interrupted, Locked, UsageError)
"""Errors that are not one slide's."""


@dataclasses.dataclass(frozen=True)
class SlidesOptions:
    """Facts on the slides that their files do not tell."""

    mpp: float | None = None
    """Micrometres per pixel of the slides' full resolution, where the files do not say it or are wrong."""

    slide_group: str | None = None
    """Source (group, patient) that the slides come from. Default: by the rule that told it of the tiles, if the slide's
    name fits; so that a map says whether the network was trained on that source."""

    data: Literal["kather2016-large"] | None = None
    """kather2016-large: the ten 5000 x 5000 images of the record that the tiles of kather2016 come from (download)."""

    source: Path | None = None
    """For --data kather2016-large: the published zip or its unpacked folder, instead of the download."""

    url: str | None = None
    """Another address of that zip."""

    data_dir: Path = Path("data")
    """Where it is unpacked."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.mpp is None or 0 < self.mpp < 1000, f"--mpp {self.mpp}: micrometres per pixel, above 0")
        for name in ("source", "url"):
            check(getattr(self, name) is None or self.data, f"--{name} goes with --data kather2016-large")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one slide."""

    slide: str
    tiles: int = 0
    skipped: int = 0
    """Tiles whose region cannot be decoded."""

    seconds: float = 0.0
    problem: str = ""
    """"" or why nothing was made of it."""


def chosen_slides(words: Sequence[str], options: SlidesOptions) -> "list[SlideEntry]":
    """Return the slides that a command line names.

    Raises:
        UsageError: no slide is named.
        BadInput: as `find_slides`, or the data set cannot be had.
    """
    from pipeline.slides.find import find_slides

    entries = find_slides(words, mpp=options.mpp, group=options.slide_group)
    if options.data:
        from pipeline.slides.kather2016_large import large_images

        entries += large_images(options.source, cache=options.data_dir / options.data, url=options.url)
    if not entries:
        raise UsageError("no slide given: name files, folders or a .csv, or --data kather2016-large")
    return entries


def each_slide(
    entries: "Sequence[SlideEntry]", work: "Callable[[SlideEntry], Outcome]", *, what: str
) -> tuple[int, list[Outcome]]:
    """Do `work` for every slide; one that cannot be used does not stop the others.

    Args:
        entries: the slides.
        work: returns what became of one, or raises; seconds are added.
        what: said in messages, e.g. "extract".

    Returns:
        The exit code, and the outcomes in order.

    Raises:
        PipelineError: of the only slide; or one that is not a slide's, such as a full disk.
    """
    outcomes = []
    for i, entry in enumerate(entries):
        if len(entries) > 1:
            log.info(f"{what}: slide {i + 1} of {len(entries)}, {entry.name}")
        start = time.monotonic()
        try:
            outcome = work(entry)
        except FATAL:
            raise
        except PipelineError as error:
            if len(entries) == 1:
                raise
            log.info(f"{what}: skipped {entry.name}: {error}")
            outcome = Outcome(entry.name, problem=str(error))
        outcomes.append(dataclasses.replace(outcome, seconds=time.monotonic() - start))
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    if failed:
        log.info(f"{what}: {failed} of {len(outcomes)} slides could not be used")
    if failed == len(outcomes):
        return EXIT_FAILED, outcomes
    return EXIT_SKIPPED if failed or any(outcome.skipped for outcome in outcomes) else EXIT_OK, outcomes
