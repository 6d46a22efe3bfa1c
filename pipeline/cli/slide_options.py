"""Define the options of commands on slides, and find the slides of a command line."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.cli.options import check
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.slides.find import SlideEntry


@dataclasses.dataclass(frozen=True)
class SlidesOptions:
    """Facts about the slides that their files do not hold."""

    mpp: float | None = None
    """Micrometres per pixel of the slides' full resolution, where a file states none. A file that states another scale
    is refused, unless --force is given; the column mpp of a table of slides overrules the file."""

    slide_group: str | None = None
    """Source (group, patient) that the slides come from. Default: found in the slide's name by the rule that found it
    for the tiles. A map states whether the network was trained on that source."""

    data: Literal["kather2016-large"] | None = None
    """kather2016-large: the ten 5000 x 5000 images of the record that the tiles of kather2016 come from (download)."""

    source: Path | None = None
    """For --data kather2016-large: the published zip or its unpacked folder, instead of the download."""

    url: str | None = None
    """Another address of that zip."""

    data_dir: Path = Path("data")
    """Folder that the zip is unpacked in."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check(self.mpp is None or 0 < self.mpp < 1000, f"--mpp {self.mpp}: micrometres per pixel, above 0")
        for name in ("source", "url"):
            check(getattr(self, name) is None or self.data, f"--{name} goes with --data kather2016-large")


def chosen_slides(words: Sequence[str], options: SlidesOptions, *, force: bool) -> "list[SlideEntry]":
    """Return the slides that a command line names.

    Args:
        words: files, folders and tables of slides.
        options: facts about the slides.
        force: --mpp overrules what the files state.

    Raises:
        UsageError: no slide is named.
        BadInput: as `find_slides`, or the data set cannot be downloaded.
    """
    from pipeline.slides.find import find_slides
    from pipeline.slides.scale import GivenMpp

    mpp = None if options.mpp is None else GivenMpp(options.mpp, overrules=force)
    entries = find_slides(words, mpp=mpp, group=options.slide_group)
    if options.data:
        from pipeline.slides.kather2016_large import large_images

        entries += large_images(options.source, cache=options.data_dir / options.data, url=options.url)
    if not entries:
        raise UsageError("no slide given: name files, folders or a .csv, or --data kather2016-large")
    return entries
