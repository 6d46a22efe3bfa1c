"""What every open slide can do: give a region, a tile, a thumbnail, and say its size and scale."""

import abc
import dataclasses
import math
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import BadSlide, BadTile
from pipeline.tiles.decoding import resize

MPP_RANGE = (0.05, 16.0)
"""What a file may say of its scale; TIFFs that were never on a scanner say 72 dpi, which would be 353 um/px."""

UNEVEN = 0.01
"""Most that the scales of x and y may differ by."""

MOST_SIDE = 2_000_000
"""Larger sides in level-0 px are taken for damage: 2 million are half a metre at 0.25 um/px."""

MOST_OVERVIEW_PX = 10_000_000_000
"""Most pixels that are read for a thumbnail: 100,000 x 100,000 without a smaller level, a few minutes."""

BLOCK_PX, LEAST_BLOCK_PX = 2048, 64
"""Side of the blocks that a thumbnail is read in; what cannot be decoded is read in smaller ones, down to the other."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A slide made small."""

    pixels: np.ndarray
    """(h, w, 3) uint8; grey where `unreadable`."""

    downsample: float
    """Level-0 px per px of it."""

    unreadable: np.ndarray
    """(h, w) bool: what could not be decoded."""


class Slide(abc.ABC):
    """An open slide. It can be sent to other processes, which open the file again."""

    path: Path
    format: str
    """OpenSlide's name of the vendor, or TIFF, PNG, ..."""

    dimensions: tuple[int, int]
    """Width and height in level-0 px."""

    mpp: float
    """Micrometres per level-0 px."""

    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    """Of each level, beginning with 1.0."""

    @abc.abstractmethod
    def read_region_rgb(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """Return a region, (h, w, 3) uint8; what has no pixels, as between the parts of a sparse scan, is background.

        Args:
            x: of the upper left corner, level-0 px.
            y: likewise.
            w: width in px of the level.
            h: height in px of the level.
            level: 0 is the largest.

        Raises:
            BadTile: it cannot be decoded.
        """

    def best_level(self, downsample: float) -> int:
        """Return the smallest level that has at least the resolution of `downsample` level-0 px per px."""
        good = [level for level, own in enumerate(self.level_downsamples) if own <= 1.01 * downsample]
        return max(good, key=lambda level: self.level_downsamples[level], default=0)

    def read_tile(self, x: int, y: int, side_level0: int, out_px: int) -> np.ndarray:
        """Return a square as the network sees it, (out_px, out_px, 3) uint8.

        It is read from the best level and resized by Pillow's antialiased bilinear filter, as tiles are.

        Args:
            x: of the upper left corner, level-0 px.
            y: likewise.
            side_level0: level-0 px.
            out_px: side of the result in px.

        Raises:
            BadTile: it cannot be decoded.
        """
        level = self.best_level(side_level0 / out_px)
        return resize(self._read(x, y, side_level0, side_level0, level), out_px)

    def _read(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """Return a region given in level-0 px as the level has it, not beyond the level's edges."""
        own = self.level_downsamples[level]
        wide, high = self.level_dimensions[level]
        return self.read_region_rgb(
            x,
            y,
            max(1, min(round(w / own), wide - math.floor(x / own))),
            max(1, min(round(h / own), high - math.floor(y / own))),
            level,
        )

    def thumbnail(self, max_side: int) -> Thumbnail:
        """Return the slide with its longer side at most `max_side` px; read in blocks, so that memory stays flat.

        Raises:
            BadSlide: it would take too long, for the slide has no small level.
        """
        width, height = self.dimensions
        scale = max(1.0, max(width, height) / max_side)
        wide, high = max(1, round(width / scale)), max(1, round(height / scale))
        level = self.best_level(scale)
        if math.prod(self.level_dimensions[level]) > MOST_OVERVIEW_PX:
            raise BadSlide(
                f"{self.path}: {width}x{height} px and no small level, so that even a thumbnail takes all of "
                "its pixels: make it a pyramid (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg)"
            )
        pixels = np.full((high, wide, 3), 128, np.uint8)
        unreadable = np.zeros((high, wide), bool)
        most, least = (max(1, int(side * self.level_downsamples[level] / scale)) for side in (BLOCK_PX, LEAST_BLOCK_PX))
        blocks = _cut((0, 0, wide, high), most)
        while blocks:
            left, top, right, bottom = blocks.pop()
            x0, x1 = round(left * width / wide), round(right * width / wide)
            y0, y1 = round(top * height / high), round(bottom * height / high)
            try:
                block = Image.fromarray(self._read(x0, y0, x1 - x0, y1 - y0, level))
            except BadTile:
                longer = max(right - left, bottom - top)
                if longer > least:  # read what is whole around the damage
                    blocks += _cut((left, top, right, bottom), -(-longer // 2))
                else:
                    unreadable[top:bottom, left:right] = True
                continue
            small = block.resize((right - left, bottom - top), Image.Resampling.BOX)
            pixels[top:bottom, left:right] = np.asarray(small)
        return Thumbnail(pixels, max(width / wide, height / high), unreadable)

    def close(self) -> None:  # noqa: B027 -- a picture in memory has nothing to close
        """Give the file back; reading again opens it again."""

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _cut(box: tuple[int, int, int, int], step: int) -> list[tuple[int, int, int, int]]:
    """Return the blocks of at most step x step that make up a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    return [
        (x, y, min(x + step, right), min(y + step, bottom))
        for y in range(top, bottom, step)
        for x in range(left, right, step)
    ]


def check_size(path: Path, dimensions: tuple[int, int]) -> None:
    """Raise BadSlide if a file claims a size that no slide has."""
    if not 0 < min(dimensions) <= max(dimensions) <= MOST_SIDE:
        raise BadSlide(f"{path}: claims {dimensions[0]}x{dimensions[1]} px: damaged")


def scale_of(path: Path, stated: list[float | None], given: float | None) -> float:
    """Return micrometres per pixel: as given, else as the file states.

    Args:
        path: of the slide.
        stated: what the file says of x and y, None where it says nothing.
        given: by the user.

    Raises:
        BadSlide: not known, or not the same in x and y.
    """
    if given is not None:
        return given
    x, y = (value if value and MPP_RANGE[0] <= value <= MPP_RANGE[1] else None for value in stated)
    if x is None or y is None:
        raise BadSlide(f"{path}: the file does not say how many micrometres a pixel is: give it by --mpp")
    if abs(x - y) > UNEVEN * max(x, y):
        raise BadSlide(f"{path}: {x:g} um/px in x, {y:g} in y: pixels that are not square are not supported")
    return (x + y) / 2


def reason_of(error: Exception, path: Path) -> str:
    """Return what a library says of a file as one short line without the file's name."""
    return " ".join(str(error).replace(str(path), "file").split()).removeprefix("file: ")[:160] or type(error).__name__
