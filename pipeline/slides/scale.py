"""Decide the scale of a slide (um per level-0 px) from its file and the user's, and name where it comes from.

| given by | the file states no scale | states the same (within 1 %) | states another scale |
|---|---|---|---|
| nobody | refused | - | - |
| `--mpp` | `--mpp` | the file's | refused; `--mpp` with `--force` |
| a cell of a CSV file | the cell's | the cell's | the cell's, and a message |
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import BadSlide

MPP_RANGE = (0.05, 16.0)
"""Plausible um/px of a slide. TIFFs that no scanner wrote often state 72 dpi, which would be 353 um/px."""

SAME = 0.01
"""Largest relative difference of two scales that count as the same, and of the scales of x and y."""


@dataclasses.dataclass(frozen=True)
class StatedMpp:
    """A scale that a file states."""

    origin: str
    """Where in the file, e.g. "OME-XML"."""

    x: float
    """um per px."""

    y: float

    @property
    def mpp(self) -> float:
        """Mean of x and y."""
        return (self.x + self.y) / 2


@dataclasses.dataclass(frozen=True)
class GivenMpp:
    """A scale that the user or an earlier stage gives for a slide."""

    mpp: float
    origin: str = "--mpp"
    """Option or file, for messages and the record."""

    overrules: bool = False
    """Whether it replaces another scale that the file states."""


@dataclasses.dataclass(frozen=True)
class Mpp:
    """The scale of a slide."""

    mpp: float
    origin: str
    """Where the scale comes from."""

    note: str = ""
    """What the file states instead, or ""."""


def same_mpp(one: float, other: float) -> bool:
    """Return whether two scales differ by at most `SAME`."""
    return abs(one - other) <= SAME * max(one, other)


def stated_mpp(origin: str, x: float | None, y: float | None) -> list[StatedMpp]:
    """Return the scale that a file states as a list of one, or an empty list if there is none or it is implausible."""
    plausible = [value for value in (x, y) if value is not None and MPP_RANGE[0] <= value <= MPP_RANGE[1]]
    return [StatedMpp(origin, *plausible)] if len(plausible) == 2 else []


def resolve_mpp(path: Path, stated: Sequence[StatedMpp], given: GivenMpp | None) -> Mpp:
    """Return the scale of a slide.

    Args:
        path: the slide.
        stated: scales that the file states, the most reliable first.
        given: scale by the user.

    Raises:
        BadSlide: no scale, two that contradict one another, or pixels that are not square.
    """
    listed = ", ".join(f"{one.origin} {one.mpp:.4g}" for one in stated)
    if given is not None and (given.overrules or not stated):
        other = any(not same_mpp(one.mpp, given.mpp) for one in stated)
        return Mpp(given.mpp, given.origin, f"the file states other um/px ({listed})" if other else "")
    if not stated:
        raise BadSlide(f"{path}: the file does not state how many micrometres a pixel is: give it by --mpp")
    for one in stated:
        if not same_mpp(one.x, one.y):
            raise BadSlide(
                f"{path}: {one.x:g} um/px in x, {one.y:g} in y: pixels that are not square are not supported"
            )
    if given is not None:
        agreeing = [one for one in stated if same_mpp(one.mpp, given.mpp)]
        if not agreeing:
            raise BadSlide(
                f"{path}: {given.origin} {given.mpp:g} um/px, but the file states another scale ({listed}): leave "
                f"{given.origin} out, give this slide's scale in a .csv (columns slide,mpp), or pass --force"
            )
        return Mpp(agreeing[0].mpp, agreeing[0].origin)
    if any(not same_mpp(one.mpp, stated[0].mpp) for one in stated):
        raise BadSlide(f"{path}: the file states two scales ({listed} um/px): give the right one by --mpp")
    return Mpp(stated[0].mpp, stated[0].origin)
