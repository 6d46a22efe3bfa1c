"""Define an open slide: it returns a region, a tile or a thumbnail, and states its size and scale."""

import abc
import dataclasses
import math
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import BadSlide, BadTile
from pipeline.slides.scale import Mpp
from pipeline.slides.tiff_header import TO_PYRAMID
from pipeline.tiles.decoding import resize

MOST_SIDE = 2_000_000
"""Largest plausible side in level-0 px: 2 million are half a metre at 0.25 um/px."""

MOST_OVERVIEW_PX = 10_000_000_000
"""Most pixels that are read for a thumbnail: 100,000 x 100,000 without a smaller level, a few minutes."""

BLOCK_PX, LEAST_BLOCK_PX = 2048, 64
"""Side of the blocks in which a thumbnail is read, and the least side of the blocks around undecodable parts."""

FAST_PNG = 1
"""zlib's level for pictures of slides: half the time of the default, at most a tenth more bytes."""

VISIBLE, LEAST_VISIBLE = 128, 0.01
"""Least alpha (of 255) of a visible pixel, and least share of visible pixels of a slide."""


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A slide at low resolution."""

    pixels: np.ndarray
    """(h, w, 3) uint8; grey where `unreadable`."""

    downsample: float
    """Level-0 px per px of the thumbnail."""

    unreadable: np.ndarray
    """(h, w) bool: parts that could not be decoded."""


class Slide(abc.ABC):
    """An open slide. It can be sent to other processes, which open the file again."""

    path: Path
    format: str
    """OpenSlide's name of the vendor, or TIFF, PNG, ..."""

    dimensions: tuple[int, int]
    """Width and height in level-0 px."""

    scale: Mpp
    """Micrometres per level-0 px, and where they come from."""

    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    """Downsample of each level, beginning with 1.0."""

    bounds: tuple[int, int] = (0, 0)
    """x and y in level-0 px of the scanned area, to which QuPath crops the slide."""

    n_subifds: int = 0
    """Levels in SubIFDs, which are not read."""

    alpha_counts: np.ndarray | None = None
    """(256,) number of pixels read so far, by alpha; None without an alpha channel in the file."""

    least_alpha: int = VISIBLE
    """Least alpha of a visible pixel: 255 where the file does not declare the channel as opacity, because the colours
    of all other pixels are changed by it."""

    note: str = ""
    """How the pixels were read, where they are not as they are stored."""

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 px."""
        return self.scale.mpp

    @abc.abstractmethod
    def read_region_rgb(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """Return a region, (h, w, 3) uint8; parts without pixels, as in a sparse scan, have the background colour.

        Args:
            x: left edge in level-0 px.
            y: upper edge in level-0 px.
            w: width in px of the level.
            h: height in px of the level.
            level: 0 is the largest.

        Raises:
            BadTile: it cannot be decoded.
        """

    def best_level(self, downsample: float) -> int:
        """Return the smallest level with at least the resolution of `downsample` level-0 px per px."""
        good = [level for level, own in enumerate(self.level_downsamples) if own <= 1.01 * downsample]
        return max(good, key=lambda level: self.level_downsamples[level], default=0)

    def read_tile(self, x: int, y: int, side_level0: int, out_px: int) -> np.ndarray:
        """Return a square resized for the network, (out_px, out_px, 3) uint8.

        It is read from the best level and resized by Pillow's antialiased bilinear filter, as tiles are.

        Args:
            x: left edge in level-0 px.
            y: upper edge in level-0 px.
            side_level0: side in level-0 px.
            out_px: side of the result in px.

        Raises:
            BadTile: it cannot be decoded.
        """
        level = self.best_level(side_level0 / out_px)
        return resize(self._read(x, y, side_level0, side_level0, level), out_px)

    def _read(self, x: int, y: int, w: int, h: int, level: int) -> np.ndarray:
        """Return a region given in level-0 px at the level's resolution, cut at the level's edges."""
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
        """Return the slide with a longer side of at most `max_side` px; it is read in blocks to bound memory.

        Raises:
            BadSlide: it would take too long without a small level, no part can be decoded, or alpha hides the slide.
        """
        width, height = self.dimensions
        scale = max(1.0, max(width, height) / max_side)
        wide, high = max(1, round(width / scale)), max(1, round(height / scale))
        level = self.best_level(scale)
        if math.prod(self.level_dimensions[level]) > MOST_OVERVIEW_PX:
            why = f"its {self.n_subifds} levels in SubIFDs are not read" if self.n_subifds else "it has no small level"
            raise BadSlide(
                f"{self.path}: {width}x{height} px, and {why}, so that a thumbnail would need all pixels: make it a "
                f"pyramid: {TO_PYRAMID}"
            )
        pixels = np.full((high, wide, 3), 128, np.uint8)
        unreadable = np.zeros((high, wide), bool)
        most, least = (max(1, int(side * self.level_downsamples[level] / scale)) for side in (BLOCK_PX, LEAST_BLOCK_PX))
        blocks, reason = _cut((0, 0, wide, high), most), ""
        while blocks:
            left, top, right, bottom = blocks.pop()
            x0, x1 = round(left * width / wide), round(right * width / wide)
            y0, y1 = round(top * height / high), round(bottom * height / high)
            try:
                block = Image.fromarray(self._read(x0, y0, x1 - x0, y1 - y0, level))
            except BadTile as error:
                reason = str(error)
                longer = max(right - left, bottom - top)
                if longer > least:  # read the undamaged parts around the damage
                    blocks += _cut((left, top, right, bottom), -(-longer // 2))
                else:
                    unreadable[top:bottom, left:right] = True
                continue
            small = block.resize((right - left, bottom - top), Image.Resampling.BOX)
            pixels[top:bottom, left:right] = np.asarray(small)
        if unreadable.all():
            raise BadSlide(f"{self.path}: no part of it can be decoded: {reason_of(reason, self.path)}")
        if self.alpha_counts is not None and self.hidden_share() > 1 - LEAST_VISIBLE:
            most = np.flatnonzero(self.alpha_counts).max()
            what = f"its alpha channel (at most {most} of 255) hides it"
            if self.least_alpha == 255:
                what = "OpenSlide takes its fourth channel, which is not declared as alpha, for opacity"
            raise BadSlide(f"{self.path}: {what}: drop the channel: vips extract_band IN OUT.tif 0 --n 3")
        return Thumbnail(pixels, max(width / wide, height / high), unreadable)

    def hidden_share(self) -> float:
        """Return the share of the pixels read so far that the file's alpha channel hides."""
        counts = self.alpha_counts
        return 0.0 if counts is None or not counts.sum() else float(counts[: self.least_alpha].sum() / counts.sum())

    def close(self) -> None:  # noqa: B027 -- a picture in memory has nothing to close
        """Close the file; a later read opens it again."""

    def __enter__(self) -> "Slide":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _cut(box: tuple[int, int, int, int], step: int) -> list[tuple[int, int, int, int]]:
    """Return the blocks of at most step x step that cover a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    return [
        (x, y, min(x + step, right), min(y + step, bottom))
        for y in range(top, bottom, step)
        for x in range(left, right, step)
    ]


def check_size(path: Path, dimensions: tuple[int, int]) -> None:
    """Check that a file states a plausible size.

    Raises:
        BadSlide: no slide has this size.
    """
    if not 0 < min(dimensions) <= max(dimensions) <= MOST_SIDE:
        raise BadSlide(f"{path}: claims {dimensions[0]}x{dimensions[1]} px: damaged")


def reason_of(error: Exception | str, path: Path) -> str:
    """Return a library's message about a file as one short line without the file's name."""
    text = " ".join(str(error).replace(str(path), "file").split()).removeprefix("file: ")[:160]
    return text or type(error).__name__
