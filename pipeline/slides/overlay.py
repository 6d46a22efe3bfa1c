"""Draw the tiles of a slide over its thumbnail, for checking."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from pipeline.slides.base import FAST_PNG, Thumbnail
from pipeline.storage.atomic import atomic

SHADE = 0.35
"""Part of the brightness that is taken from the thumbnail outside of the tiles."""

BORDER, INK = (213, 94, 0), (0, 158, 115)
"""Colours of the tiles' border and of pen marks: Okabe and Ito, "Color Universal Design", 2008."""

CAPTION_PX = 24
"""Height of the caption."""


def draw_overlay(path: Path, thumbnail: Thumbnail, coords: np.ndarray, *, side: int, ink: np.ndarray) -> None:
    """Draw the thumbnail darkened outside of the tiles, with the tiles' border and hatched pen marks.

    Args:
        path: the PNG.
        thumbnail: thumbnail of the slide.
        coords: (N, 2), x and y of the tiles in level-0 px.
        side: side of a tile in level-0 px.
        ink: (h, w) bool, pen marks.
    """
    high, wide, _ = thumbnail.pixels.shape
    edges = np.zeros((high + 1, wide + 1), np.int32)  # +1 where a tile begins and -1 where it ends: sums count tiles
    scale = thumbnail.downsample
    left, top = np.minimum((coords / scale).round().astype(int), (wide, high)).T
    right, bottom = np.minimum(((coords + side) / scale).round().astype(int), (wide, high)).T
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(edges, (y, x), sign)
    is_tile = edges.cumsum(axis=0).cumsum(axis=1)[:high, :wide] > 0
    shaded = (np.arange(256) * (1 - SHADE)).astype(np.uint8)
    shown = np.where(is_tile[..., None], thumbnail.pixels, shaded[thumbnail.pixels])
    stripes = np.add.outer(np.arange(high), np.arange(wide)) % 8 < 3
    shown[ink & stripes] = INK
    shown[binary_dilation(is_tile, iterations=max(1, max(high, wide) // 1000)) & ~is_tile] = BORDER
    figure = Image.new("RGB", (wide, high + CAPTION_PX), "white")
    figure.paste(Image.fromarray(shown), (0, CAPTION_PX))
    caption = f"{len(coords)} tiles of {side} px" + (", pen marks hatched" if ink.any() else "")
    ImageDraw.Draw(figure).text((4, 4), caption, fill="black", font=ImageFont.load_default(14))
    with atomic(path) as temporary:
        figure.save(temporary, format="PNG", compress_level=FAST_PNG)
